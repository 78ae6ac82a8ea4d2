"""Matches are delivered to webhooks at least once and in order, whatever the receiver answers."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from lensmesh.v1 import percolator_pb2

from runner.process import Process
from services.mesh.errors import Conflict, InvalidArgument, NotFound
from tests.percolator.conftest import TENANT, Queries, Station
from tests.vision.photo_host import Names
from tests.webhook_receiver import SECRET, receiver, until

ACTIVE, RETRYING, GONE = (
    percolator_pb2.DELIVERY_STATE_ACTIVE,
    percolator_pb2.DELIVERY_STATE_RETRYING,
    percolator_pb2.DELIVERY_STATE_GONE,
)


@pytest.mark.parametrize("secret", [SECRET, "a secret of plain text: ü", "whsec_dW5wYWRkZWQ"])
async def test_a_match_is_delivered_signed(station: Station, secret: str) -> None:
    """The published library verifies the signature, whichever way the secret is spelt, and finds the API's match."""
    await station.store("p1", secret=secret)
    station.start()
    [match_id] = await station.match("p1", 1, owner="a")
    await until(lambda: station.receiver.calls)
    [call] = station.receiver.calls
    body = call.verified(secret if secret.startswith("whsec_") else secret.encode())
    assert {"type": "matches", "percolator_id": "p1", "namespace_id": TENANT.namespace_id} == {
        name: body[name] for name in ("type", "percolator_id", "namespace_id")
    }
    [match] = body["matches"]
    assert (match_id, 0.75, {"owner": "a"}, []) == tuple(
        match[name] for name in ("match_id", "score", "metadata", "query_scores")
    )
    assert (match_id, "application/json") == (call.headers["webhook-id"], call.headers["Content-Type"])
    async with asyncio.timeout(10):
        while not (await station.status("p1")).HasField("delivered_at"):
            await asyncio.sleep(0.01)


async def test_what_comes_while_a_call_runs_goes_together_into_the_next(station: Station) -> None:
    """Matches come in the order in which they were made; those of another stored query do not wait for them."""
    await station.store("p1")
    await station.store("p2", url=station.receiver.url("other"))
    station.settings["call_seconds_max"] = 10
    station.start()
    station.receiver.open.clear()
    first = await station.match("p1", 0)
    await until(lambda: station.receiver.calls)
    rest = await station.match("p1", *range(1, 6))
    other = await station.match("p2", 1)
    await until(lambda: len(station.receiver.calls) == 2)
    station.receiver.open.set()
    await until(lambda: len(station.receiver.calls) == 3)
    assert [first, other, rest] == [call.match_ids for call in station.receiver.calls]


async def test_a_call_has_limits(station: Station) -> None:
    """A call holds at most so many matches and bytes, and the next goes on where it ended."""
    station.settings |= {"call_matches_max": 3, "call_bytes_max": 2_000, "queue_percolator_max": 4, "queue_max": 5}
    await station.store("p1")
    ids = await station.match("p1", *range(9))
    ids += await station.match("p1", 9, 10, large="x" * 1_500)
    station.start()
    await until(lambda: len(station.receiver.match_ids) == 11)
    assert ids == station.receiver.match_ids
    assert [3, 3, 3, 1, 1] == [len(call.match_ids) for call in station.receiver.calls]


@pytest.mark.parametrize("answer", [500, 404, 302, 429])
async def test_a_call_that_failed_is_made_again(station: Station, answer: int) -> None:
    """Any answer but success is tried again with the same matches under the same id; what came meanwhile follows."""
    station.receiver.answers = [answer, answer]
    station.receiver.headers = {"Location": "http://10.0.0.1/"}
    await station.store("p1")
    first = await station.match("p1", 1, 2)
    station.start()
    await until(lambda: station.receiver.calls)
    second = await station.match("p1", 3)
    await until(lambda: len(station.receiver.calls) == 4)
    assert [first, first, first, second] == [call.match_ids for call in station.receiver.calls]
    assert 2 == len({call.headers["webhook-id"] for call in station.receiver.calls})
    await station.until("p1", state=ACTIVE, last_error="", dead_letters=0)


