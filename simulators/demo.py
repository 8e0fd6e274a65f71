"""The whole product at work in a few minutes: simulated feeds, training, live scoring, alerts, the truth.

Nothing here is special to the demo but the feeds and the receiver of alerts: every step is a command
that a user would type, and is shown before it runs. Each service is a process of its own.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from simulators.feed import Fault
from simulators.feeds import FEEDS, write_feed
from simulators.judge import episodes_of, judge
from streamlstm.adapters.alert_body import AlertBody
from streamlstm.adapters.signature import HEADER, signature
from streamlstm.core.log import EventLog
from streamlstm.core.record import AlertRecord, decode_score
from streamlstm.core.topic import scores_topic
from streamlstm.core.why import why
from streamlstm.services.log_url import SQLITE, open_log
from streamlstm.services.settings import InspectSettings
from streamlstm.services.wording import counted, over

ADDRESS = re.compile(r"dashboard\s+address=(\S+) .*?topic=(\S+)")
PATIENCE_S = 60.0  # for a service to finish what is written, after its feed has ended


@dataclass(frozen=True)
class Plan:
    """One feed of the demo: how many keys, how long, how fast, and how often it may be wrong."""

    feed: str
    what: str
    keys: int
    history_s: float
    live_s: float
    speed: float
    events_per_s: float
    first_key: str
    false_alarms_per_hour: float = 1.0

    @property
    def alarms(self) -> str:
        """The alarm budget, in words."""
        return f"{self.false_alarms_per_hour:g} per key per hour"


PLANS = (
    Plan("ecg", "a ward of patients, one ECG lead each", 4, 300.0, 900.0, 30.0, 16.0, "patient-01"),
    Plan("vibration", "a rig of electric motors, one accelerometer each", 3, 120.0, 300.0, 10.0, 62.5, "motor-01"),
)


class Receiver:
    """A web server that takes alerts, checks who sent them, keeps each once, and prints them."""

    def __init__(self, console: Console) -> None:
        self.secret = secrets.token_hex(32)
        self.alerts: list[AlertRecord] = []
        self._console = console
        self._seen: set[str] = set()
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.send_response(receiver.take(self))
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, request: BaseHTTPRequestHandler) -> int:
        """Return the HTTP status for a request: 204, or 401 if the signature is not ours."""
        data = request.rfile.read(int(request.headers["Content-Length"]))
        signed = request.headers[HEADER]
        sent_s = int(signed.split(",")[0].removeprefix("t="))
        if not hmac.compare_digest(signed, signature(data, [self.secret.encode()], sent_s)):
            return 401
        received = msgspec.json.decode(data, type=AlertBody)
        with self._lock:  # delivery is at least once: the idempotency key tells a repetition
            if received.idempotency_key not in self._seen:
                self._seen.add(received.idempotency_key)
                self.alerts.append(received.alert)
                _show(received.alert, self._console)
        return 204

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


@dataclass(frozen=True)
class Stage:
    """Where a demo plays: its files, its log, and what its topics' names begin with."""

    directory: Path
    log: str
    prefix: str
    console: Console

    def topic(self, plan: Plan) -> str:
        """Return the topic of a feed."""
        return self.prefix + plan.feed

    def open(self) -> EventLog:
        """Open the log."""
        return open_log(InspectSettings(log=self.log), must_exist=False)


def run(directory: Path, seed: int, console: Console, log: str | None = None, plans: Sequence[Plan] = PLANS) -> None:
    """Run the demo in ``directory``; bundles made by an earlier run with this seed are used again.

    ``log``: where the feeds go; a new SQLite file in the directory unless given.
    """
    started_s = time.monotonic()
    directory.mkdir(parents=True, exist_ok=True)
    for file in directory.glob("demo.db*"):
        file.unlink()
    prefix = f"demo-{time.strftime('%H%M%S')}-" if log else ""  # a broker keeps the topics of an earlier demo
    stage = Stage(directory, log or f"{SQLITE}{directory}/demo.db", prefix, console)
    truth = {plan.feed: _simulate(plan, directory, seed, console) for plan in plans}
    _train(plans, directory, seed, console)
    receiver = Receiver(console)
    try:
        scored = _live(plans, stage, receiver)
    finally:
        receiver.close()
    for plan in plans:
        _verdict(plan, truth[plan.feed], receiver.alerts, scored[plan.feed], stage)
    console.print(
        f"\nThe demo took {time.monotonic() - started_s:.0f} s. Everything it made is in {directory}/. "
        "Look closer (after `. .venv/bin/activate`):"
    )
    first, topic = plans[0], stage.topic(plans[0])
    for command in (
        f"streamlstm dashboard --log {stage.log} --topic {topic} --model {directory}/{first.feed}.model",
        f"streamlstm inspect {topic}.alerts --log {stage.log}",
        f"streamlstm inspect {first.first_key} --topic {topic} --log {stage.log} "
        f"--model {directory}/{first.feed}.model",
        f"streamlstm inspect {directory}/{first.feed}.model    (and open report.html there in a browser)",
    ):
        console.print(f"  {command}", highlight=False, soft_wrap=True)


