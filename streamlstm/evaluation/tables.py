"""Results → tables, for the terminal, the results file and the report alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html import escape

from streamlstm.evaluation.detection import WEEK_MS, Measures
from streamlstm.evaluation.ours import NAME as OURS
from streamlstm.evaluation.results import DetectorResult, Results, Spread, TaskResult, spread
from streamlstm.evaluation.windowed import NAME as WINDOWED

NO_DIFFERENCE = 0.02  # of average precision: another seed moves it by more; recipe


@dataclass(frozen=True)
class Table:
    """A title, what to know before reading, a header and rows of text."""

    title: str
    text: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)

    def markdown(self) -> str:
        """Return the table as Markdown."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        table = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
        return "\n\n".join(part for part in (f"## {self.title}", self.text, table) if part) + "\n"

    def html(self) -> str:
        """Return the table as HTML, in a box that scrolls where the page is too narrow for it."""
        head = "".join(f"<th>{escape(cell)}</th>" for cell in self.header)
        body = "".join(f"<tr>{''.join(f'<td>{escape(c)}</td>' for c in row)}</tr>" for row in self.rows)
        title, text = escape(self.title), f"<p>{escape(self.text)}</p>" if self.text else ""
        box = f'<div class="scroll" role="region" tabindex="0" aria-label="{title}">'
        return f"<h2>{title}</h2>{text}{box}<table><tr>{head}</tr>{body}</table></div>"


def protocol(results: Results) -> str:
    """Return how all figures came about, in sentences."""
    seeds = ", ".join(map(str, results.seeds))
    one = len(results.seeds) == 1
    return (
        f"{results.updates} updates, {'seed' if one else 'seeds'} {seeds}, one setting for all tasks. Causal: history "
        "before test, every event scored as it arrives, thresholds without labels, no point adjustment."
        + ("" if one else " Figures are means over the seeds ± their standard deviation, where it is not 0.")
    )


def all_tables(results: Results) -> list[Table]:
    """Return every table that has rows, the goals first."""
    tables = [
        goals(results),
        *(by_detector(results, name, title) for name, title in (("roc", "ROC area"), ("vus_pr", "VUS-PR"))),
        by_detector(
            results,
            "recall_at_rate",
            "Recall at the promised rate",
            "Labelled stretches found by one threshold for all keys, set with the labels to flag exactly the promised "
            "share of unlabelled events: what the scores are good for, whatever the rule for alerts.",
        ),
        *own_measures(results),
        alarms(results),
        budgets(results),
        coverage(results),
        attribution(results),
        keys(results),
    ]
    return [table for table in tables if table.rows]


def goals(results: Results) -> Table:
    """Return average precision of every detector beside what is to be reached."""
    rows, won, reached, aimed, compared = [], 0, 0, 0, 0
    rivals = [name for name in results.detectors if name not in (OURS, WINDOWED)]
    twins = [name for name in results.detectors if name == WINDOWED]
    for group in results.groups:
        mine = results.over_seeds(group, OURS, "average_precision")
        theirs = [results.over_seeds(group, name, "average_precision") for name in rivals]
        target = results.target(group)
        best = max((found.mean for found in theirs if found), default=None)
        if mine is not None and best is not None:
            compared += 1
            won += mine.mean >= best + NO_DIFFERENCE
        if mine is not None and target is not None:
            aimed += 1
            reached += mine.mean >= target
        same = [results.over_seeds(group, name, "average_precision") for name in twins]
        rows.append([group, number(target), shown(mine), number(best), *map(shown, theirs), *map(shown, same)])
    text = "Scores against labels, no threshold."
    if aimed:
        text += f" {OURS} reaches {reached} of {aimed} targets."
    if compared:
        text += (
            f" It is ahead of every other detector by {NO_DIFFERENCE} or more on {won} of {compared}, the windowed "
            "LSTM not counted: that is the same network without carried state. A smaller difference is none."
        )
    return Table("Average precision", text, ["task", "target", OURS, "best other", *rivals, *twins], rows)


def by_detector(results: Results, name: str, title: str, text: str = "") -> Table:
    """Return one measure of every detector on every group."""
    rows = []
    for group in results.groups:
        found = [results.over_seeds(group, detector, name) for detector in results.detectors]
        if any(found):
            rows.append([group, *map(shown, found)])
    return Table(title, text, ["task", *results.detectors], rows)


def own_measures(results: Results) -> Iterator[Table]:
    """Yield, per group with figures of its own protocol, a table of detectors and those."""
    for group in results.groups:
        names = dict.fromkeys(
            name for result in results.tasks if result.group == group for d in result.detectors for name in d.own
        )
        if not names:
            continue
        digits = 2 if any("," in name for name in names) else 3
        rows = [
            [detector, *(shown(results.over_seeds(group, detector, name), digits) for name in names)]
            for detector in results.detectors
        ]
        yield Table(f"{group}: its own protocol", "", ["detector", *names], rows)


ALARM_COLUMNS: dict[str, Callable[[Measures], float | None]] = {
    "event recall": lambda m: m.event_recall,
    "precision": lambda m: m.precision,
    "alerts": lambda m: float(m.alerts),
    "delay (events)": lambda m: m.delay_events,
    "delay (s)": lambda m: m.delay_s,
    "false alarms / 10,000": lambda m: m.false_alarms_per_10000,
    "false alarms / key week": lambda m: m.false_alarms_per_key_week,
}


