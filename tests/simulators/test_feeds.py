"""A feed on disk: what the product reads of it, and that its truth stays apart."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from simulators.feed import Fault
from simulators.feeds import FEEDS, write_feed
from simulators.judge import Episode, judge
from streamlstm.adapters.files import read_records
from streamlstm.core.event import EventDecoder
from streamlstm.core.schema import StreamSchema
from streamlstm.services import settings

START_MS = 1_767_225_600_000
LENGTHS_S = {"ecg": 120.0, "vibration": 80.0, "energy": 20 * 86_400.0, "traffic": 10 * 86_400.0, "cards": 60 * 86_400.0}
BUSY = {"ecg": 120.0, "vibration": 60.0, "energy": 0.01, "traffic": 0.02, "cards": 0.005}  # faults an hour


def write(name: str, out: Path) -> tuple[list[Fault], float]:
    """Write a short, busy feed of two keys, half of it clean; return the truth, and when the clean half ends (ms)."""
    length_s = LENGTHS_S[name]
    faults = write_feed(
        FEEDS[name],
        out,
        keys=2,
        seconds=length_s,
        clean_s=length_s / 2,
        seed=5,
        start_ms=START_MS,
        faults_per_hour=BUSY[name],
    )
    return faults, START_MS + 500 * length_s


@pytest.mark.parametrize("name", FEEDS)
def test_feed_is_split_where_faults_may_begin(tmp_path: Path, name: str) -> None:
    """History ends where live begins; all faults are in the live part and in the file of truth."""
    faults, clean_until_ms = write(name, tmp_path)
    history, live = (
        [json.loads(line) for line in (tmp_path / f"{name}.{part}.jsonl").read_text().splitlines()]
        for part in ("history", "live")
    )
    assert max(event["time"] for event in history) <= clean_until_ms < min(event["time"] for event in live)
    assert faults
    assert all(fault.start_ms >= clean_until_ms for fault in faults)
    with (tmp_path / f"{name}.truth.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["key"], r["kind"], int(r["start_ms"]), int(r["end_ms"])) for r in rows] == [
        (f.key, f.kind, f.start_ms, f.end_ms) for f in faults
    ]
    assert {fault.kind for fault in faults} <= set(FEEDS[name].fault_kinds)
    assert len({event["key"] for event in live}) == 2


@pytest.mark.parametrize("name", FEEDS)
def test_schema_reads_every_event_and_leaves_nothing_out(tmp_path: Path, name: str) -> None:
    """Each feature has a unit or is a category; no event becomes a dead letter; no event has another field."""
    write(name, tmp_path)
    schema = StreamSchema.from_toml((tmp_path / f"{name}.toml").read_text(encoding="utf-8"))
    assert all(feature.unit or feature.kind == "categorical" for feature in schema.features.values())
    for part in ("history", "live"):
        for records in read_records(tmp_path / f"{name}.{part}.jsonl", schema):
            batch, dead = EventDecoder(schema).decode(records)
            assert not dead
            assert len(batch.timestamp_ms) == len(records)
            assert set(json.loads(records[0].value)) == {"key", "time", *schema.features}


def test_lengths_are_as_given_or_as_suits_the_feed() -> None:
    """Minutes of hearts, weeks of households; a share is clean unless it is said how much."""
    assert FEEDS["ecg"].lengths_s(None, None) == (1200.0, 300.0)
    assert FEEDS["ecg"].lengths_s(60.0, None) == (3600.0, 900.0)
    assert FEEDS["ecg"].lengths_s(60.0, 0.0) == (3600.0, 0.0)
    assert FEEDS["energy"].lengths_s(None, None) == pytest.approx((14 * 604_800.0, 8 * 604_800.0))


def test_help_tells_the_defaults_of_every_feed() -> None:
    """The options are without default; the words after them say what each feed takes."""
    text = Path(settings.__file__).read_text().split("class SimulateSettings")[1].split("@Parameter")[0]
    said = re.search(r"Patients, motors, meters, sections or cards; (\d+), (\d+), (\d+), (\d+) or (\d+) unless", text)
    assert said
    assert [int(keys) for keys in said.groups()] == [feed.keys for feed in FEEDS.values()]
    assert "20 minutes, of energy and traffic 14 weeks, of cards 32" in text
    assert [feed.minutes for feed in FEEDS.values()] == [20, 20, 14 * 10_080, 14 * 10_080, 32 * 10_080]
    assert {field.name: field.default for field in fields(settings.SimulateSettings)}["minutes"] is None


def test_alert_after_a_fault_is_its_own_within_the_grace() -> None:
    """What is still ringing is no false alarm, and is found; how long depends on the feed."""
    faults = [Fault("a", "stuck", 1_000_000, 2_000_000)]
    late = [Episode("a", 2_900_000, 3_000_000)]
    verdicts, false = judge(faults, late)
    assert (verdicts[0].found, false) == (0, 1)
    verdicts, false = judge(faults, late, grace_ms=900_000)
    assert (verdicts[0].found, verdicts[0].median_delay_s, false) == (1, 1900.0, 0)