async def test_a_failure_is_shown(station: Station) -> None:
    """While a call is tried again, the state says so, and why; a redirect is named as what it is."""
    station.settings |= {"backoff_first_s": 60, "backoff_max_s": 60}
    station.receiver.answers = [307]
    await station.store("p1")
    station.start()
    await station.match("p1", 1)
    status = await station.until("p1", state=RETRYING)
    assert "answered 307: redirects are not followed" == status.last_error
    await station.store("p1")
    await until(lambda: len(station.receiver.calls) == 2)
    await station.until("p1", state=ACTIVE, last_error="")


async def test_a_receiver_that_hangs_is_tried_again(station: Station) -> None:
    """A call has an end: the same matches come again."""
    await station.store("p1")
    station.receiver.open.clear()
    station.start()
    ids = await station.match("p1", 1)
    status = await station.until("p1", state=RETRYING)
    assert "did not answer within 0.4 seconds" == status.last_error
    station.receiver.open.set()
    await station.until("p1", state=ACTIVE)
    assert ids == station.receiver.calls[-1].match_ids


async def test_the_status_is_the_answer(station: Station) -> None:
    """A receiver whose answer begins and never ends has taken the matches; they are not sent again."""
    station.settings["call_seconds_max"] = 0.3
    station.receiver.endless = True
    await station.store("p1")
    station.start()
    ids = await station.match("p1", 1)
    await until(lambda: station.receiver.calls)
    ids += await station.match("p1", 2)
    await until(lambda: len(station.receiver.calls) == 2)
    assert ids == station.receiver.match_ids


async def test_a_receiver_that_is_not_there_is_tried_again(station: Station) -> None:
    """A refused connection is a failed try; when the receiver listens again, it gets the matches."""
    async with receiver() as gone:
        pass
    station.receiver.port = gone.port
    await station.store("p1")
    station.settings["attempts_max"] = 100
    station.start()
    ids = await station.match("p1", 1)
    status = await station.until("p1", state=RETRYING)
    assert "no connection to its host could be made" == status.last_error
    async with receiver(gone.port) as back:
        await until(lambda: back.calls)
        assert ids == back.match_ids
        await station.until("p1", state=ACTIVE)


async def test_retry_after_is_honoured_within_bounds(station: Station) -> None:
    """An endpoint that asks for time gets it, but no more than the longest backoff."""
    station.settings |= {"backoff_first_s": 0.001, "backoff_max_s": 0.3}
    station.receiver.answers, station.receiver.headers = [503], {"Retry-After": "3600"}
    await station.store("p1")
    station.start()
    await station.match("p1", 1)
    await until(lambda: len(station.receiver.calls) == 2)
    first, second = station.receiver.calls
    assert 0.3 <= second.at - first.at < 3


@pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.254", "127.0.0.1", "fd00::1"])
async def test_a_name_that_leads_to_a_private_address_is_refused(station: Station, address: str) -> None:
    """The address that the socket would connect to decides; the match is a dead letter at once, with the reason."""
    station.resolver = Names(hook_test=[[address]])
    await station.store("p1", url="http://hook.test/x?token=sesame")
    station.start()
    await station.match("p1", 1)
    status = await station.until("p1", dead_letters=1)
    assert f"leads to {address}, which is refused" in status.last_error
    assert ("sesame" in status.last_error, []) == (False, station.receiver.calls)


async def test_an_endpoint_that_is_gone_gets_nothing_more(station: Station) -> None:
    """After a 410 nothing is sent until the webhook is given anew, and then what is matched from then on."""
    station.receiver.answers = [410]
    await station.store("p1")
    station.start()
    await station.match("p1", 1)
    await station.until("p1", state=GONE)
    await station.match("p1", 2)
    await station.store("p2", url=station.receiver.url("p2"))
    [probe] = await station.match("p2", 1)
    await until(lambda: probe in station.receiver.match_ids)
    with pytest.raises(Conflict, match="410"):
        await station.control.queue(TENANT, "p1", None)
    assert 2 == len(station.receiver.calls)
    await station.store("p1")
    later = await station.match("p1", 3)
    await until(lambda: len(station.receiver.calls) == 3)
    assert later == station.receiver.calls[2].match_ids
    await station.until("p1", state=ACTIVE, last_error="")


