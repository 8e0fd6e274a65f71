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
from typing import Any

from simulators.cards import CATEGORICAL, OPTIONAL, deck
from simulators.cards import DURATIONS_S as CARD_FAULTS
from simulators.ecg import FAULT_KINDS as ECG_FAULTS
from simulators.ecg import ward
from simulators.energy import DURATIONS_S as ENERGY_FAULTS
from simulators.energy import estate
from simulators.feed import Event, EventSource, Fault, Source, events, irregular_events, time_of
from simulators.traffic import DURATIONS_S as TRAFFIC_FAULTS
from simulators.traffic import motorway
from simulators.vibration import DEFAULT_DURATIONS_S as VIBRATION_FAULTS
from simulators.vibration import rig

WEEK_H, WEEK_MIN = 7 * 24.0, 7 * 24 * 60.0


@dataclass(frozen=True)
class Feed:
    """A kind of feed: its sources, the kinds of its faults (each as frequent as the others), its frames.

    ``sources`` takes keys, seed, start_ms, the faults' rates per hour and key, and from when on (s). Without
    ``frame_samples`` they are :class:`simulators.feed.EventSource`, whose events come when they come. The rest is what
    suits it: keys, length, and the share of it that is clean.
    """

    name: str
    sources: Callable[[int, int, int, Mapping[str, float], float], Sequence[Any]]
    fault_kinds: Sequence[str]
    faults_per_hour: float
    frame_samples: int | None
    keys: int = 4
    minutes: float = 20.0
    clean_share: float = 0.25
    categorical: Sequence[str] = ()
    optional: Sequence[str] = ()

    def rates(self, faults_per_hour: float | None) -> dict[str, float]:
        """Return the rate of each kind of fault, per hour and key, for a total rate."""
        total = self.faults_per_hour if faults_per_hour is None else faults_per_hour
        return dict.fromkeys(self.fault_kinds, total / len(self.fault_kinds))

    def lengths_s(self, minutes: float | None, clean_minutes: float | None) -> tuple[float, float]:
        """Return how long the whole and its clean part last (s), as given or as suits the feed."""
        minutes = self.minutes if minutes is None else minutes
        clean_minutes = self.clean_share * minutes if clean_minutes is None else clean_minutes
        return 60 * minutes, 60 * clean_minutes

    def events(self, sources: Sequence[Any], start_ms: int, duration_s: float) -> Iterator[Event]:
        """Yield the events of sources of this feed in time order."""
        if self.frame_samples is None:
            return irregular_events(sources, start_ms=start_ms, duration_s=duration_s)
        return events(sources, frame_samples=self.frame_samples, start_ms=start_ms, duration_s=duration_s)

    def schema(self, sources: Sequence[Source] | Sequence[EventSource]) -> str:
        """Return the feed's stream schema as TOML."""
        lines = ['key = "key"', 'timestamp = "time"', 'timestamp_unit = "ms"']
        lines.append(f"frame_samples = {self.frame_samples or 1}")
        for name, unit in sources[0].channels.items():
            lines += ["", f"[features.{name}]"]
            lines.append('kind = "categorical"' if name in self.categorical else f'unit = "{unit}"')
            if name in self.optional:
                lines.append("optional = true")
        return "\n".join(lines) + "\n"


def _ward(keys: int, seed: int, start_ms: int, rates: Mapping[str, float], from_s: float) -> Sequence[Source]:
    return ward(keys, seed, start_ms, faults_per_hour=rates, faults_from_s=from_s)


def _rig(keys: int, seed: int, start_ms: int, rates: Mapping[str, float], from_s: float) -> Sequence[Source]:
    """Sampled at 2 kHz instead of 12, resonance and gears in proportion: cheap enough for a laptop."""
    machine = {"sample_rate_hz": 2000.0, "resonance_hz": 600.0, "gear_teeth": 20}
    return rig(keys, seed, start_ms, fault_rates_per_hour=rates, faults_from_s=from_s, **machine)


# An hour of a patient in trouble, and of a machine at the end of its life: chosen, so that minutes show something.
# Of what lives by the week, a fault in one week, or in four of a card: chosen, so that it is calm in between.
FEEDS = {
    "ecg": Feed("ecg", _ward, ECG_FAULTS, 20.0, 8),
    "vibration": Feed("vibration", _rig, tuple(VIBRATION_FAULTS), 20.0, 32),
    "energy": Feed("energy", estate, tuple(ENERGY_FAULTS), 1 / WEEK_H, 1, 6, 14 * WEEK_MIN, 8 / 14),
    "traffic": Feed(
        "traffic", motorway, tuple(TRAFFIC_FAULTS), 1 / WEEK_H, 1, 6, 14 * WEEK_MIN, 8 / 14, optional=("speed",)
    ),
    "cards": Feed(
        "cards", deck, tuple(CARD_FAULTS), 0.25 / WEEK_H, None, 40, 32 * WEEK_MIN, 20 / 32, CATEGORICAL, OPTIONAL
    ),
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

    ``faults_per_hour`` is the rate of all faults of one key; raises ``ValueError`` for more than fit. ``on_progress``
    is told the share that is done.
    """
    sources = feed.sources(keys, seed, start_ms, feed.rates(faults_per_hour), clean_s)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{feed.name}.toml").write_text(feed.schema(sources), encoding="utf-8")
    stream = feed.events(sources, start_ms, seconds)
    live_from_ms = start_ms + round(clean_s * 1000)
    with (
        (directory / f"{feed.name}.history.jsonl").open("w") as history,
        (directory / f"{feed.name}.live.jsonl").open("w") as live,
    ):
        for event, share in _with_share(stream, start_ms, seconds):
            out = history if time_of(event) <= live_from_ms else live
            out.write(json.dumps(event) + "\n")
            on_progress(share)
    faults = sorted((fault for source in sources for fault in source.faults), key=lambda fault: fault.start_ms)
    with (directory / f"{feed.name}.truth.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["key", "kind", "start_ms", "end_ms"])
        writer.writerows((f.key, f.kind, f.start_ms, f.end_ms) for f in faults)
    return faults


def _with_share(stream: Iterator[Event], start_ms: int, seconds: float) -> Iterator[tuple[Event, float]]:
    for event in stream:
        yield event, (time_of(event) - start_ms) / (1000 * seconds)
