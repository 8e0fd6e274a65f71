"""The command line: one command per service, no logic."""

from __future__ import annotations

import io
import os
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Literal

import structlog
from cyclopts import App, CycloptsError, CycloptsPanel, MissingArgumentError, Parameter
from cyclopts.config import Env, Toml
from rich.console import Console
from rich.panel import Panel

from streamlstm import __version__
from streamlstm.adapters.kafka.library_log import show_library_log
from streamlstm.errors import SettingsError, StreamlstmError
from streamlstm.services.in_force import (
    did_you_mean,
    nearer_of_two,
    part_of,
    refuse_unknown_keys,
    refuse_unknown_variables,
    settings_file,
    show_settings,
)
from streamlstm.services.logs import as_json, log_to_stderr
from streamlstm.services.settings import (
    AlertSettings,
    DashboardSettings,
    EvaluateSettings,
    InspectSettings,
    ReceiverSettings,
    ReplaySettings,
    ScoreSettings,
    Seed,
    SimulateSettings,
    TopicsSettings,
    TrainSettings,
)

PREFIX = "STREAMLSTM_"
SIMULATED_START_MS = 1_767_225_600_000  # 2026-01-01: the same files for the same seed
SCORE_DEFAULTS = ScoreSettings()
INSPECT_DEFAULTS = InspectSettings()
EVALUATE_DEFAULTS = EvaluateSettings()
SIMULATE_DEFAULTS = SimulateSettings()
RECEIVER_DEFAULTS = ReceiverSettings()
OTHER_VARIABLES = {"STREAMLSTM_CONFIG", "STREAMLSTM_WEBHOOK_SECRET", "STREAMLSTM_REGISTRY_LOGIN"}
WITHOUT_TABLE = {"check", "config"}  # check reads those of score and alert
PIPE_CLOSED = 141  # the exit status that a shell gives a program whose reader has seen enough
PIPE_COLUMNS = 100_000  # who reads a pipe wants lines whole

app = App(
    name="streamlstm",
    version=__version__,
    help="""Watch a stream of events and say when a key behaves as it never did.

    Settings come from flags, over environment variables (`STREAMLSTM_<OPTION>`), over the TOML file
    given by `--config` (or `streamlstm.toml` here; one table per command, one key per option), over
    the defaults. Unknown keys are refused.
    """,
    help_format="markdown",
    print_error=False,
    exit_on_error=False,
)
schema = App(name="schema", help="Describe a stream: where key, time and features sit.")
app.command(schema)


@schema.command
def infer(file: Path) -> None:
    """Draft a stream schema from a file, to standard output. Read it before you use it.

    Example: `streamlstm schema infer history.csv > stream.toml`

    Parameters
    ----------
    file
        CSV or Parquet with a header, JSON lines, or a WFDB record's `.hea`.
    """
    from streamlstm.services.schema_drafter import draft_schema

    log_to_stderr("console")
    print(draft_schema(file))


@app.command
def train(*, settings: TrainSettings) -> None:
    """Learn what is normal from a history, and write a model bundle with a report.

    Example: `streamlstm train --stream stream.toml --history history.csv --out model/`

    From a log: `streamlstm train --stream stream.toml --log sqlite:///sensors.db --topic events`

    On several processes: `torchrun --nproc-per-node 2 -m streamlstm train --stream …`
    """
    from streamlstm.services.trainer import run

    log_to_stderr(settings.log_format)
    run(settings)


@app.command
def replay(file: Path, *, settings: ReplaySettings) -> None:
    """Write a file's events to a topic, at the pace of their own time: a file as a living feed.

    Example: `streamlstm replay live.csv --stream stream.toml --log sqlite:///sensors.db --speed 60`

    A ward of 20 beds from one patient, without end, as of now:
    `streamlstm replay 100.hea --stream ecg.toml --log sqlite:///ward.db --loop 0 --copies 20 --phase-s 47 --restamp`

    A bad network: `… --jitter-s 2 --loss 0.01 --duplicates 0.01 --reorder 0.05 --burst-every-s 10 --seed 7`

    Event times stay those of the file unless `--loop`, `--phase-s` or `--restamp` moves them. Jitter, loss,
    duplicates, reordering and bursts happen to the delivery: an event's bytes are what they were.

    Stop with Ctrl-C or SIGTERM; the last line says where the feed was.

    Parameters
    ----------
    file
        CSV, Parquet, JSON lines, or a WFDB record's header (`RECORD.hea`).
    """
    from streamlstm.services.replayer import replay as run

    log_to_stderr(settings.log_format)
    run(file, settings)


