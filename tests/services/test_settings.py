"""Settings, the log's URL, and signals: what every service shares."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path

import pytest

from streamlstm.core.bundle import Alerting
from streamlstm.errors import LogError, SettingsError
from streamlstm.services import settings as settings_module
from streamlstm.services.log_url import open_log
from streamlstm.services.settings import InspectSettings, ReplaySettings, ScoreSettings, TrainSettings
from streamlstm.services.stop import stop_on_signals
from streamlstm.training.train import Options

ALL = [kind for name, kind in vars(settings_module).items() if name.endswith("Settings")]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_settings_are_frozen(kind: type) -> None:
    """Settings do not change once a service runs."""
    given = {
        field.name: "x"
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    settings = kind(**given)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.log = "sqlite:///other.db"


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_settings_of_one_name_mean_one_thing(kind: type) -> None:
    """One environment variable may serve several commands, so options of one name have one type."""
    types = {field.name: field.type for other in ALL for field in dataclasses.fields(other)}
    differing = {
        "log",
        "model",
        "partitions",
        "stream",
        "webhook",
    }  # required by one command, optional in another
    for field in dataclasses.fields(kind):
        if field.name not in differing:
            assert types[field.name] == field.type, field.name


def test_train_settings_have_the_trainers_defaults() -> None:
    """The trainer and the command line agree on what is not given."""
    settings = TrainSettings(stream=Path("stream.toml"))
    for name in Options.__struct_fields__:
        assert getattr(settings, name) == getattr(Options(), name), name


def test_score_settings_leave_alerting_to_the_bundle() -> None:
    """Everything about alerts can be given, and nothing is by default."""
    for name in Alerting.__struct_fields__:
        assert getattr(ScoreSettings(), name) is None


def test_replay_settings_play_a_file_once_at_its_own_pace() -> None:
    """Without options the feed is the file."""
    assert ReplaySettings(stream=Path("s.toml"), log="sqlite:///x").speed == 1.0


# The log's URL


def at(url: str) -> InspectSettings:
    """Return settings with this log."""
    return InspectSettings(log=url)


@pytest.mark.parametrize(
    "url", ["", "sqlite:///", "sqlite://log.db", "log.db", "postgres://host/log", "SQLITE:///log.db"]
)
def test_log_url_of_an_unknown_kind_is_refused(url: str) -> None:
    """The message shows what was given and what is possible."""
    with pytest.raises(SettingsError, match=rf"--log {url}: unknown kind of log; give sqlite:///FILE"):
        open_log(at(url))


def test_log_url_of_a_missing_file_is_refused_unless_it_may_be_made(tmp_path: Path) -> None:
    """Who reads needs a log that is there; who writes makes it."""
    url = f"sqlite:///{tmp_path}/log.db"
    with pytest.raises(SettingsError, match=r"there is no file .*log\.db; `streamlstm replay` makes one"):
        open_log(at(url))
    assert not (tmp_path / "log.db").exists()
    open_log(at(url), must_exist=False).close()
    open_log(at(url)).close()


def test_log_url_may_be_relative_or_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three slashes and a relative path, or four and an absolute one."""
    monkeypatch.chdir(tmp_path)
    open_log(at("sqlite:///log.db"), must_exist=False).close()
    assert (tmp_path / "log.db").is_file()
    open_log(at(f"sqlite:///{tmp_path / 'log.db'}")).close()


def test_log_url_of_a_directory_is_refused(tmp_path: Path) -> None:
    """A directory is no log, neither to read nor to write."""
    with pytest.raises(SettingsError, match="there is no file"):
        open_log(at(f"sqlite:///{tmp_path}"))
    with pytest.raises(LogError, match="unable to open"):
        open_log(at(f"sqlite:///{tmp_path}"), must_exist=False)


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_sets_the_stop_and_a_second_one_ends_the_process(number: signal.Signals) -> None:
    """One signal asks to finish; whoever sends another one wants it now. Afterwards all is as before."""
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        assert signal.getsignal(number) != before
    assert signal.getsignal(number) == before
    with stop_on_signals() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        assert stop.wait(10)
        assert signal.getsignal(number) == before
    assert signal.getsignal(number) == before


# Two ways to promise


PROMISING = [kind for kind in ALL if "alarms" in {field.name for field in dataclasses.fields(kind)}]


@pytest.mark.parametrize("kind", PROMISING, ids=lambda kind: kind.__name__)
def test_rate_and_budget_together_are_refused(kind: type) -> None:
    """Both say how many alarms may come; the message names both."""
    assert {"alarm_rate", "alarms"} <= {field.name for field in dataclasses.fields(kind)}
    given = {"stream": Path("s.toml")} if kind is TrainSettings else {"log": "sqlite:///x"}
    given = {} if kind.__name__ == "EvaluateSettings" else given
    kind(**given, alarms="1 per key per week")
    with pytest.raises(SettingsError, match=r"--alarm-rate 0.001 and --alarms '1 per key per week'"):
        kind(**given, alarm_rate=1e-3, alarms="1 per key per week")


def test_every_command_that_promises_takes_both() -> None:
    """Who may give a rate may give a budget."""
    assert [kind for kind in ALL if "alarm_rate" in {field.name for field in dataclasses.fields(kind)}] == PROMISING
    assert len(PROMISING) == 4
