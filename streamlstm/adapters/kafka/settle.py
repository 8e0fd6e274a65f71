"""The end of the last transaction, said again where a broker forgot to say it.

A broker that comes back after it was killed goes on with the transactions that it was ending. Kafka 4.3 takes a
partition that has no leader at that moment for a deleted one (``KRaftMetadataCache.getPartitionLeaderEndpoint``),
leaves out the mark of the end there, and calls the transaction ended; its log says "Couldn't find leader endpoint for
partitions … these partitions are likely deleted already". What was aborted then stays open there, hides all that comes
after it, and becomes valid with this producer's next commit; so do positions that were never to be moved. Where the
only broker was killed under load, one outage in six lost or doubled records.

So before transactions are opened under an id, the last one is ended again, in the same way: by a transaction without
records, for every partition in which something is open, and for the group's positions. Where nothing was forgotten it
changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from kafka.admin import TransactionState

from streamlstm.adapters.kafka.cluster import Cluster
from streamlstm.adapters.kafka.config import KafkaConfig
from streamlstm.adapters.kafka.python_client import PythonTransactions

COMMITTED = (TransactionState.PREPARE_COMMIT, TransactionState.COMPLETE_COMMIT)


def settle(
    config: KafkaConfig, cluster: Cluster, transactional_id: str, topic: str, group: str, outputs: Iterable[str]
) -> None:
    """End again what was ended under this id. ``group`` has its positions in ``topic``; ``outputs`` are the topics that
    transactions write to, as far as they are there.

    Raises:
        LogUnavailable: It could not be done now.
    """
    last = cluster.last_transaction(transactional_id)
    if last is None:
        return
    transactions = PythonTransactions(config, transactional_id, topic)  # ends what is not ended yet
    try:
        places = {output: set(cluster.open_since(output)) for output in outputs if cluster.may_see(output)}
        transactions.end_again(places, group, commit=last in COMMITTED)
    finally:
        transactions.close()
