"""What others ask of deliveries: that they begin, begin anew, end, show how they stand, or happen once more.

Every replica may be asked: it changes the record, and the replica that delivers sees that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from lensmesh.v1 import engine_pb2, percolator_pb2

from services.mesh.errors import Conflict, InvalidArgument
from services.mesh.tenancy import Tenant
from services.percolator.delivery_records import DeliveryRecords
from services.percolator.lane import Held
from services.percolator.stored_queries import StoredQueries

# More than any stream holds: a redelivery takes all that is kept.
_ALL = 2**63 - 1
_GONE = percolator_pb2.DELIVERY_STATE_GONE


class DeliveryControl:
    """The deliveries, as the percolator's door needs them."""

    def __init__(self, records: DeliveryRecords, queries: StoredQueries) -> None:
        self._records = records
        self._queries = queries

    async def prepare(self, record: engine_pb2.StoredQueryRecord) -> None:
        """Begin to deliver, or end it; to be called before the record is stored, so that no match is missed.

        A record that shows a webhook without its secret is one whose vectors were made anew: it is given the secret
        that is stored, and its deliveries go on as they were.

        Raises:
            NotFound: that secret's stored query is not there.
        """
        tenant, stored = Tenant(record.namespace_id), record.stored_query
        if not stored.HasField("delivery"):
            await self._records.remove(tenant, stored.percolator_id)
            return
        shown = stored.delivery
        stored.delivery.CopyFrom(
            percolator_pb2.DeliveryStatus(webhook_url=shown.webhook_url, cooldown_s=shown.cooldown_s)
        )
        if not record.delivery_secret:
            known = await self._queries.read(tenant, stored.percolator_id)
            record.delivery_secret = known.delivery_secret
            return
        await self._begin(tenant, stored.percolator_id)

    async def forget(self, tenant: Tenant, percolator_id: str) -> None:
        """Deliver nothing of a stored query any more; to be called when it is removed."""
        await self._records.remove(tenant, percolator_id)

    async def forget_all(self, tenant: Tenant) -> None:
        """Deliver nothing of a namespace any more."""
        await self._records.remove_all(tenant)

    async def show(self, tenant: Tenant, stored_queries: Iterable[percolator_pb2.StoredQuery]) -> None:
        """Say of each stored query with a webhook how its deliveries stand."""
        await asyncio.gather(*(self._show(tenant, each) for each in stored_queries if each.HasField("delivery")))

    async def queue(self, tenant: Tenant, percolator_id: str, since: Timestamp | None) -> int:
        """Send matches again, before those to come: those made since a time, or the dead letters; returns how many.

        Raises:
            NotFound: there is no such stored query.
            InvalidArgument: it has no webhook.
            Conflict: its endpoint is gone.
        """
        stored = await self._queries.read(tenant, percolator_id)
        held = await self._records.read(tenant, percolator_id)
        if held is None or not stored.delivery_secret:
            raise InvalidArgument.field("percolator_id", "this stored query has no webhook", "delivery.none")
        if held.record.state == _GONE:
            raise Conflict("the endpoint answered 410 Gone; replace the stored query, then matches can be sent again")
        if since is None:
            return await self._again_letters(tenant, percolator_id, held)
        return await self._again_since(tenant, percolator_id, held, since.ToDatetime(tzinfo=UTC))

    async def _begin(self, tenant: Tenant, percolator_id: str) -> None:
        held = await self._records.read(tenant, percolator_id)
        if held is None:
            await self._records.create(tenant, percolator_id)
            return
        newest = await self._records.last_sequence()

        def renew(record: engine_pb2.DeliveryRecord) -> bool:
            if record.state == _GONE:
                # The receiver wanted none of those in between; `redeliver` brings them.
                record.cursor = newest
            record.state, record.last_error = percolator_pb2.DELIVERY_STATE_ACTIVE, ""
            record.attempts = record.until = 0
            record.replaced += 1
            return True

        if await self._records.change(tenant, percolator_id, held, renew) is None:
            await self._records.create(tenant, percolator_id)

    async def _show(self, tenant: Tenant, stored: percolator_pb2.StoredQuery) -> None:
        held = await self._records.read(tenant, stored.percolator_id)
        record = held.record if held else engine_pb2.DeliveryRecord()
        status = stored.delivery
        status.state = record.state or percolator_pb2.DELIVERY_STATE_ACTIVE
        status.last_error = record.last_error
        if record.HasField("delivered_at"):
            status.delivered_at.CopyFrom(record.delivered_at)
        if record.dead_letters:
            # Fewer than it says when some have grown too old.
            status.dead_letters = await self._records.count_buried(tenant, stored.percolator_id)

    async def _again_letters(self, tenant: Tenant, percolator_id: str, held: Held) -> int:
        buried = await self._records.buried(tenant, percolator_id)
        if not buried:
            return 0
        newest = max(each.letter for each in buried)

        def again(record: engine_pb2.DeliveryRecord) -> bool:
            record.redeliver_until = newest
            record.attempts = record.until = 0
            return True

        await self._records.change(tenant, percolator_id, held, again)
        return len(buried)

    async def _again_since(self, tenant: Tenant, percolator_id: str, held: Held, since: datetime) -> int:
        sequences = await self._records.sequences(tenant, percolator_id, since=since, limit=_ALL)
        if not sequences:
            return 0
        first = sequences[0]
        letters = await self._records.buried(tenant, percolator_id)
        # They are sent with the others, so that they are no dead letters any more.
        freed = [each.match_id for each in letters if each.sequence >= first]

        def again(record: engine_pb2.DeliveryRecord) -> bool:
            record.cursor = min(record.cursor, first - 1)
            record.attempts = record.until = 0
            record.waiting = True
            record.dead_letters = len(letters) - len(freed)
            return True

        await self._records.change(tenant, percolator_id, held, again)
        await self._records.unbury(tenant, percolator_id, freed)
        return len(sequences)
