"""Application Server Dataset: 19 metrics each five minutes, a model per server; 30 days are history, as published."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from streamlstm.evaluation.server_metrics import machine_tasks
from streamlstm.evaluation.task import Task

ABOUT = "Application Server Dataset, 19 metrics each five minutes, a model per server; 30 days are history"
FOLDERS = ("asd",)
GROUP = "ASD, mean of servers"
TARGETS = {GROUP: 0.36}


def tasks(data: Path) -> Iterator[Task]:
    """Yield a task per server."""
    yield from machine_tasks(data / "asd", "ASD", step_ms=300_000, targets=TARGETS, group=GROUP)
