"""The options of the Kafka client in a TOML file: kafka-python's own names, and secrets from files or the environment.

Nothing here connects. What is wrong is said with the file and the key; no message holds a value that may be secret.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from streamlstm.adapters.kafka.secret import Secret, SecretSource, may_be_read_by_others
from streamlstm.adapters.kafka.tls import FILES, Wrong, tls_context
from streamlstm.errors import SettingsError

OWN_PREFIX = "STREAMLSTM_"  # the command line refuses variables of this prefix that it does not know

# What a user may set, by kafka-python's names; a test holds this against the library.
OPTIONS: Mapping[str, type] = {
    "security_protocol": str,
    "ssl_cafile": str,
    "ssl_certfile": str,
    "ssl_keyfile": str,
    "ssl_password": str,
    "ssl_crlfile": str,
    "ssl_ciphers": str,
    "ssl_check_hostname": bool,
    "sasl_mechanism": str,
    "sasl_plain_username": str,
    "sasl_plain_password": str,
    "sasl_kerberos_name": str,
    "sasl_kerberos_service_name": str,
    "sasl_kerberos_domain_name": str,
    "proxy_url": str,
    "client_id": str,
    "client_rack": str,
    "client_dns_lookup": str,
    "compression_type": str,
    "linger_ms": int,
    "request_timeout_ms": int,
    "bootstrap_timeout_ms": int,
    "delivery_timeout_ms": int,
    "max_block_ms": int,
    "session_timeout_ms": int,
    "max_poll_interval_ms": int,
    "connections_max_idle_ms": int,
    "reconnect_backoff_ms": int,
    "reconnect_backoff_max_ms": int,
    "fetch_max_wait_ms": int,
    "fetch_min_bytes": int,
    "fetch_max_bytes": int,
    "enable_incremental_fetch_sessions": bool,
    "check_crcs": bool,
    "receive_buffer_bytes": int,
    "send_buffer_bytes": int,
    "receive_message_max_bytes": int,
}
TOKEN = "oauth_token"  # ours: kafka-python wants an object
CHOICES: Mapping[str, tuple[str, ...]] = {
    "security_protocol": ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
    "sasl_mechanism": ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "GSSAPI", "AWS_MSK_IAM"),
    "compression_type": ("gzip", "snappy", "lz4", "zstd"),
    "client_dns_lookup": ("use_all_dns_ips", "resolve_canonical_bootstrap_servers_only"),
}
# What a user may not set: streamlstm does, and counts on it.
OURS = frozenset(
    {
        "acks",
        "allow_auto_create_topics",
        "api_version",
        "auto_commit_interval_ms",
        "auto_offset_reset",
        "batch_size",
        "consumer_timeout_ms",
        "default_offset_commit_callback",
        "enable_auto_commit",
        "enable_idempotence",
        "exclude_internal_topics",
        "heartbeat_interval_ms",
        "isolation_level",
        "kafka_client",
        "key_deserializer",
        "key_serializer",
        "max_in_flight_requests_per_connection",
        "max_partition_fetch_bytes",
        "max_request_size",
        "metadata_max_age_ms",
        "metric_group_prefix",
        "metric_reporters",
        "metrics_enabled",
        "metrics_num_samples",
        "metrics_sample_window_ms",
        "partition_assignment_strategy",
        "partitioner",
        "retries",
        "retry_backoff_ms",
        "selector",
        "socket_options",
        "transaction_timeout_ms",
        "transactional_id",
        "value_deserializer",
        "value_serializer",
    }
)
# The same, with what to give instead.
INSTEAD: Mapping[str, str] = {
    "bootstrap_servers": "--log kafka://HOST:PORT,HOST:PORT",
    "group_id": "--group",
    "group_instance_id": "--instance",
    "ssl_context": "ssl_cafile, ssl_certfile and so on",
    "sasl_oauth_token_provider": TOKEN,
    "socks5_proxy": "proxy_url",
    "max_poll_records": "--poll-records",
}
PASSWORDS = ("sasl_plain_password", "ssl_password")
WITH_PASSWORD = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
PACKAGES = {"GSSAPI": "gssapi", "AWS_MSK_IAM": "botocore"}  # that a mechanism needs and kafka-python does not bring

logger = structlog.get_logger()


def options_of(path: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the options of a file, with the secrets in place; raises :class:`SettingsError`."""
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"--log-config {path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        where = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "no UTF-8"
        raise SettingsError(f"--log-config {path}: not TOML: {where}") from None
    file = _File(path, environment)
    options = {name: file.value(name, value) for name, value in given.items()}
    file.check(options)
    if may_be_read_by_others(path) and file.holds_secrets(given):
        logger.warning(
            "others may read this file, and there is a password in it; chmod 600, or point to it with { file = … }",
            log_config=str(path),
        )
    return options


