"""kafka-python's connections, with what 3.0.12 leaves out.

Found in its source and on a real broker:

- it hides why it cannot connect: the caller gets ``KafkaTimeoutError: Unable to bootstrap``, the reason goes to a log;
- it throws away what it received if the end of the connection follows at once: a refused log-in looks like a crash;
- it knocks at a door where the password was refused, or the certificate cannot be trusted, until the time is up;
- the first server of the URL that swallows packets uses up the time for all of them;
- a TLS handshake that is never answered is waited for without end, and the constructor with it;
- a constructor that fails leaves its thread and sockets behind;
- a producer forgets the request for a coordinator that has died, and waits for its answer for ever.

A client is given this through kafka-python's option ``kafka_client``, which is public. The classes below are not
documented; the two names that begin with an underscore are all in :meth:`Connections._build_transport`, without
which only the second point comes back.
"""

from __future__ import annotations

import weakref
from typing import Any

from kafka import errors
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from streamlstm.adapters.kafka.config import KafkaConfig
from streamlstm.adapters.kafka.refusal import is_refusal, reason_of

BOOTSTRAP_TRIES = 3  # connections that find room, one after the other, in the time for the first contact


class Refused(errors.KafkaError):  # type: ignore[misc]
    """Every server of the URL refused us, or we them; the failures noted say why."""


def new_client(config: KafkaConfig, **options: Any) -> KafkaNetClient:
    """Return a network client that notes why connections fail; for kafka-python's option ``kafka_client``."""
    network = NetworkSelector(**options)
    return Client(network, Connections(network, config, **options))


class Client(KafkaNetClient):  # type: ignore[misc]
    """A network client that says of a node that it is not ready, instead of raising."""

    def await_ready(self, node_id: Any, timeout_ms: float = 30_000) -> bool:
        """Wait for a node; if this raises, the sender forgets the request it has for the node."""
        try:
            return bool(super().await_ready(node_id, timeout_ms))
        except errors.KafkaConnectionError:
            return False


class Connections(KafkaConnectionManager):  # type: ignore[misc]
    """The connections of one client."""

    def __init__(self, network: NetworkSelector, config: KafkaConfig, **options: Any) -> None:
        super().__init__(network, **options)
        self._network, self._config = network, config
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()
        self._refused: set[Any] = set()
        self._first_contact_ms: float | None = None  # while it lasts
        self._let_in: set[str] = set()  # in the first contact

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
        for server in self._let_in:
            self._config.failures.reached(server)

    def get_connection(self, node_id: Any, timeout_ms: float | None = None, **options: Any) -> Any:
        """Return a connection, which is closed if it does not come about in time."""
        if self._first_contact_ms is not None:
            if all(broker.node_id in self._refused for broker in self.cluster.bootstrap_brokers()):
                raise Refused
            share_ms = self._first_contact_ms / BOOTSTRAP_TRIES
            timeout_ms = share_ms if timeout_ms is None else min(timeout_ms, share_ms)
        connection = super().get_connection(node_id, timeout_ms, **options)
        if connection not in self._seen:
            self._seen.add(connection)
            self._watch(connection, timeout_ms or self.socket_connection_setup_timeout_ms(node_id))
        return connection

    def _watch(self, connection: Any, timeout_ms: float) -> None:
        """End a connection that does not come about, and note how it goes."""
        node_id, failures = connection.node_id, self._config.failures
        broker = self.cluster.broker_metadata(node_id)
        server = f"[{broker.host}]:{broker.port}" if ":" in broker.host else f"{broker.host}:{broker.port}"

        async def end_in_time() -> None:
            await self._network.sleep(timeout_ms / 1000)
            if connection.initializing:
                connection.close(errors.KafkaConnectionError(f"no answer within {timeout_ms / 1000:.1f} s"))

        def connected(_: object) -> None:
            if self._first_contact_ms is None:
                failures.reached(server)
            else:
                self._let_in.add(server)

        def failed(error: BaseException | None) -> None:
            if error is None or self.closed:
                return
            refused = is_refusal(error)
            if refused:
                self._refused.add(node_id)
            was_in = self._first_contact_ms is not None and server in self._let_in
            failures.note(server, reason_of(error, self._config, was_in), refused=refused)

        limit = self._network.call_soon(end_in_time)
        connection.init_future.add_callback(connected)
        connection.init_future.add_both(lambda _: self._network.cancel(limit))
        connection.close_future.add_errback(failed)

    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> Any:
        """Let a connection hand on what it received before it tells of its end: the next read finds that too."""
        transport = await super()._build_transport(node, timeout_at)
        receive = getattr(transport, "_sock_recv", None)
        if receive is not None:

            def received() -> tuple[bytes, BaseException | None]:
                data, error = receive()
                return data, None if data else error

            transport._sock_recv = received
        return transport
