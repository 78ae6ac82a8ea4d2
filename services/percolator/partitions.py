"""Which partition a stored query belongs to, and which replica loads which partitions.

Partitions are many and fixed, so that a replica that joins or leaves moves whole ones and no record ever moves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from services.mesh.bus import topology

#: The number of partitions, for ever: each is a bucket. A few times more than replicas that one would want.
PARTITIONS = len(topology.STORED_QUERIES)


def partition_of(percolator_id: str) -> int:
    """The partition of a stored query, 0..63: BLAKE2b of its id."""
    return hashlib.blake2b(percolator_id.encode(), digest_size=1).digest()[0] % PARTITIONS


def ranked(partition: int, members: Iterable[str]) -> list[str]:
    """The members in the order in which they should have a partition.

    Rendezvous hashing (Thaler and Ravishankar, "A Name-Based Mapping Scheme for Rendezvous", 1996): when a member comes
    or goes, only the partitions that it gets or had move.
    """

    return sorted(members, key=lambda member: _weight(partition, member), reverse=True)


def share(member: str, members: Iterable[str], copies: int) -> frozenset[int]:
    """The partitions that a member should have, each of which so many members have."""
    known = sorted(members)
    return frozenset(each for each in range(PARTITIONS) if member in ranked(each, known)[:copies])


def _weight(partition: int, member: str) -> bytes:
    return hashlib.blake2b(f"{partition}\x1f{member}".encode(), digest_size=8).digest()
