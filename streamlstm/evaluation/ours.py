"""The detector itself: trained on the history, then run over the stream by the scorer's own walk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.evidence import acting
from streamlstm.core.record import AlertRecord
from streamlstm.core.scorer import Scorer
from streamlstm.evaluation.detection import Detection
from streamlstm.evaluation.stream import CALIBRATE, Decoded, Stream, in_order
from streamlstm.evaluation.task import Task
from streamlstm.training.fit import Progress
from streamlstm.training.train import Options, Trained, train

NAME = "streamlstm"
POLL_RECORDS = 20_000


@dataclass(frozen=True)
class Run:
    """The trained detector, what it said, and the forecasts it said it with, (N, D), NaN where there is none.

    ``alerts``: the records it would have sent of test events, each with its position in the stream.
    """

    trained: Trained
    detection: Detection
    location: NDArray[np.float32]
    scale: NDArray[np.float32]
    threshold: NDArray[np.float64]
    alerts: list[tuple[int, AlertRecord]]


def run(
    task: Task,
    decoded: Decoded,
    stream: Stream,
    options: Options,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Run:
    """Train, then score the stream.

    As it would in production, the scorer first reads the end of the history (the held-out part), so that its states
    and thresholds are warm; only of keys whose test events come after it.
    """
    trained = train(decoded.history, task.schema, options, on_progress=on_progress)
    scorer = Scorer(trained.bundle)
    at = _walk_order(stream)
    index, is_test = stream.record_index[at].tolist(), stream.test[at].tolist()
    records = in_order([(task.test if t else task.history)[i] for i, t in zip(index, is_test, strict=True)])
    values = task.schema.values
    total = len(stream)
    score, threshold = np.full(total, np.nan), np.full(total, np.nan)
    flagged, alert = np.zeros(total, dtype=bool), np.full(total, -1, dtype=np.int64)
    location, scale = (np.full((total, values), np.nan, dtype=np.float32) for _ in range(2))
    alerts: list[tuple[int, AlertRecord]] = []
    for first in range(0, len(records), POLL_RECORDS):
        outcome = scorer.score(scorer.read(records[first : first + POLL_RECORDS]), {})
        scorer.accept(outcome)
        results = outcome.results
        here = at[first + outcome.poll.batch.record_index]
        score[here], threshold[here] = results.score, results.threshold
        flagged[here] = results.probability <= trained.bundle.alerting.alarm_rate
        alert[here] = results.opened_offset
        location[here], scale[here] = results.location, results.scale
        places = here[[i for i, _ in acting(results)]].tolist()
        alerts += [(i, record) for i, record in zip(places, outcome.alerts, strict=True) if stream.test[i]]
    return Run(trained, Detection(NAME, score, flagged, alert), location, scale, threshold, alerts)


def _walk_order(stream: Stream) -> NDArray[np.int64]:
    """Return the positions to score: the end of the history by time, then the test events as they arrived."""
    before = np.flatnonzero((stream.part == CALIBRATE) & stream.follows[stream.key])
    test = np.flatnonzero(stream.test)
    return np.concatenate(
        [
            before[np.argsort(stream.timestamp_ms[before], kind="stable")],
            test[np.argsort(stream.record_index[test], kind="stable")],
        ]
    )
