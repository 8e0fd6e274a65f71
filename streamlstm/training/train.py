"""History → bundle, step by step."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from streamlstm.core.budget import promised
from streamlstm.core.bundle import LONGEST_PERIOD, Alerting, Bundle, Calibration
from streamlstm.core.channels import channel_weights, record
from streamlstm.core.feature import category_ids
from streamlstm.core.model import Architecture
from streamlstm.core.schema import StreamSchema
from streamlstm.core.score import SETTLING_EVENTS
from streamlstm.core.state import INTEGERS, layout_of
from streamlstm.errors import HistoryError
from streamlstm.training.calibrate import Calibrated, calibrate
from streamlstm.training.choose import (
    HIDDEN,
    HORIZON,
    MIN_CALENDAR_MS,
    MIN_UPDATES,
    OTHER_HIDDEN,
    OTHER_HORIZONS,
    Choice,
    Trial,
    choose,
    choose_calendar,
    trial_of,
)
from streamlstm.training.fit import Curve, Progress, World, fit
from streamlstm.training.history import History
from streamlstm.training.lanes import Data
from streamlstm.training.network import Network, to_model
from streamlstm.training.period import natural_period
from streamlstm.training.scaling import Scaling, fit_scaling, model_inputs, scaler_index

EMBEDDING = 8  # floats per category
LONG_EVENT_MS = 3_600_000  # an event of an hour or more is forecast one ahead only; recipe
CALM_MS = 10_000  # two faults of a fast feed within ten seconds are one alert to a person
MIN_CALM_EVENTS, MAX_CALM_EVENTS = 4, 1024
MIN_HOLD_EVENTS = 128
MAX_ERRORS = 512  # horizon × values: the covariance of the errors grows with its square

ALONE = World()


class Options(msgspec.Struct, frozen=True):
    """How to train. ``hidden``, ``horizon`` and ``period`` are found from the data unless given.

    ``alarms``: a budget such as "1 per key per week", instead of ``alarm_rate``, which is 1e-3 if neither is given.
    """

    hidden: int | None = None
    layers: int = 1
    dropout: float = 0.1
    horizon: int | None = None
    period: int | None = None
    updates: int = 400
    lanes: int = 32
    alarm_rate: float | None = None
    alarms: str | None = None
    seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True)
class Trained:
    """A bundle, and what its report shows beside it."""

    bundle: Bundle
    history: History
    curve: Curve
    calibrated: Calibrated


def train(
    history: History,
    schema: StreamSchema,
    options: Options,
    *,
    world: World = ALONE,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Trained:
    """Scale, fit, calibrate. Pure but for ``on_progress`` and torch's random state, which is seeded.

    Raises :class:`HistoryError` if the history cannot be learned from, :class:`SettingsError` for an alarm budget that
    no rate keeps to.
    """
    scaling = fit_scaling(history, schema)
    mean_gap_ms = _mean_gap_ms(history, schema, options.alarms)
    promise = promised(options.alarm_rate or Alerting().alarm_rate, options.alarms, mean_gap_ms)
    period, found = natural_period(history, len(schema.numeric), schema.frame_samples)
    period = options.period or period
    categories = category_ids(history.categories, [scaling.vocabularies[name] for name in schema.categorical])

    def trial(scaling: Scaling) -> Trial:
        return trial_of(
            _data(history, schema, scaling, categories, options.device),
            history,
            updates=options.updates,
            lanes=options.lanes,
            dropout=options.dropout,
            seed=options.seed,
            device=options.device,
            world=world,
            on_progress=on_progress,
        )

    prior = _prior(schema, scaling, options)
    _check_sizes(history, prior)
    scaling, calendar = _with_calendar(history, schema, scaling, prior, options, trial)
    prior = msgspec.structs.replace(prior, inputs=scaling.width(schema))
    architecture, sizes = _chosen(prior, options, trial(scaling))
    data = _data(history, schema, scaling, categories, options.device)
    torch.manual_seed(options.seed)
    network = Network(architecture, options.dropout).to(options.device)
    curve = fit(
        network,
        data,
        history,
        updates=options.updates,
        lanes=options.lanes,
        seed=options.seed,
        world=world,
        on_progress=on_progress,
    )
    model = to_model(network)
    warmup_events = max(architecture.horizon, SETTLING_EVENTS) + min(period, LONGEST_PERIOD)
    record_share = record.share_of_score(float(np.median(np.diff(history.starts))))
    weights = channel_weights(record_share, of_frames=schema.frame_samples > 1)
    calibrated = calibrate(
        history,
        architecture,
        scaling.parameters,
        model,
        scaler_index(history, scaling),
        categories,
        period=period,
        warmup_events=warmup_events,
        weights=weights,
        seed=options.seed,
    )
    bundle = Bundle(
        schema=schema,
        architecture=architecture,
        feature=scaling.parameters,
        scaler_of=scaling.scaler_of,
        vocabularies=scaling.vocabularies,
        model=model,
        score=calibrated.score,
        band=calibrated.band,
        calibration=Calibration(
            period=period,
            warmup_events=warmup_events,
            mean_gap_ms=mean_gap_ms,
            tail_start=calibrated.tail_start,
            tail_scale=calibrated.tail_scale,
        ),
        alerting=_alerting(period, scaling.parameters.typical_gap_ms, promise.alarm_rate),
        report={},
    )
    report = _report(history, scaling, options, curve, calibrated, architecture, period_found=found)
    report["choices"] = msgspec.to_builtins([*calendar, *sizes])
    return Trained(msgspec.structs.replace(bundle, report=report), history, curve, calibrated)


def _data(history: History, schema: StreamSchema, scaling: Scaling, categories: NDArray[np.int64], device: str) -> Data:
    inputs, present = model_inputs(history, schema, scaling)
    return Data(*(torch.from_numpy(array).to(device) for array in (inputs, categories, present)))


def _prior(schema: StreamSchema, scaling: Scaling, options: Options) -> Architecture:
    """Return the architecture that is trained unless another is clearly better."""
    return Architecture(
        values=schema.values,
        inputs=scaling.width(schema),
        hidden=HIDDEN if options.hidden is None else options.hidden,
        layers=options.layers,
        horizon=options.horizon or _horizon(schema.values, scaling.parameters.typical_gap_ms),
        embedding=EMBEDDING,
        vocabularies=tuple(len(table) + 2 for table in scaling.vocabularies.values()),
    )


def _with_calendar(
    history: History,
    schema: StreamSchema,
    scaling: Scaling,
    prior: Architecture,
    options: Options,
    trial: Callable[[Scaling], Trial],
) -> tuple[Scaling, list[Choice]]:
    """Return the scaling, with hour and weekday as inputs if they help; tried on long histories, unless set by hand."""
    times = history.timestamp_ms
    longest_ms = (times[history.starts[1:] - 1] - times[history.starts[:-1]]).max()
    longest_ms += scaling.parameters.typical_gap_ms  # the last event stands for the time until the next
    if schema.calendar is not None or options.updates < MIN_UPDATES or longest_ms < MIN_CALENDAR_MS:
        return scaling, []
    other = replace(scaling, parameters=scaling.parameters._replace(has_calendar=True))
    wider = msgspec.structs.replace(prior, inputs=other.width(schema))
    choice = choose_calendar(trial(scaling)(prior), trial(other)(wider))
    return (other if choice.value else scaling), [choice]


def _chosen(prior: Architecture, options: Options, trial: Trial) -> tuple[Architecture, list[Choice]]:
    """Return the architecture to train: what is not set by hand is chosen, if training is long enough to tell."""
    if options.updates < MIN_UPDATES:
        return prior, []
    free = options.horizon is None and prior.horizon == HORIZON
    horizons = [horizon for horizon in OTHER_HORIZONS if free and horizon * prior.values <= MAX_ERRORS]
    return choose(prior, [*OTHER_HIDDEN] if options.hidden is None else [], horizons, trial)


def _horizon(values: int, typical_gap_ms: float) -> int:
    """Return 2; 1 where an event is hours long, or so wide that their errors would be too many."""
    return 1 if typical_gap_ms >= LONG_EVENT_MS or HORIZON * values > MAX_ERRORS else HORIZON


def _mean_gap_ms(history: History, schema: StreamSchema, budget: str | None) -> float:
    """Return the mean gap between events of a key; silences after which a key starts anew do not count.

    The mean, not the median: an alarm budget is of time, and keys that send in bursts have few events in it. Raises
    :class:`HistoryError` for a ``budget`` of a history that has no gaps.
    """
    longest_ms = np.inf if schema.expire_after_s is None else 1000 * schema.expire_after_s
    gaps = history.gap_ms[(history.gap_ms >= 0) & (history.gap_ms <= longest_ms)]
    if budget is not None and not gaps.any():
        raise HistoryError(
            f"--alarms {budget!r} is a promise of time, and no key of the history has two events apart in time to say "
            "how often it sends: give more history, or --alarm-rate, a share of events, instead"
        )
    return max(float(gaps.mean()), 1.0) if len(gaps) else 1.0


def _alerting(period: int, typical_gap_ms: float, alarm_rate: float) -> Alerting:
    """Return when episodes close: after a calm period, unless that is long, but no sooner than people can follow.

    The guard, which keeps an open episode's threshold from learning, lasts ten times as long.
    """
    calm = int(np.clip(max(min(period, LONGEST_PERIOD), CALM_MS / typical_gap_ms), MIN_CALM_EVENTS, MAX_CALM_EVENTS))
    return Alerting(
        alarm_rate=alarm_rate,
        resolve_after_events=calm,
        cooldown_events=2 * calm,
        hold_events=max(MIN_HOLD_EVENTS, 10 * calm),
    )


def _check_sizes(history: History, architecture: Architecture) -> None:
    if architecture.hidden % 4 or architecture.hidden < 4:
        raise HistoryError(f"hidden must be a multiple of four, not {architecture.hidden}")
    if architecture.errors > MAX_ERRORS:
        raise HistoryError(
            f"horizon {architecture.horizon} × {architecture.values} values = {architecture.errors} forecast errors "
            f"per event; at most {MAX_ERRORS} are possible: use a shorter frame, a smaller horizon or fewer features"
        )
    longest = int((history.held_out - history.starts[:-1]).max())
    if longest <= 2 * architecture.horizon + 8:
        raise HistoryError(f"the longest key has {longest} events to learn from: too few to learn any order in time")
    tail = int((history.starts[1:] - history.held_out).max())
    if tail <= architecture.horizon:
        raise HistoryError(
            f"no key has more than {tail} held-out events: too few to judge forecasts {architecture.horizon} ahead"
        )


def _report(
    history: History,
    scaling: Scaling,
    options: Options,
    curve: Curve,
    calibrated: Calibrated,
    architecture: Architecture,
    *,
    period_found: bool,
) -> dict[str, object]:
    """Return what a person asks about a model later; part of the bundle, not of its digest."""
    results, held_out = calibrated.results, calibrated.held_out
    return {
        "events": len(history),
        "keys": len(history.keys),
        "duplicates_left_out": history.duplicates,
        "first_event_ms": int(history.timestamp_ms.min()),
        "last_event_ms": int(history.timestamp_ms.max()),
        "held_out_events": int(history.is_held_out.sum()),
        "calibration_events": int((held_out & np.isfinite(results.score)).sum()),
        "scales_per_key": len(scaling.scaler_of),
        "typical_gap_ms": scaling.parameters.typical_gap_ms,
        "period_found": period_found,
        "best_update": curve.best_update,
        "updates": curve.update[-1],
        "stopped_early": curve.stopped_early,
        "held_out_loss": min(curve.held_out, default=None),
        "state_bytes_per_key": layout_of(architecture).width * 4 + INTEGERS * 8,
        "options": msgspec.to_builtins(options),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
