"""The alerter on Kafka: killed at any moment, or one of two; every alert arrives, in order per key."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable, Sequence

import pytest

from streamlstm.core.log import NewRecord
from streamlstm.core.record import AlertRecord, decode_alert, encode
from tests.alerts import make_alerts
from tests.end_to_end.kafka_process import alert
from tests.end_to_end.kafka_runs import Fleet, Running, Stream
from tests.receiver import Answer, Receiver, Request

KEYS = ("a", "b", "c", "d", "e")


@pytest.fixture
def made(stream: Stream) -> list[AlertRecord]:
    """Alerts of five keys in four partitions, in the topic."""
    made = make_alerts(200, KEYS, partitions=stream.partitions)
    append(stream, made)
    return made


def append(stream: Stream, alerts: Sequence[AlertRecord]) -> None:
    """Append to the alerts topic."""
    records = [NewRecord(alert.key.encode(), encode(alert), (), alert.partition) for alert in alerts]
    stream.append_to(stream.outputs[1], records)


def start(fleet: Fleet, receiver: Receiver, instance: str, **settings: object) -> Running:
    """Start an alerter."""
    given = {"log": "kafka://", "webhook": receiver.url, "topic": fleet.stream.topic, "window": 32, **settings}
    return fleet.start(instance, target=alert, **given)


def by_key(alerts: Iterable[AlertRecord]) -> dict[str, list[int]]:
    """Return the offsets per key, in order; they count up."""
    found: dict[str, list[int]] = {}
    for one in alerts:
        found.setdefault(one.key, []).append(one.offset)
    return found


def received(requests: Sequence[Request]) -> dict[str, list[int]]:
    """Return the offsets per key, in the order in which each came first."""
    first = {request.headers["Idempotency-Key"]: json.loads(request.body)["alert"] for request in reversed(requests)}
    found: dict[str, list[int]] = {}
    for one in reversed(first.values()):
        found.setdefault(one["key"], []).append(one["offset"])
    return found


def test_alerter_killed_at_any_moment_loses_none_and_keeps_the_order(
    stream: Stream, fleet: Fleet, made: list[AlertRecord]
) -> None:
    """Killed six times, before and after answers; what is refused becomes a dead letter, exactly once."""
    running: list[Running] = []
    kill_before_answer, kill_after_answer = {1, 50, 110}, {2, 80, 160}

    def answer(request: Request) -> Answer:
        if request.number in kill_before_answer:
            running[-1].send(signal.SIGKILL)
        return Answer(400 if json.loads(request.body)["alert"]["key"] == "c" else 200)

    def answered(request: Request) -> None:
        if request.number in kill_after_answer:
            running[-1].send(signal.SIGKILL)

    with Receiver(answer) as receiver:
        receiver.answered = answered
        statuses: list[int] = []
        while not statuses or (statuses[-1] == -signal.SIGKILL and len(statuses) < 20):
            running.append(start(fleet, receiver, "one", until_end=True))
            statuses.append(running[-1].wait())
    assert statuses == [-signal.SIGKILL] * 6 + [0]
    assert received(receiver.requests) == by_key(made)
    assert len(receiver.requests) <= len(made) + 6 * 32, "a few are sent again, not all"
    letters = [decode_alert(r.value) for r in stream.read(f"{stream.outputs[1]}.dead-letters")]
    assert by_key(letters) == {"c": by_key(made)["c"]}


def test_two_alerters_share_the_partitions_and_one_takes_over_when_the_other_dies(
    stream: Stream, fleet: Fleet, made: list[AlertRecord]
) -> None:
    """Killed in the middle and never started again: the other one sends what the dead one had not committed."""
    victim: list[Running] = []

    def answer(request: Request) -> Answer:
        if len(victim) == 1:
            victim.append(victim[0])
            victim[0].send(signal.SIGKILL)
        return Answer()

    with Receiver(answer) as receiver:
        one, two = (start(fleet, receiver, instance) for instance in ("one", "two"))
        fleet.wait_until(lambda: bool(one.partitions) and bool(two.partitions))
        victim.append(two)
        more = make_alerts(400, KEYS, partitions=stream.partitions)[len(made) :]
        append(stream, more)
        fleet.wait_until(lambda: received(receiver.requests) == by_key(made + more))
        assert not two.alive
        fleet.wait_until(lambda: one.partitions == set(range(stream.partitions)))
        one.send(signal.SIGTERM)
        assert one.wait() == 0
    assert sum(at for at, _ in stream.committed(stream.outputs[1]).values()) == 400
