"""A scorer that was away while others took its partitions: nothing of its late commit is kept."""

from __future__ import annotations

import re
import signal
import time
from contextlib import closing

import pytest

from streamlstm.adapters.kafka.client import Committed
from streamlstm.adapters.kafka.config import KafkaConfig
from streamlstm.adapters.kafka.python_client import PythonTransactions
from streamlstm.core.log import Record
from tests.end_to_end import kafka_runs
from tests.end_to_end.kafka_process import Fault
from tests.end_to_end.kafka_runs import CONFLUENT, LONG, Fleet, Stream, assert_exactly_once

REFUSED = "UnknownMemberId" if CONFLUENT else "CommitFailed"  # as each client says it


@pytest.mark.parametrize("woken", ["in the middle", "at the end"] if LONG else ["in the middle"])
def test_zombie_stopped_past_the_session_timeout_is_refused_and_comes_back(
    stream: Stream, fleet: Fleet, woken: str
) -> None:
    """Stopped in a poll it has not committed; another one scores the same records and more; then it wakes."""
    records = kafka_runs.feed(120)
    first = len(records) if woken == "in the middle" else 700
    stream.append(records[:first])
    zombie = fleet.start("one", fault=Fault("begin", 4, signal.SIGSTOP))
    fleet.wait_until(lambda: zombie.stopped)
    before = fleet.done
    fleet.start("two", poll_records=20)
    fleet.wait_for(before + 100 if woken == "in the middle" else first)
    zombie.send(signal.SIGCONT)
    fleet.wait_until(lambda: REFUSED in zombie.output)
    fleet.wait_until(lambda: zombie.output.count("partitions ") > 1)  # it has joined again
    stream.append(records[first:])
    fleet.wait_for(len(records))
    fleet.stop_all()
    assert_exactly_once(stream)


def test_zombie_that_wakes_before_its_transaction_times_out_may_commit_it(stream: Stream, fleet: Fleet) -> None:
    """Its positions are in the transaction: the new owner waits for them to be stable, and goes on after them."""
    records = kafka_runs.feed(60)
    stream.append(records)
    zombie = fleet.start("one", fault=Fault("offsets", 4, signal.SIGSTOP))
    fleet.wait_until(lambda: zombie.stopped)
    before = fleet.done
    other = fleet.start("two")
    fleet.wait_until(lambda: bool(other.partitions))
    assert fleet.done == before
    zombie.send(signal.SIGCONT)
    fleet.wait_for(len(records))
    fleet.stop_all()
    assert_exactly_once(stream)


def test_claims_that_the_group_went_on_without_are_taken_up_anew(stream: Stream) -> None:
    """A member that was dropped while it joined has its partitions again, and is not told that others read them."""
    stream.append(kafka_runs.feed(20))
    with (
        closing(stream.log("one")) as log,
        closing(log.open_session(stream.topic, stream.group)) as session,
        closing(PythonTransactions(KafkaConfig((stream.broker.bootstrap,)), "other", stream.topic)) as other,
    ):
        until_s = time.monotonic() + kafka_runs.TIMEOUT_S
        while len(session.claims()) < stream.partitions and time.monotonic() < until_s:
            session.poll(1, 0.1)
        before = dict(session.claims())
        other.begin({})
        other.send_offsets({0: Committed(3, "0")}, stream.group_id)
        other.commit()
        session._member._consumer._coordinator.request_rejoin()  # type: ignore[attr-defined]
        records: list[Record] = []
        while session.claims().get(0) in (before[0], None) and time.monotonic() < until_s:
            records = [*session.poll(1, 0.1)]
        after = dict(session.claims())
        assert after[0] > before[0]
        assert {**after, 0: 0} == {**before, 0: 0}
        assert all(record.partition != 0 for record in records)
        while not any(record.partition == 0 for record in records) and time.monotonic() < until_s:
            records = [*session.poll(10, 0.1)]
        assert next(record.offset for record in records if record.partition == 0) == 3


def test_scorer_slower_than_the_poll_interval_is_refused_and_comes_back(stream: Stream, fleet: Fleet) -> None:
    """Its generation turns into -1, with which a broker takes any commit: it must not be offered to it."""
    records = kafka_runs.feed(60)
    stream.append(records)
    gate = fleet.gate()
    slow = fleet.start("one", fault=Fault("begin", 4, gate), config={"max_poll_interval_ms": 1_000})
    fleet.wait_until(lambda: gate.reached)
    fleet.start("two")
    fleet.wait_for(len(records))
    gate.open()
    fleet.wait_until(lambda: REFUSED in slow.output)
    fleet.wait_until(lambda: bool(slow.partitions))
    fleet.stop_all()
    assert_exactly_once(stream)


def test_second_process_of_an_instance_takes_the_first_ones_place(stream: Stream, fleet: Fleet) -> None:
    """As a supervisor does that takes a stopped process for dead: the first one says so and ends."""
    records = kafka_runs.feed(60)
    stream.append(records)
    zombie = fleet.start("one", fault=Fault("states", 4, signal.SIGSTOP))
    fleet.wait_until(lambda: zombie.stopped)
    second = fleet.start("one")
    assert fleet.wait_for(len(records)) < 30
    zombie.send(signal.SIGCONT)
    assert zombie.wait() == 1
    said = zombie.output.splitlines()[-1]
    assert "Another process runs as this --instance" in said
    assert re.search(r"The place in group '.*' has one-\S+ at \S+, not one-\S+$", said)
    assert second.alive
    fleet.stop_all()
    assert_exactly_once(stream)


@pytest.mark.parametrize("step", ["scores", "offsets"] if LONG else ["offsets"])
def test_transaction_that_lasts_too_long_is_ended_and_begun_anew(stream: Stream, fleet: Fleet, step: str) -> None:
    """The process was held up with its transaction open, but not for so long that it lost its partitions."""
    records = kafka_runs.feed(60)
    stream.append(records)
    gate = fleet.gate()
    scorer = fleet.start(fault=Fault(step, 4, gate), config={"session_timeout_ms": 30_000})
    fleet.wait_until(lambda: gate.reached)
    before = fleet.done
    fleet.wait_until(lambda: not stream.hidden(stream.outputs[0]))
    gate.open()
    fleet.wait_for(len(records), 40)
    assert before < len(records)
    assert "restored" in scorer.output.partition("out of reach")[2]
    assert scorer.alive
    fleet.stop_all()
    assert_exactly_once(stream)
