"""Takes messages from a hop's durable consumer as they come, no more than asked for.

What becomes of a message, and when there is room for more, `worker` knows. nats-py's `fetch` asks the server anew for
every message on a mesh that is not busy, and twice when there is none.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import ConsumerConfig, StatusCode

from services.mesh.bus.topology import Bus, Hop

# How long a request for messages stands at the server. One that a restarted server forgot is asked again after that.
_EXPIRES_S = 2.0
_GRACE_S = 0.5
_STATUS_HEADER = "Status"
# The request has ended with fewer messages than asked for, which is no error.
_ENDED = frozenset({StatusCode.NO_MESSAGES, StatusCode.REQUEST_TIMEOUT})


class Pull:
    """One subscription that all of this worker's requests are answered on; opened again after an error."""

    def __init__(self, bus: Bus, hop: Hop, inbox: str, arrived: asyncio.Queue[Msg], subscription: Subscription) -> None:
        self._bus = bus
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{hop.stream}.{hop.name}"
        self._inbox = inbox
        # Holds no more than `take` asked for.
        self._arrived = arrived
        self._subscription = subscription
        self._requests = 0

    @classmethod
    async def open(cls, bus: Bus, hop: Hop, config: ConsumerConfig) -> Pull:
        """Make sure that the hop's consumer is there, and listen.

        Raises:
            nats.errors.Error or nats.js.errors.Error: the server does not answer, or refuses.
        """
        await bus.js.add_consumer(hop.stream, config, durable_name=hop.name, filter_subject=hop.subjects)
        inbox = bus.client.new_inbox()
        arrived: asyncio.Queue[Msg] = asyncio.Queue()
        return cls(bus, hop, inbox, arrived, await bus.client.subscribe(f"{inbox}.*", cb=arrived.put))

    async def take(self, count: int) -> AsyncIterator[Msg]:
        """Ask for messages and yield them as they arrive: at most `count`, fewer when no more come in some time.

        Raises:
            nats.errors.Error: the consumer is gone, or the server.
        """
        self._requests += 1
        reply = f"{self._inbox}.{self._requests}"
        request = {"batch": count, "expires": int(_EXPIRES_S * 1e9)}
        await self._bus.client.publish(self._subject, json.dumps(request).encode(), reply)
        deadline = asyncio.get_running_loop().time() + _EXPIRES_S + _GRACE_S
        left = count
        while left:
            try:
                async with asyncio.timeout_at(deadline):
                    message = await self._arrived.get()
            except TimeoutError:
                return
            status = (message.headers or {}).get(_STATUS_HEADER) if not message.data else None
            if status is None:
                # One of an earlier request is as good.
                left -= 1
                yield message
            elif message.subject == reply:
                if status in _ENDED:
                    return
                reason = (message.headers or {}).get("Description", "")
                raise nats.errors.Error(f"the consumer answers {status} {reason}".rstrip())

    async def close(self) -> None:
        """Listen no more. What arrives after this is handed out again by the server after ack_wait."""
        await self._subscription.unsubscribe()
