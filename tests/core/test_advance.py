"""The walk of an event: what it may read, what it may change, and when it has a score."""

from __future__ import annotations

import functools

import msgspec
import numpy as np
import pytest

from streamlstm.core.bundle import Alerting
from streamlstm.core.channels import CURVES
from streamlstm.core.columns import DUPLICATE, LATE, NO_VALUE, SCORED_EVENT, WARMING_UP, Results
from streamlstm.core.log import Record
from streamlstm.core.scorer import Scorer
from streamlstm.core.state import EVENTS, TAIL_FLOATS, Rows
from tests.builders import (
    START_MS,
    STEP_MS,
    bundle,
    changed,
    make_feed,
    make_record,
    make_rich_feed,
    rich,
    run_polls,
)

AT = 100  # the event that is changed
FEED = make_feed(140, ("a",), seed=11)


def results_of(records: list[Record], alerting: Alerting | None = None) -> Results:
    """Return the results of one poll, from a fresh start."""
    scorer = Scorer(bundle(), alerting=alerting)
    return scorer.score(scorer.read(records), {}).results


def row_after(records: list[Record], alerting: Alerting | None = None) -> Rows:
    """Return key "a"'s row after the records."""
    scorer = Scorer(bundle(), alerting=alerting)
    run_polls(scorer, [records])
    return scorer.arena.gather([(0, b"a")], (0.0, 0.0))


def tail_after(records: list[Record], alerting: Alerting | None = None) -> list[float]:
    """Return key "a"'s tail in force after the records."""
    layout = bundle().parameters().layout
    return row_after(records, alerting).floats[0, layout.tail : layout.tail + TAIL_FLOATS].tolist()


def with_flow(flow: float, at: int = AT) -> list[Record]:
    """Return the feed with another flow at one event."""
    return [*FEED[:at], changed(FEED[at], flow=flow), *FEED[at + 1 :]]


@functools.cache
def undisturbed() -> Results:
    """Return the results of the feed as it is."""
    return results_of(FEED)


@pytest.mark.parametrize("flow", [12.0, 8.0, 100.0, -1e308])
def test_spike_in_a_series_scores_higher_than_the_series_without_it(flow: float) -> None:
    """The event is more surprising than the one it replaced, by more than a decade, and so is its channel."""
    spiked = results_of(with_flow(flow))
    assert spiked.score[AT] > undisturbed().score[AT] + 1
    assert (spiked.surprises[AT, :CURVES] > undisturbed().surprises[AT, :CURVES]).all()


def test_changed_event_leaves_its_own_forecast_and_the_past_unchanged() -> None:
    """Score first, then learn: the value of event n reaches the forecast for n + 1, not that for n."""
    spiked, plain = results_of(with_flow(12.0)), undisturbed()
    for name in ("location", "scale"):
        now, before = getattr(spiked, name), getattr(plain, name)
        assert now[: AT + 1].tobytes() == before[: AT + 1].tobytes()
        assert (now[AT + 1] != before[AT + 1]).all()
    for name in ("score", "probability", "surprises", "raw"):
        assert getattr(spiked, name)[:AT].tobytes() == getattr(plain, name)[:AT].tobytes()
    assert spiked.threshold[: AT + 1].tobytes() == plain.threshold[: AT + 1].tobytes()


def test_key_that_warms_up_has_no_score_for_exactly_its_warm_up() -> None:
    """Until then score, probability and threshold are NaN, never 0; from then on all are numbers."""
    plain, warmup = undisturbed(), bundle().calibration.warmup_events
    assert plain.status.tolist() == [WARMING_UP] * warmup + [SCORED_EVENT] * (len(FEED) - warmup)
    for column in (plain.score, plain.probability, plain.threshold):
        assert np.isnan(column[:warmup]).all()
        assert np.isfinite(column[warmup:]).all()


def test_event_without_any_value_has_status_no_value_and_still_advances() -> None:
    """A warm key's empty event has no score; the key's events go on, and the next one is scored."""
    records = make_rich_feed(80, ("x",), seed=5)
    empty = make_record(msgspec.json.encode({"machine": "x", "time": START_MS + 10**7}), offset=80)
    last = changed(records[-1], time=START_MS + 10**7 + 1000, heat=[300.0, 300.0])._replace(offset=81)
    scorer = Scorer(rich().bundle)
    outcome = scorer.score(scorer.read([*records, empty, last]), {})
    assert outcome.results.status[-2:].tolist() == [NO_VALUE, SCORED_EVENT]
    assert np.isnan(outcome.results.score[-2])
    assert np.isfinite(outcome.results.score[-1])
    assert outcome.rows.integers[0, EVENTS] == 82


