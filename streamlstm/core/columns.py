"""What the numeric walk of a poll takes and leaves, as columns, and its working memory.

The walk itself is :mod:`streamlstm.core.advance`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.alert import EpisodeParameters
from streamlstm.core.aligned import aligned_zeros
from streamlstm.core.channels import NAMES, novelty
from streamlstm.core.feature import FeatureParameters
from streamlstm.core.model import Model
from streamlstm.core.score import ScoreParameters
from streamlstm.core.state import Layout
from streamlstm.core.threshold import TailParameters

SCORED_EVENT, WARMING_UP, NO_VALUE, LATE, DUPLICATE, OUT_OF_ORDER_OFFSET = 0, 1, 2, 3, 4, 5
SIDE_BY_SIDE = 8  # events, at most
BY_SILENCE, BY_RESET, BY_NEXT = 1, 2, 3  # why an open episode was cut short: its key started anew; the next one began
STATUSES = ("scored", "warming_up", "no_value", "late", "duplicate", "offset")


class Parameters(NamedTuple):
    """Everything the walk needs and never changes."""

    feature: FeatureParameters
    model: Model
    score: ScoreParameters
    tail: TailParameters
    episode: EpisodeParameters
    layout: Layout
    expire_after_ms: float  # infinite: never
    forget_after_ms: float
    explain_all: bool  # fill the shares of every scored event, not only where an alert acts


class Events(NamedTuple):
    """The events of a poll as columns, (n, …); ``row`` and ``place`` index rows and watermarks."""

    row: NDArray[np.int64]
    place: NDArray[np.int64]
    offset: NDArray[np.int64]
    timestamp_ms: NDArray[np.int64]
    values: NDArray[np.float64]
    categories: NDArray[np.int64]
    checksum: NDArray[np.int64]


class Results(NamedTuple):
    """What each event left behind, as columns (n, …).

    ``score``, ``probability`` and ``threshold`` are NaN unless ``status`` is scored. ``opened_offset``
    is −1 outside an episode. ``cut_short`` says why an episode that was open ended with this event although it had not
    calmed down, or 0; if not 0, the columns that begin with ``cut`` describe that one. ``adapting`` says that the
    threshold has learned from the episode. ``location`` and ``scale``
    (n, D) are the forecast one event ahead, ``inputs`` (n, D) what came, all in squashed deviations;
    ``shares`` (n, D) is filled where an alert acts, or everywhere if asked for. ``errors`` and ``hidden`` are filled
    only if given with n rows (calibration).
    """

    status: NDArray[np.int8]
    score: NDArray[np.float32]
    probability: NDArray[np.float32]
    threshold: NDArray[np.float32]
    action: NDArray[np.int8]
    cut_short: NDArray[np.int8]
    adapting: NDArray[np.bool_]
    opened_offset: NDArray[np.int64]
    opened_timestamp_ms: NDArray[np.int64]
    episode_events: NDArray[np.int64]
    peak_score: NDArray[np.float32]
    cut_offset: NDArray[np.int64]
    cut_timestamp_ms: NDArray[np.int64]
    cut_events: NDArray[np.int64]
    cut_peak_score: NDArray[np.float32]
    raw: NDArray[np.float32]
    surprises: NDArray[np.float32]
    inputs: NDArray[np.float32]
    location: NDArray[np.float32]
    scale: NDArray[np.float32]
    shares: NDArray[np.float32]
    errors: NDArray[np.float32]
    hidden: NDArray[np.float32]


def new_results(events: int, parameters: Parameters, *, trace: bool = False) -> Results:
    """Return empty results for a number of events; with ``trace``, errors and hidden states too."""
    values = parameters.score.centre.shape[0] // parameters.model.horizon
    channels = len(NAMES)
    traced = events if trace else 0

    def floats(*shape: int) -> NDArray[np.float32]:
        return np.full(shape, np.nan, dtype=np.float32)

    return Results(
        status=np.zeros(events, np.int8),
        score=floats(events),
        probability=floats(events),
        threshold=floats(events),
        action=np.zeros(events, np.int8),
        cut_short=np.zeros(events, np.int8),
        adapting=np.zeros(events, np.bool_),
        opened_offset=np.full(events, -1, np.int64),
        opened_timestamp_ms=np.zeros(events, np.int64),
        episode_events=np.zeros(events, np.int64),
        peak_score=floats(events),
        cut_offset=np.full(events, -1, np.int64),
        cut_timestamp_ms=np.zeros(events, np.int64),
        cut_events=np.zeros(events, np.int64),
        cut_peak_score=floats(events),
        raw=floats(events, channels),
        surprises=floats(events, channels),
        inputs=floats(events, values),
        location=floats(events, values),
        scale=floats(events, values),
        shares=floats(events, values),
        errors=floats(traced, parameters.score.centre.shape[0]),
        hidden=floats(traced, parameters.model.head.shape[0]),
    )


class Scratch(NamedTuple):
    """Working memory of the walk: a row for each of the events that go side by side, which ``event`` names."""

    event: NDArray[np.int64]
    judged: NDArray[np.bool_]
    inputs: NDArray[np.float32]
    present: NDArray[np.bool_]
    hidden: NDArray[np.float32]
    cell: NDArray[np.float32]
    joined: NDArray[np.float32]
    gates: NDArray[np.float32]
    top: NDArray[np.float32]
    head: NDArray[np.float32]
    errors: NDArray[np.float32]
    whitened: NDArray[np.float32]
    places: NDArray[np.float32]
    near: NDArray[np.float32]


def new_scratch(parameters: Parameters, input_width: int) -> Scratch:
    """Return working memory for a model whose first layer reads ``input_width`` inputs."""
    errors = parameters.score.centre.shape[0]
    model, layout, known = parameters.model, parameters.layout, parameters.score.fitted.novelty
    n = SIDE_BY_SIDE
    return Scratch(
        event=np.zeros(n, np.int64),
        judged=np.zeros(n, np.bool_),
        inputs=aligned_zeros(n, input_width),
        present=np.zeros((n, errors // model.horizon), np.bool_),
        hidden=aligned_zeros(n, layout.cell - layout.hidden),
        cell=aligned_zeros(n, layout.forecast - layout.cell),
        joined=aligned_zeros(n, max(matrix.shape[0] for matrix in model.weights)),
        gates=aligned_zeros(n, model.biases.shape[1]),
        top=aligned_zeros(n, model.head.shape[0]),
        head=aligned_zeros(n, model.head_bias.shape[0]),
        errors=aligned_zeros(n, parameters.score.whitening.shape[0]),
        whitened=aligned_zeros(n, errors),
        places=aligned_zeros(n, known.centre.shape[0]),
        near=novelty.new_scratch(known, n),
    )
