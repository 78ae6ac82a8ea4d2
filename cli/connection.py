"""Where the mesh is and which key to use: from the environment, else from a mesh that runs on this machine."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import grpc

# Where `make up` keeps its data unless told otherwise.
_DATA_DIR = Path(__file__).resolve().parent.parent / ".lensmesh"


class NoMesh(Exception):
    """No mesh is known; the text says what to set."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A gateway's gRPC door, and who is calling.

    `namespace` empty: the key's own.
    """

    address: str
    api_key: str
    namespace: str = ""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The metadata of each call."""
        scope = (("x-namespace", self.namespace),) if self.namespace else ()
        return (("authorization", f"Bearer {self.api_key}"), *scope)

    def channel(self) -> grpc.Channel:
        """A new channel; close it after use."""
        return grpc.insecure_channel(self.address)


def find(namespace: str = "") -> Connection:
    """The mesh of LENSMESH_GRPC_ADDRESS and LENSMESH_API_KEY, else the one that `make up` runs on this machine.

    Raises:
        NoMesh: there is none.
    """
    address, api_key = os.environ.get("LENSMESH_GRPC_ADDRESS", ""), os.environ.get("LENSMESH_API_KEY", "")
    if address and api_key:
        return Connection(address, api_key, namespace)
    path = Path(os.environ.get("LENSMESH_DATA_DIR") or _DATA_DIR).expanduser() / "endpoints.json"
    try:
        endpoints = json.loads(path.read_text())
    except FileNotFoundError:
        raise NoMesh(
            f"no mesh runs on {path.parent}: start one with make up, or set LENSMESH_GRPC_ADDRESS (host:port) and"
            " LENSMESH_API_KEY"
        ) from None
    return Connection(address or endpoints["grpc_address"], api_key or endpoints["api_key"], namespace)
