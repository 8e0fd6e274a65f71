"""The scorer service on a real SQLite log: what it stores, what it refuses, and how it bears outages."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
import structlog

from streamlstm.adapters.bundle_files import write_bundle
from streamlstm.adapters.sqlite_log import SqliteLog
from streamlstm.core.advance import advance
from streamlstm.core.bundle import Bundle
from streamlstm.core.commit import Commit
from streamlstm.core.log import NewRecord, Record, ScorerSession, Standing
from streamlstm.core.record import decode_alert, decode_score
from streamlstm.core.scorer import Scorer
from streamlstm.errors import (
    BadRecords,
    BundleError,
    LogError,
    LogUnavailable,
    PartitionBusy,
    SchemaError,
    TopicMissing,
)
from streamlstm.services import scorer as scorer_service
from streamlstm.services.file_scorer import score_file
from streamlstm.services.scorer import load_for, new_scorer, run, tell_alerts
from streamlstm.services.settings import ScoreSettings
from tests import builders
from tests.alerts import make_alert
from tests.end_to_end import runs

STREAM = """
key = "sensor"
timestamp = "time"
timestamp_unit = "ms"
[features.flow]
unit = "l/min"
[features.pressure]
unit = "bar"
"""


def make_settings(**given: object) -> ScoreSettings:
    """Return settings that score a topic to its end."""
    return ScoreSettings(**({"until_end": True} | given))  # type: ignore[arg-type]


def other_bundle() -> Bundle:
    """Return a bundle that differs from the usual one in its name, and hardly in its scores."""
    bundle = builders.expiring_bundle()
    return msgspec.structs.replace(bundle, band=bundle.band * 2)


class FaultySession:
    """A session whose calls meet faults: ``faults`` maps a method to what happens at its n-th call.

    ``before`` raises instead of the call; ``after`` raises although the call did its work, as when the
    answer is lost on its way.
    """

    def __init__(self, session: ScorerSession, faults: Mapping[tuple[str, int], str]) -> None:
        self._session = session
        self._faults = dict(faults)
        self._calls: dict[str, int] = {}

    def _call(self, name: str, *arguments: object) -> object:
        self._calls[name] = self._calls.get(name, 0) + 1
        fault = self._faults.pop((name, self._calls[name]), None)
        if fault == "before":
            raise LogUnavailable(f"{name} failed")
        result = getattr(self._session, name)(*arguments)
        if fault == "after":
            raise LogUnavailable(f"{name}'s answer was lost")
        return result

    def poll(self, max_records: int, timeout_s: float) -> Sequence[Record]:
        """As the port."""
        return self._call("poll", max_records, timeout_s)  # type: ignore[return-value]

    def claims(self) -> Mapping[int, int]:
        """As the port."""
        return self._session.claims()

    def standing(self) -> Standing:
        """As the port."""
        return self._session.standing()

    def lag(self) -> Mapping[int, int]:
        """As the port."""
        return self._session.lag()

    def load_states(self, keys: Iterable[tuple[int, bytes]]) -> Mapping[tuple[int, bytes], bytes]:
        """As the port."""
        return self._call("load_states", keys)  # type: ignore[return-value]

    def watermarks(self) -> Mapping[int, int]:
        """As the port."""
        return self._call("watermarks")  # type: ignore[return-value]

    def commit(self, commit: Commit) -> None:
        """As the port."""
        self._call("commit", commit)

    def rewind(self) -> None:
        """As the port."""
        self._call("rewind")

    def close(self) -> None:
        """As the port."""
        self._session.close()


class FaultyLog(SqliteLog):
    """A log whose sessions are :class:`FaultySession`."""

    faults: Mapping[tuple[str, int], str] = {}

    def open_session(self, topic: str, group: str) -> FaultySession:  # type: ignore[override]
        """Open a session that meets the faults."""
        return FaultySession(super().open_session(topic, group), self.faults)


class NoWait(threading.Event):
    """A stop event that notes waits instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.waits_s: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        """Note the wait."""
        self.waits_s.append(timeout or 0.0)
        return self.is_set()


