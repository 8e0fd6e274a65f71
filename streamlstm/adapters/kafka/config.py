"""How to reach a Kafka cluster: its URL, the options of the client, and secrets from files or the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
