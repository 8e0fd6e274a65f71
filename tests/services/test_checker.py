"""Checks before a deployment, on SQLite and a real receiver: each thing that can be wrong, and what it says to do."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from streamlstm.adapters.bundle_files import write_bundle
from streamlstm.errors import SettingsError, StreamlstmError
from streamlstm.services.checker import check
from streamlstm.services.settings import ReceiverSettings, ScoreSettings
from tests import builders
from tests.end_to_end import runs
from tests.kafka_broker import Broker
from tests.receiver import Receiver

SECRET = {"STREAMLSTM_WEBHOOK_SECRET": 32 * "s"}


def told(settings: ScoreSettings, environment: Mapping[str, str] = SECRET, **receiver: Any) -> tuple[bool, str]:
    """Check; return whether all was well, and what was printed."""
    out = io.StringIO()
    try:
        check(settings, ReceiverSettings(**receiver), environment, Console(file=out, width=10_000))
    except StreamlstmError as error:
        return False, f"{out.getvalue()}{error}"
    return True, out.getvalue()


@pytest.fixture
def settings(tmp_path: Path) -> ScoreSettings:
    """Settings with which all is well."""
    path = runs.write_input(tmp_path / "log.db")
    return ScoreSettings(log=f"sqlite:///{path}", model=runs.write_model(tmp_path))


def test_all_is_well_before_and_after_the_first_run(settings: ScoreSettings, tmp_path: Path) -> None:
    """A line per check, nothing written, no request to the receiver."""
    with Receiver() as receiver:
        well, text = told(settings, webhook=receiver.url)
    assert well, text
    assert receiver.requests == []
    assert [line.split()[:2] for line in text.splitlines()] == [
        ["ok", what] for what in ("bundle", "log", "topics", "permissions", "states", "webhook")
    ]
    assert "none yet" in text
    runs.score_here(tmp_path / "log.db")
    before = runs.outputs_of(tmp_path / "log.db")
    well, text = told(settings)
    assert well, text
    assert "all of this bundle" in text
    assert "webhook" not in text
    assert runs.outputs_of(tmp_path / "log.db") == before


def test_alarms_rarer_than_the_held_out_events_can_tell_are_said(settings: ScoreSettings) -> None:
    """No fault: the scorer works; a budget given to it may be rarer than the bundle's."""
    assert "extrapolated" not in told(replace(settings, alarm_rate=0.01))[1]
    well, text = told(replace(settings, alarms="1 per key per year"))
    assert well, text
    assert "at most 1 per key per year (1 per key per year is one event in 31,536,000: of " in text
    assert "threshold is extrapolated" in text


def test_states_of_another_bundle_are_found_unless_they_may_be_reset(settings: ScoreSettings, tmp_path: Path) -> None:
    """The scorer would end with its first poll."""
    runs.score_here(tmp_path / "log.db")
    other = msgspec.structs.replace(builders.expiring_bundle(), band=builders.expiring_bundle().band * 2)
    write_bundle(other, tmp_path / "other", "")
    given = ScoreSettings(log=settings.log, model=tmp_path / "other")
    well, text = told(given)
    assert not well
    assert "wrong states" in text
    assert "--on-model-change reset" in text
    assert told(ScoreSettings(log=settings.log, model=tmp_path / "other", on_model_change="reset"))[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": Path("nowhere")}, "wrong bundle       nowhere is no model bundle"),
        ({"log": "sqlite:///gone.db"}, "wrong log          --log sqlite:///gone.db: there is no file gone.db"),
        ({"log": "sqlite:///stream.toml"}, "wrong log          "),
        ({"topic": "gone"}, "has no topic 'gone'; it has events"),
        ({"stream": Path("stream.toml")}, "does not fit stream.toml"),
    ],
)
def test_what_is_wrong_is_told_and_the_rest_is_looked_at(
    settings: ScoreSettings, changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One line for what is wrong; the other checks go on, as far as they can."""
    monkeypatch.chdir(tmp_path)
    Path("stream.toml").write_text("[features.flow]")
    well, text = told(ScoreSettings(**{"log": settings.log, "model": settings.model, **changes}))
    assert not well
    assert message in text
    assert text.splitlines()[-1].startswith("1 of ")


@pytest.mark.parametrize(
    ("receiver", "environment", "message"),
    [
        (
            {"webhook": "http://127.0.0.1:9/token-in-path"},
            SECRET,
            "127.0.0.1 cannot be reached: ConnectionRefusedError",
        ),
        ({"webhook": "token-in-path"}, SECRET, "must be an address such as"),
        ({"webhook": "http://127.0.0.1:9/token-in-path"}, {}, "set STREAMLSTM_WEBHOOK_SECRET"),
        ({"webhook": "http://no.such.host.invalid/token-in-path"}, SECRET, "no.such.host.invalid cannot be reached"),
    ],
)
def test_receiver_that_cannot_be_used_is_told_without_its_address(
    settings: ScoreSettings, receiver: dict[str, Any], environment: dict[str, str], message: str
) -> None:
    """The host is shown, the rest may be a secret."""
    well, text = told(settings, environment, **receiver)
    assert not well
    assert message in text
    assert "token-in-path" not in text


def test_receiver_that_is_not_public_is_refused_if_only_such_are_allowed(settings: ScoreSettings) -> None:
    """As the alerter would."""
    with Receiver() as receiver:
        well, text = told(settings, webhook=receiver.url, public_only=True)
    assert not well
    assert "127.0.0.1 is not a public address" in text


def test_check_without_a_log_is_refused() -> None:
    """There is nothing that could be wrong with a file."""
    with pytest.raises(SettingsError, match="give --log URL"):
        check(ScoreSettings(), ReceiverSettings(), {}, Console(file=io.StringIO()))


def test_check_on_kafka_names_topics_and_permissions(kafka: Broker, tmp_path: Path) -> None:
    """Missing topics with the command that makes them; once they are there, all is well."""
    from streamlstm.services.settings import TopicsSettings
    from streamlstm.services.topics import set_up_topics

    topic, model = kafka.new_topic(2), runs.write_model(tmp_path)
    settings = ScoreSettings(log=f"kafka://{kafka.bootstrap}", topic=topic, model=model)
    well, text = told(settings)
    assert not well
    assert f"wrong topic        {topic}.scores: missing: `streamlstm topics --log " in text
    made = TopicsSettings(log=f"kafka://{kafka.bootstrap}", topic=topic, retention_s=864_000)
    set_up_topics(made, Console(file=io.StringIO()))
    well, text = told(settings)
    assert f"ok    permission   group 'streamlstm@{topic}' is not there yet" in text, text
    assert f"ok    permission   Write on transactional id 'streamlstm@{topic}@…'" in text
    assert f"ok    permission   Read and Write on topic '{topic}.states.streamlstm'" in text
    assert well, text


def test_budget_is_told_and_one_that_no_rate_keeps_to_is_wrong(settings: ScoreSettings) -> None:
    """Before a scorer starts with it."""
    well, text = told(replace(settings, alarms="1 per key per week"))
    assert well, text
    assert "alarms: at most 1 per key per week" in text
    well, text = told(replace(settings, alarms="181 per key per hour"))
    assert not well
    assert "less than 0.05, which is 180 per key per hour" in text
