"""kafka-python's connections, with what 3.0.12 leaves out.

Found in its source and on a real broker:

- it hides why it cannot connect: the caller gets ``KafkaTimeoutError: Unable to bootstrap``, the reason goes to a log;
- it knocks at a door where the password was refused, or the certificate cannot be trusted, until the time is up;
- the first server of the URL that swallows packets uses up the time for all of them;
- a TLS handshake that is never answered is waited for without end, and the constructor with it;
- a constructor that fails leaves its thread and sockets behind.

A client is given this through kafka-python's option ``kafka_client``, which is public; the classes below are not
documented as such, but no name here begins with an underscore.
"""

from __future__ import annotations

import weakref
from typing import Any

from kafka import errors
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from streamlstm.adapters.kafka.failures import Failures
from streamlstm.adapters.kafka.refusal import is_refusal, reason_of

BOOTSTRAP_TRIES = 3  # connections that find room, one after the other, in the time for the first contact


class Refused(errors.KafkaError):  # type: ignore[misc]
    """Every server of the URL refused us, or we them; the failures noted say why."""


def new_client(failures: Failures, **configs: Any) -> KafkaNetClient:
    """Return a network client that notes why connections fail; for kafka-python's option ``kafka_client``."""
    network = NetworkSelector(**configs)
    return KafkaNetClient(network, Connections(network, failures, **configs))


class Connections(KafkaConnectionManager):  # type: ignore[misc]
    """The connections of one client."""

    def __init__(self, network: NetworkSelector, failures: Failures, **configs: Any) -> None:
        super().__init__(network, **configs)
        self._network, self._failures = network, failures
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()
        self._refused: dict[str, BaseException] = {}
        self._first_contact_ms: float | None = None  # while waiting for it

    def bootstrap(self, timeout_ms: float | None = None, refresh: bool = True) -> None:
        """Make the first contact; what this client holds is given back if that fails."""
        self._first_contact_ms = timeout_ms
        try:
            super().bootstrap(timeout_ms, refresh)
        except BaseException:
            self.close()
            self._network.close()
            raise
        finally:
            self._first_contact_ms = None

    def get_connection(self, node_id: Any, timeout_ms: float | None = None, **options: Any) -> Any:
        """Return a connection, which is closed if it does not come about in time."""
        if self._first_contact_ms is not None:
            if all(broker.node_id in self._refused for broker in self.cluster.bootstrap_brokers()):
                raise Refused
            shared_ms = self._first_contact_ms / BOOTSTRAP_TRIES
            timeout_ms = shared_ms if timeout_ms is None else min(timeout_ms, shared_ms)
        connection = super().get_connection(node_id, timeout_ms, **options)
        if connection not in self._seen:
            self._seen.add(connection)
            self._watch(connection, timeout_ms or self.socket_connection_setup_timeout_ms(node_id))
        return connection

    def _watch(self, connection: Any, timeout_ms: float) -> None:
        node_id = connection.node_id
        broker = self.cluster.broker_metadata(node_id)
        server = f"[{broker.host}]:{broker.port}" if ":" in broker.host else f"{broker.host}:{broker.port}"

        async def end_in_time() -> None:
            await self._network.sleep(timeout_ms / 1000)
            if connection.initializing:
                connection.close(errors.KafkaConnectionError(f"no answer within {timeout_ms / 1000:.0f} s"))

        def failed(error: BaseException | None) -> None:
            if error is not None and not self.closed:
                self._failures.note(server, error, reason_of(error))
                if is_refusal(error):
                    self._refused[node_id] = error

        def connected(_: object) -> None:
            self._failures.reached(server)

        limit = self._network.call_soon(end_in_time)
        connection.init_future.add_callback(connected)
        connection.init_future.add_both(lambda _: self._network.cancel(limit))
        connection.close_future.add_errback(failed)
