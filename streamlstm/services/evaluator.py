"""The evaluator: labelled data in; a table, a results file and a report out."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table as RichTable

from streamlstm import __version__
from streamlstm.errors import HistoryError, SettingsError
from streamlstm.evaluation import judge as judging
from streamlstm.evaluation.judge import Judged, Teller, judge
from streamlstm.evaluation.report import report_html, task_html
from streamlstm.evaluation.results import Results, TaskResult
from streamlstm.evaluation.suites import OwnMeasures, load_suite, own_measures_of, suite_names
from streamlstm.evaluation.tables import Table, all_tables, goals, protocol
from streamlstm.evaluation.task import Task
from streamlstm.services.labelled_file import read_task
from streamlstm.services.settings import EvaluateSettings
from streamlstm.training.train import Options

NEEDS_RIVER = "half-space trees"

logger = structlog.get_logger()


@dataclass(frozen=True)
class Source:
    """Tasks to judge, and how their data's own protocol judges."""

    name: str
    tasks: Callable[[], Iterator[Task]]
    own: OwnMeasures


def evaluate(settings: EvaluateSettings, console: Console) -> Results:
    """Judge every task with every seed; after each, the files hold what is known so far."""
    sources = _sources(settings)
    settings.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    baselines = baselines_for(settings)
    results: list[TaskResult] = []
    plots: list[str] = []
    found = _results(results, settings)
    with _shown() as teller:
        for source in sources:
            for task in source.tasks():
                if settings.only and settings.only not in task.name:
                    continue
                for seed in settings.seeds:
                    judged = _judged(task, seed, settings, baselines, source.own, teller(f"{task.name} seed {seed}"))
                    if judged is None:
                        break
                    results.append(judged.result)
                    if seed == settings.seeds[0]:
                        plots.append(task_html(judged, first=not plots))
                    _tell(judged)
                found = _results(results, settings)
                _write(found, plots, settings.out)
    if not results:
        raise SettingsError(
            "there was nothing to evaluate" + (f": no task's name holds {settings.only!r}" if settings.only else "")
        )
    for table in [
        goals(found),
        *(t for t in all_tables(found) if t.title.startswith(("Alerts", "Alarm budget", "NAB"))),
    ]:
        console.print(_rich(table))
    logger.info("written", results=str(settings.out / "results.md"), report=str(settings.out / "report.html"))
    return found


def _sources(settings: EvaluateSettings) -> list[Source]:
    """Return what to judge: suites, or one labelled file."""
    own_file = (settings.stream, settings.test)
    if settings.suite and any(own_file):
        raise SettingsError("give either --suite, or --stream, --history, --test and labels of your own")
    if settings.suite:
        names = suite_names() if "all" in settings.suite else list(settings.suite)
        suites = [(name, load_suite(name, settings.data)) for name in names]
        return [
            Source(name, lambda suite=suite: suite.tasks(settings.data), own_measures_of(suite))  # type: ignore[misc]
            for name, suite in suites
        ]
    if settings.stream is None or settings.test is None or not settings.history:
        raise SettingsError(
            f"give --suite NAME ({', '.join(suite_names())} or all), or --stream, --history, --test and labels: "
            "--labels FILE or --label-column NAME"
        )
    task = read_task(settings.stream, settings.history, settings.test, settings.labels, settings.label_column)
    return [Source("file", lambda: iter([task]), lambda _stream, _detection: {})]


def baselines_for(settings: EvaluateSettings) -> list[str]:
    """Return the other detectors to run; one whose library is missing is left out, and that is said."""
    if settings.baselines == "none":
        return []
    names = list(judging.ALL)
    if importlib.util.find_spec("river") is None:
        logger.warning(f"{NEEDS_RIVER} are left out: pip install 'streamlstm[evaluate]' brings river")
        names.remove(NEEDS_RIVER)
    return names


def _judged(
    task: Task, seed: int, settings: EvaluateSettings, baselines: list[str], own: OwnMeasures, teller: Teller
) -> Judged | None:
    options = Options(seed=seed, updates=settings.updates, alarm_rate=settings.alarm_rate, alarms=settings.alarms)
    try:
        judged = judge(task, options, baselines=baselines, own=own, teller=teller)
    except HistoryError as error:
        logger.warning("task left out", task=task.name, reason=str(error))
        return None
    if seed == settings.seeds[0] and judged.result.not_learned:
        logger.warning("history records not learned from", task=task.name, **judged.result.not_learned)
    return judged


def _results(tasks: list[TaskResult], settings: EvaluateSettings) -> Results:
    return Results(command_line(), __version__, settings.updates, list(tasks))


def command_line() -> str:
    """Return the command line that repeats this run."""
    return shlex.join(["streamlstm", *sys.argv[1:]]) if "evaluate" in sys.argv else "streamlstm evaluate"


def _write(results: Results, plots: list[str], out: Path) -> None:
    (out / "results.json").write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1))
    (out / "results.md").write_text(results_markdown(results), encoding="utf-8")
    (out / "report.html").write_text(report_html(results, plots), encoding="utf-8")


def results_markdown(results: Results) -> str:
    """Return the results file: how it was made, and every table."""
    made = f"Made by `{results.command}` with streamlstm {results.version}: {protocol(results)}"
    head = f"# Evaluation\n\n{made}\n"
    return "\n".join([head, *(table.markdown() for table in all_tables(results))])


def _tell(judged: Judged) -> None:
    ours = judged.result.detectors[0].overall
    logger.info(
        "judged",
        task=judged.result.task,
        seed=judged.result.seed,
        average_precision=_rounded(ours.average_precision),
        roc=_rounded(ours.roc),
        event_recall=_rounded(ours.event_recall),
        precision=_rounded(ours.precision),
        train_s=round(judged.result.train_s, 1),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _rich(table: Table) -> RichTable:
    shown = RichTable(*table.header, title=table.title, caption=table.text or None, title_justify="left")
    for row in table.rows:
        shown.add_row(*row)
    return shown


@contextmanager
def _shown() -> Iterator[Callable[[str], Teller]]:
    """Show which task is at work, and how far its training is."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with ProgressBar(*columns, console=Console(stderr=True), transient=True) as bar:
        line = bar.add_task("reading", total=None)

        def teller(name: str) -> Teller:
            bar.reset(line, description=f"{name}: training", total=None)
            return Teller(
                progress=lambda p: bar.update(line, total=p.updates, completed=p.update),
                detector=lambda detector: bar.update(line, description=f"{name}: {detector}"),
            )

        yield teller
