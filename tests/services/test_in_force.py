"""What settings are in force, and where each came from."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from streamlstm.services import in_force
from tests.test_cli import Run, run

__all__ = ["run"]


def row(out: str, name: str) -> list[str]:
    """Return value and source of a setting in what `config` printed."""
    (line,) = [line.strip() for line in out.splitlines() if line.split()[:1] == [name]]
    return line.split(maxsplit=2)[1:] if len(line.split()) > 2 else line.split()[1:]


def test_examples_hold() -> None:
    """What the docstrings show is so."""
    assert doctest.testmod(in_force).failed == 0


def test_config_names_the_place_that_each_value_came_from(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Default, file with its path, variable by its name; the variable wins over the file."""
    Path("streamlstm.toml").write_text('[score]\nmodel = "m2"\nmax-keys = 5\ngroup = "file"\n')
    monkeypatch.setenv("STREAMLSTM_GROUP", "variable")
    ended = run("config", "score")
    assert (ended.status, ended.errors) == (0, "")
    path = str(Path("streamlstm.toml").resolve())
    assert row(ended.out, "model") == ["m2", path]
    assert row(ended.out, "max_keys") == ["5", path]
    assert row(ended.out, "group") == ["variable", "STREAMLSTM_GROUP"]
    assert row(ended.out, "topic") == ["events", "default"]
    assert row(ended.out, "until_end") == ["false", "default"]


def test_config_shows_all_commands_and_what_must_still_be_given(run: Run) -> None:
    """Without a command, each has its part."""
    ended = run("config")
    for words in ("train", "score", "alert", "check", "simulate"):
        assert re.search(rf"^{words} *$", ended.out, re.MULTILINE), words
    assert row(run("config", "alert").out, "webhook") == ["missing:", "it must be given"]


def test_config_shows_no_secret(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses that are secrets, passwords in addresses, and variables that hold one."""
    Path("streamlstm.toml").write_text(
        '[alert]\nwebhook = "https://hooks.example/swordfish"\nlog = "kafka://me:swordfish@host:1"\n'
        '[score]\nregistry = "http://me:swordfish@host"\n'
    )
    monkeypatch.setenv("STREAMLSTM_WEBHOOK_SECRET", "swordfish-swordfish")
    ended = run("config")
    assert ended.status == 0
    assert "swordfish" not in ended.out + ended.errors
    assert "STREAMLSTM_WEBHOOK_SECRET is set (hidden)" in ended.out
    assert row(run("config", "alert").out, "webhook")[0] == "(hidden)"


@pytest.mark.parametrize(
    ("arguments", "text", "message"),
    [
        ("config", "[replay]\nsped = 1\n", "streamlstm.toml: [replay] has no 'sped'; did you mean speed?"),
        ("config alert", "[replay]\nsped = 1\n", "[replay] has no 'sped'; did you mean speed?"),
        ("check", "[score]\nmodle = 1\n", "[score] has no 'modle'; did you mean model?"),
        ("check", "[alert]\nwebhok = 1\n", "[alert] has no 'webhok'; did you mean webhook?"),
        ("config scoer", "", "there is no command 'scoer'; did you mean score?"),
    ],
)
def test_what_is_unknown_is_refused_with_the_nearest_name(run: Run, arguments: str, text: str, message: str) -> None:
    """`config` looks at every table, `check` at those it reads."""
    Path("streamlstm.toml").write_text(text)
    ended = run(*arguments.split())
    assert (ended.status, ended.out) == (1, "")
    assert message in ended.errors


def test_table_of_another_command_is_not_looked_at(run: Run) -> None:
    """A mistake in the trainer's table does not stop a scorer."""
    Path("streamlstm.toml").write_text("[train]\nupdats = 1\n")
    assert "updats" not in run("score", "live.csv").errors


def test_config_refuses_a_value_that_the_command_would_refuse(run: Run) -> None:
    """It is not shown as if it were in force."""
    Path("streamlstm.toml").write_text("[score]\nmax_keys = 0\n")
    ended = run("config", "score")
    assert ended.status == 2
    assert "max_keys" in ended.errors
