"""What the delivery of matches asks of the registry of stored queries."""

from __future__ import annotations

from typing import Protocol

from lensmesh.v1 import engine_pb2

from services.mesh.tenancy import Tenant


class StoredQueries(Protocol):
    """The stored queries, and which replica delivers for which."""

    async def read(self, tenant: Tenant, percolator_id: str) -> engine_pb2.StoredQueryRecord:
        """A stored query with its webhook's secret.

        Raises:
            NotFound: there is none in this namespace.
        """

    def owns(self, percolator_id: str) -> bool:
        """Whether this replica delivers for a stored query; may change at any time."""
