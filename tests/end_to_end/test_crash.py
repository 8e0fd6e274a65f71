"""Killed at any moment and started again, the scorer leaves what an undisturbed one would, bit for bit."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from streamlstm.adapters.sqlite_log import SqliteLog
from streamlstm.core.record import decode_alert, decode_score
from tests.end_to_end import runs

STEPS = ("begin", "offsets", "scores", "alerts", "dead_letters", "states", "sql-commit", "end")
ROUNDS = int(os.environ.get("TEST_CRASH_ROUNDS", "1"))
KILLS = 6  # in each round


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the model, and the log that all these tests copy."""
    directory = tmp_path_factory.mktemp("crash")
    runs.write_model(directory)
    runs.write_input(directory / "input.db")
    return directory


def test_plain_run_tells_everything_that_can_happen(directory: Path) -> None:
    """The feed that the crash tests use opens, updates and resolves alerts, and has every kind of bad record."""
    outputs = runs.plain_outputs()
    alerts = [decode_alert(record.value) for record in outputs["events.alerts"]]
    assert {alert.action for alert in alerts} == {"opened", "updated", "resolved"}
    assert {alert.reason for alert in alerts} >= {None, "calm", "silence"}
    assert {alert.partition for alert in alerts} == {0, 1}
    reasons = {dict(record.headers)["reason"] for record in outputs["events.dead-letters"]}
    assert reasons == {b"malformed", b"invalid", b"duplicate", b"late"}
    statuses = {decode_score(record.value).status for record in outputs["events.scores"]}
    assert statuses == {"scored", "warming_up"}


@pytest.mark.parametrize("poll_records", [7, 64, 100_000])
def test_run_with_another_poll_size_gives_the_same_bits(directory: Path, tmp_path: Path, poll_records: int) -> None:
    """How events are batched leaves no trace in any output."""
    path = runs.copy_log(directory / "input.db", tmp_path / "log.db")
    runs.score_here(path, poll_records=poll_records)
    runs.assert_exactly_once(path)


@pytest.mark.parametrize("step", STEPS)
def test_kill_at_a_step_of_the_commit_loses_and_doubles_nothing(directory: Path, tmp_path: Path, step: str) -> None:
    """SIGKILL between any two steps of a commit: the next start takes the poll again, or goes on after it."""
    path = runs.copy_log(directory / "input.db", tmp_path / "log.db")
    process = runs.start("tests.end_to_end.scorer_process", path, directory / "model", step, "9", "80")
    status, errors = runs.finish(process)
    assert status == -signal.SIGKILL, errors
    assert len(runs.accounted(runs.outputs_of(path))) == 80 * (9 if step == "end" else 8)
    runs.score_here(path, poll_records=50)
    runs.assert_exactly_once(path)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_kill_at_random_moments_loses_and_doubles_nothing(directory: Path, tmp_path: Path, seed: int) -> None:
    """SIGKILL from outside, again and again, each time with another poll size; TEST_CRASH_ROUNDS for more."""
    chance = random.Random(seed)
    path = runs.copy_log(directory / "input.db", tmp_path / "log.db")
    log = SqliteLog(path)
    for _ in range(KILLS):
        wanted = runs.scored(log) + chance.randrange(200)
        process = runs.start_scorer(path, directory / "model", "--poll-records", str(chance.randrange(2, 20)))
        runs.wait_until(lambda wanted=wanted: runs.scored(log) > wanted, process)  # type: ignore[misc]
        process.kill()
        assert runs.finish(process)[0] == -signal.SIGKILL
    assert 0 < runs.scored(log) < len(runs.plain_outputs()["events.scores"]), "there was nothing to kill"
    log.close()
    runs.score_here(path)
    runs.assert_exactly_once(path)
