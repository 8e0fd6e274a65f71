"""SIGTERM and Ctrl-C: the scorer finishes its poll, commits, gives its partitions back and says so."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from streamlstm.adapters.sqlite_log import SqliteLog
from streamlstm.core.log import NewRecord
from tests import builders
from tests.end_to_end import runs


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_while_scoring_stops_after_the_commit(tmp_path: Path, number: signal.Signals) -> None:
    """Exit status 0, a line with totals, and totals that are what is in the log."""
    model, path = runs.write_model(tmp_path), runs.write_input(tmp_path / "log.db")
    log = SqliteLog(path)
    process = runs.start_scorer(path, model, "--poll-records", "2")
    runs.wait_until(lambda: runs.scored(log) > 50, process)
    process.send_signal(number)
    status, errors = runs.finish(process)
    assert status == 0, errors
    assert "Traceback" not in errors
    done = len(runs.accounted(runs.outputs_of(path)))
    words = errors.partition("stopped")[2].split()
    assert {f"events={done}", f"scored={runs.scored(log)}"} <= set(words)
    assert done < sum(log.topic("events").end_offsets), "it was stopped too late to tell anything"
    log.open_session("events", "streamlstm").close()
    log.close()
    runs.score_here(path)
    runs.assert_exactly_once(path)


def test_signal_while_waiting_for_events_stops_at_once(tmp_path: Path) -> None:
    """An idle scorer does not wait for an event to stop."""
    model, path = runs.write_model(tmp_path), runs.write_input(tmp_path / "log.db")
    runs.score_here(path)
    log = SqliteLog(path)
    event = builders.make_record(time=builders.START_MS + 1_000_000).value
    log.append("events", [NewRecord(b"a", event, partition=0)])
    before = runs.scored(log)
    process = runs.start_scorer(path, model)
    runs.wait_until(lambda: runs.scored(log) > before, process)
    process.send_signal(signal.SIGTERM)
    status, errors = runs.finish(process)
    assert (status, runs.scored(log)) == (0, before + 1)
    assert "stopped" in errors
    log.close()
