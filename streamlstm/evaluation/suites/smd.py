"""Server Machine Dataset: 38 metrics each minute, a model per machine; the first half is history, as published."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from streamlstm.evaluation.server_metrics import machine_tasks
from streamlstm.evaluation.task import Task

ABOUT = "Server Machine Dataset, 38 metrics a minute, a model per machine; the first half is history"
FOLDERS = ("smd",)
TARGETS = {"machine-1-6": 0.85, "machine-2-1": 0.38}


def tasks(data: Path) -> Iterator[Task]:
    """Yield a task per machine."""
    yield from machine_tasks(data / "smd", "SMD", step_ms=60_000, targets=TARGETS)