@app.command
def score(file: Path | None = None, *, settings: ScoreSettings = SCORE_DEFAULTS) -> None:
    """Score a topic without end, or a file once.

    A topic: `streamlstm score --log sqlite:///sensors.db --topic events --model model/`

    A file: `streamlstm score live.csv --model model/ > scores.csv` (`-` is standard input, as CSV)

    Stop with Ctrl-C or SIGTERM, or kill it: started again, it goes on where it was, and every event
    has exactly one score.

    Parameters
    ----------
    file
        CSV, Parquet, JSON lines or WFDB (`.hea`) to score once, instead of a topic.
    """
    from streamlstm.services.scorer import score_topic

    log_to_stderr(settings.log_format)
    if (file is None) == (settings.log is None):
        raise SettingsError("give either a FILE to score once, or --log URL to score a topic")
    if file is None:
        score_topic(settings)
    else:
        from streamlstm.services.file_scorer import score_file

        score_file(file, settings, sys.stdout)


@app.command
def alert(*, settings: AlertSettings) -> None:
    """Deliver alerts to a webhook, in order per key and at least once.

    Example: `STREAMLSTM_WEBHOOK_SECRET=… streamlstm alert --log sqlite:///sensors.db --webhook https://pager.example/in`

    Slack: `STREAMLSTM_WEBHOOK=https://hooks.slack.com/… streamlstm alert --log sqlite:///sensors.db --template slack`

    Alertmanager: `streamlstm alert --log sqlite:///sensors.db --template alertmanager --webhook http://alertmanager:9093`

    While the receiver is down, alerts wait in the log. An alert the receiver refuses, or that fails too often,
    becomes a dead letter; the same command with `--resend-dead-letters` sends those again.
    """
    from streamlstm.services.alerter import deliver

    log_to_stderr(settings.log_format)
    deliver(settings)


@app.command
def dashboard(*, settings: DashboardSettings) -> None:
    """Show a topic as a live web page: which keys are unusual now, why, and what was said about it.

    Example: `streamlstm dashboard --log sqlite:///sensors.db --topic events --model model/`

    For others: `STREAMLSTM_DASHBOARD_TOKEN=$(openssl rand -hex 32) streamlstm dashboard --log … --host 0.0.0.0`

    It reads committed records only, and claims nothing: the scorer never waits for it.
    """
    from streamlstm.services.dashboard import serve

    serve(settings)


@app.command
def evaluate(*, settings: EvaluateSettings = EVALUATE_DEFAULTS) -> None:
    """Say how well it detects on labelled data, beside other detectors, judged causally.

    Published data: `streamlstm evaluate --suite mitbih skab --seeds 0 1 2 --data ../shared/data`

    Your own: `streamlstm evaluate --stream s.toml --history train.csv --test test.csv --label-column fault`

    Thresholds are set without labels. Writes results.md, results.json and report.html.
    """
    from streamlstm.services.evaluator import evaluate as run

    run(settings, _wide_output())


@app.command
def topics(*, settings: TopicsSettings) -> None:
    """Make the topics of a stream on Kafka that are missing, and say what is wrong with those there.

    Example: `streamlstm topics --log kafka://broker:9092 --topic events --partitions 12`

    Look only: `streamlstm topics --log kafka://broker:9092 --dry-run`

    Ends with status 1 if something is missing or wrong; run it before a deployment.
    """
    from streamlstm.services.topics import set_up_topics

    set_up_topics(settings, _Output())