def test_run_counts_what_it_did(tmp_path: Path) -> None:
    """The totals are those of the output topics."""
    path = runs.write_input(tmp_path / "log.db")
    totals = runs.score_here(path)
    outputs = runs.outputs_of(path)
    assert totals.scored == len(outputs["events.scores"])
    assert totals.dead_letters == len(outputs["events.dead-letters"])
    assert totals.events == totals.scored + totals.dead_letters
    assert 0 < totals.resolved <= totals.opened < len(outputs["events.alerts"])


def test_run_counts_events_whose_scores_are_not_told(tmp_path: Path) -> None:
    """With fewer score records as many events are scored, and the alerts are the same bytes."""
    fewer, every = runs.write_input(tmp_path / "fewer.db"), runs.write_input(tmp_path / "every.db")
    assert runs.score_here(fewer, scores="anomalous").scored == runs.score_here(every).scored
    told, of_all = runs.outputs_of(fewer), runs.outputs_of(every)
    assert 0 < len(told["events.scores"]) < len(of_all["events.scores"]) / 2
    assert [record.value for record in told["events.alerts"]] == [record.value for record in of_all["events.alerts"]]


def test_run_tells_the_reasons_of_dead_letters(tmp_path: Path) -> None:
    """A number alone does not say whether to look at the sender's clock or at its program."""
    path = runs.write_input(tmp_path / "log.db")
    with structlog.testing.capture_logs() as logs:
        totals = runs.score_here(path)
    (stopped,) = [entry for entry in logs if entry["event"] == "stopped"]
    reasons = {
        name: int(count) for name, count in (part.split() for part in stopped["dead_letter_reasons"].split(", "))
    }
    assert reasons == totals.reasons
    assert {"malformed", "late"} < set(reasons)
    assert (sum(reasons.values()), list(reasons.values())) == (totals.dead_letters, sorted(reasons.values())[::-1])
    assert stopped["dead_letters"] == totals.dead_letters
    assert set(stopped) == {
        "event", "log_level", "events", "scored", "dead_letters", "dead_letter_reasons", "opened", "resolved", "alerts"
    }  # fmt: skip
    assert [entry for entry in logs if entry["log_level"] == "warning"] == []