class _File:
    """One TOML file: what its keys mean, and what is wrong with them."""

    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        self._path, self._environment = path, environment

    def value(self, name: str, given: Any) -> Any:
        """Return an option's value for the client; raises :class:`SettingsError`."""
        self._check_name(name)
        if isinstance(given, dict):
            source = self._source(name, given)
            if name == TOKEN:
                source.read()
                return source
            given = source.read()
        elif name == TOKEN:
            raise self._wrong(name, 'is { file = "…" } or { env = "…" }, so that it can be renewed')
        kind = OPTIONS[name]
        if type(given) is not kind and not (kind is str and isinstance(given, Secret)):
            expected = {str: "text", int: "a whole number", bool: "true or false"}[kind]
            raise self._wrong(name, f"must be {expected}, not {_kind(given)}")
        if isinstance(given, int) and given < 0:
            raise self._wrong(name, "must not be negative")
        if name in CHOICES and given not in CHOICES[name]:
            raise self._wrong(name, f"must be one of {', '.join(CHOICES[name])}")
        if name in FILES:
            return str(self._path.parent / str(given))
        return Secret(given) if name in (*PASSWORDS, "proxy_url") else given

    def check(self, options: Mapping[str, Any]) -> None:
        """Refuse options that do not fit together: what looks safe must be."""
        protocol = options.get("security_protocol", "PLAINTEXT")
        if (proxy := options.get("proxy_url")) and not re.match(r"(socks5h?|http)://[^/]", proxy):
            raise self._wrong("proxy_url", "must be socks5://HOST:PORT, socks5h://HOST:PORT or http://HOST:PORT")
        for prefix, wanted in (("ssl_", ("SSL", "SASL_SSL")), (("sasl_", TOKEN), ("SASL_SSL", "SASL_PLAINTEXT"))):
            name = next((name for name in options if name.startswith(prefix)), None)
            if name and protocol not in wanted:
                raise self._wrong(
                    name, f"does nothing with security_protocol {protocol}; set that to {' or '.join(wanted)}"
                )
        if protocol.startswith("SASL"):
            self._check_login(options)
        if protocol.endswith("SSL"):
            try:
                tls_context(options)
            except Wrong as wrong:
                raise self._wrong(wrong.name, wrong.what) from None

    def _check_login(self, options: Mapping[str, Any]) -> None:
        mechanism = options.get("sasl_mechanism")
        if mechanism is None:
            raise self._wrong("security_protocol", f"{options['security_protocol']} needs sasl_mechanism")
        if mechanism in WITH_PASSWORD:
            for name in ("sasl_plain_username", "sasl_plain_password"):
                if not options.get(name):
                    raise self._wrong("sasl_mechanism", f"{mechanism} needs {name}")
        if (mechanism == "OAUTHBEARER") != (TOKEN in options):
            raise self._wrong(TOKEN, "and sasl_mechanism OAUTHBEARER go together; one is missing")
        package = PACKAGES.get(mechanism)
        if package and importlib.util.find_spec(package) is None:
            raise self._wrong("sasl_mechanism", f"{mechanism} needs the Python package {package}; install it")

    def holds_secrets(self, given: Mapping[str, Any]) -> bool:
        """Say whether a password stands in the file itself."""
        return any(isinstance(given.get(name), str) for name in PASSWORDS) or "@" in str(given.get("proxy_url"))

    def _check_name(self, name: str) -> None:
        if name in OPTIONS or name == TOKEN:
            return
        if name in OURS or name in INSTEAD:
            instead = f"; give {INSTEAD[name]}" if name in INSTEAD else ""
            raise self._wrong(name, f"is for streamlstm to set, so that nothing is lost or doubled{instead}")
        near = difflib.get_close_matches(name, [*OPTIONS, TOKEN], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise SettingsError(f"--log-config {self._path}: unknown key {name!r}{hint}")

    def _source(self, name: str, given: Mapping[str, Any]) -> SecretSource:
        if OPTIONS.get(name, str) is not str:
            raise self._wrong(name, "is no secret; write its value here")
        keys, values = list(given), list(given.values())
        if keys not in (["file"], ["env"]) or not isinstance(values[0], str) or not values[0]:
            raise self._wrong(name, 'must be text, { file = "…" } or { env = "…" }')
        owner = f"--log-config {self._path}: {name}"
        if keys == ["file"]:
            return SecretSource(owner, file=self._path.parent / values[0])
        if values[0].startswith(OWN_PREFIX):
            raise self._wrong(name, f"variables {OWN_PREFIX}… are options of streamlstm; name it otherwise")
        return SecretSource(owner, variable=values[0], environment=self._environment)

    def _check_proxy(self, proxy: str) -> None:
        if not re.match(r"(socks5h?|http)://[^/]", proxy):
            raise self._wrong("proxy_url", "must begin with socks5://, socks5h:// or http:// and name a host and port")

    def _wrong(self, name: str, what: str) -> SettingsError:
        return SettingsError(f"--log-config {self._path}: {name} {what}")


def _kind(value: object) -> str:
    kinds = {str: "text", bool: "true or false", int: "a whole number", float: "a fraction", list: "a list"}
    return kinds.get(type(value), type(value).__name__)
