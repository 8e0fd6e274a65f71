"""How kafka-python's transactions go to the broker."""

from __future__ import annotations

from contextlib import closing

import pytest
from kafka.producer.transaction_manager import TransactionManager

from streamlstm.adapters.kafka.config import KafkaConfig
from streamlstm.adapters.kafka.python_client import PythonTransactions
from tests.kafka_broker import Broker


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