def test_threshold_of_an_event_is_where_an_alert_would_have_opened() -> None:
    """It is the score that has the alarm rate's probability by the tail before the event."""
    start, scale = tail_after(FEED[:AT])
    largest = float(bundle().parameters().tail.largest_excess)
    assert undisturbed().threshold[AT] == pytest.approx(start + scale * largest, rel=1e-5)


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (changed(FEED[AT], time=START_MS + AT * STEP_MS - 1), LATE),
        (FEED[AT], DUPLICATE),
        (changed(FEED[AT], flow=9.9), SCORED_EVENT),
    ],
)
def test_late_or_repeated_event_changes_nothing(event: Record, status: int) -> None:
    """An event before its key's last, or with the same time and bytes, is refused and leaves the row alone;
    another event of the same millisecond counts."""
    before = FEED[: AT + 1]
    results = results_of([*before, event._replace(offset=AT + 1)])
    assert results.status[-1] == status
    assert np.isnan(results.score[-1]) == (status != SCORED_EVENT)
    same = row_after([*before, event._replace(offset=AT + 1)]).floats.tobytes() == row_after(before).floats.tobytes()
    assert same == (status != SCORED_EVENT)


@pytest.mark.parametrize("flow", [1e308, -1e308, 10.0 + 1e-12, 5e-324])
@pytest.mark.parametrize("deviation", [1e-300, 0.7, 1e300])
def test_value_of_any_size_leaves_finite_scores_and_states(flow: float, deviation: float) -> None:
    """Huge numbers and tiny deviations, again and again, make nothing infinite."""
    feature = bundle().feature._replace(deviation=np.full((1, 2), deviation))
    scorer = Scorer(msgspec.structs.replace(bundle(), feature=feature))
    again = [
        changed(record, flow=flow, time=START_MS + step * STEP_MS)._replace(offset=step)
        for step, record in enumerate(FEED, start=len(FEED))
    ]
    outcome = scorer.score(scorer.read(FEED + again), {})
    scored = outcome.results.status == SCORED_EVENT
    assert scored.sum() == 2 * len(FEED) - bundle().calibration.warmup_events
    for name in ("score", "probability", "threshold", "surprises", "location", "scale"):
        assert np.isfinite(getattr(outcome.results, name)[scored]).all()
    assert np.isfinite(outcome.rows.floats).all()


def test_flagged_event_does_not_move_the_threshold() -> None:
    """The event that opens an episode is not learned from, nor is any while the episode is younger than the hold."""
    alerting = Alerting(alarm_rate=1e-3, resolve_after_events=1000, cooldown_events=5, hold_events=20)
    feed = with_flow(14.0)
    before = tail_after(feed[:AT], alerting)
    assert before != tail_after(feed[: AT - 1], alerting)
    for events in (1, 2, 20):
        assert tail_after(feed[: AT + events], alerting) == before
    assert tail_after(feed[: AT + 21], alerting) != before


def test_keys_side_by_side_have_the_scores_that_each_has_alone() -> None:
    """Eleven keys in one poll, in another order each step, some twice, with spikes and late events among them."""
    keys = [f"k{number}" for number in range(11)]
    feed, rng, records = make_feed(90, keys, seed=6), np.random.default_rng(6), []
    for step in range(90):
        here = [feed[step * len(keys) + place] for place in rng.permutation(len(keys))[: rng.integers(1, 12)]]
        if step % 4 == 0:
            late = changed(here[-1], time=START_MS + step * STEP_MS - 1)
            here = [*here, changed(here[-1], flow=13.0), late, *here[:2]]
        records.extend(here)
    records = [record._replace(offset=offset) for offset, record in enumerate(records)]
    together, statuses = results_of(records), set()
    for key in keys:
        own = [i for i, record in enumerate(records) if msgspec.json.decode(record.value)["sensor"] == key]
        alone = results_of([records[i] for i in own])
        statuses |= set(alone.status.tolist())
        for name, column in zip(Results._fields, alone, strict=True):
            if len(column):  # the traces are empty
                assert column.tobytes() == getattr(together, name)[own].tobytes(), name
    assert statuses >= {SCORED_EVENT, WARMING_UP, LATE, DUPLICATE}
