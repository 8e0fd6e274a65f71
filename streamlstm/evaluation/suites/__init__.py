"""Published, labelled data sets, a file each; a suite more is one more file here.

A suite's file has ``ABOUT`` (one sentence: the data and the protocol), ``FOLDERS`` (which must be in the data
directory) and ``tasks(data)``, which reads its files and yields a :class:`~streamlstm.evaluation.task.Task` per model
to train. It may have ``own_measures(stream, detection)``, the figures of the data's own protocol by name. The suite's
name is the file's.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, cast

from streamlstm.errors import SettingsError
from streamlstm.evaluation.detection import Detection
from streamlstm.evaluation.stream import Stream
from streamlstm.evaluation.task import Task

OwnMeasures = Callable[[Stream, Detection], dict[str, float]]


class Suite(Protocol):
    """What a suite's file has."""

    ABOUT: str
    FOLDERS: tuple[str, ...]

    def tasks(self, data: Path) -> Iterator[Task]:
        """Yield the suite's tasks."""


def suite_names() -> list[str]:
    """Return the names of all suites."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_suite(name: str, data: Path) -> Suite:
    """Return a suite whose data are there; raises :class:`SettingsError` otherwise."""
    if name not in suite_names():
        raise SettingsError(f"there is no suite {name!r}; there are {', '.join(suite_names())} and all")
    suite = cast(Suite, importlib.import_module(f"{__name__}.{name}"))
    for folder in suite.FOLDERS:
        if not (data / folder).is_dir():
            raise SettingsError(f"the suite {name} needs {data / folder}; say where the data are with --data DIR")
    return suite


def own_measures_of(suite: Suite) -> OwnMeasures:
    """Return how a suite judges by its data's own protocol; a function that returns nothing if it has none."""
    return cast(OwnMeasures, getattr(suite, "own_measures", lambda _stream, _detection: {}))
