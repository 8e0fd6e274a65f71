"""The end of the last transaction, said again where a broker forgot to say it.

A broker that comes back after it was killed goes on with the transactions that it was ending. Kafka 4.3 takes a
partition that has no leader at that moment for a deleted one (``KRaftMetadataCache.getPartitionLeaderEndpoint``),
leaves out the mark of the end there, and calls the transaction ended; its log says "Couldn't find leader endpoint for
partitions … these partitions are likely deleted already". What was aborted then stays open there, hides all that comes
after it, and becomes valid with this producer's next commit; so do positions that were never to be moved. Where the
only broker was killed under load, one outage in ten lost or doubled records.

So before transactions are opened under an id, and after a connection was lost, the last one is ended again, in the same
way: by a transaction without records, for every partition in which something is open, and for the group's positions.

Limits: how the last one ended is known until the next one begins. If that one began before the loss was noticed, and is
aborted, so is what was forgotten of the last. A process killed between the two lines marked below leaves no
trace of how it ended; it is then aborted.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Set
from contextlib import closing
from dataclasses import replace

from kafka.admin import TransactionState
from kafka.errors import (
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    IncompatibleBrokerVersion,
    NotCoordinatorError,
    TransactionalIdNotFoundError,
    UnsupportedVersionError,
)

from streamlstm.adapters.kafka.client import Clients, Transactions
from streamlstm.adapters.kafka.cluster import Cluster
from streamlstm.adapters.kafka.config import KafkaConfig
from streamlstm.adapters.kafka.faults import Access, translated
from streamlstm.adapters.kafka.names import Names
from streamlstm.adapters.kafka.python_client import PythonTransactions
from streamlstm.adapters.kafka.python_options import admin

COMMITTED = (TransactionState.PREPARE_COMMIT, TransactionState.COMPLETE_COMMIT)
COORDINATOR_S = 10.0  # a new cluster chooses one when it is first asked for; one that moved reads what it is to know


class Opener:
    """Opens transactions under an id, when what was ended under it is settled."""

    def __init__(self, config: KafkaConfig, clients: Clients, cluster: Cluster, names: Names) -> None:
        self._config, self._clients, self._cluster, self._names = config, clients, cluster, names
        self._id = f"{names.group}@{config.instance}"
        self._last: TransactionState | None = None  # of a settlement that broke off
        self._lost = 0

    def open(self) -> Transactions:
        """Open transactions; raises :class:`LogUnavailable` if that, or the settlement, is not possible now."""
        lost = self._config.failures.lost
        self._last = self._last or last_transaction(self._config, self._id)
        if self._last is not None:
            self._settle(commit=self._last in COMMITTED)
            self._last = None
        transactions = self._clients.transactions(self._config, self._id, self._names.topic)
        self._lost = lost
        return transactions

    def in_doubt(self) -> bool:
        """Say whether a broker was lost since :meth:`open` began: it may forget how the last transaction ended."""
        return self._config.failures.lost != self._lost

    def _settle(self, *, commit: bool) -> None:
        places: Mapping[str, Set[int]] = {
            output: set(self._cluster.open_since(output))
            for output in self._names.outputs
            if self._cluster.may_see(output)
        }
        options = {name: value for name, value in self._config.options.items() if name != "compression_type"}
        plain = replace(self._config, options=options)  # there are no records, and a codec may be missing
        with closing(PythonTransactions(plain, self._id, self._names.topic)) as transactions:  # from here on, until …
            transactions.end_again(places, self._names.group, commit=commit)  # … this is done


def last_transaction(config: KafkaConfig, transactional_id: str) -> TransactionState | None:
    """Return how far the last transaction under this id is; None if there was none, or the broker cannot say.

    By a client of its own: kafka-python's (3.0.12) never asks again which broker coordinates an id.
    """
    access = Access(operation="Describe", transactional_id=transactional_id)
    until_s = time.monotonic() + COORDINATOR_S
    with closing(admin(config)) as client, translated(config, f"look up {transactional_id!r}", access):
        while True:
            try:
                return client.describe_transactions([transactional_id])[transactional_id].state
            except (TransactionalIdNotFoundError, UnsupportedVersionError, IncompatibleBrokerVersion):
                return None
            except (CoordinatorNotAvailableError, CoordinatorLoadInProgressError, NotCoordinatorError):
                if time.monotonic() >= until_s:
                    raise
                time.sleep(0.1)  # the admin client tries once
