"""A model bundle: everything that turns the events of one stream into scores, and nothing else.

It is plain data and named arrays, so that it can be stored without pickle; reading and writing files
is ``streamlstm.adapters.bundle_files``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamlstm.core.alert import episode_parameters
from streamlstm.core.aligned import aligned
from streamlstm.core.budget import Promised, promised
from streamlstm.core.bundle_limits import (
    check_alerting,
    check_calibration,
    check_categories,
    check_range,
    check_scalers,
    check_score,
)
from streamlstm.core.channels import CURVES, NAMES, Fitted, laid_out, novelty, record, stillness
from streamlstm.core.columns import Parameters
from streamlstm.core.feature import FeatureParameters, input_width
from streamlstm.core.model import Architecture, Model
from streamlstm.core.schema import StreamSchema
from streamlstm.core.score import ScoreParameters
from streamlstm.core.state import layout_of
from streamlstm.core.threshold import tail_parameters
from streamlstm.errors import BundleError

FORMAT = "streamlstm-bundle"
VERSION = 8
MAX_LAYERS = 64
LONGEST_PERIOD = 64  # events: means and alerts take no more of a longer one, such as a day of five minutes each
LONGEST_GAP_MS = 1e14  # as the times that events may have
DOUBLES = {"feature.mean", "feature.deviation"}  # all other arrays are float32

Arrays = dict[str, NDArray[Any]]


class Alerting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When episodes open and close; see :mod:`streamlstm.core.alert`.

    ``alarm_rate``: the share of a key's events that may be flagged, between 0 and .05.
    """

    alarm_rate: float = 1e-3
    resolve_after_events: int = 8
    cooldown_events: int = 16
    hold_events: int = 512


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was fitted on held-out data beside the arrays.

    ``tail_start`` and ``tail_scale``: the exponential tail of the score above its 95 % quantile.
    ``mean_gap_ms``: between events of a key, over the whole history.
    """

    period: int
    warmup_events: int
    mean_gap_ms: float
    tail_start: float
    tail_scale: float


class Bundle(msgspec.Struct, frozen=True, dict=True):
    """A trained and calibrated detector for one stream.

    ``scaler_of`` maps a key to its row of ``feature.mean`` where keys differ in level; a key that is
    not in it uses row 0. ``vocabularies``: per categorical feature, category to id (2 and up).
    ``band`` (D,) float32: half-width of the 99 % band in forecast scales. ``report`` is for people.
    """

    schema: StreamSchema
    architecture: Architecture
    feature: FeatureParameters
    scaler_of: dict[str, int]
    vocabularies: dict[str, dict[str, int]]
    model: Model
    score: ScoreParameters
    band: NDArray[np.float32]
    calibration: Calibration
    alerting: Alerting
    report: dict[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 over all of the bundle but the report, as 64 hexadecimal digits."""
        cached: str | None = self.__dict__.get("_digest")
        if cached is None:
            cached = str(to_parts(self)[0]["digest"])
            self.__dict__["_digest"] = cached
        return cached

    @property
    def name(self) -> str:
        """The first 12 digits of the digest; in every score, alert and state."""
        return self.digest[:12]

    def promised(self, alarm_rate: float | None = None, alarms: str | None = None) -> Promised:
        """Return what is promised with this rate, or these words, or neither: then the bundle's own rate.

        Raises :class:`SettingsError` for words that no rate keeps to.
        """
        return promised(alarm_rate or self.alerting.alarm_rate, alarms, self.calibration.mean_gap_ms)

    def parameters(self, alerting: Alerting | None = None, *, explain_all: bool = False) -> Parameters:
        """Return what the numeric walk needs; ``alerting`` replaces the bundle's own."""
        chosen, found = alerting or self.alerting, self.calibration
        expire_after_s = self.schema.expire_after_s
        parameters = Parameters(
            feature=self.feature,
            model=self.model,
            score=self.score._replace(fitted=laid_out(self.score.fitted)),
            tail=tail_parameters(found.tail_start, found.tail_scale, chosen.alarm_rate),
            episode=episode_parameters(
                chosen.alarm_rate, chosen.resolve_after_events, chosen.cooldown_events, chosen.hold_events
            ),
            layout=layout_of(self.architecture),
            expire_after_ms=math.inf if expire_after_s is None else expire_after_s * 1000.0,
            forget_after_ms=self.schema.forget_after_ms,
            explain_all=explain_all,
        )
        return aligned(parameters)


