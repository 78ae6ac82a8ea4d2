"""Takes messages from a consumer as they come, no more than asked for.

Whose consumer it is, `worker` and `follow` know. nats-py's `fetch` asks the server anew for every message on a mesh
that is not busy, and may hold one back until its time is over, waiting for more.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import StatusCode

from services.mesh.bus.topology import Bus

# How long a request for messages stands at the server. One that a restarted server forgot is asked again after that.
_EXPIRES_S = 2.0
_GRACE_S = 0.5
_STATUS_HEADER = "Status"
# The request has ended with fewer messages than asked for, which is no error.
_ENDED = frozenset({StatusCode.NO_MESSAGES, StatusCode.REQUEST_TIMEOUT})


class Pull:
    """One subscription that all requests to a consumer are answered on; opened again after an error."""

    def __init__(self, bus: Bus, subject: str) -> None:
        self._bus = bus
        self._subject = subject
        self._inbox = bus.client.new_inbox()
        # Holds no more than `take` asked for. A queue of asyncio's adds about a tenth to what a message costs.
        self._arrived = deque[Msg]()
        self._woken = asyncio.Event()
        self._subscription: Subscription | None = None
        self._requests = 0

    @classmethod
    async def open(cls, bus: Bus, stream: str, consumer: str) -> Pull:
        """Listen to a consumer that is there."""
        pull = cls(bus, f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}")
        pull._subscription = await bus.client.subscribe(f"{pull._inbox}.*", cb=pull._take_in)
        return pull

    @property
    def is_idle(self) -> bool:
        """Whether nothing that has arrived is waiting to be taken."""
        return not self._arrived

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
            if not self._arrived:
                self._woken.clear()
                try:
                    async with asyncio.timeout_at(deadline):
                        await self._woken.wait()
                except TimeoutError:
                    return
            message = self._arrived.popleft()
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
        """Listen no more. What arrives after this and wants to be acknowledged is handed out again after ack_wait."""
        if self._subscription:
            await self._subscription.unsubscribe()

    async def _take_in(self, message: Msg) -> None:
        self._arrived.append(message)
        self._woken.set()
