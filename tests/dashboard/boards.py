"""Builders of what a board takes in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from streamlstm.core.feedback import FeedbackRecord
from streamlstm.core.feedback import encode as encode_feedback
from streamlstm.core.log import Record
from streamlstm.core.record import AlertRecord, ScoreRecord, encode
from streamlstm.core.scorer import Scorer
from streamlstm.dashboard.board import Board
from tests.builders import START_MS, STEP_MS, bundle, run_polls


def make_score(key: str = "a", step: int = 0, probability: float | None = 0.5, **fields: object) -> ScoreRecord:
    """Return the score of an event a second after the one before; without a probability it is warming up."""
    values: dict[str, object] = {
        "key": key,
        "time_ms": START_MS + step * STEP_MS,
        "offset": step,
        "status": "scored" if probability is not None else "warming_up",
        "model": bundle().name,
        "score": None if probability is None else 1.0,
        "tail_probability": probability,
        "threshold": None if probability is None else 3.0,
    }
    return ScoreRecord(**(values | fields))  # type: ignore[arg-type]


def records(values: Iterable[ScoreRecord | AlertRecord | FeedbackRecord], partition: int = 0) -> list[Record]:
    """Return records as they stand in their topic."""
    return [
        Record(
            "t",
            partition,
            i,
            START_MS,
            value.key.encode(),
            encode_feedback(value) if isinstance(value, FeedbackRecord) else encode(value),
        )
        for i, value in enumerate(values)
    ]


def scored(feed: Sequence[Record], *, explain_all: bool = True) -> Board:
    """Return a board that has seen a feed and what the scorer made of it."""
    run = run_polls(Scorer(bundle(), explain_all=explain_all), [feed])
    board = Board("events", bundle())
    board.take_events(feed)
    board.take_scores([Record("s", o.partition, i, START_MS, o.key, o.value) for i, o in enumerate(run.scores)])
    board.take_alerts([Record("a", o.partition, i, START_MS, o.key, o.value) for i, o in enumerate(run.alerts)])
    return board