def alarms(results: Results) -> Table:
    """Return what alerts every detector raised; thresholds and alerts of all follow the same rule."""
    rows = []
    for task in dict.fromkeys(result.task for result in results.tasks):
        runs = [result for result in results.tasks if result.task == task]
        for name in results.detectors:
            found = [(run, d.overall) for run in runs for d in run.detectors if d.detector == name]
            if not found:
                continue
            cells = [shown(_spread_of([column(m) for _, m in found]), 2) for column in ALARM_COLUMNS.values()]
            realised = _spread_of([_ratio(m.realised, run.promised) for run, m in found])
            everywhere = _spread_of([_ratio(m.realised_all, run.promised) for run, m in found])
            rows.append([task, name, *cells, shown(realised, 2), shown(everywhere, 2)])
    return Table(
        "Alerts",
        "Thresholds without labels: every detector's scores go through the same streaming threshold, asked for the "
        "same rate. Precision: alerts that opened in a labelled stretch; event recall: stretches in which such an "
        "alert was open; delay: median from a stretch's start to the first alert opened in it; false alarms: alerts "
        "opened in none, per 10,000 unlabelled events, and per key and week. Realised / promised: flagged unlabelled "
        "events (all events) over the rate asked for.",
        ["task", "detector", *ALARM_COLUMNS, "realised / promised", "of all events"],
        rows,
    )


def budgets(results: Results) -> Table:
    """Return our alerts per key and time beside what was promised, in words."""
    rows = []
    for task in dict.fromkeys(result.task for result in results.tasks):
        runs = [result for result in results.tasks if result.task == task]
        budget, ours = runs[0].budget, [run.detectors[0].overall for run in runs]
        weekly = [m.false_alarms_per_key_week for m in ours]
        false = _spread_of([None if each is None else budget.realised(each, WEEK_MS) for each in weekly])
        alerts = _spread_of([budget.realised(m.alerts, m.watched_ms) for m in ours])
        due, opened = spread(budget.due(m.watched_ms) for m in ours), spread(float(m.alerts) for m in ours)
        rows.append([task, str(budget), shown(false, 2), shown(alerts, 2), shown(due, 1), shown(opened, 1)])
    return Table(
        "Alarm budget",
        "Alerts per key and time, on average over keys: at most so many are promised while nothing is wrong. False "
        "alarms: those that opened in no labelled stretch; all alerts: those too that were true. Where few were due, "
        "the figures say little.",
        ["task", "promised at most", "realised, false alarms", "realised, all alerts", "alerts due", "alerts opened"],
        rows,
    )


def keys(results: Results) -> Table:
    """Return our figures per key, of the tasks with several."""
    rows = []
    for task in dict.fromkeys(result.task for result in results.tasks):
        runs = [result for result in results.tasks if result.task == task]
        ours: list[DetectorResult] = [run.detectors[0] for run in runs]
        for key in ours[0].keys:
            measures = [d.keys[key] for d in ours]
            first = measures[0]
            columns = [
                lambda m: m.average_precision,
                lambda m: m.roc,
                lambda m: m.vus_pr,
                *ALARM_COLUMNS.values(),
            ]
            cells = [shown(_spread_of([column(m) for m in measures]), 2) for column in columns]
            realised = _spread_of([_ratio(m.realised, runs[0].promised) for m in measures])
            rows.append([task, key, f"{first.events:,}", f"{first.labelled:.1%}", *cells, shown(realised, 2)])
    header = ["task", "key", "events", "labelled", "average precision", "ROC", "VUS-PR", *ALARM_COLUMNS]
    return Table(f"{OURS}, per key", "As above.", [*header, "realised / promised"], rows)


def coverage(results: Results) -> Table:
    """Return how much of the unlabelled test values lies within forecast bands."""
    rows = []
    for task in dict.fromkeys(result.task for result in results.tasks):
        runs: list[TaskResult] = [result for result in results.tasks if result.task == task]
        bands = zip(*(run.coverage for run in runs), strict=True)
        cells = [shown(spread(one.found for one in band if one.found is not None), 3) for band in bands]
        rows.append([task, *cells])
    stated = [f"{band.stated:.0%}" for band in results.tasks[0].coverage] if results.tasks else []
    text = "Share of unlabelled test values within the band that held so many of the held-out history's."
    return Table("Forecast bands", text, ["task", *stated], rows)


def attribution(results: Results) -> Table:
    """Return whether alerts name the features at fault."""
    rows = []
    for task in dict.fromkeys(result.task for result in results.tasks):
        found = [r.attribution for r in results.tasks if r.task == task and r.attribution]
        if found:
            rows.append(
                [
                    task,
                    shown(_spread_of([a.hit_rate for a in found]), 2),
                    shown(_spread_of([a.chance for a in found]), 2),
                    shown(spread(float(a.alerted) for a in found), 1),
                    str(found[0].faults),
                ]
            )
    text = (
        "HitRate@100 %: of the k features that the data's authors name for a stretch, how many are among the k largest "
        "shares of its highest alert record; mean over stretches with one. Chance: of a random order."
    )
    return Table("Attribution", text, ["task", "HitRate@100 %", "chance", "stretches with an alert", "of"], rows)


def _spread_of(values: list[float | None]) -> Spread | None:
    return spread(value for value in values if value is not None)


def _ratio(share: float | None, promised: float) -> float | None:
    return None if share is None else share / promised


def number(value: float | None, digits: int = 3) -> str:
    """Return a number for a table; – where there is none."""
    return "–" if value is None else f"{value:,.{digits}f}"


def shown(found: Spread | None, digits: int = 3) -> str:
    """Return a mean and, where several seeds differ, their deviation."""
    if found is None:
        return "–"
    spread_text = f" ± {found.deviation:.{digits}f}" if found.deviation > 0 else ""
    return number(found.mean, digits) + spread_text