def test_run_whose_records_are_mostly_dead_letters_warns_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender that changed its format is told at once, with an example; not again in each line that follows."""
    monkeypatch.setattr(scorer_service, "REPORT_EVERY_S", 0.0)  # a line for each poll …
    monkeypatch.setattr(scorer_service, "DEPTH", 1)  # … and each poll a transaction
    log = SqliteLog(tmp_path / "log.db")
    log.create_topic("events", 1)
    feed = builders.make_feed(40)
    good = [NewRecord(record.key, record.value) for record in feed]
    bad = [NewRecord(b"k", b"{}")] * 8 + [NewRecord(b"k", b"no json")] * 2
    log.append("events", [*good[:10], *bad, *bad, *good[10:20], *good[20:26], *bad[:4], *good[26:27], *bad[1:]])
    with structlog.testing.capture_logs() as logs:
        run(log, builders.bundle(), make_settings(poll_records=10), threading.Event())
    log.close()
    warnings = [entry for entry in logs if entry["log_level"] == "warning"]
    assert [entry["event"] for entry in warnings] == ["most records become dead letters"] * 2
    assert (warnings[0]["events"], warnings[0]["dead_letters"], warnings[0]["mostly"]) == (10, 10, "invalid 8")
    assert warnings[0]["example"].startswith("events partition 0 offset 10: ")
    assert warnings[1]["example"].startswith("events partition 0 offset 51: ")


def test_run_tells_why_an_alert_opens() -> None:
    """In words, once: the event at its end is calm."""
    with structlog.testing.capture_logs() as logs:
        tell_alerts([make_alert(), make_alert(action="updated"), make_alert(action="resolved")])
    assert [(line["event"], line.get("why"), line.get("reason")) for line in logs] == [
        ("alert opened", "far from the forecast", None),
        ("alert resolved", None, "calm"),
    ]


def test_run_again_has_nothing_left_to_do(tmp_path: Path) -> None:
    """What is committed is not scored again; another group scores everything for itself."""
    path = runs.write_input(tmp_path / "log.db")
    first = runs.score_here(path)
    assert runs.score_here(path).events == 0
    assert runs.score_here(path, group="another") == first


@pytest.mark.parametrize("max_keys", [1, 2, 4])
def test_run_with_fewer_rows_than_keys_gives_the_same_bits(tmp_path: Path, max_keys: int) -> None:
    """Keys that left memory come back from the log as they were."""
    path = runs.write_input(tmp_path / "log.db")
    runs.score_here(path, max_keys=max_keys, poll_records=3)
    runs.assert_exactly_once(path)


def test_run_after_a_restart_tells_a_silence_that_began_before_it(tmp_path: Path) -> None:
    """A key silent for too long starts anew, and its open alert is resolved, with or without a restart."""
    feed = [record for record in builders.make_troubled_feed(200) if record.partition == 1]
    straggler = builders.make_record(sensor="d", time=builders.START_MS + 10_000 * builders.STEP_MS).value
    outputs = []
    for name, pieces in (("one.db", [[*feed, NewRecord(b"d", straggler, (), 1)]]),
                         ("two.db", [feed, [NewRecord(b"d", straggler, (), 1)]])):  # fmt: skip
        log = SqliteLog(tmp_path / name, clock=lambda: 2 * builders.START_MS)
        log.create_topic("events", 2)
        for piece in pieces:
            log.append("events", piece)
            run(log, builders.expiring_bundle(), make_settings(), threading.Event())
        log.close()
        outputs.append(runs.outputs_of(tmp_path / name))
    assert outputs[0] == outputs[1]
    last = decode_alert(outputs[0]["events.alerts"][-1].value)
    assert (last.key, last.reason) == ("d", "silence")


def test_run_stopped_before_it_starts_scores_nothing(tmp_path: Path) -> None:
    """A stop is heeded before the next poll, even if there is work."""
    log = SqliteLog(runs.write_input(tmp_path / "log.db"))
    stop = threading.Event()
    stop.set()
    assert run(log, builders.expiring_bundle(), make_settings(), stop).events == 0
    log.open_session("events", "streamlstm").close()
    log.close()


def test_run_makes_output_topics_like_the_input(tmp_path: Path) -> None:
    """As many partitions as the input, and the retention that was asked for; the input's is not touched."""
    path = runs.write_input(tmp_path / "log.db")
    runs.score_here(path, retention_s=3600.0)
    log = SqliteLog(path)
    found = {info.name: (info.partitions, info.retention_s) for info in log.topics()}
    log.close()
    outputs = ("events.scores", "events.alerts", "events.dead-letters")
    assert found == {"events": (2, None)} | dict.fromkeys(outputs, (2, 3600.0))


def test_run_on_a_missing_topic_makes_none(tmp_path: Path) -> None:
    """A typing error in --topic leaves no topics behind."""
    log = SqliteLog(runs.write_input(tmp_path / "log.db"))
    with pytest.raises(TopicMissing, match="no topic 'event'; it has events"):
        run(log, builders.expiring_bundle(), make_settings(topic="event"), threading.Event())
    assert [info.name for info in log.topics()] == ["events"]
    log.close()


