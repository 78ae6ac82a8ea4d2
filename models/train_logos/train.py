"""``python -m models.train_logos.train encoder|detector --photos FOLDER --minutes M --out FILE``: trains one network.

One thread; what is drawn depends on the seed, how much of it is seen on the minutes of CPU time.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.train_logos import composites, data
from models.train_logos.networks import DIM, STRIDE, Detector, Encoder

_CLASSES, _VIEWS, _NOTHINGS = 64, 2, 24  # of one step of the encoder: marks, patches of each in photos, patches of none
_QUEUE = 4096  # clean drawings of earlier steps that serve as further wrong answers
_SCALE = 18.0  # turns cosines into logits
_MARGIN = 0.1  # by which the right drawing must be nearer than any other
_STRANGE_COSINE = 0.45  # patches of nothing stay below this to every drawing
_PICTURES, _SIDE = 12, 320  # of one step of the detector, and pixels
_LONGS = (16.0, 160.0)  # of marks: the search looks at two sizes of a picture
_RATE, _DECAY = 2e-3, 1e-4
_CORE, _EDGE = 0.7, 0.5  # share of a mark's box that is surely inside; cells around the box that count neither way


def patch_tensor(patches: list[composites.Pixels]) -> Tensor:
    """Patches as the encoder takes them, float32 [B,1,64,64]."""
    return torch.from_numpy(np.stack(patches)[:, None].astype(np.float32) / 127.5 - 1)


def encoder_steps(
    masks: list[composites.Pixels], photos: list[composites.Pixels], network: Encoder, seed: int
) -> Iterator[Tensor]:
    """Losses: each patch against clean drawings, the right one among all others (InfoNCE, van den Oord et al. 2018;
    the queue of earlier drawings after He et al. 2020)."""
    source, rng = data.Patches(masks, photos, seed), np.random.default_rng(seed)
    queue, queue_classes = torch.zeros(0, DIM), torch.zeros(0, dtype=torch.long)
    while True:
        chosen = rng.choice(len(masks), _CLASSES, replace=False)
        seen = [source.seen(int(index)) for index in chosen for _ in range(_VIEWS)]
        clean = [source.clean(int(index)) for index in chosen]
        nothing = [source.nothing() for _ in range(_NOTHINGS)]
        vectors = network(patch_tensor(seen + clean + nothing))
        found, drawn, strange = vectors.split([len(seen), len(clean), len(nothing)])
        classes = torch.from_numpy(chosen)
        answers, answer_classes = torch.cat([drawn, queue]), torch.cat([classes, queue_classes])
        right = torch.arange(_CLASSES).repeat_interleave(_VIEWS)
        logits = found @ answers.T
        same = classes.repeat_interleave(_VIEWS)[:, None] == answer_classes[None]
        same[torch.arange(len(found)), right] = False
        logits = logits - _MARGIN * functional.one_hot(right, len(answers))
        logits = (logits * _SCALE).masked_fill(same, -1e4)
        back = (drawn @ found.T * _SCALE).view(_CLASSES, _CLASSES, _VIEWS).amax(dim=2)
        too_near = functional.relu((strange @ answers.detach().T).topk(8, dim=1).values - _STRANGE_COSINE)
        loss = functional.cross_entropy(logits, right) + 0.3 * functional.cross_entropy(back, torch.arange(_CLASSES))
        queue = torch.cat([drawn.detach(), queue])[:_QUEUE]
        queue_classes = torch.cat([classes, queue_classes])[:_QUEUE]
        yield loss + too_near.square().sum(dim=1).mean()


def targets(quads: list[composites.Quad], cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """For one picture: scores [cells,cells], weights of the cells, and sides [4,cells,cells] in cells.

    Every cell well inside a mark learns; all cells of one mark weigh as much as the root of their number.
    """
    score, weight, sides = np.zeros((cells, cells)), np.ones((cells, cells)), np.zeros((4, cells, cells))
    middle = np.arange(cells) + 0.5
    for quad in sorted(quads, key=lambda quad: -float(np.prod(np.ptp(quad, axis=0)))):
        left, top, right, bottom = composites.box_of(quad) / STRIDE
        half_w, half_h = (right - left) / 2, (bottom - top) / 2
        off_x = np.abs(middle - (left + right) / 2)[None]
        off_y = np.abs(middle - (top + bottom) / 2)[:, None]
        edge = (off_x <= half_w + _EDGE) & (off_y <= half_h + _EDGE)
        core = (off_x <= max(_CORE * half_w, 0.5)) & (off_y <= max(_CORE * half_h, 0.5))
        score[edge], weight[edge] = 0, 0
        score[core], weight[core] = 1, 1 / np.sqrt(max(core.sum(), 1))
        grid = np.stack(
            np.broadcast_arrays(
                middle[None] - left, middle[:, None] - top, right - middle[None], bottom - middle[:, None]
            )
        )
        sides[:, core] = grid[:, core]
    return torch.from_numpy(score).float(), torch.from_numpy(weight).float(), torch.from_numpy(sides).float()


def detector_steps(
    masks: list[composites.Pixels], photos: list[composites.Pixels], network: Detector, seed: int
) -> Iterator[Tensor]:
    """Losses: focal on the scores (Lin et al. 2017), GIoU on the sides (Rezatofighi et al. 2019)."""
    rng, cells = np.random.default_rng(seed), _SIDE // STRIDE
    while True:
        drawn = [composites.picture(masks, photos, (_SIDE, _SIDE), _LONGS, rng, words=False) for _ in range(_PICTURES)]
        images = torch.from_numpy(np.stack([image for image, _ in drawn])).permute(0, 3, 1, 2).float() / 127.5 - 1
        wanted = [targets([quad for _, quad in placed], cells) for _, placed in drawn]
        score, weight, sides = (torch.stack(part) for part in zip(*wanted, strict=True))
        logits, found = network(images.contiguous(memory_format=torch.channels_last))
        logits, own = logits[:, 0], score > 0
        off = functional.binary_cross_entropy_with_logits(logits, score, reduction="none")
        focus = (score - torch.sigmoid(logits.detach())).abs().square() * weight
        amount = weight[own].sum().clamp(min=1)
        loss = (focus * off * (1 + own)).sum() / amount
        if own.any():
            pair = (each.movedim(1, -1)[own].clamp(min=0.01) for each in (found, sides))
            loss = loss + ((1 - giou(*pair)) * weight[own]).sum() / amount
        yield loss


def giou(found: Tensor, wanted: Tensor) -> Tensor:
    """Generalised IoU [N] of boxes around the same points, both [N,4] as distances to left, top, right, bottom."""
    low, high = torch.minimum(found, wanted), torch.maximum(found, wanted)

    def area(sides: Tensor) -> Tensor:
        return (sides[:, 0] + sides[:, 2]) * (sides[:, 1] + sides[:, 3])

    union = area(found) + area(wanted) - area(low)
    return area(low) / union - (area(high) - union) / area(high)


def train(
    network: torch.nn.Module, steps: Iterator[Tensor], minutes: float, highest: float, save: Callable[[], None]
) -> None:
    """One cycle of the rate (Smith 2018) over the minutes; the network is kept every two minutes."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=highest, weight_decay=_DECAY)
    started, kept, mean = time.process_time(), 0.0, 0.0
    network.train()
    for count, loss in enumerate(steps, start=1):
        done = (time.process_time() - started) / (60 * minutes)
        if done >= 1:
            break
        rate = highest * (
            min(1.0, done / 0.05 + 0.02) if done < 0.05 else 0.5 * (1 + np.cos(np.pi * (done - 0.05) / 0.95)) + 0.002
        )
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        mean = loss.item() if count == 1 else 0.98 * mean + 0.02 * loss.item()
        if count % 50 == 0:
            print(f"step {count} done {done:.2f} loss {mean:.4f}", flush=True)
        if time.process_time() - started - kept > 120:
            kept = time.process_time() - started
            save()
    save()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m models.train_logos.train", description=__doc__)
    parser.add_argument("network", choices=("encoder", "detector"))
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos without brands")
    parser.add_argument("--icons", type=Path, required=True, help="icons.py of simpleicons 7.21.0")
    parser.add_argument("--minutes", type=float, default=22, help="of CPU time")
    parser.add_argument(
        "--out", type=Path, required=True, help="file of the network's state, for models.train_logos.export"
    )
    parser.add_argument("--seed", type=int, default=20, help="of what is drawn; another one for each round")
    parser.add_argument("--start", type=Path, help="a state to go on from")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(given.seed)
    photos = data.photos(given.photos)
    known = [mark for mark in composites.marks(given.icons) if not composites.is_unseen(mark.name)]
    masks = data.variants(known)
    print(f"{len(photos)} photos, {len(known)} marks, {len(masks)} with their variants", flush=True)
    network = Encoder() if given.network == "encoder" else Detector()
    if given.start:
        network.load_state_dict(torch.load(given.start, weights_only=True))
    network = network.to(memory_format=torch.channels_last)
    steps = (encoder_steps if isinstance(network, Encoder) else detector_steps)(masks, photos, network, given.seed)

    def save() -> None:
        torch.save(network.state_dict(), given.out.with_suffix(".partial"))
        os.replace(given.out.with_suffix(".partial"), given.out)

    train(network, steps, given.minutes, _RATE / 2 if given.start else _RATE, save)


if __name__ == "__main__":
    main()
