"""Scales, gaps and vocabularies: fitted on the training part alone."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from streamlstm.core.feature import PADDING_ID, UNKNOWN_ID
from streamlstm.core.schema import StreamSchema
from streamlstm.errors import HistoryError
from streamlstm.training.scaling import FIRST_CATEGORY_ID, fit_scaling, scaler_index
from tests.builders import (
    RICH,
    SCHEMA,
    START_MS,
    STEP_MS,
    changed,
    make_feed,
    make_history,
    make_record,
    make_rich_feed,
)

CATEGORY = StreamSchema.from_toml(
    'timestamp_unit = "ms"\n[features.flow]\n[features.mode]\nkind = "categorical"\noptional = true'
)


def test_scales_are_those_of_the_training_part() -> None:
    """However the held-out part looks, mean and deviation do not know it."""
    feed = make_feed(400, ("a",))
    disturbed = feed[:300] + [changed(record, flow=1e6) for record in feed[300:]]
    plain, other = (fit_scaling(make_history(records), SCHEMA).parameters for records in (feed, disturbed))
    flow = make_history(feed).values[:300, 0]
    assert plain.mean[0, 0] == pytest.approx(flow.mean())
    assert plain.deviation[0, 0] == pytest.approx(flow.std())
    assert other.mean.tolist() == plain.mean.tolist()
    assert other.deviation.tolist() == plain.deviation.tolist()


def test_keys_of_one_level_share_a_scale() -> None:
    """Keys that do not differ are scaled alike, so that a new key is too."""
    scaling = fit_scaling(make_history(make_feed(200, ("a", "b", "c"))), SCHEMA)
    assert scaling.scaler_of == {}
    assert scaling.parameters.mean.shape == (1, 2)


def test_keys_of_different_levels_have_scales_of_their_own() -> None:
    """Each key of enough events gets its row; one of few events uses the fleet's."""
    low, high = (
        make_feed(200, ("low",)),
        [changed(r, flow=900.0 + i % 7) for i, r in enumerate(make_feed(200, ("high",)))],
    )
    history = make_history([*low, *high, *make_feed(20, ("few",))])
    scaling = fit_scaling(history, SCHEMA)
    assert sorted(scaling.scaler_of) == ["high", "low"]
    assert sorted(scaling.scaler_of.values()) == [1, 2]
    mean = scaling.parameters.mean
    assert mean[scaling.scaler_of["high"], 0] == pytest.approx(903, abs=0.1)
    assert mean[scaling.scaler_of["low"], 0] == pytest.approx(10, abs=0.2)
    assert mean[scaling.scaler_of["low"], 0] < mean[0, 0] < mean[scaling.scaler_of["high"], 0]
    index = scaler_index(history, scaling)
    assert index.tolist() == [0] * 20 + [scaling.scaler_of["high"]] * 200 + [scaling.scaler_of["low"]] * 200


@pytest.mark.parametrize("level", [0.0, 7.3, -1e12])
def test_channel_that_never_varies_has_deviation_one(level: float) -> None:
    """A later change of it then counts in its own unit."""
    history = make_history([changed(record, pressure=level) for record in make_feed(300, ("a",))])
    parameters = fit_scaling(history, SCHEMA).parameters
    assert parameters.deviation[0, 1] == 1.0
    assert parameters.mean[0, 1] == pytest.approx(level)


def test_feature_too_large_for_a_scale_is_refused_by_name() -> None:
    """A number whose square overflows would leave a bundle that cannot be read."""
    feed = make_feed(300, ("a",))
    feed[10] = changed(feed[10], flow=1e200)
    with pytest.raises(HistoryError, match="'flow' holds values too large"):
        fit_scaling(make_history(feed), SCHEMA)


@pytest.mark.parametrize(("jitter_ms", "has_gap"), [(0, False), (10, False), (400, True)])
def test_gap_is_an_input_only_where_events_are_irregular(jitter_ms: int, has_gap: bool) -> None:
    """Regular clocks carry no information; the typical gap is the median."""
    rng = np.random.default_rng(0)
    times = START_MS + STEP_MS * np.arange(300) + rng.integers(0, jitter_ms + 1, 300)
    feed = [changed(r, time=int(time)) for r, time in zip(make_feed(300, ("a",)), times, strict=True)]
    parameters = fit_scaling(make_history(feed), SCHEMA).parameters
    assert parameters.has_gap == has_gap
    assert parameters.typical_gap_ms == pytest.approx(STEP_MS, rel=0.05)


def test_vocabulary_holds_the_training_parts_categories_in_order() -> None:
    """Ids begin after padding and unknown, in the order of the names; integers and flags count as texts."""
    modes: list[object] = ["run", 7, True, None, "idle"] * 60
    modes[-75:] = ["late"] * 75
    records = [
        make_record(msgspec.json.encode({"time": START_MS + i, "flow": float(i), "mode": mode}))
        for i, mode in enumerate(modes)
    ]
    scaling = fit_scaling(make_history(records, CATEGORY), CATEGORY)
    assert (PADDING_ID, UNKNOWN_ID, FIRST_CATEGORY_ID) == (0, 1, 2)
    assert scaling.vocabularies == {"mode": {"7": 2, "True": 3, "idle": 4, "run": 5}}


def test_width_of_rich_inputs_counts_values_mask_gap_and_calendar() -> None:
    """Four values, four flags, a gap, and four numbers of the calendar."""
    scaling = fit_scaling(make_history(make_rich_feed(200), RICH), RICH)
    assert scaling.width(RICH) == 4 + 4 + 1 + 4
