"""The report to send to a colleague: one HTML file that needs nothing else.

Tables first; then, per task, the whole test stretch with score, threshold, truth and alerts, and excerpts of the series
itself with its band: a found stretch, a missed one, a false alarm.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from streamlstm.core.evidence import in_units
from streamlstm.evaluation.detection import Alarms, match
from streamlstm.evaluation.judge import Judged
from streamlstm.evaluation.metrics import Stretch
from streamlstm.evaluation.results import Results
from streamlstm.evaluation.tables import all_tables, protocol

BINS = 1500  # of an overview: of each, the highest score is drawn
SHOWN_KEYS = 6  # of a task: those with the most labelled stretches
EXCERPT_EVENTS = 240
SHOWN_FEATURES = 3  # of an excerpt: those furthest outside their band
_BLUE, _ORANGE, _GREY, _RED, _TRUTH, _BAND = "#2563eb", "#d97706", "#6b7280", "#dc2626", "#fca5a5", "#bfdbfe"

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>streamlstm evaluation</title>
<style>
 body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color: #111827; }}
 .scroll {{ overflow-x: auto; }}
 table {{ border-collapse: collapse; font-size: 13px; }}
 td, th {{ text-align: left; vertical-align: bottom; padding: .15rem 1rem .15rem 0; }}
 td {{ white-space: nowrap; }}
 tr:nth-child(even) {{ background: #f9fafb; }}
 p {{ max-width: 52rem; }}
</style></head><body>
<h1>Evaluation</h1>
<p>Made by <code>{command}</code> with streamlstm {version}: {protocol}</p>
{tables}
{plots}
</body></html>
"""


def report_html(results: Results, plots: Sequence[str]) -> str:
    """Return the page; ``plots`` are from :func:`task_html`."""
    return _PAGE.format(
        command=escape(results.command),
        version=escape(results.version),
        protocol=escape(protocol(results)),
        tables="".join(table.html() for table in all_tables(results)),
        plots="".join(plots),
    )


def task_html(judged: Judged, *, first: bool) -> str:
    """Return a task's part of the page; the ``first`` one brings plotly's code."""
    stream = judged.stream
    parts = list(stream.of_each_key())
    alarms = match(stream, judged.run.detection, judged.judged, parts)
    busiest = sorted(range(len(parts)), key=lambda k: -sum(_within(s, parts[k]) for s in alarms.truth))[:SHOWN_KEYS]
    html = [f"<h2>{escape(judged.task.name)}</h2>"]
    if len(parts) > SHOWN_KEYS:
        html.append(f"<p>{SHOWN_KEYS} of {len(parts)} keys, those with the most labelled stretches.</p>")
    for place, key in enumerate(sorted(busiest)):
        name = stream.keys[key].decode() if len(parts) > 1 else ""
        html.append(_html(_overview(judged, parts[key], alarms, name), first=first and place == 0))
    for title, centre in _scenes(alarms):
        html.append(f"<h3>{escape(judged.task.name)}: {title}</h3>")
        html.append(_html(_excerpt(judged, centre, alarms)))
    return "".join(html)


def _within(stretch: Stretch, part: slice) -> bool:
    return bool(part.start <= stretch.start < part.stop)


def _scenes(alarms: Alarms) -> list[tuple[str, int]]:
    """Choose what to look at closely: the first found stretch, missed stretch and false alarm."""
    scenes: list[tuple[str, int]] = []
    for title, items, flags, wanted in (
        ("a stretch that was found", alarms.truth, alarms.found, True),
        ("a stretch that was missed", alarms.truth, alarms.found, False),
        ("a false alarm", alarms.alerts, alarms.true, False),
    ):
        at = next((item.start for item, flag in zip(items, flags, strict=True) if flag == wanted), None)
        if at is not None:
            scenes.append((title, at))
    return scenes


def _times(judged: Judged, at: NDArray[np.integer]) -> NDArray[np.datetime64]:
    times: NDArray[np.datetime64] = judged.stream.timestamp_ms[at].astype("datetime64[ms]")
    return times


def _overview(judged: Judged, part: slice, alarms: Alarms, name: str) -> go.Figure:
    """Draw the score of a whole key, the highest of each bin, with threshold, truth and alerts."""
    at = part.start + np.flatnonzero(judged.judged[part])
    figure = go.Figure(layout={"height": 260, "yaxis_title": "score", "title": name, "hovermode": "x"})
    if not len(at):
        return figure
    starts = np.unique(np.linspace(0, len(at), min(BINS, len(at)), endpoint=False).astype(int))
    score, threshold = judged.run.detection.score[at], judged.run.threshold[at]
    x = _times(judged, at[starts])
    _shade(figure, judged, alarms, part)
    figure.add_scatter(x=x, y=np.maximum.reduceat(score, starts), name="score", line={"color": _GREY, "width": 1})
    figure.add_scatter(x=x, y=threshold[starts], name="threshold", line={"color": _BLUE, "width": 1, "dash": "dot"})
    _mark(figure, judged, alarms, part)
    return figure


def _shade(figure: go.Figure, judged: Judged, alarms: Alarms, part: slice) -> None:
    """Shade labelled stretches within some events."""
    for stretch in alarms.truth:
        start, end = max(stretch.start, part.start), min(stretch.end, part.stop) - 1
        if start <= end:
            x = _times(judged, np.array([start, end]))
            figure.add_vrect(x0=x[0], x1=x[1], fillcolor=_TRUTH, opacity=0.45, line_width=0, layer="below")


