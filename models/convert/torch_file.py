"""Reads the tensors of a PyTorch checkpoint of the pre-1.6 format without torch and without running its pickles.

Only OrderedDict, strings, numbers and tensors are allowed in; anything else is refused by name.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class _View:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements; converted checkpoints hold transposed views


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> _View:
    return _View(storage, offset, shape, strides)


class _Unpickler(pickle.Unpickler):
    """Knows four names; a checkpoint that asks for another is not one we were told about."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"checkpoint asks for {module}.{name}, which is not allowed")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _location, _size, _view = pid
        if kind != "storage":
            raise pickle.UnpicklingError(f"checkpoint holds a {kind!r}, expected a storage")
        return _Storage(str(key), dtype)


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Name -> array of every tensor in the state dict at ``path``. Raises ValueError for another format."""
    with path.open("rb") as stream:
        if _Unpickler(stream).load() != _MAGIC:
            raise ValueError(f"{path.name} is not a PyTorch checkpoint of the format before 1.6")
        _Unpickler(stream).load()  # protocol version
        _Unpickler(stream).load()  # byte order and integer sizes of the writer
        state = _Unpickler(stream).load()
        keys = _Unpickler(stream).load()
        views = {name: view for name, view in state.items() if isinstance(view, _View)}
        dtypes = {view.storage.key: view.storage.dtype for view in views.values()}
        data = {str(key): _read_storage(stream, dtypes[str(key)]) for key in keys}
    return {name: _view(data[view.storage.key], view) for name, view in views.items()}


def _view(flat: NDArray[Any], view: _View) -> NDArray[Any]:
    strides = tuple(step * flat.itemsize for step in view.strides)
    return np.lib.stride_tricks.as_strided(flat[view.offset :], view.shape, strides, writeable=False).copy()


def _read_storage(stream: IO[bytes], dtype: np.dtype[Any]) -> NDArray[Any]:
    count = int(np.frombuffer(stream.read(8), "<i8")[0])
    return np.frombuffer(stream.read(count * dtype.itemsize), dtype)