def test_run_with_output_topics_of_another_size_is_refused(tmp_path: Path) -> None:
    """Scores stay in the partition of their events, so there must be one."""
    log = SqliteLog(runs.write_input(tmp_path / "log.db"))
    log.create_topic("events.alerts", 1)
    with pytest.raises(LogError, match=r"'events\.alerts' has 1 partitions, not 2"):
        run(log, builders.expiring_bundle(), make_settings(), threading.Event())
    log.close()


def test_run_beside_another_of_its_group_is_refused(tmp_path: Path) -> None:
    """Two scorers of one group would score everything twice."""
    log = SqliteLog(runs.write_input(tmp_path / "log.db"))
    session = log.open_session("events", "streamlstm")
    with pytest.raises(PartitionBusy, match="already reads topic 'events'"):
        run(log, builders.expiring_bundle(), make_settings(), threading.Event())
    session.close()
    log.close()


def test_run_that_fails_gives_its_partitions_back(tmp_path: Path) -> None:
    """An error does not leave the claim to the next start."""
    path = runs.write_input(tmp_path / "log.db")
    runs.score_here(path)
    log = SqliteLog(path)
    log.append("events", builders.make_troubled_feed(3))
    with pytest.raises(BundleError):
        run(log, other_bundle(), make_settings(), threading.Event())
    log.open_session("events", "streamlstm").close()
    log.close()


# Bundles


def test_run_with_another_bundle_than_the_states_is_refused(tmp_path: Path) -> None:
    """States of one model mean nothing to another; nothing is scored, and the message says what to do."""
    path = runs.write_input(tmp_path / "log.db")
    runs.score_here(path)
    log = SqliteLog(path)
    log.append("events", builders.make_troubled_feed(3))
    before = runs.outputs_of(path)
    with pytest.raises(BundleError, match=rf"{builders.expiring_bundle().name}.*--on-model-change reset"):
        run(log, other_bundle(), make_settings(), threading.Event())
    log.close()
    assert runs.outputs_of(path) == before


def test_run_with_another_bundle_may_start_keys_anew(tmp_path: Path) -> None:
    """With ``reset`` every key warms up again, under the new bundle's name."""
    path = runs.write_input(tmp_path / "log.db")
    runs.score_here(path)
    before = len(runs.outputs_of(path)["events.scores"])
    log = SqliteLog(path)
    later = builders.make_feed(60, ("a", "b"), start=1000, partitions=2)
    log.append("events", [NewRecord(record.key, record.value, partition=record.partition) for record in later])
    run(log, other_bundle(), make_settings(on_model_change="reset", poll_records=10), threading.Event())
    log.close()
    scores = [decode_score(record.value) for record in runs.outputs_of(path)["events.scores"]]
    new = [score for score in scores if score.model == other_bundle().name]
    assert len(scores) == before + 120
    assert len(new) == 120
    for key in ("a", "b"):
        statuses = [score.status for score in new if score.key == key]
        warmup = builders.bundle().calibration.warmup_events
        assert statuses == ["warming_up"] * warmup + ["scored"] * (60 - warmup)


def test_load_of_a_bundle_for_another_stream_tells_the_differences(bundle_directory: Path, tmp_path: Path) -> None:
    """Every field that differs is named, with both values."""
    (tmp_path / "stream.toml").write_text(STREAM.replace('"ms"', '"s"').replace('"bar"', '"Pa"'))
    with pytest.raises(BundleError, match=r"does not fit .*stream\.toml: features is .*'Pa'.*timestamp_unit is 's'"):
        load_for(make_settings(model=bundle_directory, stream=tmp_path / "stream.toml"))


def test_load_of_a_bundle_for_the_same_stream_succeeds(bundle_directory: Path, tmp_path: Path) -> None:
    """A schema file that says the same is no obstacle."""
    (tmp_path / "stream.toml").write_text(STREAM)
    found = load_for(make_settings(model=bundle_directory, stream=tmp_path / "stream.toml"))
    assert found.digest == builders.bundle().digest


