"""What a scorer on Kafka will not go on with: each is said with topic, partition and offset, and what to do."""

from __future__ import annotations

import time
from contextlib import closing

import msgspec
import pytest
from kafka import KafkaProducer, TopicPartition

from streamlstm.core.log import NewRecord, ScorerSession
from streamlstm.core.record import decode_alert
from streamlstm.errors import BadRecords, BundleError, LogError, OffsetExpired
from tests import builders
from tests.end_to_end import kafka_runs
from tests.end_to_end.kafka_process import Fault
from tests.end_to_end.kafka_runs import Fleet, Stream, assert_exactly_once


def expire(stream: Stream, offsets: dict[int, int]) -> None:
    """Remove what lies before these offsets, as retention does."""
    with closing(stream.broker.admin()) as admin:
        admin.delete_records({TopicPartition(stream.topic, p): offset for p, offset in offsets.items()})


def test_offset_that_retention_removed_while_nobody_scored_stops_the_scorer(stream: Stream) -> None:
    """What was never scored is gone: it must not look as if nothing were missing."""
    stream.append(kafka_runs.feed(20))
    stream.score_here()
    at = stream.committed()[1][0]
    stream.append(kafka_runs.feed(10))
    expire(stream, {1: at + 3})
    with pytest.raises(OffsetExpired, match=rf"topic '{stream.topic}' partition 1: offset {at} was removed.*3 records"):
        stream.score_here()


@pytest.mark.skipif(kafka_runs.CONFLUENT, reason="librdkafka has fetched it all by then")
def test_offset_that_retention_removes_under_a_slow_scorer_stops_it(stream: Stream, fleet: Fleet) -> None:
    """Overtaken while it runs: held in a commit, and what comes next is gone when it polls again."""
    stream.append(kafka_runs.feed(30))
    gate = fleet.gate()
    process = fleet.start(fault=Fault("end", 1, gate))
    fleet.wait_until(lambda: gate.reached)
    kafka_end = {r.partition: r.offset + 1 for r in stream.read(stream.topic)}
    stream.append(kafka_runs.feed(400))  # more than it has fetched
    stream.append([NewRecord(None, 900_000 * b"x", (), p) for p in range(stream.partitions) for _ in range(8)])
    with closing(stream.log()) as log:
        expire(stream, log.cluster.ends(stream.topic, range(stream.partitions)))
    gate.open()
    stream.append(kafka_runs.feed(5))
    assert process.wait() == 1
    assert "removed by retention" in process.output
    assert stream.topic in process.output
    assert kafka_end


def test_topic_deleted_under_a_scorer_ends_it(stream: Stream, fleet: Fleet) -> None:
    """It is not waited for as a broker would be: the broker is there, and says that the topic is not."""
    stream.append(kafka_runs.feed(10))
    process = fleet.start()
    fleet.wait_for(len(kafka_runs.feed(10)))
    with closing(stream.broker.admin()) as admin:
        admin.delete_topics([stream.topic])
    assert process.wait() == 1
    assert f"has no topic '{stream.topic}'" in process.output


def test_topic_made_anew_is_refused(stream: Stream) -> None:
    """The group's positions belong to records that no longer exist."""
    stream.append(kafka_runs.feed(10))
    stream.score_here()
    positions = {partition: at for partition, (at, _) in stream.committed().items()}
    with closing(stream.broker.admin()) as admin:
        admin.delete_topics([stream.topic])
    with closing(stream.log()) as log:
        while log.cluster.exists(stream.topic):
            pass
        log.create_topic(stream.topic, stream.partitions)
    stream.append(kafka_runs.feed(2))
    stream.reset_offsets(positions)
    with pytest.raises(LogError, match=r"partition \d: offset \d+ lies after the end, \d+: was the topic made anew"):
        stream.score_here()


def test_topic_that_grew_is_explained(stream: Stream) -> None:
    """Keys move between partitions, their states do not: somebody has to decide."""
    stream.append(kafka_runs.feed(10))
    stream.score_here()
    with closing(stream.broker.admin()) as admin:
        admin.create_partitions({stream.topic: stream.partitions + 1})
    with pytest.raises(LogError, match="has 4 partitions, not 5"):
        stream.score_here()


