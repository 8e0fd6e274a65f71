"""kafka-python's connections, with what 3.0.12 leaves out.

Found in its source and on a real broker:

- it hides why it cannot connect: the caller gets ``KafkaTimeoutError: Unable to bootstrap``, the reason goes to a log;
- it throws away what it received if the end of the connection follows at once: a refused log-in looks like a crash;
- it knocks at a door where the password was refused, or the certificate cannot be trusted, until the time is up;
- a server of the URL that swallows packets uses up the time for all of them, or is asked again before the others;
- a TLS handshake that is never answered is waited for without end, and the constructor with it;
- a constructor that fails leaves its thread and sockets behind;
- a producer forgets the request for a coordinator that has died, and waits for its answer for ever.

A client is given this through kafka-python's option ``kafka_client``, which is public. The classes below are not
documented; the two names that begin with an underscore are all in :meth:`Connections._build_transport`, without
which only the second point comes back.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kafka import errors
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from streamlstm.adapters.kafka.config import KafkaConfig
from streamlstm.adapters.kafka.refusal import is_refusal, reason_of

TIMEOUT_MS = 30_000  # kafka-python's own, for the first contact
CONNECT_SHARE = 1 / 3  # of the time for the first contact, for one connection: three find room one after the other
PATIENCE_SHARE = 0.3  # of it, after which nobody is asked a second time


class Refused(errors.KafkaError):  # type: ignore[misc]
    """Every server of the URL refused us, or we them; the failures noted say why."""


def new_client(config: KafkaConfig, **options: Any) -> Client:
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


@dataclass
class FirstContact:
    """How it stands with the servers of the URL, by node: asked, refused, or let in."""

    timeout_ms: float
    start_s: float = field(default_factory=time.monotonic)
    asked: dict[Any, Any] = field(default_factory=dict)  # the last connection
    refused: set[Any] = field(default_factory=set)
    let_in: set[str] = field(default_factory=set)

    def is_open(self, node_id: Any) -> bool:
        """Say whether a server's connection still stands."""
        return node_id in self.asked and not self.asked[node_id].closed

    def check(self, node_id: Any, delays_s: Mapping[Any, float]) -> None:
        """Raise if this server is not to be asked: others come first, or all have been asked for long enough.

        ``delays_s`` has for each server how long the client will leave it alone.
        """
        if node_id not in self.asked:
            return
        if self.refused.issuperset(delays_s):
            raise Refused
        if not self.asked.keys() >= delays_s.keys():
            raise errors.NodeNotReadyError(node_id)
        next_s = time.monotonic() + min(delays_s.values()) - self.start_s
        if 1000 * next_s > self.timeout_ms * PATIENCE_SHARE:
            raise errors.KafkaTimeoutError("no server lets us in")


class Connections(KafkaConnectionManager):  # type: ignore[misc]
    """The connections of one client."""

    def __init__(self, network: NetworkSelector, config: KafkaConfig, **options: Any) -> None:
        super().__init__(network, **options)
        self._network, self._config = network, config
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()
        self._first: FirstContact | None = None  # while it lasts

    def bootstrap(self, timeout_ms: float | None = None, refresh: bool = True) -> None:
        """Make the first contact; what this client holds is given back if that fails."""
        first = self._first = FirstContact(timeout_ms or TIMEOUT_MS)
        try:
            super().bootstrap(first.timeout_ms, refresh)
        except BaseException:
            self.close()
            self._network.close()
            raise
        finally:
            self._first = None
        for server in first.let_in:
            self._config.failures.reached(server)

    def get_connection(self, node_id: Any, timeout_ms: float | None = None, **options: Any) -> Any:
        """Return a connection, which is closed if it does not come about in time."""
        first = self._first
        if first is not None and not first.is_open(node_id):
            nodes = [broker.node_id for broker in self.cluster.bootstrap_brokers()]
            first.check(node_id, {node: self.connection_delay(node) for node in nodes})
            share_ms = first.timeout_ms * CONNECT_SHARE
            timeout_ms = share_ms if timeout_ms is None else min(timeout_ms, share_ms)
        connection = super().get_connection(node_id, timeout_ms, **options)
        if connection not in self._seen:
            self._seen.add(connection)
            if first is not None:
                first.asked[node_id] = connection
            self._watch(connection, timeout_ms or self.socket_connection_setup_timeout_ms(node_id), first)
        return connection

    def _watch(self, connection: Any, timeout_ms: float, first: FirstContact | None) -> None:
        """End a connection that does not come about, and note how it goes."""
        broker, failures = self.cluster.broker_metadata(connection.node_id), self._config.failures
        server = f"[{broker.host}]:{broker.port}" if ":" in broker.host else f"{broker.host}:{broker.port}"

        async def end_in_time() -> None:
            await self._network.sleep(timeout_ms / 1000)
            if connection.initializing:
                connection.close(errors.KafkaConnectionError(f"no answer within {timeout_ms / 1000:.1f} s"))

        def connected(_: object) -> None:
            if first is None:
                failures.reached(server)
            else:
                first.let_in.add(server)

        def failed(error: BaseException | None) -> None:
            if error is None or self.closed:
                return
            refused, was_in = is_refusal(error), first is not None and server in first.let_in
            if refused and first is not None:
                first.refused.add(connection.node_id)
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
