"""Killed at any moment and started again, the scorer leaves on Kafka what an undisturbed one would, bit for bit.

Two hundred kills at random moments: ``TEST_CRASH_ROUNDS=20 pytest tests/end_to_end/test_kafka_crash.py -k random``.
With ``TEST_LONG=1``, these and the other tests on Kafka take more cases; with ``TEST_CONFLUENT=1``, confluent-kafka.
"""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from streamlstm.core.log import NewRecord
from streamlstm.core.record import decode_alert, decode_score
from tests.end_to_end import kafka_runs
from tests.end_to_end.kafka_process import Fault
from tests.end_to_end.kafka_runs import LONG, Fleet, Stream, assert_exactly_once

STEPS = ("begin", "scores", "alerts", "dead_letters", "states", "offsets", "end")
ROUNDS = int(os.environ.get("TEST_CRASH_ROUNDS", "1"))
KILLS = 10  # in each round


def test_plain_run_tells_everything_that_can_happen(stream: Stream) -> None:
    """The feed of these tests opens, updates and resolves alerts, and has every kind of bad record, everywhere."""
    stream.append(kafka_runs.feed())
    plain, _ = kafka_runs.plain_run(stream.read(stream.topic), stream.bundle)
    alerts = [decode_alert(output.value) for output in plain.alerts]
    everywhere = set(range(stream.partitions))
    assert {alert.action for alert in alerts} == {"opened", "updated", "resolved"}
    assert {alert.reason for alert in alerts} >= {None, "calm", "silence"}
    assert {alert.partition for alert in alerts} == everywhere
    reasons = {(dict(output.headers)["reason"], output.partition) for output in plain.dead_letters}
    assert reasons == {(r, p) for r in (b"malformed", b"invalid", b"duplicate", b"late") for p in everywhere}
    assert {decode_score(output.value).status for output in plain.scores} == {"scored", "warming_up"}


@pytest.mark.parametrize("harm", ["double", "foreign state", "reset", "lose"])
def test_oracle_notices(stream: Stream, harm: str) -> None:
    """A record doubled, a state changed, a position moved, or a record not scored: the oracle says no."""
    stream.append(kafka_runs.feed(20))
    stream.score_here()
    assert_exactly_once(stream)
    scores = stream.outputs[0]
    if harm == "double":
        last = stream.read(scores)[-1]
        stream.append_to(scores, [NewRecord(last.key, last.value, (), last.partition)])
    elif harm == "foreign state":
        last = stream.read(stream.changelog)[-1]
        changed = last.value[:-1] + bytes([last.value[-1] ^ 1])
        stream.append_to(stream.changelog, [NewRecord(last.key, changed, (), last.partition)])
    elif harm == "reset":
        stream.reset_offsets({0: 1})
    else:
        stream.append([NewRecord(None, b"not scored", (), 0)])
    with pytest.raises(AssertionError):
        assert_exactly_once(stream)


@pytest.mark.parametrize("step", STEPS)
def test_kill_at_a_step_of_the_commit_loses_and_doubles_nothing(stream: Stream, fleet: Fleet, step: str) -> None:
    """SIGKILL between any two steps: the next start takes the poll again, or goes on after it."""
    records = kafka_runs.feed(100)
    stream.append(records)
    assert fleet.start(fault=Fault(step, 9, signal.SIGKILL), until_end=True).wait() == -signal.SIGKILL
    fleet.wait_for(1)
    assert fleet.done < len(records)
    assert bool(stream.hidden(stream.outputs[0])) == (step not in ("begin", "end")), "what was sent is at the broker"
    assert fleet.start(until_end=True, poll_records=70).wait() == 0
    assert_exactly_once(stream)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_kill_at_random_moments_loses_and_doubles_nothing(stream: Stream, fleet: Fleet, seed: int) -> None:
    """SIGKILL again and again to one of two scorers, each time with another poll size; TEST_CRASH_ROUNDS for more."""
    chance = random.Random(seed)
    records = kafka_runs.feed()
    stream.append(records)
    running = {}

    def start(instance: str) -> None:
        running[instance] = fleet.start(instance, poll_records=chance.randrange(2, 12))

    start("one")
    start("two")
    for _ in range(KILLS):
        fleet.wait_for(fleet.done + chance.randrange(100))
        time.sleep(chance.random() / 20)
        victim = chance.choice(sorted(running))
        assert running[victim].kill() == -signal.SIGKILL
        start(victim)
    assert fleet.done < len(records), "there was nothing to kill"
    fleet.wait_for(len(records))
    fleet.stop_all()
    assert_exactly_once(stream)


@pytest.mark.parametrize("step", ["states", "offsets"] if LONG else ["offsets"])
def test_transaction_of_a_dead_process_is_waited_for_by_another_instance(
    stream: Stream, fleet: Fleet, step: str
) -> None:
    """Killed with its transaction open, and never started again: another one takes over after the time-outs."""
    records = kafka_runs.feed(60)
    stream.append(records)
    assert fleet.start("one", fault=Fault(step, 4, signal.SIGKILL)).wait() == -signal.SIGKILL
    assert stream.hidden(stream.changelog)
    before = fleet.done
    fleet.start("two")
    waited_s = fleet.wait_for(before + 1)
    assert 5 < waited_s < 30, "the transaction was open until its time-out"
    fleet.wait_for(len(records))
    fleet.stop_all()
    assert_exactly_once(stream)
