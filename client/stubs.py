"""Makes the stubs that the wheel holds beside the client: a hook of hatch, run by `pip install ./client`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Stubs(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles ../protos into a folder of this build's own."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make them, and have them put into the wheel."""
        target = Path(self.directory) / "gen"
        build = Path(self.root).parent / "protos" / "build.py"
        subprocess.run([sys.executable, build, "stubs", "--into", target], check=True)
        build_data["force_include"] |= {str(target / "lensmesh"): "lensmesh", str(target / "buf"): "buf"}
