"""The training report: one HTML file that needs nothing else, for people who would rather look."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from streamlstm.core.evidence import in_units
from streamlstm.core.threshold import score_at
from streamlstm.training.fit import Curve
from streamlstm.training.period import MAX_PERIOD
from streamlstm.training.train import Trained

SHOWN_EVENTS = 300  # of held-out forecast against actual
_BLUE, _ORANGE, _GREY, _RED = "#2563eb", "#d97706", "#6b7280", "#dc2626"

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>streamlstm model {name}</title>
<style>
 body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; color: #111827; }}
 table {{ border-collapse: collapse; }}
 td, th {{ text-align: left; padding: .2rem 1.5rem .2rem 0; vertical-align: top; }}
 th {{ font-weight: 600; }}
 p {{ max-width: 46rem; }}
</style></head><body>
<h1>Model {name}</h1>
<p>Trained by streamlstm. What it learned from, how well it forecasts events it has not seen, and which
scores are usual on them.</p>
<table>{rows}</table>
<h2>Loss</h2>
<p>Negative log-likelihood of the next events. The held-out curve decides: the weights kept are those of
update {best} ({stop}).</p>
{loss}
<h2>Forecast against actual, held out</h2>
<p>One event ahead, for the key <code>{key}</code>. The band held {coverage:.1%} of all held-out values; it is
built for 99 %.</p>
{forecasts}
<h2>Scores, held out</h2>
<p>A score is the mean surprise in decades. The line is where a new key's alerts begin, at a promised rate of
{rate:g} of its events; from there each key's own threshold follows its stream.</p>
{scores}
</body></html>
"""


def report_html(trained: Trained) -> str:
    """Return the report as one self-contained HTML page."""
    bundle = trained.bundle
    return _PAGE.format(
        name=escape(bundle.name),
        rows="".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in _facts(trained)),
        best=trained.curve.best_update,
        stop="training stopped early" if trained.curve.stopped_early else "training ran to its end",
        loss=_html(_loss_figure(trained.curve), first=True),
        key=escape(_shown_key(trained)),
        coverage=_coverage(trained),
        forecasts=_html(_forecast_figure(trained)),
        rate=bundle.alerting.alarm_rate,
        scores=_html(_score_figure(trained)),
    )


def _facts(trained: Trained) -> list[tuple[str, str]]:
    bundle, report = trained.bundle, trained.bundle.report
    a, c = bundle.architecture, bundle.calibration
    found = "found in the data" if report["period_found"] else f"none of {MAX_PERIOD} events or fewer found, a default"
    if report["options"]["period"] is not None:
        found = "as given"
    return [
        ("History", f"{report['events']:,} events of {report['keys']:,} keys, {_day(report['first_event_ms'])} to "
                    f"{_day(report['last_event_ms'])}; {report['duplicates_left_out']:,} duplicates left out"),
        ("Held out", f"{report['held_out_events']:,} events, the latest of each key"),
        ("Features", ", ".join(f"{n} [{f.unit}]" if f.unit else n for n, f in bundle.schema.features.items())),
        ("Frame", f"{bundle.schema.frame_samples} samples per event"),
        ("Inputs", ", ".join(_inputs(trained))),
        ("Network", f"{a.layers} layer of {a.hidden}, forecasting {a.horizon} events ahead"),
        *((f"Why {choice['name']} {choice['value']}", choice["reason"]) for choice in report["choices"]),
        ("Period", f"{c.period} events ({found})"),
        ("Warm-up", f"{c.warmup_events} events per key before its first score"),
        ("Alarms", f"at most {bundle.promised(alarms=report['options']['alarms']).budget}, on average: a key sends an "
                   f"event every {c.mean_gap_ms / 1000:.3g} s"),
        ("State", f"{report['state_bytes_per_key']:,} bytes per key"),
    ]  # fmt: skip


def _inputs(trained: Trained) -> list[str]:
    feature = trained.bundle.feature
    scales = len(feature.mean) - 1
    named = ["values, " + (f"scaled per key ({scales} keys)" if scales else "scaled alike for all keys")]
    if feature.has_mask:
        named.append("mask of missing values")
    if feature.has_gap:
        named.append(f"gap since the last event (typical: {feature.typical_gap_ms / 1000:g} s)")
    if feature.has_calendar:
        named.append("hour and weekday")
    return named + [f"category {name}" for name in trained.bundle.vocabularies]


def _loss_figure(curve: Curve) -> go.Figure:
    figure = go.Figure(layout={"xaxis_title": "update", "yaxis_title": "loss"})
    figure.add_scatter(x=curve.update, y=curve.loss, name="training", line={"color": _GREY, "width": 1})
    figure.add_scatter(
        x=curve.held_out_update, y=curve.held_out, name="held out", mode="lines+markers", line={"color": _BLUE}
    )
    figure.add_vline(x=curve.best_update, line={"color": _BLUE, "dash": "dot"}, annotation_text="kept")
    return figure


