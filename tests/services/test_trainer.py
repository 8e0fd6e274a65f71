"""The trainer service: history from files or a range of a topic, and the bundle it writes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import structlog

from streamlstm.adapters.bundle_files import read_bundle
from streamlstm.adapters.sqlite_log import SqliteLog
from streamlstm.core.log import NewRecord
from streamlstm.core.scorer import Scorer
from streamlstm.errors import BundleError, HistoryError, LogError, SchemaError, SettingsError, TopicMissing
from streamlstm.services import trainer
from streamlstm.services.settings import TrainSettings
from streamlstm.services.trainer import read_history, run
from tests import builders

STREAM = 'key = "sensor"\ntimestamp = "time"\ntimestamp_unit = "ms"\n[features.flow]\n[features.pressure]\n'
EVENTS = 300  # of each of two keys
TAKEN_MS = 1_700_000_000_000  # when the log took the first record; then one a second


def make_stream(directory: Path) -> Path:
    """Write the stream schema."""
    path = directory / "stream.toml"
    path.write_text(STREAM)
    return path


def make_file(directory: Path, events: int = EVENTS, start: int = 0, name: str = "history.jsonl") -> Path:
    """Write a history of two keys."""
    path = directory / name
    path.write_bytes(b"".join(record.value + b"\n" for record in builders.make_feed(events, start=start)))
    return path


def make_log(directory: Path) -> str:
    """Write the same history to a topic of two partitions, a key in each; return the log's URL."""
    now_ms = TAKEN_MS
    log = SqliteLog(directory / "log.db", clock=lambda: now_ms)
    log.create_topic("events", 2)
    for record in builders.make_feed(EVENTS, partitions=2):
        now_ms = TAKEN_MS + 1000 * record.offset
        log.append("events", [NewRecord(record.key, record.value, partition=record.partition)])
    log.close()
    return f"sqlite:///{directory / 'log.db'}"


def make_settings(directory: Path, **given: object) -> TrainSettings:
    """Return settings that train next to nothing, into ``directory``."""
    small = {"stream": make_stream(directory), "out": directory / "model", "hidden": 4, "updates": 2, "lanes": 2}
    return TrainSettings(**(small | given))  # type: ignore[arg-type]


def test_history_of_files_is_all_their_events(tmp_path: Path) -> None:
    """Several files are one history."""
    files = (make_file(tmp_path), make_file(tmp_path, start=EVENTS, name="later.jsonl"))
    history = read_history(make_settings(tmp_path, history=files), builders.SCHEMA)
    assert len(history) == 4 * EVENTS
    assert history.keys == [b"a", b"b"]


def test_history_of_a_topic_equals_that_of_a_file(tmp_path: Path) -> None:
    """It does not matter where events come from."""
    of_file = read_history(make_settings(tmp_path, history=(make_file(tmp_path),)), builders.SCHEMA)
    of_topic = read_history(make_settings(tmp_path, log=make_log(tmp_path)), builders.SCHEMA)
    assert of_topic.keys == of_file.keys
    assert (of_topic.timestamp_ms == of_file.timestamp_ms).all()
    assert (of_topic.values == of_file.values).all()


@pytest.mark.parametrize(
    ("given", "first", "last"),
    [
        ({}, 0, 299),
        ({"first_offset": 150}, 150, 299),
        ({"last_offset": 199}, 0, 199),
        ({"first_offset": 50, "last_offset": 199}, 50, 199),
        ({"last_offset": 10_000}, 0, 299),
        ({"since": "2023-11-14T22:13:20"}, 0, 299),
        ({"since": "2023-11-14T22:14:20+00:00"}, 60, 299),
        ({"since": "2023-11-14T23:14:20+01:00", "until": "2023-11-14T22:16:40"}, 60, 199),
        ({"since": "2023-11-14T22:14:20", "first_offset": 100, "last_offset": 250}, 100, 250),
    ],
)
def test_history_of_a_range_has_exactly_its_records(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    given: dict[str, object],
    first: int,
    last: int,
) -> None:
    """Offsets are inclusive in each partition; times are the log's, the end excluded, UTC unless they say so."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    request.addfinalizer(lambda: (monkeypatch.undo(), time.tzset()))
    history = read_history(make_settings(tmp_path, log=make_log(tmp_path), **given), builders.SCHEMA)
    assert len(history) == 2 * (last - first + 1)
    assert history.timestamp_ms.min() == builders.START_MS + first * builders.STEP_MS
    assert history.timestamp_ms.max() == builders.START_MS + last * builders.STEP_MS


def test_history_of_a_topic_that_lost_its_beginning_starts_later(tmp_path: Path) -> None:
    """Retention took the oldest records; the others can be learned from."""
    url = make_log(tmp_path)
    log = SqliteLog(tmp_path / "log.db", clock=lambda: TAKEN_MS + 1000 * EVENTS)
    log.create_topic("events", 2, 200.0)
    late = builders.make_feed(1, start=EVENTS, partitions=2)
    log.append("events", [NewRecord(None, record.value, partition=record.partition) for record in late])
    assert log.topic("events").start_offsets == (100, 100)
    log.close()
    assert len(read_history(make_settings(tmp_path, log=url), builders.SCHEMA)) == 2 * (EVENTS - 100 + 1)


def test_history_is_read_in_pieces_without_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long topic is read piece by piece."""
    monkeypatch.setattr(trainer, "READ_RECORDS", 7)
    settings = make_settings(tmp_path, log=make_log(tmp_path), first_offset=3, last_offset=250)
    assert len(read_history(settings, builders.SCHEMA)) == 2 * 248