class _Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The JSON part of a bundle."""

    format: str
    version: int
    schema: dict[str, Any]
    architecture: Architecture
    channels: tuple[str, ...]
    frame_samples: int
    has_mask: bool
    has_gap: bool
    has_calendar: bool
    typical_gap_ms: float
    scaler_of: dict[str, int]
    vocabularies: dict[str, dict[str, int]]
    calibration: Calibration
    alerting: Alerting
    report: dict[str, Any] = {}
    digest: str = ""


@dataclass(frozen=True)
class _Shapes:
    """The shapes that a bundle's arrays must have."""

    expected: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)

    def check(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Raise :class:`BundleError` naming the first array that is missing, odd or not finite."""
        for name, shape in self.expected.items():
            if name not in arrays:
                raise BundleError(f"the array {name!r} is missing")
            found = arrays[name]
            fits = len(found.shape) == len(shape) and all(
                want in (None, have) for want, have in zip(shape, found.shape, strict=False)
            )
            if not fits:
                raise BundleError(f"the array {name!r} has shape {found.shape}, expected {shape}")
            dtype = np.dtype(np.float64 if name in DOUBLES else np.float32)
            if found.dtype != dtype:
                raise BundleError(f"the array {name!r} holds {found.dtype}, expected {dtype}")
            if not np.isfinite(found).all():
                raise BundleError(f"the array {name!r} holds values that are not finite")
        extra = set(arrays) - set(self.expected)
        if extra:
            raise BundleError(f"unexpected arrays: {', '.join(sorted(extra))}")


def _shapes(a: Architecture, channels: int) -> _Shapes:
    expected: dict[str, tuple[int | None, ...]] = {}
    for layer in range(a.layers):
        width = (a.input_width if layer == 0 else a.hidden) + a.hidden
        expected[f"lstm.{layer}.weights"] = (padded(width), 4 * a.hidden)
    return _Shapes(
        expected
        | {
            "lstm.biases": (a.layers, 4 * a.hidden),
            "head.weights": (padded(a.hidden), 2 * a.errors),
            "head.bias": (2 * a.errors,),
            "embeddings": (sum(a.vocabularies), a.embedding),
            "feature.mean": (None, channels),
            "feature.deviation": (None, channels),
            "score.centre": (a.errors,),
            "score.whitening": (padded(a.errors), a.errors),
            "score.knots": (CURVES, None),
            "score.surprises": (CURVES, None),
            "score.slopes": (CURVES,),
            "score.weights": (CURVES,),
            "novelty.centre": (None,),
            "novelty.projection": (a.hidden, None),
            "novelty.references": (None, None),
            "record.low": (len(record.SPANS), a.values),
            "record.high": (len(record.SPANS), a.values),
            "stillness.lowest": (a.values,),
            "band": (a.values,),
        }
    )


def padded(width: int) -> int:
    """Return the next multiple of four: :func:`streamlstm.core.step.add_products` takes four rows at a time."""
    return -(-width // 4) * 4


def to_parts(bundle: Bundle) -> tuple[dict[str, Any], Arrays]:
    """Return the JSON part, with its digest, and the named arrays of a bundle."""
    feature, model, score = bundle.feature, bundle.model, bundle.score
    head = _Head(
        format=FORMAT,
        version=VERSION,
        schema=bundle.schema.to_dict(),
        architecture=bundle.architecture,
        channels=NAMES,
        frame_samples=feature.frame_samples,
        has_mask=feature.has_mask,
        has_gap=feature.has_gap,
        has_calendar=feature.has_calendar,
        typical_gap_ms=feature.typical_gap_ms,
        scaler_of=bundle.scaler_of,
        vocabularies=bundle.vocabularies,
        calibration=bundle.calibration,
        alerting=bundle.alerting,
        report=bundle.report,
    )
    arrays: Arrays = {f"lstm.{layer}.weights": matrix for layer, matrix in enumerate(model.weights)}
    arrays |= {
        "lstm.biases": model.biases,
        "head.weights": model.head,
        "head.bias": model.head_bias,
        "embeddings": model.embeddings,
        "feature.mean": feature.mean,
        "feature.deviation": feature.deviation,
        "score.centre": score.centre,
        "score.whitening": score.whitening,
        "score.knots": score.knots,
        "score.surprises": score.surprises,
        "score.slopes": score.slopes,
        "score.weights": score.weights,
        "novelty.centre": score.fitted.novelty.centre,
        "novelty.projection": score.fitted.novelty.projection,
        "novelty.references": score.fitted.novelty.references,
        "record.low": score.fitted.record.low,
        "record.high": score.fitted.record.high,
        "stillness.lowest": score.fitted.stillness.lowest,
        "band": bundle.band,
    }
    data: dict[str, Any] = msgspec.to_builtins(head)
    return data | {"digest": _digest(data, arrays)}, arrays


def from_parts(data: object, arrays: Arrays) -> Bundle:
    """Build and check a bundle; raises :class:`BundleError` with the reason if anything is off."""
    bundle = assembled(data, arrays)
    if not isinstance(data, dict) or data.get("digest") != bundle.digest:
        raise BundleError("the digest does not match the contents: a file was changed or damaged")
    return bundle


def assembled(data: object, arrays: Arrays) -> Bundle:
    """As :func:`from_parts`, whatever the digest says: who can write a bundle can write its digest."""
    head = _check_head(data)
    schema = StreamSchema.from_dict(head.schema, "the bundle's schema")
    a = head.architecture
    _shapes(a, len(schema.numeric)).check(arrays)
    width = input_width(schema.values, has_mask=head.has_mask, has_gap=head.has_gap, has_calendar=head.has_calendar)
    if a.values != schema.values or a.inputs != width or head.frame_samples != schema.frame_samples:
        raise BundleError("the bundle's architecture does not fit its own schema")
    _check_limits(head, schema, arrays)
    return Bundle(
        schema=schema,
        architecture=a,
        feature=FeatureParameters(
            mean=arrays["feature.mean"],
            deviation=arrays["feature.deviation"],
            frame_samples=head.frame_samples,
            has_mask=head.has_mask,
            has_gap=head.has_gap,
            has_calendar=head.has_calendar,
            typical_gap_ms=head.typical_gap_ms,
        ),
        scaler_of=head.scaler_of,
        vocabularies=head.vocabularies,
        model=Model(
            weights=tuple(arrays[f"lstm.{layer}.weights"] for layer in range(a.layers)),
            biases=arrays["lstm.biases"],
            head=arrays["head.weights"],
            head_bias=arrays["head.bias"],
            embeddings=arrays["embeddings"],
            embedding_start=embedding_start(a),
            horizon=a.horizon,
        ),
        score=ScoreParameters(
            centre=arrays["score.centre"],
            whitening=arrays["score.whitening"],
            knots=arrays["score.knots"],
            surprises=arrays["score.surprises"],
            slopes=arrays["score.slopes"],
            weights=arrays["score.weights"],
            fitted=Fitted(
                novelty.Fitted(arrays["novelty.centre"], arrays["novelty.projection"], arrays["novelty.references"]),
                record.Fitted(arrays["record.low"], arrays["record.high"]),
                stillness.Fitted(arrays["stillness.lowest"]),
            ),
            span=running_span(head.calibration.period),
            warmup_events=head.calibration.warmup_events,
        ),
        band=arrays["band"],
        calibration=head.calibration,
        alerting=head.alerting,
        report=head.report,
    )


def _check_limits(head: _Head, schema: StreamSchema, arrays: Arrays) -> None:
    found, alerting = head.calibration, head.alerting
    check_scalers(head.scaler_of, arrays["feature.mean"], arrays["feature.deviation"])
    check_categories(head.vocabularies, head.architecture.vocabularies, schema.categorical)
    check_score(arrays)
    check_range("typical_gap_ms", head.typical_gap_ms, 0, LONGEST_GAP_MS, above=True)
    check_range("calibration.mean_gap_ms", found.mean_gap_ms, 0, LONGEST_GAP_MS, above=True)
    tail = (found.tail_start, found.tail_scale)
    check_calibration(found.period, found.warmup_events, tail)
    check_alerting(
        alerting.alarm_rate,
        resolve_after_events=alerting.resolve_after_events,
        cooldown_events=alerting.cooldown_events,
        hold_events=alerting.hold_events,
    )


def embedding_start(architecture: Architecture) -> NDArray[np.int64]:
    """Return the first row of each categorical feature in the embedding table."""
    starts = np.cumsum([0, *architecture.vocabularies])[:-1]
    return starts.astype(np.int64)


def running_span(period: int) -> int:
    """Return the events that the channels' running means reach over: half a period.

    >>> [running_span(period) for period in (1, 20, 288)]
    [1, 10, 32]
    """
    return max(1, round(min(period, LONGEST_PERIOD) / 2))


def _check_head(data: object) -> _Head:
    found = data.get("format") if isinstance(data, dict) else None
    if found != FORMAT:
        raise BundleError(f"this is no streamlstm bundle (format {found!r})")
    version = data.get("version") if isinstance(data, dict) else None
    if version != VERSION:
        raise BundleError(f"bundle version {version!r}; this release reads version {VERSION}: train again")
    try:
        msgspec.json.encode(data)
        head = msgspec.convert(data, _Head)
    except msgspec.ValidationError as error:
        raise BundleError(str(error)) from error
    except (UnicodeEncodeError, OverflowError, RecursionError) as error:
        raise BundleError(f"it holds what no bundle does: {error}") from error
    if head.channels != NAMES:
        raise BundleError(f"calibrated for channels {head.channels}, this release has {NAMES}: train again")
    a = head.architecture
    if (
        min(a.values, a.inputs, a.hidden, a.layers, a.horizon, a.embedding, *(a.vocabularies or (1,))) < 1
        or a.hidden % 4
        or a.layers > MAX_LAYERS
    ):
        raise BundleError(
            f"the architecture has a size below one, more than {MAX_LAYERS} layers, or a hidden size that is no "
            "multiple of four"
        )
    return head


def _digest(data: dict[str, Any], arrays: Arrays) -> str:
    digest = hashlib.sha256()
    contents = {name: value for name, value in data.items() if name not in ("digest", "report")}
    contents["feature_order"] = list(data["schema"]["features"])  # which channel is whose; below, keys are sorted
    digest.update(msgspec.json.encode(contents, order="deterministic"))
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
