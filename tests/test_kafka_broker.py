"""The brokers that tests of Kafka stand on: they answer, keep what they took, and leave nothing behind."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaTimeoutError, RequestTimedOutError, TopicAuthorizationFailedError
from kafka.net.compat import KafkaNetClient

from tests.kafka_broker import Broker, Cluster, Container, Given, NoBroker, SecureCluster, find_broker

ROOT = Path(__file__).parents[1]
OWNER = """
import sys
from pathlib import Path
from tests.kafka_broker import Leash
leash = Leash(Path(sys.argv[1]))
leash.spawn(["sleep", "60"], sys.stdout)
print("ready", flush=True)
sys.stdin.read()
"""


def write(settings: dict[str, Any], topic: str, *values: bytes) -> None:
    """Append records, each acknowledged."""
    with contextlib.closing(KafkaProducer(**settings)) as producer:
        for value in values:
            producer.send(topic, value).get(30)


def read(settings: dict[str, Any], topic: str) -> list[bytes]:
    """Return the values in a topic of one partition."""
    partition = TopicPartition(topic, 0)
    consumer = KafkaConsumer(**settings, enable_auto_commit=False, auto_offset_reset="earliest")
    with contextlib.closing(consumer):
        consumer.assign([partition])
        end = consumer.end_offsets([partition])[partition]
        values: list[bytes] = []
        while consumer.position(partition) < end:
            values += [record.value for records in consumer.poll(200).values() for record in records]
        return values


def test_record_comes_back(kafka: Broker) -> None:
    """Whatever broker it is."""
    settings = {"bootstrap_servers": kafka.bootstrap}
    topic = kafka.new_topic(retention_ms=60_000)
    write(settings, topic, b"a", b"b")
    assert read(settings, topic) == [b"a", b"b"]


def test_killed_node_comes_back_with_its_records(kafka_node: Cluster) -> None:
    """SIGKILL, then the same ports and data."""
    settings = {"bootstrap_servers": kafka_node.bootstrap}
    topic = kafka_node.new_topic()
    write(settings, topic, b"before")
    kafka_node.kill()
    kafka_node.start()
    write(settings, topic, b"after")
    assert read(settings, topic) == [b"before", b"after"]


def test_paused_node_hangs_until_it_is_resumed(kafka_node: Cluster) -> None:
    """It is there, and does not answer."""
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=kafka_node.bootstrap, request_timeout_ms=500)) as admin:
        assert admin.describe_cluster()
        kafka_node.pause()
        with pytest.raises(RequestTimedOutError):
            admin.describe_cluster()
        kafka_node.resume()
        assert admin.describe_cluster()


def test_three_nodes_take_writes_with_one_killed(kafka_nodes: Cluster) -> None:
    """The killed one leads a part, so that another has to take over."""
    settings = {"bootstrap_servers": kafka_nodes.bootstrap}
    topic = kafka_nodes.new_topic()
    write(settings, topic, b"before")
    with contextlib.closing(kafka_nodes.admin()) as admin:
        leader = admin.describe_topics([topic])[0]["partitions"][0]["leader_id"]
    kafka_nodes.kill(leader)
    write(settings, topic, b"after")
    assert read(settings, topic) == [b"before", b"after"]


@pytest.mark.parametrize("mechanism", [*SecureCluster.MECHANISMS, "certificate"])
def test_user_may_do_what_is_allowed_and_nothing_else(secure_kafka: SecureCluster, mechanism: str) -> None:
    """However the user logs in."""
    settings = secure_kafka.tls("alice") if mechanism == "certificate" else secure_kafka.sasl("alice", mechanism)
    topic = secure_kafka.new_topic()
    with pytest.raises(TopicAuthorizationFailedError):
        write(settings, topic, b"a")
    secure_kafka.allow("alice", "TOPIC", topic, "WRITE", "READ")
    write(settings, topic, b"a")
    assert read(settings, topic) == [b"a"]
    secure_kafka.revoke("alice")
    with pytest.raises(TopicAuthorizationFailedError):
        write(settings, topic, b"a")


@pytest.mark.parametrize("wrong", [{"sasl_plain_password": "wrong"}, {"ssl_cafile": None}], ids=str)
def test_nobody_comes_in_with_a_wrong_password_or_without_the_authority(
    secure_kafka: SecureCluster, wrong: dict[str, Any]
) -> None:
    """kafka-python tries again until its time-out, and leaves its thread to whoever holds its client."""
    clients: list[KafkaNetClient] = []

    def client(**settings: Any) -> KafkaNetClient:
        clients.append(KafkaNetClient(**settings))
        return clients[-1]

    with pytest.raises(KafkaTimeoutError):
        KafkaAdminClient(**{**secure_kafka.sasl("alice"), **wrong}, bootstrap_timeout_ms=500, kafka_client=client)
    clients[0].close()
    clients[0]._manager._net.stop()


def test_what_is_on_a_leash_ends_with_a_killed_process(tmp_path: Path) -> None:
    """The processes, which hold the owner's output open, and the directory."""
    directory = tmp_path / "kafka"
    directory.mkdir()
    command = [sys.executable, "-c", OWNER, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"ready\n"
        owner.kill()
        owner.communicate(timeout=10)
    assert not directory.exists()


def test_a_given_broker_comes_first(tmp_path: Path) -> None:
    """It is used as it is; a test that kills needs its own."""
    environ = {"KAFKA_BOOTSTRAP": "kafka.example:9092", "KAFKA_HOME": str(tmp_path)}
    broker = find_broker(environ=environ)
    assert isinstance(broker, Given)
    assert broker.bootstrap == "kafka.example:9092"
    with pytest.raises(NoBroker, match="no Kafka in"):
        find_broker(own=Cluster, environ=environ)


def test_absent_broker_is_one_line_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was looked for, and what would help."""
    monkeypatch.setattr(Container, "__init__", lambda container: (_ for _ in ()).throw(NoBroker("no Docker")))
    with pytest.raises(NoBroker) as missing:
        find_broker(environ={"KAFKA_HOME": str(tmp_path)})
    assert str(missing.value) == (
        f"no Kafka broker for this test (KAFKA_BOOTSTRAP is not set; no Kafka in {tmp_path}/libs; no Docker): "
        "set KAFKA_BOOTSTRAP=host:port, or KAFKA_HOME to an unpacked Kafka 4, with Java 17 on PATH, "
        "or start Docker and install testcontainers"
    )
