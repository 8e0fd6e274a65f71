"""Records that are sent twice, or that no schema fits: each has one outcome, in the transaction of its poll."""

from __future__ import annotations

import time
from contextlib import closing

import pytest
from kafka import KafkaProducer
from kafka.errors import InvalidTimestampError

from streamlstm.core.log import NewRecord
from streamlstm.core.record import decode_score
from streamlstm.core.scorer import Scorer
from tests import builders
from tests.end_to_end import kafka_runs
from tests.end_to_end.kafka_runs import TIMEOUT_S, Stream, assert_exactly_once


def test_record_that_its_producer_sent_twice_counts_once(stream: Stream) -> None:
    """A retry of a producer without idempotence: the second is a dead letter, and changes no score."""
    plain = builders.make_feed(100, "abcd", partitions=stream.partitions)
    once = [NewRecord(None, record.value, (), record.partition) for record in plain]
    stream.append([record for record in once for _ in range(2)])
    stream.score_here(poll_records=7)
    assert_exactly_once(stream)
    scores, _, dead_letters = stream.outputs
    assert [dict(r.headers)["reason"] for r in stream.read(dead_letters)] == [b"duplicate"] * len(once)
    said_once = builders.run_polls(Scorer(stream.bundle), [plain]).scores
    assert sorted(map(said, stream.read(scores))) == sorted(map(said, said_once))


def said(score: object) -> tuple[str, int, float]:
    """Return what a score says, without its offset: duplicates take up offsets."""
    record = decode_score(score.value)  # type: ignore[attr-defined]
    return record.key, record.time_ms, record.score or -1.0


def test_poison_records_become_dead_letters_as_they_were(stream: Stream) -> None:
    """No value, no key, bytes that are no JSON, a header without a value: nothing stops the scorer for ever."""
    confluent_kafka = pytest.importorskip("confluent_kafka", reason="kafka-python refuses to send such records")
    stream.append(kafka_runs.feed(5))
    poison: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]] = [
        (b"a0", None, []),
        (None, None, [("absent", None), ("absent", b"")]),
        (b"\xff\xfe", b"\x00\xff{", [("absent", None), ("é", b"\xff")]),
        (b"", b"[]", []),
    ]
    producer = confluent_kafka.Producer({"bootstrap.servers": stream.broker.bootstrap})
    for key, value, headers in poison:
        producer.produce(stream.topic, value, key, 1, headers=headers)
    assert producer.flush(30) == 0
    stream.append(kafka_runs.feed(10)[len(kafka_runs.feed(5)) :])
    stream.score_here()
    assert_exactly_once(stream)
    found = [(r.key, r.value, tuple(r.headers[6:])) for r in stream.read(stream.outputs[2]) if r.partition == 1]
    for key, value, headers in poison:
        assert (key, value or b"", kafka_runs.without_none(headers)) in found


def test_broker_refuses_a_record_from_the_future(stream: Stream) -> None:
    """The producer sets a record's timestamp, by which the future is judged: Kafka 4 lets it lie an hour ahead only."""
    with closing(KafkaProducer(bootstrap_servers=stream.broker.bootstrap.split(","))) as producer:
        far_ms = int(time.time() * 1000) + 10 * 86_400_000
        with pytest.raises(InvalidTimestampError):
            producer.send(stream.topic, b"{}", timestamp_ms=far_ms).get(TIMEOUT_S)
