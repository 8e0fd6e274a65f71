"""The options of kafka-python's clients: the user's, and ours over them.

What differs from the library's defaults, and why, stands beside each option.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.codec import has_gzip, has_lz4, has_snappy, has_zstd
from kafka.net.sasl.oauth import AbstractTokenProvider

from streamlstm.adapters.kafka.config import KafkaConfig
from streamlstm.adapters.kafka.connections import new_client
from streamlstm.adapters.kafka.faults import translated
from streamlstm.adapters.kafka.options import TOKEN
from streamlstm.adapters.kafka.secret import SecretSource
from streamlstm.adapters.kafka.tls import OURS_TO_LOAD, tls_context
from streamlstm.errors import SettingsError

MAX_REQUEST_BYTES = 8 * 1024 * 1024  # the topic's own limit decides, not the client's 1 MiB
BATCH_BYTES = 256 * 1024  # a poll's records of one partition go in few requests
TRANSACTION_TIMEOUT_MS = 10_000  # a dead process's open transaction holds readers back no longer than this
RETRY_BACKOFF_MS = 10  # at the default, 100, a transaction takes 30 ms instead of 10
FETCH_BYTES = 4 * 1024 * 1024  # per partition: fewer round trips when there is a backlog
ADMIN_TIMEOUT_MS = 10_000  # for an answer, unless given; at the default, 30 s, a process takes as long to stop
RECONNECT_MS = 1_000  # between tries to reach a broker, at most; at the default, 30 s, an outage ends that much later
CODECS = {"gzip": has_gzip, "snappy": has_snappy, "lz4": has_lz4, "zstd": has_zstd}


class Token(AbstractTokenProvider):  # type: ignore[misc]
    """The token of OAUTHBEARER, read anew for each log-in: somebody else keeps it fresh."""

    def __init__(self, source: SecretSource) -> None:
        super().__init__()
        self._source = source

    def token(self) -> str:
        """Return the token."""
        return self._source.read()


def client_options(config: KafkaConfig, of: type, **ours: object) -> dict[str, Any]:
    """Return the user's options, as far as this class of client knows them, and ours over them."""
    given = {name: value for name, value in config.options.items() if name in of.DEFAULT_CONFIG}  # type: ignore[attr-defined]
    if isinstance(source := config.options.get(TOKEN), SecretSource):
        given["sasl_oauth_token_provider"] = Token(source)
    if not set(OURS_TO_LOAD).isdisjoint(config.options):
        given["ssl_context"] = tls_context(config.options)
    return {
        "reconnect_backoff_max_ms": RECONNECT_MS,
        **given,
        "bootstrap_servers": config.servers,
        "kafka_client": partial(new_client, config),
        "allow_auto_create_topics": False,
        **ours,
    }


def producer_options(config: KafkaConfig, **ours: object) -> dict[str, Any]:
    """Return the options of an idempotent producer that loses nothing it acknowledged."""
    codec = config.options.get("compression_type")
    if codec is not None and not CODECS[str(codec)]():
        raise SettingsError(
            f"--log-config: compression_type {codec} needs a package: pip install kafka-python[{codec}]"
        )
    return client_options(
        config, KafkaProducer, acks="all", max_request_size=MAX_REQUEST_BYTES, batch_size=BATCH_BYTES, **ours
    )


def admin(config: KafkaConfig, **ours: object) -> KafkaAdminClient:
    """Connect an admin client."""
    options = {"request_timeout_ms": ADMIN_TIMEOUT_MS, **client_options(config, KafkaAdminClient, **ours)}
    del options["allow_auto_create_topics"]
    with translated(config, "connect"):
        return KafkaAdminClient(**options)