def test_load_without_bundle_or_schema_names_what_is_missing(bundle_directory: Path, tmp_path: Path) -> None:
    """A missing model is an error, never a training run."""
    with pytest.raises(BundleError, match="nowhere is no model bundle"):
        load_for(make_settings(model=tmp_path / "nowhere"))
    with pytest.raises(SchemaError, match=r"gone\.toml: there is no such file"):
        load_for(make_settings(model=bundle_directory, stream=tmp_path / "gone.toml"))


def test_settings_bound_the_keys_in_memory() -> None:
    """As many rows as were asked for, and no more."""
    scorer = new_scorer(builders.bundle(), make_settings(max_keys=3))
    assert scorer.arena.max_keys == 3


# Alerting settings


def test_settings_replace_the_bundles_alerting_one_by_one(tmp_path: Path) -> None:
    """What is given counts, what is not stays the bundle's."""
    path = runs.write_input(tmp_path / "log.db")
    plain = runs.score_here(path)
    fewer = runs.score_here(path, group="fewer", alarm_rate=1e-15)
    longer = runs.score_here(path, group="longer", resolve_after_events=10_000)
    assert fewer.opened < plain.opened
    assert longer.resolved < plain.resolved


# Outages


@pytest.mark.parametrize(
    "faults",
    [
        {("poll", 3): "before"},
        {("load_states", 2): "before"},
        {("commit", 5): "before"},
        {("commit", 5): "before", ("commit", 6): "before", ("poll", 9): "before"},
        {("commit", 5): "before", ("rewind", 1): "before"},
        {("commit", 5): "after"},
        {("commit", 5): "after", ("rewind", 1): "before"},
        {("watermarks", 1): "before"},
    ],
)
def test_outage_is_waited_for_and_leaves_no_trace(tmp_path: Path, faults: Mapping[tuple[str, int], str]) -> None:
    """Whatever call fails, and even if only its answer was lost, the outputs are those of a calm day."""
    path = runs.write_input(tmp_path / "log.db")
    log, stop = FaultyLog(path), NoWait()
    log.faults = faults
    run(log, builders.expiring_bundle(), make_settings(poll_records=100), stop)
    log.close()
    assert len(stop.waits_s) == len(faults)
    runs.assert_exactly_once(path)


def test_outage_is_waited_for_longer_and_longer(tmp_path: Path) -> None:
    """Waits double up to ten seconds, and start small again after the log was in reach."""
    path = runs.write_input(tmp_path / "log.db")
    log, stop = FaultyLog(path), NoWait()
    log.faults = {("commit", n): "before" for n in range(2, 10)} | {("commit", 12): "before"}
    with structlog.testing.capture_logs() as logs:
        run(log, builders.expiring_bundle(), make_settings(poll_records=100), stop)
    log.close()
    assert stop.waits_s == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 0.2]
    assert [entry["event"] for entry in logs].count("log in reach again") == 2
    assert {entry["error"] for entry in logs if entry["log_level"] == "warning"} == {"commit failed"}


def test_outage_that_lasts_ends_the_scorer(tmp_path: Path) -> None:
    """After ``give_up_after_s`` the error is raised, and the claim given back."""
    path = runs.write_input(tmp_path / "log.db")
    log = FaultyLog(path)
    log.faults = {("commit", n): "before" for n in range(2, 1000)}
    stop = NoWait()
    with pytest.raises(LogUnavailable, match="commit failed"):
        run(log, builders.expiring_bundle(), make_settings(give_up_after_s=1e-9, poll_records=100), stop)
    assert stop.waits_s == [0.2]
    SqliteLog.open_session(log, "events", "streamlstm").close()
    log.close()


