"""How librdkafka is set up, and what it says: kafka-python's option names, errors and log lines in ours.

A file of options serves both clients. What librdkafka has no counterpart for is refused, by name: an option that
silently does nothing is worse than none.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException
from kafka import errors

from streamlstm.adapters.kafka.config import KafkaConfig
from streamlstm.adapters.kafka.faults import Access, translated
from streamlstm.adapters.kafka.library_log import REPEAT_S, SHOWN_CHARACTERS
from streamlstm.adapters.kafka.options import TOKEN
from streamlstm.adapters.kafka.refusal import reason_of
from streamlstm.adapters.kafka.secret import SecretSource
from streamlstm.errors import SettingsError

# kafka-python's names, and librdkafka's for the same.
OF_ALL = {
    "check_crcs": "check.crcs",
    "client_dns_lookup": "client.dns.lookup",
    "client_id": "client.id",
    "client_rack": "client.rack",
    "connections_max_idle_ms": "connections.max.idle.ms",
    "receive_buffer_bytes": "socket.receive.buffer.bytes",
    "receive_message_max_bytes": "receive.message.max.bytes",
    "reconnect_backoff_max_ms": "reconnect.backoff.max.ms",
    "reconnect_backoff_ms": "reconnect.backoff.ms",
    "request_timeout_ms": "socket.timeout.ms",
    "sasl_kerberos_service_name": "sasl.kerberos.service.name",
    "sasl_mechanism": "sasl.mechanism",
    "sasl_plain_password": "sasl.password",
    "sasl_plain_username": "sasl.username",
    "security_protocol": "security.protocol",
    "send_buffer_bytes": "socket.send.buffer.bytes",
    "ssl_cafile": "ssl.ca.location",
    "ssl_certfile": "ssl.certificate.location",
    "ssl_check_hostname": "ssl.endpoint.identification.algorithm",
    "ssl_ciphers": "ssl.cipher.suites",
    "ssl_crlfile": "ssl.crl.location",
    "ssl_keyfile": "ssl.key.location",
    "ssl_password": "ssl.key.password",
}
OF_CONSUMERS = {
    "fetch_max_bytes": "fetch.max.bytes",
    "fetch_max_wait_ms": "fetch.wait.max.ms",
    "fetch_min_bytes": "fetch.min.bytes",
}
OF_PRODUCERS = {
    "compression_type": "compression.type",
    "linger_ms": "linger.ms",
}
TOKEN_LIFETIME_S = 300.0  # of a token that does not say when it expires
# Log lines about what reaches us in another way, or is tried again: connections, errors of calls, slow starts.
UNTOLD = ("FAIL", "ERROR", "FATAL", "TXNERR", "GETPID")

# librdkafka's own errors, as those of kafka-python that mean the same; the broker's have the same numbers in both.
LOCAL_ERRORS: Mapping[int, type[Exception]] = {
    KafkaError._FENCED: errors.ProducerFencedError,
    KafkaError._AUTO_OFFSET_RESET: errors.OffsetOutOfRangeError,
    KafkaError._LOG_TRUNCATION: errors.OffsetOutOfRangeError,
    KafkaError._AUTHENTICATION: errors.SaslAuthenticationFailedError,
    KafkaError._ALL_BROKERS_DOWN: errors.KafkaConnectionError,
    KafkaError._DESTROY_BROKER: errors.KafkaConnectionError,  # what it knew of a broker, as that went away
    KafkaError._NODE_UPDATE: errors.KafkaConnectionError,  # … or has another address
    KafkaError._UNKNOWN_BROKER: errors.KafkaConnectionError,
    KafkaError._RESOLVE: errors.KafkaConnectionError,
    KafkaError._SSL: errors.KafkaConnectionError,
    KafkaError._TRANSPORT: errors.KafkaConnectionError,
    KafkaError._TIMED_OUT: errors.KafkaTimeoutError,
    KafkaError._TIMED_OUT_QUEUE: errors.KafkaTimeoutError,
    KafkaError._MSG_TIMED_OUT: errors.KafkaTimeoutError,
    KafkaError._WAIT_COORD: errors.KafkaTimeoutError,
    KafkaError._CONFLICT: errors.TransactionAbortedError,
    KafkaError._PURGE_QUEUE: errors.TransactionAbortedError,
    KafkaError._PURGE_INFLIGHT: errors.TransactionAbortedError,
    KafkaError._UNKNOWN_TOPIC: errors.UnknownTopicOrPartitionError,
    KafkaError._UNKNOWN_PARTITION: errors.LeaderNotAvailableError,  # or so: it had no leader when it was looked up
}

logger = structlog.get_logger()


def check(config: KafkaConfig) -> None:
    """Raise :class:`SettingsError` for an option that librdkafka has no counterpart for."""
    known = {**OF_ALL, **OF_CONSUMERS, **OF_PRODUCERS, TOKEN: ""}
    for name in config.options:
        if name not in known:
            raise SettingsError(f"--log-config: {name} has no counterpart in confluent-kafka; use --log {config.url}")
    if config.options.get("sasl_mechanism") == "AWS_MSK_IAM":
        raise SettingsError(f"--log-config: sasl_mechanism AWS_MSK_IAM is kafka-python's alone; use --log {config.url}")


def options_of(config: KafkaConfig, only: Mapping[str, str]) -> dict[str, Any]:
    """Return the user's options as librdkafka names them; ``only`` are the names for this kind of client."""
    check(config)
    options: dict[str, Any] = {"bootstrap.servers": ",".join(config.servers)}
    for name, theirs in {**OF_ALL, **only}.items():
        if name in config.options:
            options[theirs] = _value(name, config.options[name])
    if isinstance(source := config.options.get(TOKEN), SecretSource):
        options["oauth_cb"] = token_callback(source.read)
    return options


