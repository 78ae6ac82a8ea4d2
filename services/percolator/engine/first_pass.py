"""The first pass over dense vectors: 8-bit products that rule out what can't reach its threshold, and nothing else.

A row x is kept as x' = s b with b in -127..127, an asset q as q' = t c with c in -63..63. By Cauchy and Schwarz
q x <= q' x' + |q'| |x - x'| + |q - q'| |x|, whose last two terms are known; so a row whose integer product b c lies
below a bound of its own can't reach its threshold. The products are ONNX Runtime's MatMulInteger, which has kernels for
AVX2, AVX-512 VNNI, AMX and Arm. Assets have 7 bits because AVX2's product of 8 by 8 bits saturates.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from services.percolator.engine.types import Dense

# Rows that stand together, dimension by dimension, so that memory is read in one go: a lone asset takes three quarters
# of what it takes where each dimension has all rows of a block, eight assets two thirds.
_TILE_ROWS = 64
# Rows of a full block: many, as a call costs as much as a lone asset's product with hundreds of rows.
BLOCK_ROWS = 256 * _TILE_ROWS
_FIRST_ROWS = 4 * _TILE_ROWS
_ROW_CODE_MAX, _ASSET_CODE_MAX, _ASSET_ZERO = 127, 63, 64
# The largest float32 that is an int32, too.
_INT32_MAX = np.float32(2**31 - 128)
_NOTHING = np.zeros(0, np.int64)
# The threshold of a row that nothing reaches.
_NEVER = np.float32(2**30)
# Scores are rounded at their sixth decimal, so one that is half of that below its threshold still reaches it.
_SLACK = 1e-6


class IntegerProduct:
    """Products of an unsigned with several signed 8-bit matrices, in the calling thread."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(_matmul_integer(), options, providers=["CPUExecutionProvider"])

    def __call__(self, left: NDArray[np.uint8], right: NDArray[np.int8]) -> NDArray[np.int32]:
        """left [B, D] times each of right [T, D, N]: int32[T, B, N]."""
        product: NDArray[np.int32] = self._session.run(None, {"A": left, "B": right})[0]
        return product


def _matmul_integer() -> bytes:
    """An ONNX model of one MatMulInteger, as its protobuf: no field of it has more than 127 bytes."""

    def number(field: int, value: int) -> bytes:
        return bytes([field << 3, value])

    def part(field: int, content: bytes) -> bytes:
        return bytes([field << 3 | 2, len(content)]) + content

    def tensor(name: bytes, kind: int, rank: int) -> bytes:
        shape = part(2, rank * part(1, b""))
        return part(1, name) + part(2, part(1, number(1, kind) + shape))

    node = part(1, b"A") + part(1, b"B") + part(2, b"Y") + part(4, b"MatMulInteger")
    graph = part(1, node) + part(2, b"product") + part(11, tensor(b"A", 2, 2)) + part(11, tensor(b"B", 3, 3))
    return number(1, 9) + part(8, number(2, 13)) + part(7, graph + part(12, tensor(b"Y", 6, 3)))