def test_outage_ends_at_once_when_stopped(tmp_path: Path) -> None:
    """A signal during an outage stops the scorer without an error."""

    class StopWhileWaiting(NoWait):
        def wait(self, timeout: float | None = None) -> bool:
            self.set()
            return super().wait(timeout)

    path = runs.write_input(tmp_path / "log.db")
    log, stop = FaultyLog(path), StopWhileWaiting()
    log.faults = {("commit", 2): "before"}
    totals = run(log, builders.expiring_bundle(), make_settings(poll_records=100), stop)
    log.close()
    assert totals.events == 100
    runs.score_here(path)
    runs.assert_exactly_once(path)


# Files


def score_to_rows(path: Path, directory: Path, bundle: Bundle, **given: object) -> list[dict[str, str]]:
    """Score a file and return the rows of the CSV."""
    write_bundle(bundle, directory / "model", "")
    out = io.StringIO()
    score_file(path, make_settings(model=directory / "model", **given), out)
    return list(csv.DictReader(io.StringIO(out.getvalue())))


def make_lines(directory: Path, change: Callable[[list[bytes]], list[bytes]] = list) -> Path:
    """Write the events of partition 0 of the troubled feed as lines."""
    values = [record.value for record in builders.make_troubled_feed() if record.partition == 0]
    (directory / "feed.jsonl").write_bytes(b"".join(value + b"\n" for value in change(values)))
    return directory / "feed.jsonl"


def test_score_file_has_one_row_per_event_in_order(tmp_path: Path) -> None:
    """Scores and rejections stand where their events stand; unknown numbers are empty, never 0."""
    path = make_lines(tmp_path)
    rows = score_to_rows(path, tmp_path, builders.expiring_bundle())
    assert [int(row["offset"]) for row in rows] == list(range(len(path.read_bytes().splitlines())))
    for row in rows:
        known = {name for name in ("score", "tail_probability", "threshold") if row[name]}
        assert len(known) == (3 if row["status"] == "scored" else 0)
        assert bool(row["key"] and row["time_ms"]) is not row["status"].startswith("rejected: ")
    reasons = {row["status"].split(": ")[1] for row in rows if row["status"].startswith("rejected")}
    assert reasons == {"malformed", "invalid", "late", "duplicate"}


def test_score_file_equals_the_topic_bit_for_bit(tmp_path: Path) -> None:
    """A file scored once gives the numbers that its topic would."""
    rows = score_to_rows(make_lines(tmp_path), tmp_path, builders.expiring_bundle())
    of_file = {int(row["offset"]): row for row in rows if not row["status"].startswith("rejected")}
    path = runs.write_input(tmp_path / "log.db")
    runs.score_here(path)
    of_topic = [decode_score(r.value) for r in runs.outputs_of(path)["events.scores"] if r.partition == 0]
    assert len(of_topic) == len(of_file)
    for score in of_topic:
        row = of_file[score.offset]
        assert (row["key"], row["status"], int(row["time_ms"])) == (score.key, score.status, score.time_ms)
        for name in ("score", "tail_probability", "threshold"):
            assert (float(row[name]) if row[name] else None) == getattr(score, name)
        assert row["alert"] == (score.alert or "").replace("events:", "feed.jsonl:")


def test_score_file_takes_alerting_settings(tmp_path: Path) -> None:
    """A stricter alarm rate marks fewer events."""
    path = make_lines(tmp_path)
    usual, strict = (
        sum(bool(row["alert"]) for row in score_to_rows(path, tmp_path, builders.bundle(), **given))
        for given in ({}, {"alarm_rate": 1e-15})
    )
    assert strict < usual


@pytest.mark.parametrize(
    ("name", "content"),
    [("gone.csv", None), ("empty.csv", b""), ("bytes.csv", b"\xff\xfe\x00"), ("other.csv", b"a,b\n1,2\n")],
)
def test_score_file_that_cannot_be_read_writes_nothing(tmp_path: Path, name: str, content: bytes | None) -> None:
    """A header without rows would look like a file without events."""
    write_bundle(builders.bundle(), tmp_path / "model", "")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    out = io.StringIO()
    with pytest.raises(SchemaError, match=name):
        score_file(tmp_path / name, make_settings(model=tmp_path / "model"), out)
    assert out.getvalue() == ""