async def test_a_breaker_opens_and_closes(station: Station) -> None:
    """After failures in a row of a namespace's calls an origin is left alone; one probe finds it well again."""
    station.settings |= {"breaker_failures": 3, "attempts_max": 100, "backoff_first_s": 0.01, "backoff_max_s": 0.01}
    station.receiver.answers = [500] * 5
    for number in range(3):
        await station.store(f"p{number}")
    station.start()
    for number in range(3):
        await station.match(f"p{number}", 1)
    await until(lambda: len(station.receiver.calls) >= 8)
    times = [call.at for call in station.receiver.calls]
    # Three failures, or four when one was under way as it opened; then probes, one after 0.3 s and one after 0.6.
    rests = [later - earlier for earlier, later in pairwise(times) if later - earlier >= 0.29]
    assert len(rests) >= 2
    assert rests[1] >= 0.59
    await asyncio.gather(*(station.until(f"p{number}", state=ACTIVE) for number in range(3)))
    assert {"p0-m1", "p1-m1", "p2-m1"} == set(station.receiver.match_ids)


async def test_waiting_for_the_breaker_is_no_try(station: Station) -> None:
    """While an origin is left alone, no attempts are used up."""
    station.settings |= {"breaker_failures": 1, "attempts_max": 3, "backoff_first_s": 0.01, "backoff_max_s": 0.01}
    station.receiver.answers = [500, 500]
    await station.store("p1")
    station.start()
    await station.match("p1", 1)
    await until(lambda: len(station.receiver.calls) == 3)
    assert station.receiver.calls[2].at - station.receiver.calls[0].at >= 0.85
    await station.until("p1", state=ACTIVE, dead_letters=0)


async def test_a_cooldown_gathers_matches(station: Station) -> None:
    """After a call, matches wait for the end of the cooldown and go together."""
    await station.store("p1", cooldown_s=1)
    station.start()
    first = await station.match("p1", 1)
    await station.until("p1", state=ACTIVE)
    await until(lambda: station.receiver.calls)
    rest = await station.match("p1", 2, 3, 4)
    await until(lambda: len(station.receiver.calls) == 2)
    assert [first, rest] == [call.match_ids for call in station.receiver.calls]
    assert station.receiver.calls[1].at - station.receiver.calls[0].at >= 0.9


async def test_dead_letters_are_sent_again(station: Station) -> None:
    """What was tried too often is kept aside, the next goes on; asked for, it is sent before what comes then."""
    station.receiver.answers = [500] * 4
    await station.store("p1")
    station.start()
    dead = await station.match("p1", 1)
    status = await station.until("p1", dead_letters=1)
    assert ("answered 500", ACTIVE) == (status.last_error, status.state)
    assert 4 == len(station.receiver.calls)
    await station.match("p1", 2)
    await station.until("p1", last_error="")
    assert 1 == await station.control.queue(TENANT, "p1", None)
    await station.until("p1", dead_letters=0)
    await station.match("p1", 3)
    await until(lambda: len(station.receiver.calls) == 7)
    assert [["p1-m2"], dead, ["p1-m3"]] == [call.match_ids for call in station.receiver.calls[4:]]
    assert 0 == await station.control.queue(TENANT, "p1", None)


async def test_dead_letters_that_fail_again_stay(station: Station) -> None:
    """A redelivery that is given up leaves the dead letters, and what comes goes on."""
    station.receiver.answers = [500] * 8
    await station.store("p1")
    station.start()
    await station.match("p1", 1)
    await station.until("p1", dead_letters=1)
    assert 1 == await station.control.queue(TENANT, "p1", None)
    await until(lambda: len(station.receiver.calls) == 8)
    later = await station.match("p1", 2)
    await until(lambda: len(station.receiver.calls) == 9)
    assert later == station.receiver.calls[8].match_ids
    await station.until("p1", dead_letters=1, last_error="")