def _simulate(plan: Plan, directory: Path, seed: int, console: Console) -> list[Fault]:
    console.rule(f"[bold]Simulating {plan.what}")
    console.print(
        f"{plan.keys} keys: {plan.history_s:.0f} s without faults to learn from, then {plan.live_s:.0f} s with faults. "
        f"What is injected, and when, goes to {plan.feed}.truth.csv; no event says it.",
        highlight=False,
    )
    seconds = plan.history_s + plan.live_s
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("simulating", total=1.0)
        return write_feed(
            FEEDS[plan.feed],
            directory,
            keys=plan.keys,
            seconds=seconds,
            clean_s=plan.history_s,
            seed=seed,
            start_ms=int((time.time() - seconds) * 1000),
            on_progress=lambda share: progress.update(task, completed=share),
        )


def _train(plans: Sequence[Plan], directory: Path, seed: int, console: Console) -> None:
    """Train a bundle for each feed, side by side; only the first shows its progress as it goes."""
    console.rule("[bold]Training on the histories")
    begun: list[tuple[Plan, subprocess.Popen[bytes], Path]] = []
    for plan in plans:
        if not _is_trained(plan, directory, seed, console):
            out = directory / f"{plan.feed}.train.log"
            with out.open("wb") as file:
                begun.append((plan, _start(_training(plan, directory, seed), file if begun else None, console), out))
    for number, (plan, process, out) in enumerate(begun):
        status = process.wait()
        if number:
            console.print(out.read_text(), end="", markup=False, highlight=False, soft_wrap=True)
        if status:
            raise RuntimeError(f"training on the {plan.feed} history failed")
        _seed_file(plan, directory).write_text(str(seed))


def _seed_file(plan: Plan, directory: Path) -> Path:
    return directory / f"{plan.feed}.model.seed"


def _is_trained(plan: Plan, directory: Path, seed: int, console: Console) -> bool:
    model, made_for = directory / f"{plan.feed}.model", _seed_file(plan, directory)
    trained = model.is_dir() and made_for.is_file() and made_for.read_text() == str(seed)
    console.print(
        f"{model} was made by an earlier run with this seed, and is used again."
        if trained
        else f"An alarm budget for {plan.feed}: at most {plan.alarms} is what false alarms may come to.",
        highlight=False,
    )
    return trained


def _training(plan: Plan, directory: Path, seed: int) -> list[object]:
    schema, history, model = (directory / f"{plan.feed}.{end}" for end in ("toml", "history.jsonl", "model"))
    return ["train", "--stream", schema, "--history", history, "--out", model,
            "--alarms", plan.alarms, "--seed", seed]  # fmt: skip


@dataclass
class Scored:
    """What the scorer has written of one feed: the offsets that have a score, and how fast it went."""

    offsets: set[int]
    events: int
    per_s: float = 0.0
    records: int = 0
    next_offset: int = 0

    def take(self, log: EventLog, topic: str) -> None:
        """Read on."""
        for record in log.read(scores_topic(topic), 0, self.next_offset, 1_000_000):
            self.offsets.add(decode_score(record.value).offset)
            self.records += 1
            self.next_offset = record.offset + 1


def _live(plans: Sequence[Plan], stage: Stage, receiver: Receiver) -> dict[str, Scored]:
    """Replay, score and alert on all feeds at once; return what was scored of each."""
    console, directory = stage.console, stage.directory
    console.rule("[bold]Live")
    console.print(
        "Each line below is an alert that reached the receiver, a small web server of this demo. Times are the "
        "events' own; the two feeds run at different speeds. In brackets the alert's id: topic, partition, offset.",
        highlight=False,
    )
    secret = directory / "webhook.secret"
    secret.write_text(receiver.secret)
    feeders, services, pause = list[subprocess.Popen[bytes]](), list[subprocess.Popen[bytes]](), threading.Event()
    log = stage.open()
    for plan in plans:
        log.create_topic(stage.topic(plan), 1)
    with (directory / "services.log").open("w") as out:
        started_s = time.monotonic()
        for plan in plans:
            live, schema, model = (directory / f"{plan.feed}.{end}" for end in ("live.jsonl", "toml", "model"))
            at = ["--log", stage.log, "--topic", stage.topic(plan)]
            feeders.append(_start(["replay", live, "--stream", schema, *at, "--speed", plan.speed], out, console))
            services.append(_start(["score", *at, "--model", model, "--explain", "all"], out, console))
            hook = ["--webhook", receiver.url, "--webhook-secret-file", secret]
            services.append(_start(["alert", *at, *hook], out, console))
            services.append(_start(["dashboard", *at, "--model", model, "--port", 0], out, console))
        threading.Thread(target=_show_addresses, args=(out.name, len(plans), console), daemon=True).start()
        try:
            while any(feeder.poll() is None for feeder in feeders):
                _check_alive(services, directory)
                pause.wait(0.5)
            scored = {plan.feed: _wait_until_scored(log, plan, stage) for plan in plans}
            pause.wait(2.0)  # for the last alerts to be delivered
            seconds = time.monotonic() - started_s
        finally:
            log.close()
            for process in (*feeders, *services):
                process.terminate()
            for process in (*feeders, *services):
                process.wait()
    for one in scored.values():
        one.per_s = one.events / seconds
    return scored


