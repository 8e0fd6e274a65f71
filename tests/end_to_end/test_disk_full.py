"""A full disk: the scorer waits, nothing is lost or doubled, and it says what is wrong when it gives up."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable
from pathlib import Path

from streamlstm.adapters.sqlite_log import SqliteLog
from streamlstm.services.scorer import run
from streamlstm.services.settings import ScoreSettings
from tests import builders
from tests.end_to_end import runs

LIMIT_BYTES = 900_000  # more than the input, less than with its outputs


class Room(threading.Event):
    """A stop event that is never set, and that makes room on the disk when the scorer waits for it."""

    def __init__(self, make_room: Callable[[], object]) -> None:
        super().__init__()
        self._make_room = make_room
        self.waits_s: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        """Note the wait instead of waiting; the third time, make room."""
        self.waits_s.append(timeout or 0.0)
        if len(self.waits_s) == 3:
            self._make_room()
        return False


def test_full_disk_is_waited_for_and_scoring_goes_on_afterwards(tmp_path: Path) -> None:
    """Commits that find no room leave nothing; the same events are scored once there is room again."""
    path = runs.write_input(tmp_path / "log.db")
    log = SqliteLog(path)
    (pages,) = log._connection.execute("PRAGMA page_count").fetchone()
    log._connection.execute(f"PRAGMA max_page_count = {pages + 40}")
    room = Room(lambda: log._connection.execute("PRAGMA max_page_count = 1000000"))
    totals = run(log, builders.expiring_bundle(), ScoreSettings(until_end=True, poll_records=25), room)
    log.close()
    assert room.waits_s == [0.2, 0.4, 0.8]
    assert totals.events == len(runs.accounted(runs.plain_outputs()))
    runs.assert_exactly_once(path)


def test_full_disk_that_stays_full_ends_the_scorer_with_a_clear_sentence(tmp_path: Path) -> None:
    """After give-up-after-s the process ends; what it committed stays, and a later start completes it."""
    model, path = runs.write_model(tmp_path), runs.write_input(tmp_path / "log.db")
    runs.create_outputs(path)
    assert path.stat().st_size < LIMIT_BYTES
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, hard))
    try:  # the child inherits the limit
        process = runs.start_scorer(path, model, "--poll-records", "50", "--give-up-after-s", "0.1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    status, errors = runs.finish(process)
    assert status == 1
    assert "log out of reach, waiting" in errors
    assert f"error: {path}: disk I/O error; nothing was committed" in errors
    assert "Traceback" not in errors
    done = len(runs.accounted(runs.outputs_of(path)))
    assert 0 < done < len(runs.accounted(runs.plain_outputs()))
    runs.score_here(path)
    runs.assert_exactly_once(path)