def test_history_with_bad_records_names_the_first_and_counts_all(tmp_path: Path) -> None:
    """Bad records are not learned from, and not passed over in silence."""
    path = make_file(tmp_path)
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:5], b"{no json", b"{}", b"{}", *lines[5:]]))
    with structlog.testing.capture_logs() as logs:
        history = read_history(make_settings(tmp_path, history=(path,)), builders.SCHEMA)
    assert len(history) == 2 * EVENTS
    (warning,) = logs
    assert (warning["log_level"], warning["malformed"], warning["invalid"]) == ("warning", 1, 2)
    assert warning["first"].startswith("history.jsonl partition 0 offset 5: ")


def test_history_without_its_key_warns_once_that_times_repeat(tmp_path: Path) -> None:
    """Two keys in one: how many, which for example, and what to do."""
    schema = msgspec.structs.replace(builders.SCHEMA, key=None)
    with structlog.testing.capture_logs() as logs:
        read_history(make_settings(tmp_path, history=(make_file(tmp_path),)), schema)
    (warning,) = logs
    assert (warning["log_level"], warning["repeated"], warning["late"]) == ("warning", "300 of 600 events", "0")
    assert warning["first"] == "key all at 2020-09-13T12:26:40+00:00"
    assert "as key in the schema" in warning["advice"]


@pytest.mark.parametrize(("moved", "warns"), [(0, False), (3, False), (200, True)])
def test_history_with_many_late_events_warns(tmp_path: Path, moved: int, warns: bool) -> None:
    """A few are put in place without a word; a part of the file that stands in the wrong place is told."""
    path = make_file(tmp_path)
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join(lines[moved:] + lines[:moved]))
    with structlog.testing.capture_logs() as logs:
        read_history(make_settings(tmp_path, history=(path,)), builders.SCHEMA)
    assert [(log["repeated"], log["late"]) for log in logs] == [("0 of 600 events", f"{moved}")] * warns


@pytest.mark.parametrize("given", [{}, {"history": (Path("a.csv"),), "log": "sqlite:///log.db"}])
def test_history_of_neither_or_both_sources_is_refused(tmp_path: Path, given: dict[str, object]) -> None:
    """There is no default place to learn from."""
    with pytest.raises(SettingsError, match=r"either --history FILE .* or --log URL"):
        read_history(make_settings(tmp_path, **given), builders.SCHEMA)


@pytest.mark.parametrize("option", ["since", "until"])
def test_history_with_a_bad_time_names_the_option(tmp_path: Path, option: str) -> None:
    """A time that is none is refused, not read as something else."""
    settings = make_settings(tmp_path, log=make_log(tmp_path), **{option: "yesterday"})
    with pytest.raises(SettingsError, match=rf"--{option} yesterday"):
        read_history(settings, builders.SCHEMA)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda d: {"stream": d / "gone.toml", "history": (make_file(d),)}, SchemaError, r"gone\.toml.*no such file"),
        (lambda d: {"history": (d / "gone.csv",)}, SchemaError, r"gone\.csv.*no such file"),
        (lambda d: {"log": f"sqlite:///{d}/gone.db"}, SettingsError, r"there is no file .*gone\.db"),
        (lambda d: {"log": make_log(d), "topic": "gone"}, TopicMissing, "no topic 'gone'; it has events"),
        (lambda d: {"log": make_log(d), "first_offset": 10_000}, HistoryError, "empty|0 usable events"),
        (lambda d: {"history": (make_file(d, events=20),)}, HistoryError, "40 usable events"),
        (lambda d: {"history": (make_file(d),), "device": "abacus"}, SettingsError, "--device abacus"),
        (lambda d: {"out": d, "history": (d / "not read",)}, BundleError, "holds no bundle.*another --out"),
        (lambda d: {"out": make_file(d), "history": (d / "not read",)}, BundleError, "holds no bundle"),
        (lambda d: {"out": make_file(d) / "m", "history": (d / "not read",)}, BundleError, "cannot be made.*another"),
    ],
)
def test_run_without_what_it_needs_says_what_is_missing(
    tmp_path: Path, change: Callable[[Path], dict[str, object]], error: type[Exception], message: str
) -> None:
    """Each missing thing ends with one sentence, before anything is trained or written."""
    with pytest.raises(error, match=message):
        run(make_settings(tmp_path, **change(tmp_path)))
    assert not (tmp_path / "model").exists()


