"""Open an event log by its URL."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

from streamlstm.adapters.kafka.config import SCHEME, KafkaConfig, config_of
from streamlstm.adapters.sqlite_log import SqliteLog
from streamlstm.core.log import EventLog
from streamlstm.errors import SettingsError

SQLITE = "sqlite:///"
CONFLUENT = "kafka+confluent://"


class LogSettings(Protocol):
    """The settings that say where a log is."""

    @property
    def log(self) -> str | None:
        """The log's URL."""

    @property
    def log_config(self) -> Path | None:
        """The client's options, with Kafka."""


def open_log(
    settings: LogSettings, *, must_exist: bool = True, instance: str = "", stuck_after_s: float = 300.0
) -> EventLog:
    """Open the log of the settings.

    ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``kafka://HOST:PORT,HOST:PORT``, or the same with
    ``kafka+confluent://`` for the faster client. ``instance`` is this process's name in consumer groups; a commit to
    Kafka that takes ``stuck_after_s`` ends the process. Raises :class:`SettingsError` for another URL, or if
    ``must_exist`` and the file is not there.
    """
    url = settings.log or ""
    if url.startswith(CONFLUENT):
        config = config_of(SCHEME + url.removeprefix(CONFLUENT), settings.log_config, instance)
        return _confluent(config, stuck_after_s)
    if url.startswith(SCHEME):
        from streamlstm.adapters.kafka.log import KafkaLog  # the client takes half a second to import

        return KafkaLog(config_of(url, settings.log_config, instance), stuck_after_s=stuck_after_s)
    shown = re.sub("//.*@", "//…@", url)  # there may be a password in it
    if settings.log_config is not None:
        raise SettingsError(f"--log-config {settings.log_config} is for {SCHEME}HOST:PORT, not for --log {shown}")
    if not url.startswith(SQLITE) or url == SQLITE:
        raise SettingsError(f"--log {shown}: unknown kind of log; give sqlite:///FILE or {SCHEME}HOST:PORT")
    path = Path(url.removeprefix(SQLITE))
    if must_exist and not path.is_file():
        raise SettingsError(f"--log {url}: there is no file {path}; `streamlstm replay` makes one")
    return SqliteLog(path)


def _confluent(config: KafkaConfig, stuck_after_s: float) -> EventLog:
    try:
        from streamlstm.adapters.kafka.confluent_client import CLIENTS
    except ModuleNotFoundError as error:
        if error.name != "confluent_kafka":
            raise
        raise SettingsError(
            f"--log {CONFLUENT}… needs the package confluent-kafka: pip install 'streamlstm[confluent]'"
        ) from error
    from streamlstm.adapters.kafka.confluent_options import check
    from streamlstm.adapters.kafka.log import KafkaLog

    check(config)
    return KafkaLog(config, stuck_after_s=stuck_after_s, clients=CLIENTS)