class CodedRows:
    """The rows of one space, coded; a row is given its threshold with its vector."""

    def __init__(self, dim: int, product: IntegerProduct) -> None:
        self._dim = dim
        self._product = product
        # Each int8[T, D, 64]: the tiles of a block.
        self._blocks = [self._block(_FIRST_ROWS)]
        # By row: its threshold, 1 / s, what its error takes from a bound, and what the asset's zero adds to it.
        self._threshold = np.full(_FIRST_ROWS, _NEVER, np.float32)
        self._steps = np.ones(_FIRST_ROWS, np.float32)
        self._lift = np.zeros(_FIRST_ROWS, np.float32)
        self._shift = np.zeros(_FIRST_ROWS, np.float32)
        self._norm_max = 1.0
        # A bound of |q'|: no code is further than half a step from its number, and no step is longer than 1 / 63.
        self._coded_norm_max = 1.00001 + dim**0.5 / (2 * _ASSET_CODE_MAX)
        # What rounding in float32 may add to a bound, in units of the product.
        self._margin = 4 + dim / 32

    def put(self, rows: NDArray[np.int64], vectors: Dense, thresholds: NDArray[np.float64]) -> None:
        """Set rows: vectors float32[N, D], thresholds float64[N] in 0..1."""
        self._grow(int(rows.max()) + 1)
        steps = np.abs(vectors).max(axis=1) / np.float32(_ROW_CODE_MAX)
        # Of a row of zeros, or of numbers whose step has no reciprocal: all its codes are 0, and its error says so.
        steps[steps < np.finfo(np.float32).tiny] = 1
        coded = vectors * (1 / steps)[:, None]
        codes = np.rint(coded, out=coded).astype(np.int8)
        coded *= steps[:, None]
        coded -= vectors
        self._norm_max = max(self._norm_max, float(self._norms(vectors).max()))
        # Each number of a coded row is off by less than one in ten million, and so is its difference.
        errors = self._norms(coded) + 1e-6 * self._norm_max
        self._threshold[rows], self._steps[rows] = thresholds, 1 / steps
        self._lift[rows] = (_SLACK + self._coded_norm_max * errors) / steps
        self._shift[rows] = _ASSET_ZERO * codes.sum(axis=1, dtype=np.int32) - self._margin
        blocks, (tiles, columns) = rows // BLOCK_ROWS, np.divmod(rows % BLOCK_ROWS, _TILE_ROWS)
        for number in np.unique(blocks):
            here = blocks == number
            self._blocks[number][tiles[here], :, columns[here]] = codes[here]

    def clear(self, rows: NDArray[np.int64]) -> None:
        """Make rows that nothing reaches."""
        self._threshold[rows], self._steps[rows], self._lift[rows] = _NEVER, 1, 0

    def scan(
        self, vectors: Dense, min_score: float, used: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Pairs of a vector and a row that may reach its threshold: indices into `vectors`, and rows; block by block.

        Rows may be set and cleared between two blocks; of those that are, it says nothing for certain.

        Args:
            vectors: of unit length, float32[B, D].
            min_score: no score below is wanted, whatever the thresholds are.
            used: rows from here on are not looked at.
        """
        scale = (float(np.abs(vectors).max()) or 1.0) / _ASSET_CODE_MAX
        codes = np.rint(vectors / scale)
        error = float(np.linalg.norm(vectors - codes * scale, axis=1).max() * self._norm_max * (1 + 1e-5))
        left = (codes + _ASSET_ZERO).astype(np.uint8)
        lowest = self._lowest(scale, error, min_score).reshape(-1, 1, _TILE_ROWS)
        for number, block in enumerate(self._blocks):
            start, first = number * BLOCK_ROWS, number * (BLOCK_ROWS // _TILE_ROWS)
            if start >= used:
                return
            reached = self._product(left, block) >= lowest[first : first + len(block)]
            # Many blocks have none, which a look at whole words finds out soonest.
            places = np.flatnonzero(reached) if reached.any() else _NOTHING
            lines, columns = np.divmod(places, _TILE_ROWS)
            tiles, which = np.divmod(lines, len(left))
            yield which, start + tiles * _TILE_ROWS + columns

    def _lowest(self, scale: float, error: float, min_score: float) -> NDArray[np.int32]:
        """The product below which each row can't reach its threshold, int32[rows]."""
        bounds = np.maximum(self._threshold, np.float32(min_score))
        bounds -= np.float32(error)
        bounds *= self._steps
        bounds -= self._lift
        bounds *= np.float32(1 / scale)
        bounds += self._shift
        # That of a row that nothing reaches is beyond every int32.
        np.minimum(bounds, _INT32_MAX, out=bounds)
        return bounds.astype(np.int32)

    def _norms(self, vectors: Dense) -> NDArray[np.float64]:
        """Bounds of the lengths of vectors, float64[N]: summed up in float32, a length is off by D/2 half units."""
        squares: NDArray[np.float32] = np.einsum("ij,ij->i", vectors, vectors)
        return np.sqrt(squares.astype(np.float64)) * (1 + self._dim * float(np.finfo(np.float32).eps))

    def _block(self, rows: int) -> NDArray[np.int8]:
        return np.zeros((rows // _TILE_ROWS, self._dim, _TILE_ROWS), np.int8)

    def _grow(self, rows: int) -> None:
        while len(self._threshold) < rows:
            last, before = self._blocks[-1], len(self._threshold)
            if before < BLOCK_ROWS:
                self._blocks[-1] = self._block(before * 4)
                self._blocks[-1][: len(last)] = last
                more = before * 3
            else:
                self._blocks.append(self._block(BLOCK_ROWS))
                more = BLOCK_ROWS
            self._threshold = np.concatenate([self._threshold, np.full(more, _NEVER, np.float32)])
            self._steps = np.concatenate([self._steps, np.ones(more, np.float32)])
            self._lift = np.concatenate([self._lift, np.zeros(more, np.float32)])
            self._shift = np.concatenate([self._shift, np.zeros(more, np.float32)])
