"""Three brokers, and those that coordinate the group and the transactions are killed under load."""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path

import pytest

from tests import builders
from tests.end_to_end import kafka_runs
from tests.end_to_end.kafka_runs import Fleet, Stream, assert_exactly_once, load
from tests.kafka_broker import Cluster


def coordinator(nodes: Cluster, topic: str, name: str) -> int:
    """Return the node that leads the partition of Kafka's own ``topic`` in which ``name`` is kept."""
    number = 0
    for character in name:
        number = (31 * number + ord(character)) & 0xFFFFFFFF  # Java's hash of a string
    with closing(nodes.admin()) as admin:
        partitions = admin.describe_topics([topic])[0]["partitions"]
    (leader,) = [p["leader_id"] for p in partitions if p["partition_index"] == (number & 0x7FFFFFFF) % len(partitions)]
    return int(leader)


def test_coordinators_killed_under_load_lose_and_double_nothing(
    kafka_nodes: Cluster, kafka_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """First the group's, then that of a scorer's transactions; the nodes lead partitions, too."""
    caplog.set_level(logging.CRITICAL, "kafka")
    stream = Stream(kafka_nodes, kafka_model, builders.expiring_bundle())
    stream.create()
    records = kafka_runs.feed()
    with Fleet(stream, tmp_path) as fleet:
        with load(stream, records, per_s=80):
            scorers = [fleet.start(name, poll_records=20) for name in ("one", "two")]
            for topic, name in (
                ("__consumer_offsets", stream.group_id),
                ("__transaction_state", f"{stream.group_id}@one"),
            ):
                fleet.wait_for(fleet.done + 100)
                node = coordinator(kafka_nodes, topic, name)
                kafka_nodes.kill(node)
                fleet.wait_for(fleet.done + 100)
                assert fleet.done < len(records), "there was no load any more"
                kafka_nodes.start(node)
        fleet.wait_for(len(records))
        assert all(scorer.alive for scorer in scorers)
        fleet.stop_all()
        assert_exactly_once(stream)
