"""A bundle as parts: what goes out comes back, and whatever was changed on the way is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from streamlstm.core.bundle import Alerting, Arrays, Bundle, from_parts, to_parts
from streamlstm.core.scorer import Scorer
from streamlstm.errors import BundleError, SchemaError
from tests.builders import bundle, make_feed, make_rich_feed, rich, run_polls


def parts(of: Bundle | None = None) -> tuple[dict[str, Any], Arrays]:
    """Return copies of a bundle's parts, with its digest as a file would hold it."""
    found = of or bundle()
    data, arrays = to_parts(found)
    return copy.deepcopy(data) | {"digest": found.digest}, {name: array.copy() for name, array in arrays.items()}


def test_bundle_from_its_own_parts_has_the_same_digest_and_scores() -> None:
    """Nothing is lost on the way, in a plain stream and in one with every kind of input."""
    for found, feed in ((bundle(), make_feed(80)), (rich().bundle, make_rich_feed(80))):
        again = from_parts(*parts(found))
        assert again.digest == found.digest
        assert len(again.digest) == 64
        assert again.name == again.digest[:12]
        assert run_polls(Scorer(again), [feed]).scores == run_polls(Scorer(found), [feed]).scores


def test_report_and_only_the_report_does_not_count_for_the_digest() -> None:
    """What is written for people may change; an alarm rate is another detector."""
    told = msgspec.structs.replace(bundle(), report={"note": "for people"})
    stricter = msgspec.structs.replace(bundle(), alerting=Alerting(alarm_rate=1e-4))
    assert told.digest == bundle().digest
    assert stricter.digest != bundle().digest


def test_array_that_was_changed_missing_or_misshapen_is_refused() -> None:
    """One bit of any array is noticed, and the array is named where it does not fit."""
    data, arrays = parts()
    for name, whole in arrays.items():
        with pytest.raises(BundleError, match=f"'{name}' is missing"):
            from_parts(data, {other: array for other, array in arrays.items() if other != name})
        with pytest.raises(BundleError, match=f"'{name}' has shape"):
            from_parts(data, arrays | {name: whole[..., None]})
        if whole.size == 0:  # no embeddings without categories
            continue
        changed = whole.copy()
        changed.flat[-1] = np.nextafter(changed.flat[-1], changed.dtype.type(9))
        with pytest.raises(BundleError, match="digest does not match"):
            from_parts(data, arrays | {name: changed})
        changed.flat[-1] = np.nan
        with pytest.raises(BundleError, match=f"'{name}' holds values that are not finite"):
            from_parts(data, arrays | {name: changed})


def test_array_of_another_release_is_refused() -> None:
    """An array this release does not know is no harmless extra."""
    data, arrays = parts()
    with pytest.raises(BundleError, match="unexpected arrays: odd"):
        from_parts(data, arrays | {"odd": np.zeros(1)})


def edit(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """Return an edit of the JSON part: the value at a dotted path is replaced."""
    *way, last = path.split(".")

    def apply(data: dict[str, Any]) -> None:
        for step in way:
            data = data[step]
        data[last] = value

    return apply


def swap_features(data: dict[str, Any]) -> None:
    """Change nothing but the order of the features, which says which channel is whose."""
    data["schema"]["features"] = dict(reversed(data["schema"]["features"].items()))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (edit("format", "pickle"), "no streamlstm bundle"),
        (edit("version", 1), "version 1; this release reads version 8: train again"),
        (edit("channels", ["level"]), "calibrated for channels"),
        (edit("alerting.alarm_rate", 0.01), "digest does not match"),
        (edit("calibration.tail_scale", 9.0), "digest does not match"),
        (edit("schema.features.flow.unit", "gal"), "digest does not match"),
        (swap_features, "digest does not match"),
        (edit("digest", "0" * 64), "digest does not match"),
        (edit("digest", ""), "digest does not match"),
        (edit("architecture.layers", 10**9), "more than 64 layers"),
        (edit("architecture.hidden", 20), "lstm.0.weights"),
        (edit("architecture.hidden", 18), "no multiple of four"),
        (edit("architecture.layers", 0), "below one"),
        (edit("architecture.layers", "one"), "layers"),
        (edit("has_mask", True), "does not fit its own schema"),
        (edit("frame_samples", 2), "does not fit its own schema"),
        (edit("scaler_of", {"a": 1}), "points outside"),
        (edit("surprise", 1), "surprise"),
    ],
)
def test_json_that_was_changed_is_refused_with_the_reason(
    change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    """Another format, version, shape or number is noticed, and the error says which."""
    data, arrays = parts()
    change(data)
    with pytest.raises(BundleError, match=reason):
        from_parts(data, arrays)


@pytest.mark.parametrize("data", [None, [], "text", {}])
def test_json_that_is_no_bundle_is_refused(data: object) -> None:
    """Data without the format's name are not looked into."""
    with pytest.raises(BundleError, match="no streamlstm bundle"):
        from_parts(data, {})


def test_json_with_a_broken_schema_is_refused_as_such() -> None:
    """A schema that could not be a stream's cannot be a bundle's."""
    data, arrays = parts()
    data["schema"]["frame_samples"] = 0
    with pytest.raises(SchemaError, match="the bundle's schema: frame_samples"):
        from_parts(data, arrays)
