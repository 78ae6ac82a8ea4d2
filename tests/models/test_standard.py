"""Every step of the standard set, from the hub to the vectors and captions, on tiny networks of its architectures."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tritonclient.grpc import InferInput
from tritonclient.utils import InferenceServerException

from runner.canary import Canary, canary_settings, role_models
from services.mesh.models import ModelSet
from tests.models import hub_server, pictures, standard_tree
from tests.models.conftest import Client, Server
from tests.models.hub_server import COMMIT
from tests.models.standard_tree import Tree

_COLOURS = {"red": "red", "green": "lime", "blue": "blue", "yellow": "yellow"}
_CAPTIONER = "onnx-community/Florence-2-base-ft"


def _noise(seed: int, width: int = 301, height: int = 173) -> bytes:
    """A picture of random pixels, each number another."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return pictures.encoded(Image.fromarray(pixels))


async def _network(client: Client, model: str, output: str, **inputs: NDArray[np.generic]) -> NDArray[np.float32]:
    """One output of an ONNX network, asked directly."""
    tensors = []
    for name, value in inputs.items():
        tensor = InferInput(name, list(value.shape), "FP32" if value.dtype == np.float32 else "INT64")
        tensor.set_data_from_numpy(value)
        tensors.append(tensor)
    found = (await client.triton.infer(model, tensors)).as_numpy(output)
    assert found is not None
    return np.asarray(found)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _vocabulary(tree: Tree, model: str) -> dict[str, int]:
    document = json.loads((tree.models / "repository" / model / "1" / "tokenizer.json").read_text())
    return dict(document["model"]["vocab"])


def test_the_lock_holds_what_was_fetched(tree: Tree) -> None:
    """After the first fetch each file of each repository has its hash in the lock, beside the commit."""
    sources = json.loads((tree.models / "sources" / "standard.json").read_text())
    lock = json.loads(tree.lock.read_text())

    assert {each["name"]: set(each["files"]) for each in sources["repositories"]} == {
        name: set(entry["files"]) for name, entry in lock.items()
    }
    assert {COMMIT} == {entry["commit"] for entry in lock.values()}


def test_a_second_fetch_does_nothing(tree: Tree) -> None:
    """With all files here no hub is needed, and nothing is built again."""
    again = tree.run("models.fetch", "--set", "standard", hub_url="http://127.0.0.1:9")

    assert (0, "") == (again.returncode, again.stderr)
    assert 1 == len(again.stdout.splitlines())
    assert again.stdout.startswith("model set standard: ready")


def test_without_a_hub_the_fetch_ends_with_one_message(tree: Tree, tmp_path: Path) -> None:
    """A missing file and an unreachable hub: status 1, and the setting that helps."""
    missing = tree.models / "repository" / "joint_image" / "1" / "preprocessor_config.json"
    kept = missing.rename(tmp_path / "kept")
    lock, sha256 = json.loads(tree.lock.read_text()), None
    for entry in lock.values():
        sha256 = sha256 or entry["files"].get("preprocessor_config.json")
    cached = tree.root / "cache" / "weights" / str(sha256)
    aside = cached.rename(tmp_path / "cached")

    try:
        failed = tree.run("models.fetch", "--set", "standard", hub_url="http://127.0.0.1:9")
    finally:
        kept.rename(missing)
        aside.rename(cached)

    assert 1 == failed.returncode
    assert failed.stderr.startswith("error: ")
    assert "no hub is reachable" in failed.stderr
    assert "LENSMESH_HUB_URL" in failed.stderr


@pytest.mark.parametrize(
    ("adapter", "file", "problem"),
    [
        ("image_tower", "text_model.onnx", "the graph has input_ids, none of pixel_values"),
        ("text_tower", "vision_model.onnx", "the graph has pixel_values, none of input_ids"),
        ("sentence_encoder", "text_model.onnx", "the graph has input_ids, none of attention_mask"),
    ],
)
def test_an_export_of_another_kind_is_refused(
    tree: Tree, hub: hub_server.LocalHub, tmp_path: Path, adapter: str, file: str, problem: str
) -> None:
    """A graph without the tensors that are needed is named when it is fetched, not when it is asked."""
    source, target = hub.root / "Xenova" / "siglip-base-patch16-224" / "onnx" / file, tmp_path / "model.onnx"
    code = f"from models.convert import exports; exports.{adapter}(*map(exports.Path, {[str(source), str(target)]}))"

    refused = tree.python("-c", code)

    assert f"ValueError: {problem}" in refused.stderr
    assert not target.exists()


async def test_every_role_answers(standard_server: Server) -> None:
    """The canary, which asks every role model of the set, finds them all alive."""
    model_set = standard_server.model_set
    canary = Canary(standard_server.address, role_models(model_set), settings=canary_settings(model_set))

    answered = await canary.check()
    await canary.close()

    assert dict.fromkeys(role_models(model_set), True) == answered