async def test_matches_since_a_time_are_sent_again(station: Station) -> None:
    """All kept matches since a time come again, in order, those that are dead letters among them, before new ones."""
    station.receiver.answers = [500] * 4
    await station.store("p1")
    station.start()
    ids = await station.match("p1", 1)
    await station.until("p1", dead_letters=1)
    ids += await station.match("p1", 2, 3)
    await until(lambda: "p1-m3" in station.receiver.match_ids)
    await station.until("p1", last_error="")
    before, since = len(station.receiver.calls), Timestamp()
    since.FromDatetime(datetime.now(UTC) - timedelta(minutes=1))
    assert 3 == await station.control.queue(TENANT, "p1", since)
    await until(lambda: len(station.receiver.calls) > before)
    ids += await station.match("p1", 4)
    await until(lambda: "p1-m4" in station.receiver.match_ids)
    again = [match_id for call in station.receiver.calls[before:] for match_id in call.match_ids]
    assert ids == again
    await station.until("p1", dead_letters=0)
    since.FromDatetime(datetime.now(UTC) + timedelta(minutes=1))
    assert 0 == await station.control.queue(TENANT, "p1", since)


async def test_only_webhooks_take_redeliveries(station: Station) -> None:
    """A stored query without a webhook is refused by the field's name, one that is not there is not found."""
    await station.store("p1", url="")
    with pytest.raises(InvalidArgument, match="percolator_id: this stored query has no webhook"):
        await station.control.queue(TENANT, "p1", None)
    with pytest.raises(NotFound):
        await station.control.queue(TENANT, "p2", None)


async def test_a_webhook_that_comes_later_gets_later_matches(station: Station) -> None:
    """A stored query that is given a webhook has what was matched before left out."""
    await station.store("p1", url="")
    station.start()
    await station.match("p1", 1, 2)
    await station.store("p1")
    ids = await station.match("p1", 3)
    await until(lambda: station.receiver.calls)
    assert ids == station.receiver.match_ids


async def test_a_stored_query_that_is_heard_of_later_is_waited_for(station: Station) -> None:
    """A replica that hears of the match before it hears of the stored query delivers it when it does."""
    await station.store("p1")
    known = station.queries.kept.pop("p1")
    station.start()
    ids = await station.match("p1", 1)
    _, deliverer, _ = station.running[0]
    await until(lambda: deliverer._lanes)
    station.queries.kept["p1"] = known
    await until(lambda: station.receiver.calls)
    assert ids == station.receiver.match_ids


async def test_deleted_matches_are_left_out(station: Station) -> None:
    """A match that was deleted before its call is not sent, also among dead letters."""
    station.receiver.answers = [400] * 4
    await station.store("p1")
    await station.match("p1", 1, 2, 3)
    await station.matches.remove_one(TENANT, "p1-m2")
    station.start()
    await station.until("p1", dead_letters=2)
    assert {("p1-m1", "p1-m3")} == {tuple(call.match_ids) for call in station.receiver.calls}
    await station.matches.remove_one(TENANT, "p1-m1")
    assert 2 == await station.control.queue(TENANT, "p1", None)
    await station.until("p1", dead_letters=0)
    assert ["p1-m3"] == station.receiver.calls[-1].match_ids


async def test_a_removed_stored_query_sends_nothing(station: Station) -> None:
    """Its queue is dropped with its dead letters, and a call that was to be tried again is not made."""
    station.settings |= {"backoff_first_s": 0.5, "backoff_max_s": 0.5}
    station.receiver.answers = [500] * 100
    await station.store("p1")
    station.start()
    await station.match("p1", 1)
    await station.until("p1", state=RETRYING)
    made = len(station.receiver.calls)
    del station.queries.kept["p1"]
    await station.control.forget(TENANT, "p1")
    _, deliverer, _ = station.running[0]
    await until(lambda: not deliverer._lanes)
    assert (made, None) == (len(station.receiver.calls), await station.records.read(TENANT, "p1"))


async def test_a_namespace_is_forgotten(station: Station) -> None:
    """Records and dead letters of a namespace go with it."""
    station.settings["attempts_max"] = 1
    station.receiver.answers = [500]
    await station.store("p1")
    station.start()
    await station.match("p1", 1)
    await station.until("p1", dead_letters=1)
    await station.control.forget_all(TENANT)
    assert (None, 0) == (await station.records.read(TENANT, "p1"), await station.records.count_buried(TENANT, "p1"))