def _shown_rows(trained: Trained) -> NDArray[np.int64]:
    """Return the last scored held-out rows of the first calibrated key."""
    results, held_out = trained.calibrated.results, trained.calibrated.held_out
    key_index = trained.history.key_index[trained.calibrated.events]
    usable = held_out & np.isfinite(results.score)
    return np.flatnonzero(usable & (key_index == key_index[usable][0]))[-SHOWN_EVENTS:]


def _shown_key(trained: Trained) -> str:
    event = trained.calibrated.events[_shown_rows(trained)[0]]
    key: bytes = trained.history.keys[trained.history.key_index[event]]
    return key.decode()


def _forecast_figure(trained: Trained) -> go.Figure:
    """Draw every channel's actual values over its band, sample by sample."""
    bundle, results, rows = trained.bundle, trained.calibrated.results, _shown_rows(trained)
    events = trained.calibrated.events[rows]
    frame, channels = bundle.schema.frame_samples, bundle.schema.numeric
    scaler = bundle.scaler_of.get(_shown_key(trained), 0)
    x = np.arange(len(rows) * frame) / frame
    figure = go.Figure(layout={"xaxis_title": "event", "height": 120 + 200 * len(channels), "hovermode": "x"})
    figure.set_subplots(len(channels), 1, shared_xaxes=True, vertical_spacing=0.05)
    for channel, name in enumerate(channels):
        part = slice(channel * frame, (channel + 1) * frame)
        location, half = results.location[rows, part], results.scale[rows, part] * bundle.band[part]
        mean, deviation = bundle.feature.mean[scaler, channel], bundle.feature.deviation[scaler, channel]

        def draw(
            y: NDArray[np.float32],
            label: str,
            row: int = channel + 1,
            m: float = mean,
            s: float = deviation,
            **style: object,
        ) -> None:
            shown = style.pop("legend", True) and row == 1
            figure.add_scatter(x=x, y=in_units(y.ravel(), m, s), name=label, row=row, col=1, showlegend=shown, **style)

        draw(location - half, "99 % band", line={"width": 0}, legend=False)
        draw(location + half, "99 % band", line={"width": 0}, fill="tonexty", fillcolor="#bfdbfe")
        draw(location, "expected", line={"color": _BLUE, "width": 1})
        actual = trained.history.values[events, part].ravel()
        figure.add_scatter(
            x=x,
            y=actual,
            name="actual",
            row=channel + 1,
            col=1,
            showlegend=channel == 0,
            line={"color": _ORANGE, "width": 1},
        )
        figure.update_yaxes(range=_around(actual), row=channel + 1, col=1)
        unit = bundle.schema.features[name].unit
        figure.update_yaxes(title=f"{name} [{unit}]" if unit else name, row=channel + 1, col=1)
    return figure


def _around(values: NDArray[np.float64]) -> list[float]:
    """Return a range that shows the values and something of the band, however far the band reaches."""
    if np.isnan(values).all():  # the feature was missing in all events shown
        return [-1.0, 1.0]
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 0.3 * (high - low) or 1.0
    return [low - margin, high + margin]


def _score_figure(trained: Trained) -> go.Figure:
    tail = trained.bundle.parameters().tail
    scores = trained.calibrated.results.score[trained.calibrated.held_out]
    threshold = float(score_at(tail.alarm_rate, np.array([tail.start, tail.scale], np.float32), tail))
    figure = go.Figure(layout={"xaxis_title": "score (decades)", "yaxis_title": "events", "yaxis_type": "log"})
    figure.add_histogram(x=scores[np.isfinite(scores)], nbinsx=80, marker_color=_BLUE, name="held out")
    figure.add_vline(x=threshold, line={"color": _RED, "dash": "dash"}, annotation_text="threshold of a new key")
    return figure


def _coverage(trained: Trained) -> float:
    results, held_out = trained.calibrated.results, trained.calibrated.held_out
    inside = np.abs(results.inputs - results.location) <= results.scale * trained.bundle.band
    present = ~np.isnan(trained.history.values[trained.calibrated.events])
    known = np.isfinite(results.location) & held_out[:, None] & present
    return float(inside[known].mean())


def _html(figure: go.Figure, *, first: bool = False) -> str:
    figure.update_layout(template="plotly_white", margin={"l": 60, "r": 20, "t": 30, "b": 50})
    html: str = figure.to_html(full_html=False, include_plotlyjs=first)
    return html


def _day(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
