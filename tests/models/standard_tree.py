"""The standard set as a machine with a hub would have it, made of tiny stand-ins.

A copy of models/ fetches them over HTTP from a hub on loopback, by the very command that fetches the real ones.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
TRITON_PYTHON = _ROOT / ".venv-triton" / "bin" / "python"
_CACHE = Path(os.environ.get("LENSMESH_CACHE_DIR", _ROOT / ".cache")) / "weights"
_SECONDS_MAX = 120


@dataclass(frozen=True)
class Tree:
    """A copy of models/ below ``root``, and the cache that it fetches into."""

    root: Path

    @property
    def models(self) -> Path:
        """The copy of models/."""
        return self.root / "models"

    @property
    def lock(self) -> Path:
        """What the first fetch records."""
        return self.models / "sources" / "standard.lock.json"

    def run(self, module: str, *arguments: str, hub_url: str = "") -> subprocess.CompletedProcess[str]:
        """A module of the copy in Triton's environment."""
        return self.python("-m", module, *arguments, hub_url=hub_url)

    def python(self, *arguments: str, hub_url: str = "") -> subprocess.CompletedProcess[str]:
        """Triton's Python in the copy."""
        settings = {"LENSMESH_HUB_URL": hub_url, "LENSMESH_CACHE_DIR": str(self.root / "cache")}
        return subprocess.run(
            [TRITON_PYTHON, *arguments],
            cwd=self.root,
            env={**os.environ, **settings, "PYTHONPATH": str(self.root)},
            capture_output=True,
            text=True,
            timeout=_SECONDS_MAX,
            check=False,
        )


def make(root: Path, hub_root: Path) -> Tree:
    """A tree ready to fetch, and the stand-ins where a hub on ``hub_root`` finds them."""
    tree = Tree(root)
    shutil.copytree(_ROOT / "models", tree.models, ignore=shutil.ignore_patterns("__pycache__", "standard.lock.json"))
    made = tree.run("models.tiny", "--out", str(hub_root))
    assert made.returncode == 0, made.stderr
    # What the lite set has fetched is here already; files of the cache are never written to.
    weights = root / "cache" / "weights"
    weights.mkdir(parents=True)
    for file in _CACHE.iterdir():
        (weights / file.name).symlink_to(file)
    _reading(tree, hub_root)
    sources = json.loads((tree.models / "sources" / "standard.json").read_text())
    for repository in sources["repositories"]:
        # The stand-ins have other hashes than the real files.
        repository["files"] = dict.fromkeys(repository["files"])
    (tree.models / "sources" / "standard.json").write_text(json.dumps(sources))
    _variant(tree, "captioner", "captioner_greedy", "beams", "1")
    _variant(tree, "captioner", "captioner_short", "tokens_max", "2")
    return tree


def _reading(tree: Tree, hub_root: Path) -> None:
    """The lite set's text networks stand in for the larger ones, which have the same tensors."""
    packages = json.loads((tree.models / "sources" / "lite.json").read_text())["packages"]
    hashes = {name: sha256 for package in packages for name, sha256 in package["files"].items()}
    for kind in ("det", "rec"):
        target = hub_root / "RapidAI" / "RapidOCR" / "onnx" / "PP-OCRv6" / kind / f"PP-OCRv6_{kind}_medium.onnx"
        target.parent.mkdir(parents=True)
        target.symlink_to(_CACHE / hashes[f"rapidocr/models/PP-OCRv6_{kind}_small.onnx"])


def _variant(tree: Tree, model: str, name: str, parameter: str, value: str) -> None:
    """The same model under another name with one parameter changed; it is completed by `complete_variants`."""
    folder = tree.models / "repository" / name
    shutil.copytree(tree.models / "repository" / model, folder)
    config = (folder / "config.pbtxt").read_text()
    head, key, tail = config.partition(f'key: "{parameter}" value {{ string_value: "')
    assert key, f"{model} has no parameter {parameter}"
    config = f'{head}{key}{value}"{tail.partition(chr(34))[2]}'
    (folder / "config.pbtxt").write_text(config.replace(f'name: "{model}"', f'name: "{name}"'))


def complete_variants(tree: Tree) -> tuple[str, ...]:
    """Gives the variants what was fetched for the model that they vary; their names."""
    names = ("captioner_greedy", "captioner_short")
    for name in names:
        shutil.copytree(
            tree.models / "repository" / "captioner" / "1",
            tree.models / "repository" / name / "1",
            dirs_exist_ok=True,
        )
    return names


def measured(script: str, *arguments: str | Path) -> list[float]:
    """The numbers that a script beside this file prints in Triton's environment."""
    command = [TRITON_PYTHON, Path(__file__).with_name(script), *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS_MAX, check=False)
    assert answer.returncode == 0, answer.stderr
    return [float(number) for number in answer.stdout.split()]
