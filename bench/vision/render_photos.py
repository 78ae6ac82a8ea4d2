"""Real photos with what somebody may search them by: those of the demo, and those that scikit-image brings.

Runs in the bench environment. Nothing is rendered; the name is that of its neighbours.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image

from bench.images import PHOTOS
from bench.vision.samples import PhotoSample

_CAPTIONS = {
    "astronaut.jpg": ["a woman in an orange space suit", "an astronaut smiling in front of a flag"],
    "cat.jpg": ["a cat looking at the camera", "the face of a pet with whiskers"],
    "china.jpg": ["a Chinese temple", "a palace with a curved roof"],
    "coffee.jpg": ["a cup of coffee on a table", "espresso in a white cup with a spoon"],
    "grace_hopper.jpg": ["a naval officer in uniform", "a woman with a military hat"],
    "poster.png": ["an invitation to an open house on saturday"],
    "rocket.jpg": ["a rocket launch", "a missile on its launch pad at night"],
    "brick.png": ["a brick wall", "masonry"],
    "camera.png": ["a photographer with a tripod", "a man taking pictures in a field"],
    "clock_motion.png": ["a clock", "the hands of a watch"],
    "coins.png": ["old coins", "ancient money in rows"],
    "grass.png": ["grass", "a lawn seen from above"],
    "gravel.png": ["small stones", "gravel on the ground"],
    "hubble_deep_field.jpg": ["galaxies in space", "stars in a dark sky"],
    "moon.png": ["the surface of the moon", "a crater"],
    "motorcycle_left.png": ["a motorcycle in a garage", "a motorbike"],
    "page.png": ["a printed page of a book", "a paragraph of text"],
    "retina.jpg": ["the retina of an eye", "a medical picture of an eye"],
}


def render(folder: Path) -> list[PhotoSample]:
    """The photos as files in ``folder``."""
    import skimage  # type: ignore[import-not-found]

    bundled = Path(skimage.__file__).parent / "data"
    samples = []
    for name, captions in _CAPTIONS.items():
        target = folder / f"photo_{Path(name).stem}.jpg"
        if (PHOTOS / name).suffix == ".jpg" and (PHOTOS / name).exists():
            shutil.copyfile(PHOTOS / name, target)
        else:
            source = PHOTOS / name if (PHOTOS / name).exists() else bundled / name
            Image.open(source).convert("RGB").save(target, "JPEG", quality=90)
        samples.append(PhotoSample(str(target), captions))
    return samples
