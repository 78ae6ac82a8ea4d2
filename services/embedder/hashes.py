"""Perceptual hashes as vectors, so that the vector store finds near ones exactly: it has no type for bits.

How a hash is made is not known here.
"""

from __future__ import annotations

BITS = 64
# Of rows that have no hash, where the store wants a vector: never searched for, and filtered out of what is found.
NO_VECTOR = [1.0] + [0.0] * (BITS - 1)


def vector(perceptual_hash: str) -> list[float]:
    """A hash of 16 hex digits as +1 and -1 for each bit, float[64]; of an empty one, `NO_VECTOR`."""
    if not perceptual_hash:
        return NO_VECTOR
    return [1.0 if bit == "1" else -1.0 for bit in f"{int(perceptual_hash, 16):0{BITS}b}"]


def distance(cosine: float) -> int:
    """How many bits differ, 0..64, by the cosine of two hashes' vectors: each lowers it from 1 by 2/64.

    float32 errs by about 1e-7 where the next number of bits is 3e-2 away, so that rounding gives it exactly.
    """
    return round((1 - cosine) * BITS / 2)
