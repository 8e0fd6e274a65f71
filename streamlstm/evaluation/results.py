"""What an evaluation found, as data: one entry per task and seed, with all detectors in it."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import mean, pstdev
from typing import NamedTuple

import msgspec

from streamlstm.core.budget import Budget
from streamlstm.evaluation.detection import Measures
from streamlstm.evaluation.forecasts import Attribution, Coverage


class DetectorResult(msgspec.Struct, frozen=True):
    """One detector on one task: overall, per key if there are several, and by the data's own protocol."""

    detector: str
    overall: Measures
    keys: dict[str, Measures]
    own: dict[str, float]


class TaskResult(msgspec.Struct, frozen=True):
    """One task with one seed; the detector itself comes first. ``promised``: the alarm rate; ``budget``: in words."""

    task: str
    group: str
    target: float | None
    seed: int
    model: str
    history_events: int
    test_events: int
    rejected: int
    not_learned: dict[str, int]
    period: int
    promised: float
    budget: Budget
    train_s: float
    detectors: list[DetectorResult]
    coverage: list[Coverage]
    attribution: Attribution | None


class Results(msgspec.Struct, frozen=True):
    """All that one command found."""

    command: str
    version: str
    updates: int
    tasks: list[TaskResult]

    @property
    def groups(self) -> list[str]:
        """Names of the groups, in the order in which they ran."""
        return list(dict.fromkeys(result.group for result in self.tasks))

    @property
    def detectors(self) -> list[str]:
        """Names of the detectors, ours first."""
        return list(dict.fromkeys(d.detector for result in self.tasks for d in result.detectors))

    @property
    def seeds(self) -> list[int]:
        """The seeds, ascending."""
        return sorted({result.seed for result in self.tasks})

    def target(self, group: str) -> float | None:
        """Return the average precision to reach."""
        return next(result.target for result in self.tasks if result.group == group)

    def over_seeds(self, group: str, detector: str, name: str) -> Spread | None:
        """Return a measure's mean over a group's tasks, as mean and spread over seeds; None if it has no value."""
        means = []
        for seed in self.seeds:
            found = [
                value
                for result in self.tasks
                if result.group == group and result.seed == seed
                for d in result.detectors
                if d.detector == detector and (value := _value(d, name)) is not None
            ]
            if found:
                means.append(mean(found))
        return spread(means)


class Spread(NamedTuple):
    """A mean over seeds, and their standard deviation."""

    mean: float
    deviation: float


def spread(values: Iterable[float]) -> Spread | None:
    """Return mean and standard deviation; None of nothing."""
    found = list(values)
    return Spread(mean(found), pstdev(found)) if found else None


def _value(result: DetectorResult, name: str) -> float | None:
    value: float | None = result.own[name] if name in result.own else getattr(result.overall, name, None)
    return value