async def test_new_vectors_leave_deliveries_as_they_are(station: Station) -> None:
    """A record that comes back without its secret, as after embedding anew, keeps the secret and the state."""
    station.receiver.answers = [410]
    await station.store("p1")
    station.start()
    await station.match("p1", 1)
    await station.until("p1", state=GONE)
    again = type(station.queries.kept["p1"])()
    again.CopyFrom(station.queries.kept["p1"])
    again.delivery_secret = ""
    again.stored_query.delivery.CopyFrom(await station.status("p1"))
    again.stored_query.delivery.webhook_url = station.receiver.url()
    await station.control.prepare(again)
    assert station.queries.kept["p1"] == again
    await station.until("p1", state=GONE)


@pytest.mark.parametrize("moment", ["in a call", "in a backoff", "before any call"])
async def test_nothing_is_lost_when_the_replica_is_killed(station: Station, moment: str) -> None:
    """A new replica goes on where the record says: every match arrives, in order, the first ones perhaps twice."""
    station.settings |= {"call_seconds_max": 10, "backoff_first_s": 30, "backoff_max_s": 30}
    await station.store("p1")
    station.start()
    ids = await station.match("p1", 0)
    await until(lambda: station.receiver.calls)
    await station.until("p1", state=ACTIVE, last_error="")
    if moment == "in a backoff":
        station.receiver.answers = [500]
    if moment == "in a call":
        station.receiver.open.clear()
    if moment != "before any call":
        ids += await station.match("p1", 1)
        await until(lambda: len(station.receiver.calls) == 2)
    if moment == "in a backoff":
        await station.until("p1", state=RETRYING)
    await station.kill()
    station.receiver.open.set()
    ids += await station.match("p1", *range(2, 5))
    station.start()
    await until(lambda: set(ids) <= set(station.receiver.match_ids))
    assert ids == list(dict.fromkeys(station.receiver.match_ids))
    assert len(station.receiver.match_ids) <= len(ids) + 1


async def test_a_new_owner_goes_on(station: Station) -> None:
    """When a stored query changes its owner, the new one sends what the old one has not, and it alone."""
    await station.store("p1")
    second = Queries(station.queries.kept, elsewhere={"p1"})
    station.start()
    station.start(second)
    ids = await station.match("p1", 1, 2)
    await until(lambda: set(ids) <= set(station.receiver.match_ids))
    station.queries.elsewhere.add("p1")
    ids += await station.match("p1", 3)
    second.elsewhere.clear()
    ids += await station.match("p1", 4)
    await until(lambda: set(ids) <= set(station.receiver.match_ids))
    assert ids == station.receiver.match_ids


async def test_nothing_is_lost_when_nats_is_killed(station: Station, nats_server: tuple[Process, str]) -> None:
    """A call that was answered while nats-server was away is noted when it is back; what waits goes on."""
    station.settings["call_seconds_max"] = 30
    await station.store("p1")
    station.receiver.open.clear()
    station.start()
    ids = await station.match("p1", *range(5))
    await until(lambda: station.receiver.calls)
    process, _ = nats_server
    process.kill()
    station.receiver.open.set()
    await until(lambda: process.restarts)
    await process.wait_ready()
    await until(lambda: station.bus.client.is_connected)
    ids += await station.match("p1", *range(5, 8))
    await until(lambda: set(ids) <= set(station.receiver.match_ids))
    assert ids == station.receiver.match_ids


async def test_a_start_does_not_look_at_what_is_settled(station: Station) -> None:
    """The checkpoint moves on behind delivered matches, and is held by those that wait unless their record says so."""
    await station.store("p1")
    station.start()
    await station.match("p1", *range(5))
    newest = await station.records.last_sequence()
    async with asyncio.timeout(10):
        while await station.checkpoint() < newest:
            await asyncio.sleep(0.05)


async def test_the_secret_is_not_in_what_is_sent(station: Station) -> None:
    """Neither headers nor body hold the secret."""
    await station.store("p1")
    station.start()
    await station.match("p1", 1)
    await until(lambda: station.receiver.calls)
    sent = json.dumps(station.receiver.calls[0].headers) + station.receiver.calls[0].body.decode()
    assert SECRET.removeprefix("whsec_") not in sent
    assert base64.b64decode(SECRET.removeprefix("whsec_") + "==").hex() not in sent