@app.command
def check(*, settings: ScoreSettings = SCORE_DEFAULTS, receiver: ReceiverSettings = RECEIVER_DEFAULTS) -> None:
    """Look whether a scorer could start: log, topics, permissions, bundle, states, and the alerts' receiver.

    Example: `streamlstm check --log kafka://broker:9092 --topic events --model model/ --webhook https://pager.example/in`

    Takes the options of `streamlstm score`, also from its table of the settings file. Writes nothing, and sends no
    alert. Ends with status 1 if something is wrong; run it before a deployment.
    """
    from streamlstm.services.checker import check as run

    run(settings, receiver, os.environ, _wide_output())


@app.command
def config(command: str | None = None) -> None:
    """Show the settings in force for each command, and where each came from; secrets are hidden.

    Example: `streamlstm config score`

    Parameters
    ----------
    command
        The command whose settings to show; all of them unless given.
    """
    known = commands()
    if command is not None and command not in known:
        raise SettingsError(f"there is no command {command!r}{did_you_mean(command, known)}")
    show_settings({command: known[command]} if command else known, app.config, OTHER_VARIABLES, _wide_output())


@app.command
def inspect(target: str, *, settings: InspectSettings = INSPECT_DEFAULTS) -> None:
    """Show what a bundle, a topic or a key holds.

    Examples: `streamlstm inspect model/`; `streamlstm inspect events.alerts --log sqlite:///sensors.db`;
    `streamlstm inspect pump-7 --log sqlite:///sensors.db --model model/`

    Parameters
    ----------
    target
        A bundle's directory, a topic, or a key.
    """
    from streamlstm.services.inspector import inspect as run

    run(target, settings, _wide_output())


@app.command
def simulate(
    feed: Literal["ecg", "vibration", "energy", "traffic", "cards"], *, settings: SimulateSettings = SIMULATE_DEFAULTS
) -> None:
    """Write a simulated feed: history, live events, stream schema, and the truth apart from them.

    Example: `streamlstm simulate ecg --keys 4 --minutes 20 --out feed/`

    Parameters
    ----------
    feed
        `ecg`: patients with arrhythmias, lead-off and artefacts; `vibration`: motors with bearing faults; `energy`:
        households' meters, with stuck ones and theft; `traffic`: a motorway's detectors, with incidents and broken
        loops; `cards`: payments, with fraud.
    """
    from simulators.feeds import FEEDS, write_feed

    out, kind = settings.out, FEEDS[feed]
    keys = settings.keys or kind.keys
    seconds, clean_s = kind.lengths_s(settings.minutes, settings.clean_minutes)
    if not clean_s < seconds:
        raise SettingsError(
            f"--clean-minutes {clean_s / 60:g} leave nothing to score of --minutes {seconds / 60:g}: give a longer feed"
        )
    try:
        faults = write_feed(
            kind,
            out,
            keys=keys,
            seconds=seconds,
            clean_s=clean_s,
            seed=settings.seed,
            start_ms=SIMULATED_START_MS,
            faults_per_hour=settings.faults_per_hour,
        )
    except ValueError as error:  # more than fit
        raise SettingsError(f"{feed} with --faults-per-hour {settings.faults_per_hour}: {error}") from error
    history, schema_file = out / f"{feed}.history.jsonl", out / f"{feed}.toml"
    then = f"streamlstm train --stream {schema_file} --history {history}"
    structlog.get_logger().info("simulated", feed=feed, out=str(out), keys=keys, faults=len(faults), next=then)


