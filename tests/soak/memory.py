"""Resident memory of processes over time: sampled, fitted with a line, and drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

WARM_UP = 1 / 3  # of the samples, at the start: caches fill, the first outages leave their backlog
FLAT = 0.05  # growth over all the other samples, as a share of their mean, below which memory is flat


def resident_mib(pid: int) -> float | None:
    """Return the resident memory of a process (MiB); None if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(found[0]) / 1024 if found else None


class Line(NamedTuple):
    """A line through the samples after the warm-up: MiB, MiB an hour and its standard error, share of growth."""

    mean_mib: float
    slope_mib_per_h: float
    error_mib_per_h: float
    growth: float

    @property
    def flat(self) -> bool:
        """Whether it grew by less than :data:`FLAT`."""
        return self.growth < FLAT


@dataclass
class Samples:
    """Memory of one process: seconds since the start, MiB."""

    at_s: list[float] = field(default_factory=list)
    mib: list[float] = field(default_factory=list)

    def add(self, at_s: float, mib: float | None) -> None:
        """Take a sample; None starts a gap."""
        self.at_s.append(at_s)
        self.mib.append(float("nan") if mib is None else mib)

    def line(self) -> Line:
        """Return the line through all samples after the warm-up; raises ``ValueError`` with fewer than three."""
        at_s, mib = np.array(self.at_s), np.array(self.mib)
        keep = np.isfinite(mib)
        at_s, mib = at_s[keep], mib[keep]
        start = int(WARM_UP * len(at_s))
        at_s, mib = at_s[start:], mib[start:]
        if len(at_s) < 3:
            raise ValueError(f"{len(at_s)} samples are too few for a line")
        centred = at_s - at_s.mean()
        slope = float((centred * mib).sum() / (centred**2).sum())
        rest = mib - mib.mean() - slope * centred
        error = float(np.sqrt((rest**2).sum() / (len(mib) - 2) / (centred**2).sum()))
        return Line(float(mib.mean()), 3600 * slope, 3600 * error, slope * float(np.ptp(at_s)) / float(mib.mean()))


def draw(
    path: Path, title: str, memory: Mapping[str, Samples], behind: Samples, faults: Sequence[tuple[float, str]]
) -> None:
    """Write a page with the memory of each process, the records behind, and the faults; it needs no network."""
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.7, 0.3], vertical_spacing=0.04)
    for name, samples in memory.items():
        figure.add_trace(go.Scatter(x=samples.at_s, y=samples.mib, name=name, mode="lines"), row=1, col=1)
    for kind in sorted({kind for _, kind in faults}):
        at_s = [at_s for at_s, found in faults if found == kind]
        marks = go.Scatter(x=at_s, y=[0.0] * len(at_s), name=kind, mode="markers", marker_symbol="line-ns-open")
        figure.add_trace(marks, row=1, col=1)
    figure.add_trace(go.Scatter(x=behind.at_s, y=behind.mib, name="records behind", fill="tozeroy"), row=2, col=1)
    figure.update_yaxes(title="resident, MiB", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title="records behind", row=2, col=1)
    figure.update_xaxes(title="seconds", row=2, col=1)
    figure.update_layout(title=title, template="plotly_white", height=700)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.write_html(path, include_plotlyjs=True)
