"""How to reach a Kafka cluster: its URL, the options of the client, and secrets from files or the environment."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from streamlstm.errors import SettingsError

SCHEME = "kafka://"


@dataclass(frozen=True)
class KafkaConfig:
    """Servers, the client options given by the user, and who we are.

    ``options`` are kafka-python's names; they may hold secrets, so they are never shown. ``instance`` names this
    process within its group, the same after a restart.
    """

    servers: tuple[str, ...]
    options: Mapping[str, object] = field(default_factory=dict, repr=False)
    instance: str = "0"
    session_timeout_ms: int | None = None
    max_poll_interval_ms: int | None = None


def config_of(url: str, path: Path | None, instance: str) -> KafkaConfig:
    """Return the configuration of ``kafka://HOST:PORT,…`` and a TOML file with kafka-python's options."""
    servers = tuple(server for server in url.removeprefix(SCHEME).rstrip("/").split(",") if server)
    if not servers:
        raise SettingsError(f"--log {url}: give at least one server, {SCHEME}HOST:PORT")
    options = tomllib.loads(path.read_text()) if path else {}
    return KafkaConfig(
        servers,
        options,
        instance,
        options.pop("session_timeout_ms", None),
        options.pop("max_poll_interval_ms", None),
    )
