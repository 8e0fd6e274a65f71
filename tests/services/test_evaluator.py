"""The evaluator: from labelled files to a table, a results file and a report."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from streamlstm.core.log import Record
from streamlstm.errors import SettingsError
from streamlstm.evaluation.report import report_html
from streamlstm.evaluation.results import Results
from streamlstm.evaluation.tables import goals
from streamlstm.services import evaluator
from streamlstm.services.settings import EvaluateSettings
from tests.browser_fixtures import Visitor
from tests.builders import changed, make_feed
from tests.evaluation import small


@pytest.fixture(scope="module")
def pumps(tmp_path_factory: pytest.TempPathFactory) -> EvaluateSettings:
    """Write the small task as files, and return settings to evaluate it."""
    folder = tmp_path_factory.mktemp("pumps")
    rows = small.table()
    begin, end = (small.HISTORY + at for at in small.FAULT)
    rows["fault"] = ((rows["pump"] == "a") & rows["step"].between(begin, end - 1)).astype(int)
    (folder / "s.toml").write_text('key = "pump"\ntimestamp_unit = "ms"\n[features.flow]\n[features.heat]\n')
    rows[rows["step"] < small.HISTORY].to_csv(folder / "history.csv", index=False)
    rows[rows["step"] >= small.HISTORY].to_parquet(folder / "test.parquet")
    return EvaluateSettings(
        stream=folder / "s.toml",
        history=(folder / "history.csv",),
        test=folder / "test.parquet",
        label_column="fault",
        seeds=(0, 1),
        updates=40,
        out=folder / "out",
    )


@pytest.fixture(scope="module")
def run(pumps: EvaluateSettings) -> tuple[Results, str]:
    """Evaluate once; results, and what was printed."""
    text = io.StringIO()
    return evaluator.evaluate(pumps, Console(file=text, width=400)), text.getvalue()


def test_all_detectors_are_judged_on_the_same_events(run: tuple[Results, str]) -> None:
    """Ours first, each with every seed, per key and overall."""
    results, _ = run
    assert [result.seed for result in results.tasks] == [0, 1]
    for result in results.tasks:
        assert [d.detector for d in result.detectors] == ["streamlstm", *evaluator.judging.ALL]
        assert {d.overall.events for d in result.detectors} == {2 * small.TEST}
        ours = result.detectors[0]
        assert set(ours.keys) == {"a", "b"}
        assert ours.overall.average_precision is not None
        assert ours.overall.average_precision > 0.5
        assert ours.keys["b"].average_precision is None  # nothing is labelled there


def test_files_hold_what_was_found(pumps: EvaluateSettings, run: tuple[Results, str]) -> None:
    """Data for programs, tables for people, and a report that needs nothing from elsewhere."""
    results, printed = run
    assert msgspec.json.decode((pumps.out / "results.json").read_bytes(), type=Results) == results
    tables = (pumps.out / "results.md").read_text()
    report = (pumps.out / "report.html").read_text()
    for title in ("Average precision", "VUS-PR", "Alerts", "Alarm budget", "Forecast bands", "streamlstm, per key"):
        assert f"## {title}" in tables
        assert f"<h2>{title}" in report
    assert "Average precision" in printed
    assert "static Mahalanobis" in printed
    assert "<script src=" not in report
    assert "a stretch that was found" in report


def test_text_stands_once_on_the_report_and_says_how_many_seeds(run: tuple[Results, str]) -> None:
    """Two seeds are averaged, and that is said once; of one nothing is said of a mean."""
    results, _ = run
    page = report_html(results, [])
    one = msgspec.structs.replace(results, tasks=results.tasks[:1])
    for text in ("seeds 0, 1,", "means over the seeds", "Scores against labels", "It is ahead of every other"):
        assert page.count(text) == 1
    assert "seed 0," in report_html(one, [])
    assert "means over" not in report_html(one, [])
    assert "seed 0," in evaluator.results_markdown(one)
    assert "<p></p>" not in page


def test_wide_tables_of_the_report_scroll_in_a_box(run: tuple[Results, str], visitor: Visitor, tmp_path: Path) -> None:
    """In a narrow window, too, the page itself is as wide as the window."""
    path = tmp_path / "report.html"
    path.write_text(report_html(run[0], []))
    visitor.page.set_viewport_size({"width": 500, "height": 800})
    visitor.page.goto(path.as_uri())
    assert visitor.page.evaluate("document.documentElement.scrollWidth") == 500
    boxes = "[...document.querySelectorAll('table')].map(t => getComputedStyle(t.parentElement).overflowX)"
    assert set(visitor.page.evaluate(boxes)) == {"auto"}


def test_goals_say_what_is_ahead(run: tuple[Results, str]) -> None:
    """Mean over seeds beside the best other."""
    table = goals(run[0])
    assert table.header[:4] == ["task", "target", "streamlstm", "best other"]
    assert table.header[-1] == "windowed LSTM"
    assert table.rows[0][:2] == ["test", "–"]
    assert 0 < float(table.rows[0][2].split(" ± ")[0]) <= 1


def test_baselines_can_be_left_out_and_a_task_chosen(pumps: EvaluateSettings, tmp_path: Path) -> None:
    """``--baselines none``; a name that fits nothing is an error."""
    alone = replace(pumps, baselines="none", seeds=(0,), updates=10, out=tmp_path / "alone")
    results = evaluator.evaluate(alone, Console(file=io.StringIO()))
    assert results.detectors == ["streamlstm"]
    with pytest.raises(SettingsError, match="no task's name holds 'x'"):
        evaluator.evaluate(replace(alone, only="x"), Console(file=io.StringIO()))


def write_calm(path: Path, records: Sequence[Record]) -> Path:
    """Write records as JSON lines, none of them labelled."""
    path.write_bytes(b"".join(changed(record, fault=0).value + b"\n" for record in records))
    return path


def test_alerts_realised_on_a_feed_like_its_history_are_those_of_the_budget(tmp_path: Path) -> None:
    """Twelve key hours, nothing wrong in them: no more than promised, but by chance, and no tenth."""
    feed = make_feed(1_500 + 21_600, ("a", "b"))
    (tmp_path / "s.toml").write_text(
        'key = "sensor"\ntimestamp = "time"\ntimestamp_unit = "ms"\n[features.flow]\n[features.pressure]\n'
    )
    settings = EvaluateSettings(
        stream=tmp_path / "s.toml",
        history=(write_calm(tmp_path / "history.jsonl", feed[:3_000]),),
        test=write_calm(tmp_path / "test.jsonl", feed[3_000:]),
        label_column="fault",
        alarms="6 per key per hour",
        baselines="none",
        updates=60,
        out=tmp_path / "out",
    )
    text = io.StringIO()
    (task,) = evaluator.evaluate(settings, Console(file=text, width=400)).tasks
    ours = task.detectors[0].overall
    realised = task.budget.realised(ours.alerts, ours.watched_ms)
    assert task.budget == (6.0, "hour")
    assert task.promised == pytest.approx(6 / 3600)
    assert task.budget.due(ours.watched_ms) == pytest.approx(72.0, rel=0.01)
    assert realised is not None
    assert 0.6 < realised < 6.0 * (1 + 2 / 72**0.5)  # two deviations of a count of 72
    (row,) = [line for line in text.getvalue().splitlines() if "6 per key per hour" in line]
    assert row.count(f"{realised:.2f}") == 2, "false alarms are all alerts here"
    assert "6 per key per hour" in (tmp_path / "out" / "results.md").read_text()
    assert "6 per key per hour" in (tmp_path / "out" / "report.html").read_text()


def test_missing_river_leaves_its_row_out(
    pumps: EvaluateSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And says how to get it."""
    monkeypatch.setattr(evaluator.importlib.util, "find_spec", lambda name: None)
    assert evaluator.NEEDS_RIVER not in evaluator.baselines_for(pumps)
    assert "streamlstm[evaluate]" in "".join(capsys.readouterr())


def test_contradicting_or_missing_settings_are_refused(tmp_path: Path) -> None:
    """A suite or files, and all of the files."""
    for settings in (
        EvaluateSettings(),
        EvaluateSettings(stream=tmp_path / "s.toml"),
        EvaluateSettings(suite=("ucr",), test=tmp_path / "t.csv"),
        EvaluateSettings(suite=("nothing",)),
    ):
        with pytest.raises(SettingsError):
            evaluator.evaluate(settings, Console(file=io.StringIO()))


def test_command_is_the_one_that_repeats_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers come with their command."""
    monkeypatch.setattr(sys, "argv", ["/usr/bin/streamlstm", "evaluate", "--suite", "ucr", "--only", "UCR 135"])
    assert evaluator.command_line() == "streamlstm evaluate --suite ucr --only 'UCR 135'"
