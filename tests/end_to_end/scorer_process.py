"""A scorer that kills itself in the middle of a commit: ``scorer_process LOG MODEL STEP COMMIT POLL_RECORDS``.

``STEP`` is the name of a step of the commit, or ``sql-commit``: right before SQLite is told to commit.
``COMMIT`` counts from 1. SIGKILL leaves no chance to tidy up: no handler, no ``finally`` runs.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from streamlstm.adapters.bundle_files import read_bundle
from streamlstm.adapters.sqlite_log import SqliteLog
from streamlstm.services.scorer import run
from streamlstm.services.settings import ScoreSettings


def main(log_path: str, model: str, step: str, commit: str, poll_records: str) -> None:
    """Score the topic ``events`` to its end, or die."""
    commits = 0

    def die() -> None:
        if commits == int(commit):
            os.kill(os.getpid(), signal.SIGKILL)

    def on_step(done: str) -> None:
        nonlocal commits
        commits += done == "begin"
        if done == step:
            die()

    log = SqliteLog(log_path, on_step=on_step)
    if step == "sql-commit":
        log._connection.set_trace_callback(lambda sql: die() if sql == "COMMIT" else None)
    settings = ScoreSettings(until_end=True, poll_records=int(poll_records))
    run(log, read_bundle(Path(model)), settings, threading.Event())


if __name__ == "__main__":
    main(*sys.argv[1:])