async def test_vectors_are_what_the_set_says(standard: Client, tree: Tree) -> None:
    """The services read dimensions from the set; each embedding has them, is float32 and of length one."""
    roles = ModelSet.read(str(tree.models / "sets" / "standard.json")).roles
    image, text = [_noise(1), _noise(2)], [b"", b"red", "Grüße 世界".encode()]

    for name, kind, values in (
        ("embed_image", "model", image),
        ("embed_multimodal", "image_model", image),
        ("embed_multimodal", "text_model", text),
        ("embed_text", "model", text),
    ):
        role = roles[name]
        given = {"IMAGE" if values is image else "TEXT": values}
        vectors = await standard.tensor(getattr(role, kind), "VECTOR", **given)
        assert (len(values), role.dim) == vectors.shape
        assert np.float32 == vectors.dtype
        assert np.allclose(1, np.linalg.norm(vectors, axis=1), atol=1e-5)


async def test_pixels_are_prepared_as_the_export_says(standard: Client) -> None:
    """Resizing, scaling and normalising give what Pillow and numpy give by the book."""
    data = _noise(3)
    resized = Image.open(io.BytesIO(data)).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
    pixels = ((np.asarray(resized, np.float32) / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None]
    expected = _unit(await _network(standard, "image_tower", "embedding", pixel_values=pixels.astype(np.float32)))

    vectors = await standard.tensor("joint_image", "VECTOR", IMAGE=[data])

    assert np.allclose(expected, vectors, atol=1e-5)


async def test_short_texts_are_filled_to_the_full_length(standard: Client, tree: Tree) -> None:
    """The text tower, which has no mask, sees as many tokens as it was trained on, the rest stop tokens."""
    known = _vocabulary(tree, "joint_text")
    tokens = np.array([[known["red"], *[known["</s>"]] * 63]], np.int64)
    expected = _unit(await _network(standard, "text_tower", "embedding", input_ids=tokens))

    vectors = await standard.tensor("joint_text", "VECTOR", TEXT=[b"Red"])

    assert np.allclose(expected, vectors, atol=1e-5)


async def test_long_texts_are_cut(standard: Client) -> None:
    """Beyond the model's length, its last token the stop token, words change nothing; one word less does."""
    texts = [b"red " * 63, b"red " * 1000, b"red " * 62, b"blue " * 30_000]

    vectors = await standard.tensor("joint_text", "VECTOR", TEXT=texts)

    assert np.allclose(vectors[0], vectors[1], atol=1e-6)
    assert not np.allclose(vectors[0], vectors[2], atol=1e-6)


async def test_a_word_finds_its_picture(standard: Client) -> None:
    """Both towers meet in one space: each colour's word lies nearest to its picture."""
    images = [pictures.blank(64, 48, color) for color in _COLOURS.values()]
    found = await standard.tensor("joint_image", "VECTOR", IMAGE=images)

    texts = await standard.tensor("joint_text", "VECTOR", TEXT=[name.encode() for name in _COLOURS])

    assert [0, 1, 2, 3] == np.argmax(texts @ found.T, axis=1).tolist()


async def test_states_are_averaged_over_the_text_alone(standard: Client, tree: Tree) -> None:
    """A text has the encoder's prefix before it, and the vector is the mean over its own tokens, padding left out."""
    known = _vocabulary(tree, "multilingual_text")
    tokens = np.array([[known[word] for word in ("query", ":", "cat", "</s>")]], np.int64)
    states = await _network(
        standard, "multilingual_encoder", "last_hidden_state", input_ids=tokens, attention_mask=np.ones_like(tokens)
    )

    vectors = await standard.tensor(
        "multilingual_text", "VECTOR", TEXT=[b"cat", b"the cat and the house and the bread"]
    )

    assert np.allclose(_unit(states.mean(axis=1))[0], vectors[0], atol=1e-5)


async def test_translations_are_near(standard: Client) -> None:
    """A word lies nearest to the same word in another language."""
    words = await standard.tensor("multilingual_text", "VECTOR", TEXT=[b"cat", b"house", b"bread"])

    others = await standard.tensor("multilingual_text", "VECTOR", TEXT=[b"Katze", b"maison", b"pan"])

    assert [0, 1, 2] == np.argmax(words @ others.T, axis=1).tolist()


@pytest.mark.parametrize(
    ("model", "name"),
    [("joint_image", "IMAGE"), ("joint_text", "TEXT"), ("multilingual_text", "TEXT")],
)
async def test_a_batch_equals_its_parts(standard: Client, model: str, name: str) -> None:
    """Eight inputs in one request give the same vectors as eight requests at the same moment."""
    words = [b"red", b"blue sky", b"", b"cat", b"the house and the bread", b"green", b"a picture of the sky", b"Brot"]
    values = [_noise(10 + index) for index in range(8)] if name == "IMAGE" else words

    together = await standard.tensor(model, "VECTOR", **{name: values})
    alone = await asyncio.gather(*(standard.tensor(model, "VECTOR", **{name: [value]}) for value in values))

    assert np.allclose(together, np.concatenate(alone), atol=1e-5)


async def test_captions_say_what_is_there(standard: Client) -> None:
    """A batch of pictures gets a caption each, with the model's name, complete up to the stop token."""
    images = [pictures.blank(80, 60, color) for color in _COLOURS.values()]

    captions = await standard.documents("captioner", "CAPTION", IMAGE=images)

    assert [f"a {name} picture" for name in _COLOURS] == [caption["text"] for caption in captions]
    for caption in captions:
        assert {"text", "model", "log_probability", "complete"} == set(caption)
        assert ("florence-2-base-ft-1", True) == (caption["model"], caption["complete"])
        assert -0.1 < caption["log_probability"] <= 0


async def test_read_text_is_quoted(standard: Client) -> None:
    """Text handed over with the image stands behind the sentence, as with the lite set's captions."""
    (caption,) = await standard.documents("captioner", "CAPTION", IMAGE=[pictures.blank(color="red")], TEXT=[b"OPEN"])

    assert 'a red picture with the text "OPEN"' == caption["text"]


async def test_beams_find_what_is_likelier(standard: Client) -> None:
    """Where the likeliest first word leads into doubt, beams find a likelier text than the greedy choice."""
    image = [pictures.blank(color="white")]

    (greedy,) = await standard.documents("captioner_greedy", "CAPTION", IMAGE=image)
    (beams,) = await standard.documents("captioner", "CAPTION", IMAGE=image)

    assert greedy["text"].startswith("a bright")
    assert "a white picture" == beams["text"]
    assert beams["log_probability"] > greedy["log_probability"]


async def test_no_run_of_words_comes_twice(standard: Client) -> None:
    """A network that would say one word for ever is made to go on after the third."""
    (caption,) = await standard.documents("captioner_greedy", "CAPTION", IMAGE=[pictures.blank(color="black")])

    assert "a very very very dark picture" == caption["text"]


async def test_the_limit_on_tokens_ends_a_caption(standard: Client) -> None:
    """A caption that reaches the limit is given, and said to be incomplete."""
    (caption,) = await standard.documents("captioner_short", "CAPTION", IMAGE=[pictures.blank(color="red")])

    assert ("a red", False) == (caption["text"], caption["complete"])


async def test_nothing_said_is_an_error(standard: Client) -> None:
    """Where the stop token comes first there is no caption, and none is invented."""
    with pytest.raises(InferenceServerException, match="ended without a word"):
        await standard.documents("captioner", "CAPTION", IMAGE=[pictures.blank(color="magenta")])


@pytest.mark.parametrize("color", ["red", "black", "white"])
async def test_the_cache_changes_no_number(
    standard: Client, hub: hub_server.LocalHub, tmp_path: Path, color: str
) -> None:
    """Keys and values of before give the log-probability that reading the whole text anew gives."""
    image = pictures.blank(color=color)
    (tmp_path / "picture.png").write_bytes(image)
    (caption,) = await standard.documents("captioner", "CAPTION", IMAGE=[image])

    arguments = (hub.root / _CAPTIONER, tmp_path / "picture.png", caption["text"])
    (scored,) = await asyncio.to_thread(standard_tree.measured, "scoring.py", *arguments)

    assert abs(scored - caption["log_probability"]) < 2e-4


def test_a_hypothesis_keeps_its_own_past(hub: hub_server.LocalHub, tree: Tree) -> None:
    """When hypotheses change places, keys and values go with them."""
    moved, between = standard_tree.measured("reordering.py", hub.root / _CAPTIONER, tree.models / "lib")

    assert moved < 1e-5
    assert between > 1e-3


@pytest.mark.parametrize(
    ("model", "output"), [("captioner", "CAPTION"), ("joint_image", "VECTOR"), ("ocr_medium", "LINES")]
)
async def test_a_broken_image_fails_alone(standard: Client, model: str, output: str) -> None:
    """Requests at the same moment as a broken image are answered as without it."""
    images = [pictures.blank(64 + index, 64, "red") for index in range(4)]
    images.insert(2, pictures.NO_IMAGE)

    answers = await asyncio.gather(
        *(standard.tensor(model, output, IMAGE=[image]) for image in images), return_exceptions=True
    )

    broken, _ = answers.pop(2), images.pop(2)
    assert isinstance(broken, InferenceServerException)
    assert broken.message().startswith("bad image:")
    expected = await standard.tensor(model, output, IMAGE=images)
    assert not [answer for answer in answers if isinstance(answer, BaseException)]
    for row, answer in zip(expected, answers, strict=True):
        if model == "joint_image":
            assert np.allclose(row, answer[0], atol=1e-5)
        elif model == "captioner":
            assert json.loads(row[0])["text"] == json.loads(answer[0, 0])["text"]


async def test_the_larger_readers_networks_are_asked(standard: Client) -> None:
    """The second reader works as the first one does, through networks of its own."""
    (lines,) = await standard.documents("ocr_medium", "LINES", IMAGE=[pictures.written(["Hello World", "Total 42.50"])])
    statistics = await standard.triton.get_inference_statistics("text_reader_medium", as_json=True)

    assert ["Hello World", "Total 42.50"] == [line["text"] for line in lines]
    assert int(statistics["model_stats"][0]["inference_count"]) > 0
