"""Two scorers on one partition: the second is refused, takes over when the first dies, and a zombie is fenced."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from streamlstm.adapters.sqlite_log import SqliteLog
from streamlstm.core.scorer import Scorer
from streamlstm.errors import Fenced
from streamlstm.services.pipeline import score_polled
from tests import builders
from tests.end_to_end import runs


def test_second_scorer_is_refused_while_the_first_lives_and_takes_over_after_it_died(tmp_path: Path) -> None:
    """A clear sentence for the second process; after SIGKILL of the first nothing has to be cleaned up."""
    model, path = runs.write_model(tmp_path), runs.write_input(tmp_path / "log.db")
    log = SqliteLog(path)
    first = runs.start_scorer(path, model, "--poll-records", "20")
    runs.wait_until(lambda: runs.scored(log) > 100, first)
    status, errors = runs.finish(runs.start_scorer(path, model))
    assert status == 1
    assert "group 'streamlstm' already reads topic 'events' in a live process" in errors
    assert "Traceback" not in errors
    first.send_signal(signal.SIGKILL)
    runs.finish(first)
    log.close()
    assert runs.finish(runs.start_scorer(path, model, "--until-end"))[0] == 0
    runs.assert_exactly_once(path)


def test_zombie_whose_lock_was_bypassed_is_fenced_and_leaves_nothing(tmp_path: Path) -> None:
    """A scorer that was away while another one took its partition and committed must not commit."""
    path = runs.write_input(tmp_path / "log.db")
    runs.create_outputs(path)
    log, other = SqliteLog(path), SqliteLog(path)
    bundle, beside = builders.expiring_bundle(), ThreadPoolExecutor(1)
    zombie, scorer = log.open_session("events", "streamlstm"), Scorer(bundle)
    score_polled(zombie, scorer, zombie.poll(100, 0.0), 100, beside)
    late = zombie.poll(100, 0.0)
    zombie.close()  # its lock is gone, and it does not notice

    owner, owner_scorer = other.open_session("events", "streamlstm"), Scorer(bundle)
    score_polled(owner, owner_scorer, owner.poll(60, 0.0), 60, beside)
    before = runs.outputs_of(path)
    with pytest.raises(Fenced, match="another scorer has taken over"):
        score_polled(zombie, scorer, late, 100, beside)
    assert runs.outputs_of(path) == before
    owner.close()
    log.close()
    other.close()
    runs.score_here(path)
    runs.assert_exactly_once(path)
