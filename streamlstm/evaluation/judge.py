"""One task, one seed: train, run every detector over the stream, and measure."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamlstm.evaluation import ours, windowed
from streamlstm.evaluation.alarm_stage import detect
from streamlstm.evaluation.baselines import BASELINES
from streamlstm.evaluation.detection import Detection, measure
from streamlstm.evaluation.forecasts import attribution, coverage
from streamlstm.evaluation.results import DetectorResult, TaskResult
from streamlstm.evaluation.stream import Stream, decode, stream_of
from streamlstm.evaluation.suites import OwnMeasures
from streamlstm.evaluation.task import Task
from streamlstm.training.fit import Progress
from streamlstm.training.train import Options

LARGEST_BUFFER = 100  # events: of VUS-PR, whose buffer is the signal's period
ALL = (*BASELINES, windowed.NAME)


@dataclass(frozen=True)
class Judged:
    """A task's result, and what its report shows."""

    task: Task
    stream: Stream
    run: ours.Run
    judged: NDArray[np.bool_]
    detections: list[Detection]
    result: TaskResult


@dataclass(frozen=True)
class Teller:
    """Who is told how far it is: of training, and of which detector runs."""

    progress: Callable[[Progress], None] = lambda _: None
    detector: Callable[[str], None] = lambda _: None


def judge(
    task: Task,
    options: Options,
    *,
    baselines: Iterable[str] = ALL,
    own: OwnMeasures = lambda _stream, _detection: {},
    teller: Teller | None = None,
) -> Judged:
    """Run a task. All detectors are judged on the same events: those of the test that ours gives a score.

    Raises :class:`HistoryError` if there is too little to learn from.
    """
    tell = teller or Teller()
    decoded = decode(task)
    stream = stream_of(task, decoded)
    started_s = time.monotonic()
    run = ours.run(task, decoded, stream, options, tell.progress)
    took_s = time.monotonic() - started_s
    bundle = run.trained.bundle
    judged = stream.test & np.isfinite(run.detection.score)
    detections = [run.detection]
    for name in baselines:
        tell.detector(name)
        if name == windowed.NAME:
            score = windowed.windowed_lstm(stream, bundle)
        else:
            score = BASELINES[name](stream, options.seed)
        lowest = np.nanmin(score)
        score = np.nan_to_num(score, nan=float(lowest))
        detections.append(detect(name, stream, score, judged, bundle, in_decades=name == windowed.NAME))
    buffer = min(bundle.calibration.period, LARGEST_BUFFER)
    result = TaskResult(
        task=task.name,
        group=task.group or task.name,
        target=task.target,
        seed=options.seed,
        model=bundle.name,
        history_events=len(decoded.history),
        test_events=int(stream.test.sum()),
        rejected=decoded.rejected,
        not_learned=dict(decoded.not_learned),
        period=bundle.calibration.period,
        promised=bundle.alerting.alarm_rate,
        budget=bundle.promised(alarms=options.alarms).budget,
        train_s=took_s,
        detectors=[
            _result(stream, detection, judged, buffer, bundle.alerting.alarm_rate, own) for detection in detections
        ],
        coverage=coverage(run, stream),
        attribution=attribution(task, run, stream),
    )
    return Judged(task, stream, run, judged, detections, result)


def _result(
    stream: Stream, detection: Detection, judged: NDArray[np.bool_], buffer: int, rate: float, own: OwnMeasures
) -> DetectorResult:
    keys = {}
    if len(stream.keys) > 1:
        keys = {
            key.decode(): measure(stream, detection, judged, buffer, rate, number)
            for number, key in enumerate(stream.keys)
        }
    return DetectorResult(
        detector=detection.detector,
        overall=measure(stream, detection, judged, buffer, rate),
        keys=keys,
        own=own(stream, detection),
    )
