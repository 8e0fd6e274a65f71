"""The inspector: what people see of a bundle, a topic and a key."""

from __future__ import annotations

import io
import re
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from streamlstm.adapters.bundle_files import write_bundle
from streamlstm.adapters.sqlite_log import SqliteLog
from streamlstm.core.log import NewRecord
from streamlstm.core.record import decode_alert, decode_score
from streamlstm.core.why import why
from streamlstm.errors import BundleError, LogError, SettingsError
from streamlstm.services.inspector import inspect
from streamlstm.services.settings import InspectSettings
from tests import builders
from tests.end_to_end import runs


def shown(target: object, **given: object) -> str:
    """Return what the inspector prints."""
    out = io.StringIO()
    inspect(str(target), InspectSettings(**given), Console(file=out, width=400))  # type: ignore[arg-type]
    return out.getvalue()


def row_of(text: str, name: str) -> str:
    """Return the value beside a name in a table of facts."""
    (line,) = [line for line in text.splitlines() if line.strip().startswith(name + "  ")]
    return line.strip().removeprefix(name).strip()


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """A log whose topic was scored, as settings, with the model beside it."""
    directory = tmp_path_factory.mktemp("inspect")
    path = runs.write_input(directory / "log.db")
    runs.score_here(path)
    return {"log": f"sqlite:///{path}", "model": runs.write_model(directory)}


def test_bundle_shows_stream_network_calibration_and_alerting(bundle_directory: Path) -> None:
    """Everything that one asks before trusting a model; no log is needed."""
    text = shown(bundle_directory)
    bundle = builders.bundle()
    assert row_of(text, "digest") == bundle.digest
    assert row_of(text, "key, time") == "sensor, time"
    assert "flow  numeric  l/min" in text
    assert "pressure  numeric  bar" in text
    assert row_of(text, "network") == "1 layer, hidden 16, horizon 2 events, 2 inputs"
    assert row_of(text, "warm-up") == f"{bundle.calibration.warmup_events} events per key"
    alerting = bundle.alerting
    assert row_of(text, "alarm rate") == "0.001 of the events"
    assert row_of(text, "resolve after") == f"{alerting.resolve_after_events} events"
    assert row_of(text, "hold") == f"{alerting.hold_events} events"
    assert row_of(text, "typical gap") == "1 s"
    assert row_of(text, "held out") == f"{bundle.report['held_out_events']} events"
    assert row_of(text, "state") == f"{bundle.report['state_bytes_per_key']} bytes per key"
    assert row_of(text, "stopped early") in ("yes", "no")
    assert row_of(text, "options").startswith("hidden 16, layers 1, ")
    assert row_of(text, "events") == "4500"
    assert row_of(text, "first event") == "2020-09-13T12:26:40.000+00:00"


def test_bundle_that_is_damaged_is_not_shown(bundle_directory: Path, tmp_path: Path) -> None:
    """Half a bundle is none."""
    write_bundle(builders.bundle(), tmp_path / "model", "")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"")
    with pytest.raises(BundleError, match="safetensors"):
        shown(tmp_path / "model")


def test_topic_shows_offsets_retention_and_its_last_records(tmp_path: Path) -> None:
    """Per partition: first and next offset, number, and the newest records with their headers."""
    log = SqliteLog(tmp_path / "log.db", clock=lambda: builders.START_MS)
    log.create_topic("events", 2, 3600.0)
    log.append("events", [NewRecord(b"k", b"value %d" % i, (("why", b"test"),), 1) for i in range(7)])
    log.close()
    text = shown("events", log=f"sqlite:///{tmp_path / 'log.db'}", records=2)
    assert "Topic events: 2 partitions, kept 3600 s" in text
    assert [line.split() for line in text.splitlines() if line.startswith("│")] == [
        ["│", "0", "│", "0", "│", "0", "│", "0", "│"],
        ["│", "1", "│", "0", "│", "7", "│", "7", "│"],
    ]
    assert text.splitlines()[-2:] == [
        "1:5  2020-09-13T12:26:40.000+00:00  why=test  value 5",
        "1:6  2020-09-13T12:26:40.000+00:00  why=test  value 6",
    ]


