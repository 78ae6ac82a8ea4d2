"""Where the mesh is and which key to use: as given, else of a mesh that runs on this machine."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Where `make up` keeps its data unless told otherwise.
_DATA_DIR = Path(__file__).resolve().parent.parent / ".lensmesh"


class NoMesh(Exception):
    """No mesh is known; the text says what to set."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A gateway's REST door, and who is calling. An empty namespace: the key's own."""

    url: str
    api_key: str
    namespace: str = ""


def data_dir() -> Path:
    """The data directory of this machine's mesh."""
    return Path(os.environ.get("LENSMESH_DATA_DIR") or _DATA_DIR).expanduser()


def endpoints() -> dict[str, Any] | None:
    """What the mesh that runs on this machine wrote down; None: none runs."""
    try:
        found: dict[str, Any] = json.loads((data_dir() / "endpoints.json").read_text())
    except FileNotFoundError:
        return None
    return found


def find(url: str = "", api_key: str = "", namespace: str = "") -> Connection:
    """The mesh of the given values, each else from endpoints.json.

    A key of endpoints.json is sent to the mesh of that file alone.

    Raises:
        NoMesh: neither has them.
    """
    if url and api_key:
        return Connection(url, api_key, namespace)
    known = endpoints()
    if known is None:
        raise NoMesh(
            f"no mesh runs on {data_dir()}: start one with ./lensmesh up, or set LENSMESH_URL and LENSMESH_API_KEY"
        )
    if url and url.rstrip("/") != known["rest_url"]:
        raise NoMesh(f"no key for {url}: set LENSMESH_API_KEY")
    return Connection(url or known["rest_url"], api_key or known["api_key"], namespace)
