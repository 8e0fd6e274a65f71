"""How kafka-python's transactions go to the broker."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import pytest
from kafka import KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import ConfigResource
from kafka.consumer.group import ConsumerGroupMetadata
from kafka.producer.transaction_manager import TransactionalRequestResult, TransactionManager, TxnOffsetCommitHandler
from rich.console import Console

from streamlstm.adapters.kafka.client import Transactions
from streamlstm.adapters.kafka.config import KafkaConfig
from streamlstm.adapters.kafka.python_client import PythonTransactions
from streamlstm.adapters.kafka.settle import Opener
from streamlstm.errors import LogUnavailable, StreamlstmError
from streamlstm.services import checker
from streamlstm.services.settings import ReceiverSettings
from tests.end_to_end import kafka_runs
from tests.end_to_end.kafka_runs import Stream
from tests.kafka_broker import Broker, Cluster


def test_partitions_are_added_to_a_transaction_together(kafka: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the second one on: the client would otherwise ask the broker again as it meets each of them."""
    topics = [kafka.new_topic(partitions=3) for _ in range(2)]
    asked: list[set[tuple[str, int]]] = []
    kept = TransactionManager._add_partitions_to_transaction_handler

    def note(manager: TransactionManager) -> object:
        asked.append(set(manager._new_partitions_in_transaction))
        return kept(manager)

    monkeypatch.setattr(TransactionManager, "_add_partitions_to_transaction_handler", note)
    places = {topic: {0, 1, 2} for topic in topics}
    with closing(PythonTransactions(KafkaConfig((kafka.bootstrap,)), topics[0], topics[0])) as transactions:
        for _ in range(2):
            asked.clear()
            transactions.begin({**places, topics[0]: {0, 1, 2, 3}})  # of which one is not there
            for topic, partitions in places.items():
                transactions.write(topic, [(partition, b"key", b"value", ()) for partition in partitions])
            transactions.commit()
    assert asked == [{(topic, partition) for topic, partitions in places.items() for partition in partitions}]


@pytest.mark.parametrize("commit", [True, False])
def test_end_that_a_broker_forgot_is_said_again(
    stream: Stream, kafka_node: Cluster, monkeypatch: pytest.MonkeyPatch, *, commit: bool
) -> None:
    """A transaction's record and position, to which the coordinator sent no mark of the end, end as the transaction;
    also if that does not succeed at once."""
    monkeypatch.setattr(checker, "HANGS_AFTER_S", 0.1)
    scores, alerts, _ = stream.outputs
    stream.append(kafka_runs.feed(3))
    stream.score_here()
    before = stream.committed()[0]
    with unverified(kafka_node), closing(producer_of(stream, kafka_node)) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(scores, b"known to the coordinator", partition=0).get(10)
        manager, place = producer._transaction_manager, TopicPartition(stream.topic, 0)
        manager._partitions_in_transaction.add(TopicPartition(alerts, 1))  # never told to the coordinator
        producer.send(alerts, b"unknown", partition=1).get(10)
        moved = {place: OffsetAndMetadata(before[0] - 1, "", -1)}
        manager._pending_txn_offset_commits.update(moved)
        handler = TxnOffsetCommitHandler(
            manager, ConsumerGroupMetadata(stream.group_id), moved, TransactionalRequestResult()
        )
        manager._enqueue_request(handler)
        producer._sender.wakeup()
        handler.result.wait()
        (producer.commit_transaction if commit else producer.abort_transaction)()
    assert f"topic '{alerts}' partition 1: a transaction stays open from offset 0 on" in checked(stream)
    with closing(stream.log()) as log:
        with monkeypatch.context() as patch:
            patch.setattr(PythonTransactions, "end_again", unavailable)
            with pytest.raises(LogUnavailable):
                log.open_session(stream.topic, stream.group)
        with closing(log.open_session(stream.topic, stream.group)):
            pass
    assert "none stays open" in checked(stream)
    assert (b"unknown" in [record.value for record in stream.read(alerts)]) is commit
    assert stream.committed()[0][0] == before[0] - commit


def test_a_lost_broker_puts_the_last_transaction_in_doubt(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transactions are opened anew, once."""
    opened, kept = list[Opener](), Opener.open

    def note(opener: Opener) -> Transactions:
        opened.append(opener)
        return kept(opener)

    monkeypatch.setattr(Opener, "open", note)
    with closing(stream.log()) as log, closing(log.open_session(stream.topic, stream.group)) as session:
        session.poll(0, 0.1)
        assert len(opened) == 1
        log._config.failures.note(stream.broker.bootstrap, "gone", refused=False)
        for _ in range(2):
            session.poll(0, 0.1)
        assert len(opened) == 2


def unavailable(*_: object, **__: object) -> None:
    """Fail as where a broker is away."""
    raise LogUnavailable("away")


def checked(stream: Stream) -> str:
    """Return what `streamlstm check` says of the stream."""
    settings, said = stream.settings(log=f"kafka://{stream.broker.bootstrap}"), io.StringIO()
    with suppress(StreamlstmError):
        checker.check(settings, ReceiverSettings(), {}, Console(file=said, width=1000))
    return said.getvalue()


def producer_of(stream: Stream, node: Cluster) -> KafkaProducer:
    """Return a producer under the id of the stream's scorer."""
    return KafkaProducer(bootstrap_servers=node.bootstrap, transactional_id=f"{stream.group_id}@test", acks="all")


@contextmanager
def unverified(node: Cluster) -> Iterator[None]:
    """Have the broker take records of transactions without asking their coordinator."""
    verify = "transaction.partition.verification.enable"
    with closing(node.admin()) as admin:
        admin.alter_configs([ConfigResource("BROKER", "1", configs={verify: "false"})])
        try:
            yield
        finally:
            admin.alter_configs([ConfigResource("BROKER", "1", configs={verify: "true"})])