def test_topic_shows_bytes_that_are_no_text_without_failing(tmp_path: Path) -> None:
    """Dead letters hold anything: broken bytes, markup, endless lines."""
    log = SqliteLog(tmp_path / "log.db")
    log.create_topic("events", 1)
    log.append(
        "events", [NewRecord(b"\xff", b"\xff\x00 [bold]x[/bold] [/]", (("h", b"\xff"),)), NewRecord(None, b"y" * 9000)]
    )
    log.close()
    text = shown("events", log=f"sqlite:///{tmp_path / 'log.db'}")
    assert "[bold]x[/bold] [/]" in text
    assert text.count("y") < 2100


def test_topic_shows_each_record_as_one_line_however_narrow_the_console(tmp_path: Path) -> None:
    """Who copies a record, or reads the lines in a pipe, gets it whole; a line break in it ends no line."""
    log = SqliteLog(tmp_path / "log.db")
    log.create_topic("events", 1)
    log.append("events", [NewRecord(None, b"a b " * 100), NewRecord(None, b"two\nlines\r\x1b[31m")])
    log.close()
    out = io.StringIO()
    inspect("events", InspectSettings(log=f"sqlite:///{tmp_path / 'log.db'}"), Console(file=out, width=40))
    records = [line for line in out.getvalue().splitlines() if line.startswith("0:")]
    assert len(records) == 2
    assert records[0].endswith("  " + "a b " * 100)
    assert records[1].endswith(r"  two\nlines\r\x1b[31m")
    assert out.getvalue().endswith(records[1] + "\n")


def test_topic_of_one_partition_is_told_in_the_singular(tmp_path: Path) -> None:
    """One partition, two partitions."""
    log = SqliteLog(tmp_path / "log.db")
    log.create_topic("events", 1)
    log.close()
    assert "Topic events: 1 partition, kept" in shown("events", log=f"sqlite:///{tmp_path / 'log.db'}")


def test_topic_without_records_is_shown(tmp_path: Path) -> None:
    """An empty topic is no error."""
    log = SqliteLog(tmp_path / "log.db")
    log.create_topic("events", 1)
    log.close()
    assert "kept for ever" in shown("events", log=f"sqlite:///{tmp_path / 'log.db'}")


def test_key_shows_its_state_and_last_scores(scored: dict[str, object]) -> None:
    """Events, last event, alert, usual score; then the key's own last scores and no other's."""
    text = shown("d", records=3, json=True, **scored)
    plain = [decode_score(record.value) for record in runs.plain_outputs()["events.scores"]]
    scores = [score for score in plain if score.key == "d"]
    assert "Key d, topic events, partition 1" in text
    assert row_of(text, "state of bundle") == builders.expiring_bundle().name
    since_silence = sum(score.time_ms >= builders.START_MS + 215 * builders.STEP_MS for score in scores)
    assert row_of(text, "events") == str(since_silence), "it started anew after its silence"
    assert row_of(text, "warm") == "yes"
    assert row_of(text, "last event").endswith(f", offset {scores[-1].offset}")
    assert row_of(text, "alert") in ("none", "cooling down")
    records = [line.partition("  {")[2] for line in text.splitlines() if '"key":' in line]
    assert [msgspec.json.decode("{" + record)["offset"] for record in records] == [s.offset for s in scores[-3:]]


def test_scores_and_alerts_are_shown_in_words_unless_json_is_asked_for(scored: dict[str, object]) -> None:
    """One line each: what, whose, when, why and how much; features without samples and bands."""
    plain = runs.plain_outputs()
    alerts = [decode_alert(record.value) for record in plain["events.alerts"]]
    text = shown("events.alerts", records=1000, log=scored["log"])
    opened, resolved = (next(alert for alert in alerts if alert.action == action) for action in ("opened", "resolved"))
    (line,) = [line for line in text.splitlines() if f"  opened    {opened.key}  at " in line and opened.id in line]
    assert f"  {why(opened)}  score {opened.score:.1f}" in line
    assert re.search(r"  flow \d+ %, pressure \d+ %  |  pressure \d+ %, flow \d+ %  ", line)
    assert f"{resolved.reason} after {resolved.events} events in " in text
    assert '"channels"' not in text
    assert text.count("\n0:") + text.count("\n1:") == len(alerts)
    assert '"channels"' in shown("events.alerts", records=1000, json=True, log=scored["log"])
    score = next(found for found in map(decode_score, (r.value for r in plain["events.scores"])) if found.alert)
    text = shown("events.scores", records=10_000, log=scored["log"])
    assert f"offset {score.offset}  score {score.score:.2f}, threshold {score.threshold:.2f}  " in text
    assert f"in alert {score.alert}\n" in text
    assert "  warming up\n" in text