def test_run_on_a_log_writes_a_bundle_that_scores(tmp_path: Path) -> None:
    """The bundle on disk is the one that was trained, for the stream that was given; a report lies beside it."""
    with structlog.testing.capture_logs() as logs:
        trained = run(make_settings(tmp_path, log=make_log(tmp_path)))
    found = read_bundle(tmp_path / "model")
    assert found.digest == trained.bundle.digest
    assert found.schema.numeric == ("flow", "pressure")
    assert (found.architecture.hidden, found.report["events"], found.report["updates"]) == (4, 2 * EVENTS, 2)
    assert "<html" in (tmp_path / "model" / "report.html").read_text()
    assert logs[0]["event"] == "alarms are rarer than the held-out events can tell"
    assert [(log["event"], log["model"], log["events"]) for log in logs[1:]] == [("trained", found.name, 2 * EVENTS)]
    result = builders.run_polls(Scorer(found), [builders.make_feed(150)])
    assert "scored" in {record.status for record in result.score_records}


def test_period_that_was_not_found_is_told_with_the_longest_that_is_looked_for() -> None:
    """A day of two-minute events is longer, and is not missing for want of looking; a given one is told as given."""
    none = builders.rich()
    given = none.bundle.report | {"options": none.bundle.report["options"] | {"period": 16}}
    assert trainer._period(none) == "none of 512 events or fewer found"
    assert trainer._period(replace(none, bundle=msgspec.structs.replace(none.bundle, report=given))) == 16
    assert trainer._period(builders.trained()) == builders.bundle().calibration.period


@pytest.mark.parametrize("damaged", [False, True])
def test_run_over_a_bundle_says_which_one_it_replaces(tmp_path: Path, damaged: bool) -> None:
    """``--out`` has a default, so a bundle may be there that nobody thought of; a damaged one is no obstacle."""
    settings = make_settings(tmp_path, history=(make_file(tmp_path),))
    old = run(settings).bundle.digest
    if damaged:
        (settings.out / "model.safetensors").write_bytes(b"")
    with structlog.testing.capture_logs() as logs:
        run(make_settings(tmp_path, history=settings.history, seed=1, alarm_rate=0.02))
    assert [log["event"] for log in logs] == ["the bundle that is there is replaced", "trained"]
    assert logs[0]["out"] == str(tmp_path / "model")
    assert logs[0]["digest"] == ("not readable" if damaged else old)
    assert read_bundle(tmp_path / "model").digest != old


def test_log_that_cannot_be_read_leaves_the_old_bundle(tmp_path: Path, bundle_directory: Path) -> None:
    """A training run that fails replaces nothing."""
    (tmp_path / "broken.db").write_bytes(b"no database" * 100)
    with pytest.raises(LogError, match=r"broken\.db: file is not a database"):
        run(make_settings(tmp_path, log=f"sqlite:///{tmp_path / 'broken.db'}", out=bundle_directory))
    read_bundle(bundle_directory)


def test_feature_that_counts_up_is_warned_of(tmp_path: Path) -> None:
    """Of what was never seen there is no forecast; the other feature is not named."""
    events = [msgspec.json.decode(line) for line in make_file(tmp_path).read_bytes().splitlines()]
    rising = [{**event, "flow": float(i)} for i, event in enumerate(events)]
    path = tmp_path / "rising.jsonl"
    path.write_bytes(b"\n".join(map(msgspec.json.encode, rising)))
    with structlog.testing.capture_logs() as logs:
        read_history(make_settings(tmp_path, history=(path,)), builders.SCHEMA)
    (warning,) = logs
    assert (warning["log_level"], warning["feature"]) == ("warning", "flow")
    assert warning["outside"] == "100% of the last quarter's values lie beyond all before them"
