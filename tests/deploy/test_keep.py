"""What an image of Triton holds."""

from __future__ import annotations

import json
from pathlib import Path

from deploy.docker.keep import keep


def test_only_the_sets_models_stay(tmp_path: Path) -> None:
    """Models that the set neither names nor calls are removed from the repository."""
    for name in ("reader", "network", "other"):
        folder = tmp_path / "repository" / name / "1"
        folder.mkdir(parents=True)
        inner = 'parameters { key: "inner_models" value { string_value: "network" } }' if name == "reader" else ""
        (folder.parent / "config.pbtxt").write_text(f'backend: "python"\n{inner}\n')
        (folder / "model.py").touch()
    (tmp_path / "sets").mkdir()
    roles = {"ocr": {"model": "reader", "version": "1"}}
    (tmp_path / "sets" / "small.json").write_text(json.dumps({"repository": "repository", "roles": roles}))

    kept = keep(tmp_path, "small")

    assert ["network", "reader"] == kept
    assert {"network", "reader"} == {path.name for path in (tmp_path / "repository").iterdir()}
