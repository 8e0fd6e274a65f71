"""A bundle made to harm, with a digest that fits: what compiled code would take as an index or a size is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from streamlstm.core.bundle import Arrays, assembled
from streamlstm.core.scorer import Scorer
from streamlstm.errors import BundleError, SchemaError
from tests.fuzz import tiny

Change = Callable[[dict[str, Any], Arrays], None]


def head(path: str, value: object) -> Change:
    """Return a change of the JSON part, at a dotted path."""
    *way, last = path.split(".")

    def apply(data: dict[str, Any], arrays: Arrays) -> None:
        for step in way:
            data = data[step]
        data[last] = value

    return apply


def array(name: str, change: Callable[[Any], Any]) -> Change:
    """Return a change of an array."""

    def apply(data: dict[str, Any], arrays: Arrays) -> None:
        arrays[name] = change(arrays[name])

    return apply


def test_tiny_bundle_is_good_before_it_is_changed() -> None:
    """The bundle of these tests scores, with alerts."""
    bundle = tiny.bundle()
    scorer = Scorer(bundle)
    outcome = scorer.score(scorer.read(list(tiny.events(bundle.schema))), {})
    assert [score.status for score in outcome.scores].count("scored") > 0
    assert {rejection.reason for rejection in outcome.rejections} == {"late", "duplicate"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (head("scaler_of", {"a": -1}), "scaler points outside"),
        (head("scaler_of", {"a": 2}), "scaler points outside"),
        (head("vocabularies", {"mode": {"on": 3}}), "an id lies outside 2 to 2"),
        (head("vocabularies", {"mode": {"on": -9}}), "an id lies outside"),
        (head("vocabularies", {}), "vocabularies of"),
        (head("architecture.vocabularies", [1, 2]), "."),
        (head("typical_gap_ms", 0.0), "typical_gap_ms is 0.0"),
        (head("typical_gap_ms", float("nan")), "typical_gap_ms is nan"),
        (head("calibration.period", 0), "calibration.period"),
        (head("calibration.period", 2**63), "calibration.period"),
        (head("calibration.warmup_events", -1), "calibration.warmup_events"),
        (head("calibration.tail_start", float("inf")), "calibration.tail_start"),
        (head("calibration.tail_scale", 0.0), "calibration.tail_scale"),
        (head("alerting.alarm_rate", 0.05), "alarm_rate"),
        (head("alerting.alarm_rate", -1e-3), "alarm_rate"),
        (head("alerting.hold_events", -1), "alerting.hold_events"),
        (head("alerting.resolve_after_events", 0), "alerting.resolve_after_events is 0"),
        (head("alerting.cooldown_events", 2**70), "cooldown_events|holds what no bundle"),
        (head("report", {"text": "\ud800"}), "holds what no bundle does"),
        (array("feature.mean", lambda found: found[:0]), "rows"),
        (array("feature.deviation", lambda found: found * 0), "not positive"),
        (array("feature.deviation", lambda found: found[:1]), "rows"),
        (array("score.knots", lambda found: found[:, :2]), "'score.knots' and 'score.surprises' have"),
        (array("score.knots", lambda found: found[:, ::-1]), "must ascend"),
        (array("score.weights", lambda found: found * 2), "'score.weights' holds a negative value, or does not sum"),
        (array("score.weights", lambda found: found * [-1, 1, 1, 1, 1]), "holds float64"),
        (array("score.weights", lambda _: np.array([-1, 2, 0, 0, 0], np.float32)), "holds a negative value"),
        (array("stillness.lowest", np.zeros_like), "'stillness.lowest' holds values that are not positive"),
        (array("novelty.projection", lambda found: found[:, :1].copy()), "'novelty.references' has shape"),
        (array("novelty.references", lambda found: found[:, :0]), "'novelty.references' has shape"),
        (array("lstm.biases", lambda found: found.astype(np.float64)), "holds float64, expected float32"),
        (array("head.bias", lambda found: found.astype(np.int32)), "holds int32, expected float32"),
        (array("band", lambda found: found > 0), "holds bool, expected float32"),
    ],
)
def test_bundle_with_a_number_out_of_range_is_refused_by_name(change: Change, reason: str) -> None:
    """Each of these went through before, and let compiled code read beyond an array, or divide by nothing."""
    data, arrays = tiny.parts()
    change(data, arrays)
    with pytest.raises(BundleError, match=reason):
        assembled(data, arrays)


def test_schema_with_half_a_character_is_refused() -> None:
    """JSON can spell half of a surrogate pair; no record could be looked up by that."""
    data, arrays = tiny.parts()
    data["schema"]["timestamp"] = "\ud800"
    with pytest.raises((BundleError, SchemaError)):
        assembled(data, arrays)
