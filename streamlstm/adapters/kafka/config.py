"""How to reach a Kafka cluster: its URL, the options of the client, and who we are."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from streamlstm.adapters.kafka.failures import Failures
from streamlstm.adapters.kafka.options import TOKEN, WITH_PASSWORD, options_of
from streamlstm.adapters.kafka.secret import SecretSource, name_in_token
from streamlstm.errors import SettingsError

SCHEME = "kafka://"
DEFAULT_PORT = 9092


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


def config_of(url: str, path: Path | None, instance: str, environment: Mapping[str, str] = os.environ) -> KafkaConfig:
    """Return the configuration of ``kafka://HOST:PORT,…`` and a TOML file with kafka-python's options.

    Reads the file, and every secret that it points to. Raises :class:`SettingsError` for whatever is wrong with them.
    """
    servers = servers_of(url)
    options = options_of(path, environment) if path else {}
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
        raise SettingsError(f"{wrong}a port is 1 to 65535")
    return f"{found[1]}:{port}"
