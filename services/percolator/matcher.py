"""Matches assets in batches: what comes while one batch is being matched is the next one.

So an asset that comes alone waits for nobody, and under load a batch grows up to its limit by itself.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from lensmesh.v1 import engine_pb2

from services.mesh.errors import Unavailable
from services.mesh.tenancy import Tenant
from services.percolator.registry import Registry

_Waiting = tuple[engine_pb2.PercolatedAsset, "asyncio.Future[engine_pb2.FoundQueries]"]


class Matcher:
    """Puts the assets of one namespace together.

    Args:
        assets_max: at most so many in a batch.
        wait_s: how long a batch waits for stored queries that nobody has loaded.
    """

    def __init__(self, registry: Registry, assets_max: int, wait_s: float) -> None:
        self._registry = registry
        self._assets_max = assets_max
        self._wait_s = wait_s
        self._waiting: dict[Tenant, list[_Waiting]] = defaultdict(list)
        self._running: dict[Tenant, asyncio.Task[None]] = {}

    async def match(self, tenant: Tenant, asset: engine_pb2.PercolatedAsset) -> engine_pb2.FoundQueries:
        """What an asset matches.

        Raises:
            Unavailable: some stored queries are not loaded anywhere.
        """
        answer: asyncio.Future[engine_pb2.FoundQueries] = asyncio.get_running_loop().create_future()
        self._waiting[tenant].append((asset, answer))
        if tenant not in self._running:
            self._running[tenant] = asyncio.create_task(self._run(tenant))
        return await answer

    async def _run(self, tenant: Tenant) -> None:
        try:
            while waiting := self._waiting.pop(tenant, None):
                batch, rest = waiting[: self._assets_max], waiting[self._assets_max :]
                if rest:
                    self._waiting[tenant] = rest
                # Whoever was cancelled meanwhile needs no answer.
                await self._match(tenant, [each for each in batch if not each[1].done()])
        finally:
            del self._running[tenant]

    async def _match(self, tenant: Tenant, batch: list[_Waiting]) -> None:
        try:
            found = await self._registry.match(tenant, [asset for asset, _ in batch], wait_s=self._wait_s)
        except BaseException as error:
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error if isinstance(error, Exception) else Unavailable("matching was ended"))
            if not isinstance(error, Exception):
                raise
            return
        for (_, answer), each in zip(batch, found, strict=True):
            if not answer.done():
                answer.set_result(each)