def test_packed_scores_are_shown_one_by_one(tmp_path: Path) -> None:
    """A line each, of a topic and of a key, in words or as JSON."""
    path = runs.write_input(tmp_path / "log.db")
    runs.score_here(path, scores="packed")
    log, plain = f"sqlite:///{path}", runs.plain_outputs()["events.scores"]
    text = shown("events.scores", records=10_000, log=log)
    assert text.count("\n0:") + text.count("\n1:") == len(plain)
    text = shown("events.scores", records=10_000, log=log, json=True)
    assert text.count('  {"key":') == len(plain)
    last = [score.offset for score in map(decode_score, (record.value for record in plain)) if score.key == "d"][-3:]
    of_key = shown("d", records=3, log=log)
    assert [offset for offset in last if f"  offset {offset}  " in of_key] == last


def test_topic_named_like_alerts_may_hold_anything(tmp_path: Path) -> None:
    """What is no alert is shown as it is."""
    log = SqliteLog(tmp_path / "log.db")
    log.create_topic("fire.alerts", 1)
    log.append("fire.alerts", [NewRecord(None, b"no alert of ours")])
    log.close()
    assert shown("fire.alerts", log=f"sqlite:///{tmp_path / 'log.db'}").endswith("  no alert of ours\n")


def test_key_with_an_open_alert_shows_where_it_opened(tmp_path: Path) -> None:
    """The alert that is open now, by the offset to replay from."""
    path = runs.write_input(tmp_path / "log.db")
    runs.score_here(path, resolve_after_events=10_000)
    text = shown("b", log=f"sqlite:///{path}", model=runs.write_model(tmp_path))
    opened = row_of(text, "alert").removeprefix("open, opened at offset ")
    assert int(opened) > 0


def test_key_without_a_model_tells_what_to_give(scored: dict[str, object]) -> None:
    """The state's layout is the bundle's; without it only its size is known."""
    assert "give --model DIR to read them" in row_of(shown("d", log=scored["log"]), "state")


def test_key_of_another_bundle_is_refused(scored: dict[str, object], bundle_directory: Path) -> None:
    """A state is never read with another model's layout."""
    with pytest.raises((BundleError, LogError), match="not of"):
        shown("d", log=scored["log"], model=bundle_directory)


def test_target_that_is_nothing_says_where_it_looked(scored: dict[str, object], tmp_path: Path) -> None:
    """The message tells the log, the group and the topic, or what to give."""
    with pytest.raises(SettingsError, match="is no bundle directory; for a topic or a key, give --log URL"):
        shown(tmp_path)
    with pytest.raises(SettingsError, match=r"'z' is no topic of .*, and no key that group 'streamlstm' has scored"):
        shown("z", **scored)
    with pytest.raises(SettingsError, match="no key that group 'other' has scored in topic 'events'"):
        shown("d", group="other", **scored)
    with pytest.raises(SettingsError, match=r"'d' is neither a topic nor a key: .*no topic 'gone'"):
        shown("d", topic="gone", **scored)


def test_inspecting_changes_nothing(scored: dict[str, object]) -> None:
    """Looking takes no claim and moves no offset, so it can be done beside a live scorer."""
    path = Path(str(scored["log"]).removeprefix("sqlite:///"))
    log = SqliteLog(path)
    session = log.open_session("events", "streamlstm")
    before = runs.outputs_of(path)
    shown("d", **scored)
    shown("events", **scored)
    assert runs.outputs_of(path) == before
    assert session.poll(10, 0.0) == []
    session.close()
    log.close()
