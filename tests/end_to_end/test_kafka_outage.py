"""A broker that goes away under load: the scorer waits and goes on, or gives up and says so."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack

import pytest

from streamlstm.adapters.kafka.config import KafkaConfig
from streamlstm.adapters.kafka.python_member import LONGEST_PAUSE_S, PythonMember
from tests.end_to_end import kafka_runs
from tests.end_to_end.kafka_process import Fault
from tests.end_to_end.kafka_runs import LONG, Fleet, Stream, assert_exactly_once
from tests.kafka_broker import Cluster

GIVE_UP_AFTER_S = 3.0
REASONABLE_S = 40.0
STOP_S = 30.0  # as README says


@pytest.mark.parametrize("away_s", [0, 4, 6, 8, 10, 12, 35] if LONG else [12])
@pytest.mark.parametrize("confluent", [False, True])
def test_broker_killed_under_load_comes_back_and_scoring_goes_on(
    stream: Stream, fleet: Fleet, kafka_node: Cluster, away_s: float, confluent: bool
) -> None:
    """Killed (-9) in the middle, for longer than a transaction or a session may last too: two scorers wait, and resume.

    librdkafka takes itself for displaced then; but nobody has its place in the group, so that it joins anew.
    """
    records = kafka_runs.feed(120)
    stream.append(records)
    scorers = [fleet.start(name, poll_records=10, confluent=confluent) for name in ("one", "two")]
    fleet.wait_for(200)
    kafka_node.kill()
    assert fleet.done < len(records)
    time.sleep(away_s)
    kafka_node.start()
    fleet.wait_for(len(records))
    assert all(scorer.alive for scorer in scorers)
    fleet.stop_all()
    assert_exactly_once(stream)


@pytest.mark.parametrize("hung_s", [12, 35] if LONG else [12])
def test_broker_that_hangs_under_load_comes_back_and_scoring_goes_on(
    stream: Stream, fleet: Fleet, kafka_node: Cluster, hung_s: float
) -> None:
    """Its connections stay open, and nothing answers for longer than a transaction or a request may last."""
    records = kafka_runs.feed(120)
    stream.append(records)
    scorers = [fleet.start(name, poll_records=10) for name in ("one", "two")]
    fleet.wait_for(200)
    kafka_node.pause()
    time.sleep(hung_s)
    kafka_node.resume()
    assert fleet.done < len(records)
    fleet.wait_for(len(records))
    assert all(scorer.alive for scorer in scorers)
    fleet.stop_all()
    assert_exactly_once(stream)


def test_poll_of_a_broker_that_hangs_waits_for_it(
    stream: Stream, kafka_node: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a heartbeat unanswered, kafka-python would ask thousands of times, and keep every one in memory."""
    config = KafkaConfig((kafka_node.bootstrap,), session_timeout_ms=kafka_runs.SESSION_TIMEOUT_MS)
    asked = 0
    with ExitStack() as stack:
        member = PythonMember(config, "waits", stream.topic)
        stack.callback(member.close, leave=False)
        while member.membership() is None:
            member.poll(10, 0.3)
        for partition in member.changes().given:
            member.resume(partition)
        fetcher = member._consumer._fetcher
        original = fetcher.fetch_records

        def fetch_records(*args: object, **options: object) -> object:
            nonlocal asked
            asked += 1
            return original(*args, **options)

        kafka_node.pause()
        stack.callback(kafka_node.resume)
        monkeypatch.setattr(fetcher, "fetch_records", fetch_records)
        member.poll(10, 3.0)
    assert 3.0 / LONGEST_PAUSE_S / 2 < asked < 200


def test_scorer_stopped_while_the_broker_hangs_ends(stream: Stream, fleet: Fleet, kafka_node: Cluster) -> None:
    """It says that it leaves without notice, and nothing is lost."""
    records = kafka_runs.feed(30)
    stream.append(records)
    scorer = fleet.start()
    fleet.wait_for(len(records))
    kafka_node.pause()
    time.sleep(6.0)  # so that it asks whether the broker is there
    scorer.send(signal.SIGTERM)
    assert scorer.wait(REASONABLE_S) == 0
    kafka_node.resume()
    assert fleet.start(until_end=True).wait() == 0
    assert_exactly_once(stream)


@pytest.mark.parametrize(("outage", "step"), [("kill", "states"), ("pause", "offsets")])
def test_scorer_stopped_within_a_commit_ends(
    stream: Stream, fleet: Fleet, kafka_node: Cluster, outage: str, step: str
) -> None:
    """An answer that does not come is waited for as long as a transaction may be open, not as long as an outage."""
    records = kafka_runs.feed(60)
    stream.append(records)
    gate = fleet.gate()
    scorer = fleet.start(fault=Fault(step, 4, gate))
    fleet.wait_until(lambda: gate.reached)
    getattr(kafka_node, outage)()
    gate.open()
    scorer.send(signal.SIGTERM)
    assert scorer.wait(STOP_S) == 0
    (kafka_node.start if outage == "kill" else kafka_node.resume)()
    assert fleet.start(until_end=True).wait() == 0
    assert_exactly_once(stream)


def test_idle_scorer_gives_up_on_a_broker_that_stays_away(stream: Stream, fleet: Fleet, kafka_node: Cluster) -> None:
    """A poll of an idle topic looks as always; the scorer asks, waits, and ends with a sentence."""
    records = kafka_runs.feed(10)
    stream.append(records)
    scorer = fleet.start(give_up_after_s=GIVE_UP_AFTER_S)
    fleet.wait_for(len(records))
    kafka_node.kill()
    assert scorer.wait(REASONABLE_S) == 1
    assert "log out of reach, waiting" in scorer.output
    sentence = scorer.output.splitlines()[-1]
    assert sentence.startswith(f"streamlstm: kafka://{kafka_node.bootstrap}: could not reach topic")
    assert "Traceback" not in scorer.output
    kafka_node.start()
    assert fleet.start(until_end=True).wait() == 0
    assert_exactly_once(stream)


def test_scorer_stuck_in_a_commit_is_ended_and_starts_again(stream: Stream, fleet: Fleet, kafka_node: Cluster) -> None:
    """The client would wait for ever; the watchdog ends the process with status 70."""
    records = kafka_runs.feed(60)
    stream.append(records)
    gate = fleet.gate()
    scorer = fleet.start(fault=Fault("states", 4, gate), give_up_after_s=GIVE_UP_AFTER_S)
    fleet.wait_until(lambda: gate.reached)
    kafka_node.kill()
    gate.open()
    assert scorer.wait(REASONABLE_S) == 70
    assert "stuck, ending the process" in scorer.output.splitlines()[-1]
    kafka_node.start()
    assert fleet.start(until_end=True).wait() == 0
    assert_exactly_once(stream)


def test_scorer_started_without_a_broker_gives_up(stream: Stream, fleet: Fleet, kafka_node: Cluster) -> None:
    """It waits for one to come, then ends with a sentence."""
    kafka_node.kill()
    scorer = fleet.start(give_up_after_s=GIVE_UP_AFTER_S)
    assert scorer.wait(REASONABLE_S) == 1
    assert scorer.output.splitlines()[-1].startswith(f"streamlstm: kafka://{kafka_node.bootstrap}: could not")
