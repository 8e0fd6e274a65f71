"""How to reach a Kafka cluster: its URL, the options of the client, and secrets from files or the environment.

Nothing here connects. What is wrong is said with the file and the key; no message holds a value that may be secret.
"""

from __future__ import annotations

import difflib
import os
import re
import ssl
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from streamlstm.adapters.kafka.failures import Failures
from streamlstm.adapters.kafka.secret import Secret, SecretSource, may_be_read_by_others, name_in_token
from streamlstm.errors import SettingsError

SCHEME = "kafka://"
DEFAULT_PORT = 9092
OWN_PREFIX = "STREAMLSTM_"  # the command line refuses variables of this prefix that it does not know

# What a user may set, by kafka-python's names; a test holds this against the library.
OPTIONS: Mapping[str, type] = {
    "security_protocol": str,
    "ssl_cafile": str,
    "ssl_certfile": str,
    "ssl_keyfile": str,
    "ssl_password": str,
    "ssl_crlfile": str,
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
# What a user may not set: streamlstm does, and counts on it. Each with what to give instead, if anything.
OURS: Mapping[str, str] = {
    "bootstrap_servers": f"--log {SCHEME}HOST:PORT,HOST:PORT",
    "group_id": "--group",
    "group_instance_id": "--instance",
    "ssl_context": "ssl_cafile, ssl_certfile and so on",
    "sasl_oauth_token_provider": TOKEN,
    "socks5_proxy": "proxy_url",
    "max_poll_records": "--poll-records",
} | dict.fromkeys(
    (
        "acks allow_auto_create_topics api_version auto_commit_interval_ms auto_offset_reset batch_size "
        "consumer_timeout_ms default_offset_commit_callback enable_auto_commit enable_idempotence "
        "exclude_internal_topics heartbeat_interval_ms isolation_level kafka_client key_deserializer key_serializer "
        "max_in_flight_requests_per_connection max_partition_fetch_bytes max_request_size metadata_max_age_ms "
        "metric_group_prefix metric_reporters metrics_enabled metrics_num_samples metrics_sample_window_ms "
        "partition_assignment_strategy partitioner retries retry_backoff_ms selector socket_options "
        "transaction_timeout_ms transactional_id value_deserializer value_serializer"
    ).split(),
    "",
)
UNUSED = {"ssl_ciphers": "kafka-python 3 takes it and does nothing with it; set ciphers in OpenSSL's own configuration"}
FILES = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile")
PASSWORDS = ("sasl_plain_password", "ssl_password")
WITH_PASSWORD = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

logger = structlog.get_logger()


@dataclass(frozen=True)
class KafkaConfig:
    """Servers, the client options given by the user, and who we are.

    ``options`` are kafka-python's names, and ``oauth_token``, a :class:`SecretSource`; they may hold secrets, so they
    are never shown. ``instance`` names this process within its group, the same after a restart. ``failures``
    is where its connections note why they failed.
    """

    servers: tuple[str, ...]
    options: Mapping[str, object] = field(default_factory=dict, repr=False)
    instance: str = "0"
    session_timeout_ms: int | None = None
    max_poll_interval_ms: int | None = None
    failures: Failures = field(default_factory=Failures, repr=False, compare=False)

    @property
    def url(self) -> str:
        """The servers as a URL."""
        return SCHEME + ",".join(self.servers)

    @property
    def uses_tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.options.get("security_protocol") in ("SSL", "SASL_SSL")

    @property
    def principal(self) -> str:
        """Who the broker takes us for, as far as we know."""
        mechanism, token = self.options.get("sasl_mechanism"), self.options.get(TOKEN)
        if isinstance(token, SecretSource):
            name = name_in_token(token)
            return f"user {name!r}" if name else f"the bearer of {TOKEN}"
        if mechanism in WITH_PASSWORD:
            return f"user {str(self.options['sasl_plain_username'])!r}"
        if mechanism:
            return f"the {mechanism} user"
        if self.options.get("ssl_certfile"):
            return f"the owner of certificate {self.options['ssl_certfile']}"
        return "user 'ANONYMOUS'"


def config_of(
    url: str, path: Path | None, instance: str, environment: Mapping[str, str] = os.environ
) -> KafkaConfig:
    """Return the configuration of ``kafka://HOST:PORT,…`` and a TOML file with kafka-python's options.

    Reads the file, and every secret that it points to. Raises :class:`SettingsError` for whatever is wrong with them.
    """
    servers = servers_of(url)
    options = _options(path, environment) if path else {}
    session_timeout_ms = options.pop("session_timeout_ms", None)
    max_poll_interval_ms = options.pop("max_poll_interval_ms", None)
    return KafkaConfig(servers, options, instance, session_timeout_ms, max_poll_interval_ms)


def servers_of(url: str) -> tuple[str, ...]:
    """Return ``HOST:PORT`` of each server in a URL; raises :class:`SettingsError`."""
    rest = url.removeprefix(SCHEME)
    if "@" in rest:  # not shown: there is a password in it
        raise SettingsError(
            f"--log {SCHEME}…: no user and password in the URL, where everybody sees them; put sasl_plain_username and "
            "sasl_plain_password into the file of --log-config"
        )
    return tuple(_server(server, url) for server in rest.split(","))


def _server(text: str, url: str) -> str:
    wrong = f"--log {url}: {text!r} is no server; "
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.%\w]+\]|[^\s\[\]:/?#]+)(?::([0-9]{1,5}))?", text)
    if not text:
        raise SettingsError(f"--log {url}: give at least one server, {SCHEME}HOST:PORT,HOST:PORT")
    if found is None and text.count(":") > 1 and not text.startswith("[") and "/" not in text:
        raise SettingsError(f"{wrong}put an IPv6 address in brackets: {SCHEME}[::1]:{DEFAULT_PORT}")
    if found is None:
        raise SettingsError(f"{wrong}give {SCHEME}HOST:PORT,HOST:PORT and nothing after it")
    port = int(found[2] or DEFAULT_PORT)
    if not 0 < port < 65_536:
        raise SettingsError(f"{wrong}a port is at most 65535")
    return f"{found[1]}:{port}"


def _options(path: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the options of a file, with the secrets in place."""
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
        if kind is int and given < 0:
            raise self._wrong(name, "must not be negative")
        if name in CHOICES and given not in CHOICES[name]:
            raise self._wrong(name, f"must be one of {', '.join(CHOICES[name])}")
        if name in FILES:
            return str(self._path.parent / str(given))
        return Secret(given) if name in (*PASSWORDS, "proxy_url") else given

    def check(self, options: Mapping[str, Any]) -> None:
        """Refuse options that do not fit together: what looks safe must be."""
        protocol, mechanism = options.get("security_protocol", "PLAINTEXT"), options.get("sasl_mechanism")
        if proxy := options.get("proxy_url"):
            self._check_proxy(proxy)
        for prefix, wanted in (("ssl_", ("SSL", "SASL_SSL")), (("sasl_", TOKEN), ("SASL_SSL", "SASL_PLAINTEXT"))):
            name = next((name for name in options if name.startswith(prefix)), None)
            if name and protocol not in wanted:
                raise self._wrong(
                    name, f"does nothing with security_protocol {protocol}; set that to {' or '.join(wanted)}"
                )
        if protocol.startswith("SASL") and mechanism is None:
            raise self._wrong("security_protocol", f"{protocol} needs sasl_mechanism")
        if mechanism in WITH_PASSWORD:
            for name in ("sasl_plain_username", "sasl_plain_password"):
                if not options.get(name):
                    raise self._wrong("sasl_mechanism", f"{mechanism} needs {name}")
        if (mechanism == "OAUTHBEARER") != (TOKEN in options):
            raise self._wrong(TOKEN, "and sasl_mechanism OAUTHBEARER go together; one is missing")
        if protocol in ("SSL", "SASL_SSL"):
            self._check_tls(options)

    def holds_secrets(self, given: Mapping[str, Any]) -> bool:
        """Say whether a password stands in the file itself."""
        return any(isinstance(given.get(name), str) for name in PASSWORDS) or "@" in str(given.get("proxy_url"))

    def _check_name(self, name: str) -> None:
        if name in OPTIONS or name == TOKEN:
            return
        if name in UNUSED:
            raise self._wrong(name, UNUSED[name])
        if name in OURS:
            instead = f"; give {OURS[name]}" if OURS[name] else ""
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

    def _check_tls(self, options: Mapping[str, Any]) -> None:
        """Load what TLS needs as the client will: else it would say so much later, or ask for a password."""
        if options.get("ssl_keyfile") and not options.get("ssl_certfile"):
            raise self._wrong("ssl_keyfile", "needs ssl_certfile")
        for name in FILES:
            if name in options:
                self._check_readable(name, Path(options[name]))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for name, load in (
            ("ssl_cafile", lambda file: context.load_verify_locations(cafile=file)),
            ("ssl_crlfile", lambda file: context.load_verify_locations(cafile=file)),
            ("ssl_certfile", lambda file: self._load_certificate(context, options, file)),
        ):
            if name in options:
                try:
                    load(options[name])
                except (ssl.SSLError, ValueError):
                    raise self._wrong(name, f"{options[name]} is no such PEM file") from None

    def _load_certificate(self, context: ssl.SSLContext, options: Mapping[str, Any], file: str) -> None:
        asked = []

        def password() -> str:
            asked.append(True)
            return str(options.get("ssl_password", ""))

        key = options.get("ssl_keyfile", file)
        try:
            context.load_cert_chain(file, key, password)
        except ssl.SSLError as error:
            if asked:
                state = "is wrong" if options.get("ssl_password") else "is missing"
                raise self._wrong("ssl_password", f"{state}: {key} is encrypted") from None
            if error.reason == "KEY_VALUES_MISMATCH":
                raise self._wrong("ssl_keyfile", f"{key} is not the key of {file}") from None
            raise self._wrong("ssl_certfile", f"{file} with {key} is no certificate and key in PEM") from None

    def _check_readable(self, name: str, file: Path) -> None:
        try:
            if not stat.S_ISREG(file.stat().st_mode):
                raise self._wrong(name, f"{file} is no file")
            file.open("rb").close()
        except OSError as error:
            raise self._wrong(name, f"{file} cannot be read ({error.strerror})") from None

    def _wrong(self, name: str, what: str) -> SettingsError:
        return SettingsError(f"--log-config {self._path}: {name} {what}")


def _kind(value: object) -> str:
    kinds = {str: "text", bool: "true or false", int: "a whole number", float: "a fraction", list: "a list"}
    return kinds.get(type(value), type(value).__name__)
