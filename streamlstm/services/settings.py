"""The settings of every command: frozen, one field per option, TOML key and environment variable.

The text after a field is its ``--help``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import CoercionError, Parameter, Token, convert, validators

from streamlstm.errors import SettingsError


def _whole(kind: type, tokens: Sequence[Token]) -> Any:
    """Convert as cyclopts does, but refuse the fraction that it would round."""
    if "." in tokens[0].value:
        raise CoercionError(token=tokens[0], target_type=kind)
    return convert(kind, tokens)


Whole = Annotated[int, Parameter(converter=_whole)]
Positive = Annotated[Whole, Parameter(validator=validators.Number(gte=1))]
Rate = Annotated[float, Parameter(validator=validators.Number(gt=0, lt=0.05))]
Share = Annotated[float, Parameter(validator=validators.Number(gte=0, lt=1))]
Seconds = Annotated[float, Parameter(validator=validators.Number(gt=0, lte=1e11))]
Minutes = Annotated[float, Parameter(validator=validators.Number(gt=0, lte=1e9))]
Factor = Annotated[float, Parameter(validator=validators.Number(gte=0))]
NotNegative = Annotated[Whole, Parameter(validator=validators.Number(gte=0))]
Seed = Annotated[Whole, Parameter(validator=validators.Number(gte=0, lt=1 << 32))]
Port = Annotated[Whole, Parameter(validator=validators.Number(gte=0, lte=65_535))]


def _budget(_type: type, words: str | None) -> None:
    """Refuse words that are no alarm budget."""
    from streamlstm.core.budget import read_budget  # brings numba, for which `--help` should not wait

    if words is not None:
        read_budget(words)


Alarms = Annotated[str, Parameter(validator=_budget)]
LogFormat = Literal["auto", "console", "json"]
UpToHalf = Annotated[float, Parameter(validator=validators.Number(gte=0, lte=0.5))]


def one_promise(alarm_rate: float | None, alarms: str | None) -> None:
    """Refuse two promises: raises :class:`SettingsError` if both are given."""
    if alarm_rate is not None and alarms is not None:
        raise SettingsError(
            f"--alarm-rate {alarm_rate:g} and --alarms {alarms!r} promise two things: give one of them; "
            "`streamlstm config` shows where each came from"
        )


@Parameter(name="*")
@dataclass(frozen=True)
class TrainSettings:
    """Options of ``streamlstm train``."""

    stream: Path
    "The stream schema (TOML); draft one with `streamlstm schema infer`."
    out: Path = Path("model")
    "Directory to write the bundle to; a bundle that is there is replaced."
    history: tuple[Path, ...] = ()
    "Files to learn from: CSV, Parquet, JSON lines or WFDB (.hea). Give the option once per file."
    log: str | None = None
    "Learn from a log instead of files: sqlite:///FILE or kafka://HOST:PORT."
    log_config: Path | None = None
    "TOML file with how to reach Kafka: security, time-outs; secrets as {file = …} or {env = …}."
    topic: str = "events"
    "Topic to learn from, with --log."
    registry: str | None = None
    "Schema registry, http(s)://HOST:PORT: records are Avro in Confluent's wire format, not JSON."
    since: str | None = None
    "With --log: take records the log took at or after this ISO 8601 time."
    until: str | None = None
    "With --log: take records the log took before this ISO 8601 time."
    first_offset: NotNegative | None = None
    "With --log: first offset of each partition."
    last_offset: NotNegative | None = None
    "With --log: last offset of each partition."
    hidden: Annotated[Whole, Parameter(validator=validators.Number(gte=4, modulo=4))] | None = None
    "Size of the hidden state, a multiple of four; chosen by held-out likelihood unless given, 48 if in doubt."
    layers: Positive = 1
    "Stacked LSTM layers; one is as good as two on all data measured."
    dropout: Share = 0.1
    "Dropout between stacked layers (no effect with one)."
    horizon: Positive | None = None
    "Future events forecast at each step; found from the data unless given."
    period: Positive | None = None
    "Natural period of the signal in events; found from the data, up to 512, unless given."
    updates: Positive = 400
    "Weight updates at most; training stops earlier when the held-out loss no longer falls."
    lanes: Positive = 32
    "Pieces of history trained on side by side."
    alarm_rate: Rate | None = None
    "Share of a key's events that may be flagged: the promise, kept by a threshold that follows it; 1e-3 unless given."
    alarms: Alarms | None = None
    "Instead of --alarm-rate: at most so many alerts, on average, such as '1 per key per week'. See README."
    seed: Seed = 0
    "Seed of everything random."
    threads: Positive = 1
    "CPU threads to train with; small models gain little from more, and lose much on a busy machine."
    device: str = "cpu"
    "Where to train: cpu, cuda or cuda:N."
    log_format: LogFormat = "auto"
    "Log lines on standard error: for people, or JSON; auto is console on a terminal, else json."

    def __post_init__(self) -> None:
        one_promise(self.alarm_rate, self.alarms)


@Parameter(name="*")
@dataclass(frozen=True)
class ScoreSettings:
    """Options of ``streamlstm score``."""

    model: Path = Path("model")
    "The bundle to score with."
    log: str | None = None
    "Score a topic of this log without end: sqlite:///FILE or kafka://HOST:PORT. Without it, a file is scored once."
    log_config: Path | None = None
    "TOML file with how to reach Kafka: security, time-outs; secrets as {file = …} or {env = …}."
    topic: str = "events"
    "The input topic; scores go to TOPIC.scores, alerts to TOPIC.alerts, bad records to TOPIC.dead-letters."
    registry: str | None = None
    "Schema registry, http(s)://HOST:PORT: records are Avro in Confluent's wire format, not JSON."
    group: str = "streamlstm"
    "Name under which offsets and states are kept; another name starts from the topic's beginning."
    stream: Path | None = None
    "Check the bundle against this stream schema before scoring."
    alarm_rate: Rate | None = None
    "Share of a key's events that may be flagged; the bundle's unless given."
    alarms: Alarms | None = None
    "Instead of --alarm-rate: at most so many alerts, on average, such as '1 per key per week'. See README."
    resolve_after_events: Positive | None = None
    "Calm events in a row that resolve an alert; the bundle's unless given."
    cooldown_events: Positive | None = None
    "Events after an alert before a weaker one opens; the bundle's unless given."
    hold_events: Positive | None = None
    "Events for which an open alert keeps the threshold from learning; the bundle's unless given."
    explain: Literal["alerts", "all"] = "alerts"
    "Which records say what was expected, with its band: alerts only, or every score, for the live page. See README."
    scores: Literal["all", "packed", "anomalous", "sampled"] = "all"
    "Which events have a score record: all; all, several in one; those flagged or in an alert; these and one in 100."
    on_model_change: Literal["refuse", "reset"] = "refuse"
    "What to do with a key whose state another bundle made: stop, or start the key anew."
    max_keys: Positive = 1_000_000
    "Keys kept in memory; the least recently seen rest in the log and come back when needed."
    poll_records: Annotated[Whole, Parameter(validator=validators.Number(gte=1, lte=1_000_000))] = 5_000
    "Records of a transaction, at most; a poll takes up to four times as many."
    max_bad_records: Positive = 10_000
    "Stop when so many records in a row cannot be decoded: the schema or the producer is wrong, not a record."
    retention_s: Seconds | None = None
    "Remove scores, alerts and dead letters after this time; never unless given."
    instance: str | None = None
    "With Kafka: this process's name in its group, the same after a restart. HOST-0, HOST-1 … unless given."
    give_up_after_s: Seconds = 300.0
    "Stop when the log has been out of reach for this long."
    metrics_port: Port | None = None
    "Serve /metrics for Prometheus, and /livez, /readyz, /startupz for probes, at this port; none unless given."
    metrics_host: str = "127.0.0.1"
    "Address to serve them at; 0.0.0.0 for all. There is no log-in, and nothing secret."
    until_end: bool = False
    "Stop at the end of the topic instead of waiting for more."
    log_format: LogFormat = "auto"
    "Log lines on standard error: for people, or JSON; auto is console on a terminal, else json."

    def __post_init__(self) -> None:
        one_promise(self.alarm_rate, self.alarms)


@Parameter(name="*")
@dataclass(frozen=True)
class AlertSettings:
    """Options of ``streamlstm alert``."""

    log: str
    "The log with the alerts: sqlite:///FILE or kafka://HOST:PORT."
    webhook: str = field(repr=False)
    "Address to POST to. If it is a secret, as Slack's is, give it as STREAMLSTM_WEBHOOK or in the TOML file."
    log_config: Path | None = None
    "TOML file with how to reach Kafka: security, time-outs; secrets as {file = …} or {env = …}."
    topic: str = "events"
    "The input topic; alerts come from TOPIC.alerts, those given up go to TOPIC.alerts.dead-letters."
    group: str = "streamlstm"
    "Name under which is kept what was delivered; one per receiver. A new one starts with the first alert there is."
    template: Literal["json", "slack", "alertmanager"] = "json"
    "What the receiver takes: everything as signed JSON, Slack's {text}, or Alertmanager's API v2."
    webhook_secret_file: Path | None = None
    "File with the secret to sign with, 16 characters at least; more lines to replace it. Or STREAMLSTM_WEBHOOK_SECRET."
    link: str | None = None
    "Address to show with an alert, of a dashboard for example; {key} and {id} are filled in."
    public_only: bool = False
    "Connect to public IP addresses only, whatever the receiver's name resolves to."
    timeout_s: Seconds = 10.0
    "Time a request may take from start to end."
    tries: Positive = 12
    "Failed tries, with the receiver up, after which an alert becomes a dead letter."
    dead_letter_after_s: Seconds = 86_400.0
    "Time since its first try after which an alert becomes a dead letter, even if the receiver is down."
    connections: Positive = 8
    "Requests at once, at most; never two of one key."
    window: Positive = 256
    "Alerts read and not yet committed, at most; so many may be sent again after a crash."
    hold_s: Seconds = 86_400.0
    "With alertmanager: it ends an open alert by itself after this time."
    skip_older_than_s: Seconds | None = None
    "Do not send alerts that came into the log longer ago than this; all are sent unless given."
    retention_s: Seconds | None = None
    "Remove dead letters after this time; never unless given."
    instance: str | None = None
    "With Kafka: this process's name in its group, the same after a restart. HOST-0, HOST-1 … unless given."
    give_up_after_s: Seconds = 300.0
    "Stop when the log has been out of reach for this long."
    metrics_port: Port | None = None
    "Serve /metrics for Prometheus, and /livez, /readyz, /startupz for probes, at this port; none unless given."
    metrics_host: str = "127.0.0.1"
    "Address to serve them at; 0.0.0.0 for all. There is no log-in, and nothing secret."
    until_end: bool = False
    "Stop when all alerts there are have been delivered or given up, instead of waiting for more."
    resend_dead_letters: bool = False
    "Send the dead letters of this group once more, and stop. What fails again goes back to the end of the topic."
    log_format: LogFormat = "auto"
    "Log lines on standard error: for people, or JSON; auto is console on a terminal, else json."


@Parameter(name="*")
@dataclass(frozen=True)
class ReceiverSettings:
    """Options of ``streamlstm check`` about the receiver of alerts, as those of ``streamlstm alert``."""

    webhook: str | None = field(default=None, repr=False)
    "Address that alerts will go to; connected to, and sent nothing. Not checked unless given."
    template: Literal["json", "slack", "alertmanager"] = "json"
    "What the receiver takes: everything as signed JSON, Slack's {text}, or Alertmanager's API v2."
    webhook_secret_file: Path | None = None
    "File with the secret to sign with, 16 characters at least; more lines to replace it. Or STREAMLSTM_WEBHOOK_SECRET."
    public_only: bool = False
    "Connect to public IP addresses only, whatever the receiver's name resolves to."
    timeout_s: Seconds = 10.0
    "Time a request may take from start to end."


@Parameter(name="*")
@dataclass(frozen=True)
class DashboardSettings:
    """Options of ``streamlstm dashboard``."""

    log: str
    "The log to show: sqlite:///FILE or kafka://HOST:PORT."
    log_config: Path | None = None
    "TOML file with how to reach Kafka: security, time-outs; secrets as {file = …} or {env = …}."
    topic: str = "events"
    "The input topic; also read are TOPIC.scores, .alerts, .dead-letters and .feedback."
    model: Path = Path("model")
    "The bundle that the topic is scored with: it knows features, units and the promised alarm rate."
    alarm_rate: Rate | None = None
    "The alarm rate that the scorer was given; the bundle's unless given."
    alarms: Alarms | None = None
    "The alarm budget that the scorer was given, such as '1 per key per week', instead of --alarm-rate."
    registry: str | None = None
    "Schema registry, http(s)://HOST:PORT: records are Avro in Confluent's wire format, not JSON."
    host: str = "127.0.0.1"
    "Address to serve on. Any but this machine's own needs a token."
    port: Annotated[Whole, Parameter(validator=validators.Number(gte=0, lte=65_535))] = 8080
    "Port to serve on; 0 takes a free one."
    dashboard_token: str | None = field(default=None, repr=False)
    "What visitors must know. Give it as STREAMLSTM_DASHBOARD_TOKEN or in the TOML file: others can see flags."
    read_only: bool = False
    "Take no feedback."
    give_up_after_s: Seconds = 300.0
    "Stop when the log has been out of reach for this long."

    def __post_init__(self) -> None:
        one_promise(self.alarm_rate, self.alarms)


@Parameter(name="*")
@dataclass(frozen=True)
class ReplaySettings:
    """Options of ``streamlstm replay``."""

    stream: Path
    "The stream schema of the file."
    log: str
    "The log to write to: sqlite:///FILE (it is made if it does not exist), or kafka://HOST:PORT."
    log_config: Path | None = None
    "TOML file with how to reach Kafka: security, time-outs; secrets as {file = …} or {env = …}."
    topic: str = "events"
    "The topic to write to; made if it does not exist."
    partitions: Positive | None = None
    "Partitions of a topic made here (one unless given); a topic that exists must have as many, if given."
    speed: Factor = 1.0
    "Event time per wall time: 1 is real time, 60 a minute a second, 0 as fast as possible."
    retention_s: Seconds | None = None
    "Remove the topic's records after this time; never unless given."
    loop: NotNegative = 1
    "Play the file so often, 0 without end. Each round's times go on where the last one's ended."
    copies: Positive = 1
    "Send each key so often: pump, pump#2, pump#3 and so on."
    phase_s: Factor = 0.0
    "Start each copy so much event time further into the file, its beginning coming last; 0 keeps them in step."
    restamp: bool = False
    "Move all event times so that the feed starts now. Faster than real time, it soon runs ahead of the clock."
    jitter_s: Factor = 0.0
    "Delay each event by up to so much event time, at random: what is overtaken arrives late."
    loss: Share = 0.0
    "Share of the events to lose."
    duplicates: Share = 0.0
    "Share of the events to send twice."
    reorder: UpToHalf = 0.0
    "Share of the events to swap with the next one of their key."
    burst_every_s: Seconds | None = None
    "Hold events back and send them in bursts, one per so much event time. At speed 0, nothing waits."
    seed: Seed = 0
    "Seed of all that is random; the same seed gives the same feed at every speed."
    log_format: LogFormat = "auto"
    "Log lines on standard error: for people, or JSON; auto is console on a terminal, else json."


@Parameter(name="*")
@dataclass(frozen=True)
class InspectSettings:
    """Options of ``streamlstm inspect``."""

    log: str | None = None
    "The log to look into, for a topic or a key: sqlite:///FILE or kafka://HOST:PORT."
    log_config: Path | None = None
    "TOML file with how to reach Kafka: security, time-outs; secrets as {file = …} or {env = …}."
    topic: str = "events"
    "The input topic of a key."
    group: str = "streamlstm"
    "The group whose state of a key to show."
    model: Path | None = None
    "The bundle whose state layout to read a key's state with."
    records: Positive = 5
    "How many of the last records to show."
    json: bool = False
    "Show scores and alerts whole, as the JSON that they are, not in a line of words."


@Parameter(name="*")
@dataclass(frozen=True)
class SimulateSettings:
    """Options of ``streamlstm simulate``."""

    out: Path = Path("feed")
    "Directory for FEED.history.jsonl, FEED.live.jsonl, FEED.toml and FEED.truth.csv."
    keys: Positive | None = None
    "Patients, motors, meters, sections or cards; 4, 4, 6, 6 or 40 unless given."
    minutes: Minutes | None = None
    "Length of the whole feed, in event time; 20 minutes, of energy and traffic 14 weeks, of cards 32, unless given."
    clean_minutes: Factor | None = None
    "Its first part, without faults: the history; a quarter, of the slow feeds some six tenths, unless given."
    faults_per_hour: Factor | None = None
    "Faults of all kinds, per key; the feed's own mix unless given."
    seed: Seed = 0
    "Seed of everything random."


@Parameter(name="*")
@dataclass(frozen=True)
class TopicsSettings:
    """Options of ``streamlstm topics``."""

    log: str
    "The cluster: kafka://HOST:PORT."
    log_config: Path | None = None
    "TOML file with how to reach Kafka: security, time-outs; secrets as {file = …} or {env = …}."
    topic: str = "events"
    "The input topic."
    group: str = "streamlstm"
    "The group of scorers whose states to keep."
    partitions: Positive | None = None
    "Partitions of the input topic, if it is to be made; the others have as many as it."
    replicas: Positive | None = None
    "Copies of each partition; 3, or as many as there are brokers, unless given."
    min_insync: Positive | None = None
    "Copies that must have a record before it counts as written; one less than replicas unless given."
    retention_s: Seconds | None = None
    "Remove scores, alerts and dead letters after this time; never unless given."
    dry_run: bool = False
    "Change nothing, only say what is missing or wrong."


@Parameter(name="*")
@dataclass(frozen=True)
class EvaluateSettings:
    """Options of ``streamlstm evaluate``."""

    suite: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = ()
    "Labelled data sets to evaluate on: asd, mitbih, nab, skab, smd, ucr, or all."
    data: Path = Path("../shared/data")
    "Directory with the suites' data."
    stream: Path | None = None
    "Instead of a suite, labelled files of your own: their stream schema."
    history: tuple[Path, ...] = ()
    "Files to learn from: CSV, Parquet, JSON lines or WFDB (.hea). Give the option once per file."
    test: Path | None = None
    "File to score, after the history: CSV or Parquet."
    labels: Path | None = None
    "What was wrong when: CSV with the columns start, end (ISO 8601, both included) and, if wanted, key."
    label_column: str | None = None
    "Instead of --labels: the column of the file to score that holds 0 or 1. The detector does not see it."
    seeds: Annotated[tuple[Seed, ...], Parameter(consume_multiple=True)] = (0,)
    "Seeds to train with, one run each: --seeds 0 1 2."
    baselines: Literal["all", "none"] = "all"
    "Other detectors to run beside ours."
    only: str | None = None
    'Only the tasks with this in their name, such as "MIT-BIH 106".'
    out: Path = Path("evaluation")
    "Directory for results.md, results.json and report.html."
    alarm_rate: Rate | None = None
    "Share of a key's events that may be flagged: the promise, kept by a threshold that follows it; 1e-3 unless given."
    alarms: Alarms | None = None
    "Instead of --alarm-rate: at most so many alerts, on average, such as '1 per key per week'. See README."
    updates: Positive = 400
    "Weight updates at most; training stops earlier when the held-out loss no longer falls."

    def __post_init__(self) -> None:
        one_promise(self.alarm_rate, self.alarms)