@app.command
def demo(*, directory: Path = Path("out/demo"), seed: Seed = 1, log: str | None = None) -> None:
    """See the whole product at work in one to three minutes: simulate, train, score live, deliver alerts, judge.

    Example: `streamlstm demo`

    On a broker: `streamlstm demo --log kafka://localhost:9092`

    Parameters
    ----------
    directory
        Where everything goes; bundles found there from an earlier run with this seed are used again.
    seed
        Seed of the feeds and of training.
    log
        Where the feeds go: kafka://HOST:PORT; a new SQLite file in the directory unless given.
    """
    from simulators.demo import run

    run(directory, seed, _Output(), log)


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Annotated[Path | None, Parameter(env_var="STREAMLSTM_CONFIG")] = None,
) -> None:
    """Read the settings file, then run the command.

    Parameters
    ----------
    config
        Settings file (TOML); `streamlstm.toml` in this directory unless given.
    """
    tables = [name for name in app if not name.startswith("-") and name not in WITHOUT_TABLE]
    path, environment = settings_file(config, tables), Env(PREFIX, command=False)
    app.config = (environment, Toml(path, must_exist=False), nearer_of_two)
    flat = Toml(path, must_exist=False, root_keys=["score"], use_commands_as_keys=False)
    app["check"].config = (
        environment,
        flat,
        part_of(path, "alert", [f.name for f in fields(ReceiverSettings)]),
        nearer_of_two,
    )
    refuse_unknown_keys(path, commands(), tokens)
    app(["--file=-" if token == "-" else token for token in tokens])  # else a lone dash is an unknown option


class _Output(Console):
    """Standard output; that its reader has gone is for :func:`main` to handle, not for rich."""

    def on_broken_pipe(self) -> None:
        """Raise what rich would end the process for."""
        raise BrokenPipeError


def _wide_output() -> Console:
    console = _Output()
    if not console.is_terminal:
        console.width = PIPE_COLUMNS
    return console


def main() -> None:
    """Run the command line; a known error ends it with one sentence and exit status 1."""
    _speak_utf8()
    log_to_stderr("console")  # until a command says otherwise
    show_library_log()
    try:
        refuse_unknown_variables(PREFIX, option_names, OTHER_VARIABLES)
        app.meta(sys.argv[1:])
    except BrokenPipeError:  # who reads our output (head, say) has seen enough; at exit Python would complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(PIPE_CLOSED)
    except CycloptsError as error:
        _complain(_missing(error) or CycloptsPanel(error))
        sys.exit(2)
    except (StreamlstmError, OSError) as error:
        _complain(str(error))
        sys.exit(1)


def _complain(about: str | Panel) -> None:
    console = Console(stderr=True, highlight=False)
    if isinstance(about, str) and as_json():
        structlog.get_logger().critical("ended", error=about)
    elif isinstance(about, str):
        console.print("error:", about, style="red", markup=False, soft_wrap=True)
    else:
        console.print(about)


def _missing(error: CycloptsError) -> str | None:
    """Return what to say of an argument that was not given, with an example; None of any other mistake."""
    argument = error.argument
    if not isinstance(error, MissingArgumentError) or argument is None or error.keyword or argument.tokens:
        return None
    command = " ".join(["streamlstm", *(error.command_chain or ())])
    positional = argument.field_info.is_positional
    text = f"{command}: {argument.name[2:].upper() if positional else argument.name} is missing"
    if unknown := [token for token in error.unused_tokens or () if token.startswith("--")]:
        text += f"; there is no option {' or '.join(unknown)}"
    example = re.search(rf"`((\w+=\S+ )?{command} .*?)`", (error.target and error.target.__doc__) or "")
    return text + (f"\nexample: {example[1]}" if example else "")


def commands(group: App = app, before: str = "") -> dict[str, App]:
    """Return every command by the words that call it, those of groups too."""
    found: dict[str, App] = {}
    for name in group:
        if not name.startswith("-"):
            here = {before + name: group[name]}
            found |= here if group[name].default_command else commands(group[name], f"{before}{name} ")
    return found


def option_names() -> set[str]:
    """Return the names of all options of all commands, as in a TOML file."""
    arguments = [argument for command in commands().values() for argument in command.assemble_argument_collection()]
    return {argument.name.removeprefix("--").replace("-", "_") for argument in arguments if argument.name != "*"}


def _speak_utf8() -> None:
    """Read and write UTF-8 whatever the locale, as files are read; a byte that is none is an error."""
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="strict")