def _mark(figure: go.Figure, judged: Judged, alarms: Alarms, part: slice) -> None:
    """Mark the openings of alerts within some events, on the score."""
    opened = np.array([a.start for a in alarms.alerts if part.start <= a.start < part.stop], dtype=np.int64)
    true = np.array([t for a, t in zip(alarms.alerts, alarms.true, strict=True) if part.start <= a.start < part.stop])
    for wanted, label, colour in ((True, "alert, true", _RED), (False, "alert, false", "black")):
        chosen = opened[true == wanted] if len(opened) else opened
        if len(chosen):
            figure.add_scatter(
                x=_times(judged, chosen),
                y=judged.run.detection.score[chosen],
                mode="markers",
                name=label,
                marker={"color": colour, "symbol": "triangle-down", "size": 9},
            )


def _excerpt(judged: Judged, centre: int, alarms: Alarms) -> go.Figure:
    """Draw the series around a place with its band, and the score below."""
    whole = next(part for part in judged.stream.of_each_key() if part.start <= centre < part.stop)
    tests = whole.start + np.flatnonzero(judged.stream.test[whole])
    start = max(int(tests[0]), centre - EXCERPT_EVENTS // 3)
    part = slice(start, min(start + EXCERPT_EVENTS, whole.stop))
    features = _most_off(judged, part)
    figure = go.Figure(layout={"height": 140 + 150 * (len(features) + 1), "hovermode": "x"})
    figure.set_subplots(len(features) + 1, 1, shared_xaxes=True, vertical_spacing=0.04)
    for row, feature in enumerate(features, start=1):
        _draw_series(figure, judged, part, feature, row)
    at = np.arange(part.start, part.stop)
    x, row = _times(judged, at), len(features) + 1
    opened = [a.start for a in alarms.alerts if part.start <= a.start < part.stop]
    score, threshold = judged.run.detection.score[at], judged.run.threshold[at]
    figure.add_scatter(x=x, y=score, name="score", row=row, col=1, line={"color": _GREY, "width": 1})
    figure.add_scatter(x=x, y=threshold, name="threshold", row=row, col=1, line={"color": _BLUE, "dash": "dot"})
    figure.update_yaxes(title="score", row=row, col=1)
    _shade(figure, judged, alarms, part)
    for moment in _times(judged, np.array(opened, dtype=np.int64)):
        figure.add_vline(x=moment, line={"color": _RED, "width": 2})
    return figure


def _most_off(judged: Judged, part: slice) -> list[int]:
    """Return the features furthest outside their bands at the highest score of some events."""
    bundle = judged.run.trained.bundle
    channels, frame = len(bundle.schema.numeric), bundle.schema.frame_samples
    highest = part.start + int(np.argmax(np.nan_to_num(judged.run.detection.score[part], nan=-np.inf)))
    run = judged.run
    off = np.abs(judged.stream.values[highest] - run.location[highest]) / (run.scale[highest] * bundle.band)
    worst = np.nan_to_num(off).reshape(channels, frame).max(axis=1)
    return sorted(np.argsort(-worst, kind="stable")[:SHOWN_FEATURES].tolist())


def _draw_series(figure: go.Figure, judged: Judged, part: slice, feature: int, row: int) -> None:
    bundle, run, stream = judged.run.trained.bundle, judged.run, judged.stream
    frame, name = bundle.schema.frame_samples, bundle.schema.numeric[feature]
    columns = slice(feature * frame, (feature + 1) * frame)
    scaler = bundle.scaler_of.get(stream.keys[stream.key[part.start]].decode(), 0)
    mean, deviation = bundle.feature.mean[scaler, feature], bundle.feature.deviation[scaler, feature]
    location, half = run.location[part, columns], run.scale[part, columns] * bundle.band[columns]
    actual = np.where(stream.present[part, columns], stream.values[part, columns], np.nan)
    x = _sample_times(stream.timestamp_ms[part], frame)

    def draw(y: NDArray[np.float32], label: str, **style: object) -> None:
        style = {"showlegend": row == 1, **style}
        figure.add_scatter(x=x, y=in_units(y.ravel(), mean, deviation), name=label, row=row, col=1, **style)

    draw(location - half, "99 % band", line={"width": 0}, showlegend=False)
    draw(location + half, "99 % band", line={"width": 0}, fill="tonexty", fillcolor=_BAND)
    draw(location, "expected", line={"color": _BLUE, "width": 1})
    draw(actual, "actual", line={"color": _ORANGE, "width": 1})
    unit = bundle.schema.features[name].unit
    figure.update_yaxes(title=f"{name} [{unit}]" if unit else name, row=row, col=1)


def _sample_times(timestamp_ms: NDArray[np.int64], frame: int) -> NDArray[np.datetime64]:
    """Return a time for each sample: an event has the time of its last one."""
    step = float(np.median(np.diff(timestamp_ms))) / frame if len(timestamp_ms) > 1 else 0.0
    back = (np.arange(frame) - (frame - 1)) * step
    return (timestamp_ms[:, None] + back).ravel().astype(np.int64).astype("datetime64[ms]")


def _html(figure: go.Figure, *, first: bool = False) -> str:
    figure.update_layout(template="plotly_white", margin={"l": 60, "r": 20, "t": 40, "b": 40})
    html: str = figure.to_html(full_html=False, include_plotlyjs=first)
    return html