def test_topic_that_grows_under_a_scorer_is_explained(stream: Stream, fleet: Fleet) -> None:
    """The scorer ends when the new partition is given to it."""
    stream.append(kafka_runs.feed(10))
    process = fleet.start()
    fleet.wait_for(10)
    with closing(stream.broker.admin()) as admin:
        admin.create_partitions({stream.topic: stream.partitions + 1})
    assert process.wait() == 1
    assert "has grown: its partition 4 has no counterpart" in process.output


def poll_without_waiting(session: ScorerSession) -> None:
    """Poll for a time-out of these tests, and never wait in a poll."""
    until_s = time.monotonic() + kafka_runs.TIMEOUT_S
    while time.monotonic() < until_s:
        session.poll(0, 0.0)
        time.sleep(0.005)


def test_topic_that_grows_is_noticed_although_polls_do_not_wait(stream: Stream) -> None:
    """Each poll ends before the group has answered; a client that then no longer asks would be in no group for ever."""
    with closing(stream.log()) as log, closing(log.open_session(stream.topic, stream.group)) as session:
        while len(session.claims()) < stream.partitions:
            session.poll(0, 0.1)
        with closing(stream.broker.admin()) as admin:
            admin.create_partitions({stream.topic: stream.partitions + 1})
        with pytest.raises(LogError, match="has grown: its partition 4 has no counterpart"):
            poll_without_waiting(session)


def test_positions_set_back_by_an_operator_are_refused(stream: Stream) -> None:
    """The states are of later events: scoring the old ones again with them would be wrong."""
    stream.append(kafka_runs.feed(10))
    stream.score_here()
    stream.reset_offsets({0: 1})
    with pytest.raises(
        LogError, match=r"states.* partition 0 offset \d+: a state after input offset .*Use a new --group"
    ):
        stream.score_here()


def test_foreign_record_among_the_states_is_refused(stream: Stream) -> None:
    """Whatever wrote it, it is no state of ours."""
    stream.append(kafka_runs.feed(5))
    stream.score_here()
    stream.append_to(stream.changelog, [NewRecord(b"a", b"not a state", (), 2)])
    with pytest.raises(LogError, match=rf"'{stream.changelog}' partition 2 offset \d+: no state of this release"):
        stream.score_here()


def test_too_many_bad_records_in_a_row_stop_the_scorer(stream: Stream) -> None:
    """A wrong schema must not turn a night of events into dead letters; what was good before is scored."""
    stream.append(kafka_runs.feed(5))
    stream.score_here()
    stream.append([NewRecord(b"k", b"no json", (), 0)] * 100)
    with pytest.raises(BadRecords, match=rf"topic '{stream.topic}' partition 0 offset \d+: malformed"):
        stream.score_here(max_bad_records=60)
    stream.score_here(max_bad_records=1_000)
    assert_exactly_once(stream)


def test_record_without_value_becomes_a_dead_letter(stream: Stream) -> None:
    """A tombstone in the input is no event, and no end of the world."""
    stream.append(kafka_runs.feed(5))
    stream.append([NewRecord(b"a0", b"", (), 0)])
    with closing(KafkaProducer(bootstrap_servers=stream.broker.bootstrap.split(","), acks="all")) as producer:
        producer.send(stream.topic, None, b"a0", partition=0).get(10)
    stream.score_here()
    assert_exactly_once(stream)


def test_states_of_another_bundle_are_refused_or_reset(stream: Stream) -> None:
    """Refused with the choice explained; with ``reset``, keys start anew and open alerts are resolved."""
    stream.append(kafka_runs.feed(60))
    stream.score_here()
    still_open = {a.id for r in stream.read(stream.outputs[1]) if (a := decode_alert(r.value)).action == "opened"} - {
        a.id for r in stream.read(stream.outputs[1]) if (a := decode_alert(r.value)).action == "resolved"
    }
    other = msgspec.structs.replace(builders.expiring_bundle(), band=stream.bundle.band * 2)
    stream.append(kafka_runs.feed(80)[len(kafka_runs.feed(60)) :])
    stream.bundle, first = other, stream.bundle
    with pytest.raises(BundleError, match=rf"of bundle '{first.name}', not of '{other.name}'.*--on-model-change reset"):
        stream.score_here()
    stream.score_here(on_model_change="reset")
    ended = {
        a.id for r in stream.read(stream.outputs[1]) if (a := decode_alert(r.value)).action == "resolved" and a.reason
    }
    assert still_open <= ended
    assert len(kafka_runs.outcomes(stream, stream.read(*stream.outputs))) == len(stream.read(stream.topic))
