"""Log lines: for people on a terminal, JSON for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamlstm.adapters.sqlite_log import SqliteLog
from tests.end_to_end import runs
from tests.test_cli import Run, run

__all__ = ["run"]


@pytest.mark.parametrize("form", ["json", "auto"])
def test_lines_are_json_objects_also_the_last_one(
    run: Run, monkeypatch: pytest.MonkeyPatch, bundle_directory: Path, form: str
) -> None:
    """One line per event of life, each with its time and level; that of an error too."""
    monkeypatch.delenv("STREAMLSTM_LOG_FORMAT")
    runs.write_input(Path("log.db"))
    arguments = ("--log", "sqlite:///log.db", "--model", bundle_directory, "--until-end", "--log-format", form)
    ended = run("score", *arguments)
    lines = [json.loads(line) for line in ended.errors.splitlines()]
    assert [line["event"] for line in lines if "alert" not in line["event"]] == ["scoring", "stopped"]
    assert {"level", "timestamp"} <= set(lines[0])
    assert lines[0]["timestamp"].endswith("Z")
    failed = run("score", *arguments, "--topic", "gone")
    assert failed.status == 1
    last = json.loads(failed.errors.splitlines()[-1])
    assert (last["event"], last["level"]) == ("ended", "critical")
    assert "no topic 'gone'" in last["error"]


def test_lines_for_people_are_as_they_were(run: Run, bundle_directory: Path) -> None:
    """With --log-format console, also where standard error is no terminal."""
    log = SqliteLog("log.db")
    log.create_topic("events", 1)
    log.close()
    ended = run("score", "--log", "sqlite:///log.db", "--model", bundle_directory, "--until-end")
    assert "events=0" in ended.errors
    assert not ended.errors.startswith("{")
