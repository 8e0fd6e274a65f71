"""The streaming threshold and alerts of the detector, for the scores of any other: all have the same chance.

Scores become decades of surprise on the calibration part; from there on threshold, episodes and guard are the core's,
with one rate for all and no label.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.alert import OPEN, RESOLVED, EpisodeParameters
from streamlstm.core.bundle import Bundle
from streamlstm.core.compiled import compiled_with_arrays
from streamlstm.core.guard import judge_score
from streamlstm.core.state import EPISODE_FLOATS, INTEGERS, LAST_OFFSET, OPENED_OFFSET, PHASE, TAILS
from streamlstm.core.threshold import TailParameters, tail_parameters
from streamlstm.evaluation.detection import Detection
from streamlstm.evaluation.stream import CALIBRATE, Stream
from streamlstm.evaluation.surprise import surprise_curve
from streamlstm.training.calibrate import fit_tail


def detect(
    name: str,
    stream: Stream,
    score: NDArray[np.float64],
    judged: NDArray[np.bool_],
    bundle: Bundle,
    *,
    in_decades: bool = False,
) -> Detection:
    """Return what a detector with these scores, (N,), would have alerted to; alerting as in ``bundle``.

    ``in_decades``: the scores already are decades of surprise.

    The threshold learns from the ``judged`` events and from the calibration part, as the detector's own does.
    """
    calibrating = (stream.part == CALIBRATE) & np.isfinite(score)
    decades = score if in_decades else surprise_curve(score[calibrating])(score)
    tail = tail_parameters(*fit_tail(decades[calibrating]), bundle.alerting.alarm_rate)
    walked = judged | (calibrating & stream.follows[stream.key])
    flagged, alert = np.zeros(len(stream), dtype=bool), np.full(len(stream), -1, dtype=np.int64)
    for part in stream.of_each_key():
        at = part.start + np.flatnonzero(walked[part])
        flagged[at], alert[at] = _alarms(decades[at].astype(np.float32), at, bundle.parameters().episode, tail)
    return Detection(name, np.where(judged, score, np.nan), flagged, alert)


@compiled_with_arrays
def _alarms(
    scores: NDArray[np.float32], at: NDArray[np.int64], episode: EpisodeParameters, parameters: TailParameters
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Walk over one key's scores; return which are flagged, and the opening position of the open alert or −1."""
    integers, floats = np.zeros(INTEGERS, np.int64), np.zeros(EPISODE_FLOATS, np.float32)
    tails = np.zeros(TAILS, np.float32)
    tails[0], tails[1] = parameters.start, parameters.scale
    flagged, alert = np.zeros(len(scores), np.bool_), np.full(len(scores), -1, np.int64)
    for i in range(len(scores)):
        integers[LAST_OFFSET] = at[i]
        probability, _, action = judge_score(integers, tails, floats, scores[i], episode, parameters)
        flagged[i] = probability <= parameters.alarm_rate
        if integers[PHASE] == OPEN or action == RESOLVED:
            alert[i] = integers[OPENED_OFFSET]
    return flagged, alert