def _show_addresses(log_file: str, pages: int, console: Console) -> None:
    """Print where the live pages are, as soon as their services say it."""
    told: list[str] = []
    until_s = time.monotonic() + PATIENCE_S
    while len(told) < pages and time.monotonic() < until_s:
        for address, topic in ADDRESS.findall(Path(log_file).read_text()):
            if address not in told:
                told.append(address)
                console.print(f"[bold]Open in a browser while it runs:[/bold] {address}  ({topic})", soft_wrap=True)
        threading.Event().wait(0.3)


def _check_alive(services: Sequence[subprocess.Popen[bytes]], directory: Path) -> None:
    if any(service.poll() is not None for service in services):
        raise RuntimeError(f"a service ended too early; see {directory / 'services.log'}")


def _command(arguments: Sequence[object], console: Console) -> list[str]:
    words = [str(argument) for argument in arguments]
    console.print(f"$ streamlstm {shlex.join(words)}", style="cyan", highlight=False, soft_wrap=True)
    return [sys.executable, "-m", "streamlstm", *words]


def _start(arguments: Sequence[object], out: IO[Any] | None, console: Console) -> subprocess.Popen[bytes]:
    return subprocess.Popen(_command(arguments, console), stdout=out, stderr=out, env=_environment())


def _environment() -> dict[str, str]:
    """Return this process's environment, with log lines for people, also in a file."""
    return {"STREAMLSTM_LOG_FORMAT": "console", **os.environ}


def _wait_until_scored(log: EventLog, plan: Plan, stage: Stage) -> Scored:
    """Wait until every event of a feed has a score, and return them."""
    topic, pause = stage.topic(plan), threading.Event()
    scored = Scored(set(), sum(log.topic(topic).end_offsets))
    deadline_s = time.monotonic() + PATIENCE_S
    while scored.records < scored.events:
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"a service did not keep up; see {stage.directory / 'services.log'}")
        pause.wait(0.2)
        scored.take(log, topic)
    return scored


def _show(alert: AlertRecord, console: Console) -> None:
    if alert.action == "opened":
        score = over(alert.peak_score, alert.threshold or 0.0)
        line = f"[red]▲ opened  [/red]  {alert.key:11} {why(alert)}, score {score}"
        if len(alert.features) > 1:
            line += f", mostly {max(alert.features, key=lambda feature: feature.share).name}"
    elif alert.action == "resolved":
        seconds = (alert.time_ms - alert.since_ms) / 1000
        line = f"[green]▼ resolved[/green]  {alert.key:11} {alert.reason}, {seconds:.0f} s after it opened"
    else:
        return
    console.print(f"{_clock(alert.time_ms)}  {line}  ({alert.id})", highlight=False, soft_wrap=True)


def _clock(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%H:%M:%S")


def _verdict(plan: Plan, faults: Sequence[Fault], alerts: Sequence[AlertRecord], scored: Scored, stage: Stage) -> None:
    """Print what was injected, found, missed and false."""
    console = stage.console
    chosen = [alert for alert in alerts if alert.topic == stage.topic(plan)]
    episodes = episodes_of(chosen, max((fault.end_ms for fault in faults), default=0))
    verdicts, false = judge(faults, episodes)
    hours = plan.keys * plan.live_s / 3600
    table = Table(title=f"{plan.feed}: {plan.what}", title_justify="left")
    for column in ("injected fault", "injected", "found", "missed", "median delay"):
        table.add_column(column, justify="left" if column == "injected fault" else "right")
    for v in verdicts:
        delay = "" if v.median_delay_s is None else f"{v.median_delay_s:.1f} s"
        table.add_row(v.kind, str(v.injected), str(v.found), str(v.injected - v.found), delay)
    console.print()
    console.print(table)
    found, injected = sum(v.found for v in verdicts), sum(v.injected for v in verdicts)
    console.print(
        f"{found} of {injected} found; {counted(false, 'false alarm')} in {hours:.2f} key-hours "
        f"({false / hours:.1f} an hour; asked for: {plan.false_alarms_per_hour:g}, which so short a run cannot tell). "
        f"{scored.events:,} events, {len(scored.offsets):,} scores, {scored.per_s:,.0f} a second.",
        highlight=False,
    )