def _value(name: str, value: object) -> str:
    if name == "ssl_check_hostname":
        return "https" if value else "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def token_callback(read: Callable[[], str]) -> Callable[[str], tuple[str, float]]:
    """Return what librdkafka calls for a token: the token, and when it expires (s since 1970)."""

    def token(_: str) -> tuple[str, float]:
        text = str(read())
        return text, _expiry_s(text)

    return token


def _expiry_s(token: str) -> float:
    """Return when a JSON Web Token says that it expires; one that says nothing is read again soon."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"])
    except (IndexError, KeyError, TypeError, ValueError):
        return time.time() + TOKEN_LIFETIME_S


class Voice:
    """What a librdkafka client says outside of calls: why it cannot connect, and log lines for our logger."""

    def __init__(self, config: KafkaConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config, self._clock = config, clock
        self._shown_s: dict[str, float] = {}

    def options(self) -> dict[str, Any]:
        """Return the options that let this hear a client."""
        return {"logger": self, "error_cb": self.hear, "log.connection.close": "false"}

    def log(self, level: int, _: str, facility: str, __: str, text: str) -> None:
        """Take a log line, as the binding gives it to a ``logging.Logger``; the like of it is shown once a minute."""
        now_s = self._clock()
        if level < logging.WARNING or facility in UNTOLD or now_s - self._shown_s.get(facility, -REPEAT_S) < REPEAT_S:
            return
        self._shown_s[facility] = now_s
        logger.warning("confluent-kafka", says=text[:SHOWN_CHARACTERS])

    def hear(self, error: KafkaError) -> None:
        """Note why a connection failed; a call that times out says only that it did."""
        found = re.match(r"(?:\w+://)?([^/\s]+)/\w+: (.*)", error.str())
        if found is None:
            return
        refused, reason = error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL), found[2]
        if error.code() == KafkaError._AUTHENTICATION:
            reason = reason_of(errors.SaslAuthenticationFailedError(reason), self._config)
        self._config.failures.note(found[1], reason, refused=refused)


@contextmanager
def understood(config: KafkaConfig, doing: str, access: Access) -> Iterator[None]:
    """Raise our errors for librdkafka's: the same as for those of kafka-python that mean the same."""
    with translated(config, doing, access):
        try:
            yield
        except KafkaException as error:
            raise counterpart(error.args[0]) from error


def counterpart(error: KafkaError) -> Exception:
    """Return kafka-python's error for librdkafka's."""
    code, text = error.code(), error.str()
    if code > 0:
        return errors.for_code(code)(text)  # type: ignore[no-any-return]
    if code in LOCAL_ERRORS:
        return LOCAL_ERRORS[code](text)
    if error.txn_requires_abort() or error.retriable():
        return errors.TransactionAbortedError(text)  # type: ignore[no-any-return]
    return errors.KafkaError(text)  # type: ignore[no-any-return]
