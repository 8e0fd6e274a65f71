"""The feeds by name, with defaults that make them interesting, and writing one to files.

A feed on disk is four files: ``NAME.history.jsonl``, events without faults to learn from; ``NAME.live.jsonl``,
the events after them; ``NAME.truth.csv``, what was injected (key, kind, start_ms, end_ms); ``NAME.toml``, the
stream schema. The truth is never in an event.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from simulators.ecg import FAULT_KINDS as ECG_FAULTS
from simulators.ecg import ward
from simulators.feed import Fault, Source, events
from simulators.vibration import DEFAULT_DURATIONS_S as VIBRATION_FAULTS
from simulators.vibration import rig


@dataclass(frozen=True)
class Feed:
    """A kind of feed: its sources, its faults (kinds and how often each comes, relatively), its frames.

    ``sources`` takes keys, seed, start_ms, the faults' rates per hour and key, and from when on (s).
    """

    name: str
    sources: Callable[[int, int, int, Mapping[str, float], float], Sequence[Source]]
    fault_shares: Mapping[str, float]
    faults_per_hour: float
    frame_samples: int

    def rates(self, faults_per_hour: float | None) -> dict[str, float]:
        """Return the rate of each kind of fault, per hour and key, for a total rate."""
        total = self.faults_per_hour if faults_per_hour is None else faults_per_hour
        return {kind: total * share / sum(self.fault_shares.values()) for kind, share in self.fault_shares.items()}

    def schema(self, sources: Sequence[Source]) -> str:
        """Return the feed's stream schema as TOML."""
        channels = "".join(f'\n[features.{name}]\nunit = "{unit}"\n' for name, unit in sources[0].channels.items())
        return (
            f'key = "key"\ntimestamp = "time"\ntimestamp_unit = "ms"\nframe_samples = {self.frame_samples}\n' + channels
        )


def _ward(keys: int, seed: int, start_ms: int, rates: Mapping[str, float], from_s: float) -> Sequence[Source]:
    return ward(keys, seed, start_ms, faults_per_hour=rates, faults_from_s=from_s)


def _rig(keys: int, seed: int, start_ms: int, rates: Mapping[str, float], from_s: float) -> Sequence[Source]:
    """Sampled at 2 kHz instead of 12, resonance and gears in proportion: cheap enough for a laptop."""
    machine = {"sample_rate_hz": 2000.0, "resonance_hz": 600.0, "gear_teeth": 20}
    return rig(keys, seed, start_ms, fault_rates_per_hour=rates, faults_from_s=from_s, **machine)


# An hour of a patient in trouble, and of a machine at the end of its life: chosen, so that minutes show something.
FEEDS = {
    "ecg": Feed("ecg", _ward, dict.fromkeys(ECG_FAULTS, 1.0), 20.0, 8),
    "vibration": Feed("vibration", _rig, dict.fromkeys(VIBRATION_FAULTS, 1.0), 20.0, 32),
}


def write_feed(
    feed: Feed,
    directory: Path,
    *,
    keys: int,
    seconds: float,
    clean_s: float,
    seed: int,
    start_ms: int,
    faults_per_hour: float | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
) -> list[Fault]:
    """Write ``seconds`` of a feed, the first ``clean_s`` without faults, and return the truth.

    ``faults_per_hour`` is the rate of all faults of one key. ``on_progress`` is told the share that is done.
    """
    directory.mkdir(parents=True, exist_ok=True)
    sources = feed.sources(keys, seed, start_ms, feed.rates(faults_per_hour), clean_s)
    (directory / f"{feed.name}.toml").write_text(feed.schema(sources))
    stream = events(sources, frame_samples=feed.frame_samples, start_ms=start_ms, duration_s=seconds)
    live_from_ms = start_ms + round(clean_s * 1000)
    with (
        (directory / f"{feed.name}.history.jsonl").open("w") as history,
        (directory / f"{feed.name}.live.jsonl").open("w") as live,
    ):
        for event, share in _with_share(stream, start_ms, seconds):
            out = history if _time(event) <= live_from_ms else live
            out.write(json.dumps(event) + "\n")
            on_progress(share)
    faults = sorted((fault for source in sources for fault in source.faults), key=lambda fault: fault.start_ms)
    with (directory / f"{feed.name}.truth.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["key", "kind", "start_ms", "end_ms"])
        writer.writerows((f.key, f.kind, f.start_ms, f.end_ms) for f in faults)
    return faults


def _with_share(
    stream: Iterator[dict[str, object]], start_ms: int, seconds: float
) -> Iterator[tuple[dict[str, object], float]]:
    for event in stream:
        yield event, (_time(event) - start_ms) / (1000 * seconds)


def _time(event: dict[str, object]) -> int:
    time_ms = event["time"]
    assert isinstance(time_ms, int)
    return time_ms
