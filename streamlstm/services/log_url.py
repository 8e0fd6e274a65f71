"""Open an event log by its URL."""

from __future__ import annotations

from pathlib import Path

from streamlstm.adapters.sqlite_log import SqliteLog
from streamlstm.core.log import EventLog
from streamlstm.errors import SettingsError

SQLITE = "sqlite:///"


def open_log(url: str, *, must_exist: bool = True) -> EventLog:
    """Open the log that ``url`` names: ``sqlite:///relative.db`` or ``sqlite:////absolute.db``.

    Raises :class:`SettingsError` for another URL, or if ``must_exist`` and the file is not there.
    """
    if not url.startswith(SQLITE) or url == SQLITE:
        raise SettingsError(f"--log {url}: unknown kind of log; give sqlite:///FILE")
    path = Path(url.removeprefix(SQLITE))
    if must_exist and not path.is_file():
        raise SettingsError(f"--log {url}: there is no file {path}; `streamlstm replay` makes one")
    return SqliteLog(path)