@pytest.mark.parametrize(("name", "content"), [("none.jsonl", b""), ("none.csv", b"time,sensor,flow,pressure\n")])
def test_score_file_without_events_writes_the_header(tmp_path: Path, name: str, content: bytes) -> None:
    """No events are no error."""
    (tmp_path / name).write_bytes(content)
    write_bundle(builders.bundle(), tmp_path / "model", "")
    out = io.StringIO()
    assert score_file(tmp_path / name, make_settings(model=tmp_path / "model"), out).events == 0
    assert out.getvalue().splitlines() == ["key,time_ms,offset,status,score,tail_probability,threshold,alert"]


def test_score_file_of_bad_records_warns_with_an_example(tmp_path: Path) -> None:
    """A file for another stream, say: the CSV has all the details, the log says where to look."""
    path = make_lines(tmp_path, lambda lines: [b"{}"] * 10 + lines[:3])
    with structlog.testing.capture_logs() as logs:
        score_to_rows(path, tmp_path, builders.bundle())
    (warning,) = [entry for entry in logs if entry["log_level"] == "warning"]
    assert warning["mostly"] == "invalid 10"
    assert warning["example"].startswith("feed.jsonl partition 0 offset 0: ")


def test_scoring_is_compiled_before_the_log_is_asked_for_anything(
    bundle_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an empty poll, after which events have nothing left to compile: no partition waits for that."""
    known: list[int] = []

    def open_log(*_: object, **__: object) -> None:
        known.append(len(advance.signatures))
        raise LogError("asked for")

    monkeypatch.setattr(scorer_service, "open_log", open_log)
    with pytest.raises(LogError, match="asked for"):
        scorer_service.score_topic(make_settings(model=bundle_directory, log="sqlite:///log.db", instance="one"))
    scorer = Scorer(builders.bundle())
    scorer.score(scorer.read([builders.make_record({"sensor": "a", "time": 1, "flow": 1.0, "pressure": 2.0})]), {})
    assert known == [len(advance.signatures)]
    assert known[0] > 0


# Bad records


def bad_log(path: Path, bad: int) -> FaultyLog:
    """Return a log with good records, so many bad ones in a row, and good ones again."""
    log = FaultyLog(path)
    log.create_topic("events", 1)
    good = [NewRecord(record.key, record.value) for record in builders.make_feed(20)]
    log.append("events", [*good[:20], *[NewRecord(b"k", b"{}")] * bad, *good[20:]])
    return log


def test_bad_records_in_a_row_end_the_scorer_before_they_are_committed(tmp_path: Path) -> None:
    """The sentence names the first of the last transaction; what came before it is kept."""
    log = bad_log(tmp_path / "log.db", 30)
    with pytest.raises(BadRecords, match=r"30 records in a row .* first of the last: .* offset 40: invalid"):
        run(log, builders.bundle(), make_settings(poll_records=10, max_bad_records=30), threading.Event())
    assert log.topic("events.dead-letters").end_offsets == (20,)
    log.close()


def test_bad_records_that_come_again_after_an_outage_count_once(tmp_path: Path) -> None:
    """Neither are those forgotten that were committed before it."""
    log = bad_log(tmp_path / "log.db", 30)
    log.faults = {("commit", n): "before" for n in (4, 5, 6, 7, 9, 10)}
    settings = {"poll_records": 10, "max_bad_records": 31}
    run(log, builders.bundle(), make_settings(**settings), NoWait())
    assert log.topic("events.dead-letters").end_offsets == (30,)
    log.close()
    log = bad_log(tmp_path / "more.db", 40)
    log.faults = {("commit", n): "before" for n in (4, 6)}
    with pytest.raises(BadRecords, match="40 records in a row"):
        run(log, builders.bundle(), make_settings(**settings), NoWait())
    log.close()
