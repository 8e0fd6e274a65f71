"""The command line: documented, strict about its settings, and a whole path from a file to scores."""

from __future__ import annotations

import csv
import io
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import structlog
from cyclopts import App

from streamlstm import __version__, cli
from streamlstm.adapters.bundle_files import read_bundle
from streamlstm.adapters.sqlite_log import SqliteLog
from streamlstm.core.log import NewRecord
from streamlstm.core.record import ScoreRecord, decode_score
from streamlstm.services import scorer, trainer
from streamlstm.services.settings import ScoreSettings, TrainSettings
from tests import builders
from tests.end_to_end import runs

README = Path(cli.__file__).parents[1] / "README.md"


class Ended(NamedTuple):
    """How a command ended, and what it wrote."""

    status: int | str | None
    out: str
    errors: str


Run = Callable[..., Ended]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run the command line in this process, in an empty directory and without any variables."""
    for name in list(os.environ):
        if name.startswith("STREAMLSTM_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("STREAMLSTM_LOG_FORMAT", "console")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, stdin: str = "") -> Ended:
        monkeypatch.setattr(cli.app, "config", ())
        monkeypatch.setattr(sys, "argv", ["streamlstm", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        try:
            with pytest.raises(SystemExit) as ended:
                cli.main()
        finally:
            structlog.reset_defaults()  # the command's logger writes to a standard error that is gone
        return Ended(ended.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def settings_of(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """Run a command as far as its settings, and return them."""
    seen: list[object] = []
    monkeypatch.delenv("STREAMLSTM_LOG_FORMAT")
    monkeypatch.setattr(scorer, "score_topic", seen.append)
    monkeypatch.setattr(trainer, "run", seen.append)

    def settings_of(*arguments: object) -> object:
        ended = run(*arguments)
        assert ended.status == 0, ended
        return seen.pop()

    return settings_of


def commands(group: App = cli.app) -> dict[str, App]:
    """Return every command by the words that call it."""
    found: dict[str, App] = {}
    for name in group:
        if not name.startswith("-"):
            below = commands(group[name])
            found |= {f"{name} {word}": app for word, app in below.items()} if below else {name: group[name]}
    return found


# Documentation


def test_commands_are_those_that_the_tests_know() -> None:
    """A new command needs tests of its own; this list is here to be changed with them."""
    assert set(commands()) == {
        "schema infer",
        "train",
        "replay",
        "score",
        "alert",
        "dashboard",
        "evaluate",
        "topics",
        "check",
        "config",
        "inspect",
        "simulate",
        "demo",
    }


def test_help_lists_every_command(run: Run) -> None:
    """The first thing that one types."""
    ended = run("--help")
    assert ended.status == 0
    for words in commands():
        assert f"│ {words.split()[0]} " in ended.out


def test_version_is_told(run: Run) -> None:
    """The version that a bug report asks for."""
    assert run("--version").out.strip() == __version__


@pytest.mark.parametrize("words", commands())
def test_help_of_a_command_shows_an_example(run: Run, words: str) -> None:
    """Each command's help has a line to copy."""
    ended = run(*words.split(), "--help")
    assert ended.status == 0
    assert re.search(rf"(?<!Usage: )streamlstm {words}", ended.out)


@pytest.mark.parametrize("words", commands())
def test_every_option_of_a_command_is_explained(words: str) -> None:
    """Each option has a sentence."""
    arguments = [a for a in commands()[words].assemble_argument_collection(parse_docstring=True) if a.name != "*"]
    assert arguments
    for argument in arguments:
        assert re.search(r"\w{2,}.*[.)…]$", argument.parameter.help or ""), argument.name


def test_readme_mentions_every_command() -> None:
    """What is not in the README does not exist for a newcomer."""
    text = README.read_text()
    assert [words for words in commands() if f"streamlstm {words}" not in text] == []


# Settings


def test_settings_come_from_flags_over_environment_over_file_over_defaults(
    settings_of: Callable[..., ScoreSettings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each place is overruled by the next, option by option."""
    log = "sqlite:///log.db"
    assert settings_of("score", "--log", log) == ScoreSettings(log=log)
    Path("streamlstm.toml").write_text(
        f'[score]\nlog = "{log}"\nmax_keys = 1\npoll-records = 1\ngroup = "file"\nuntil_end = true\n'
        "[train]\nhidden = 8\n"
    )
    of_file = settings_of("score")
    assert of_file == ScoreSettings(log=log, max_keys=1, poll_records=1, group="file", until_end=True)
    monkeypatch.setenv("STREAMLSTM_MAX_KEYS", "2")
    monkeypatch.setenv("STREAMLSTM_POLL_RECORDS", "2")
    monkeypatch.setenv("STREAMLSTM_UNTIL_END", "false")
    of_environment = settings_of("score")
    assert of_environment == ScoreSettings(log=log, max_keys=2, poll_records=2, group="file", until_end=False)
    of_flags = settings_of("score", "--max-keys", 3)
    assert of_flags == ScoreSettings(log=log, max_keys=3, poll_records=2, group="file", until_end=False)


def test_settings_file_may_have_any_name(
    settings_of: Callable[..., ScoreSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flag or a variable names the file; then the one in this directory is not read."""
    Path("streamlstm.toml").write_text('[score]\ngroup = "here"\n')
    for name in ("one", "two"):
        Path(f"{name}.toml").write_text(f'[score]\nlog = "sqlite:///x"\ngroup = "{name}"\n')
    assert settings_of("score", "--config", "one.toml").group == "one"
    monkeypatch.setenv("STREAMLSTM_CONFIG", "two.toml")
    assert settings_of("score").group == "two"


def test_settings_that_are_lists_are_given_once_per_item(
    settings_of: Callable[..., TrainSettings],
) -> None:
    """Several history files, as flags or in the file."""
    flags = settings_of("train", "--stream", "s.toml", "--history", "a.csv", "--history", "b.csv")
    Path("streamlstm.toml").write_text('[train]\nstream = "s.toml"\nhistory = ["a.csv", "b.csv"]\n')
    assert settings_of("train") == flags
    assert flags.history == (Path("a.csv"), Path("b.csv"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[score]\nmodle = 1\n", r"streamlstm\.toml: \[score\] has no 'modle'; did you mean model\?"),
        ("modle = 1\n", r"streamlstm\.toml: unknown key or table 'modle'; .*score"),
        ("[scoer]\nmodel = 1\n", r"streamlstm\.toml: unknown key or table 'scoer'; did you mean score\?; .*score"),
        ("[score\n", r"streamlstm\.toml: not TOML: .*line 1"),
        ("[score]\nmax_keys = 1.5\n", r"Invalid value for \[max_keys\] .*streamlstm\.toml.*\"1.5\" into int"),
        ("[score]\nmax_keys = 0\n", r"Invalid value \"0\" for \[max_keys\] .*streamlstm\.toml\. Must be >= 1"),
        ('[score]\nmax_keys = "many"\n', r"max_keys.*many"),
    ],
)
def test_settings_file_with_a_mistake_is_refused(run: Run, text: str, message: str) -> None:
    """A key that is not known or not possible is named with its file; nothing is ignored."""
    Path("streamlstm.toml").write_text(text)
    ended = run("score", "live.csv")
    assert ended.status in (1, 2)
    assert re.search(message, ended.errors)
    assert ended.out == ""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("STREAMLSTM_MODLE", "unknown environment variable STREAMLSTM_MODLE; did you mean STREAMLSTM_MODEL?"),
        ("STREAMLSTM_MAX_KEY", "unknown environment variable STREAMLSTM_MAX_KEY; did you mean STREAMLSTM_MAX_KEYS?"),
        ("STREAMLSTM_XYZXYZXYZXYZXYZXYZ", "unknown environment variable STREAMLSTM_XYZXYZXYZXYZXYZXYZ\n"),
    ],
)
def test_unknown_variable_is_refused_with_the_nearest_name(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    """A typing error in a variable does not leave the default in force."""
    monkeypatch.setenv(name, "1")
    ended = run("score", "live.csv")
    assert (ended.status, ended.out) == (1, "")
    assert message in ended.errors


def test_variables_of_all_options_are_known(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """One environment serves all commands; an option of one is no error for another."""
    for app in commands().values():
        for argument in app.assemble_argument_collection():
            if argument.name != "*":
                monkeypatch.setenv("STREAMLSTM_" + argument.name[2:].replace("-", "_").upper(), "1")
    assert "unknown environment variable" not in run("inspect", "model").errors


@pytest.mark.parametrize("name", ["STREAMLSTM_CONFIG", "STREAMLSTM_DATA", "STREAMLSTM_WEBHOOK_SECRET"])
def test_variables_that_are_no_options_are_known(run: Run, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The variables of the tests and of secrets are no mistakes."""
    Path("settings.toml").write_text("")
    monkeypatch.setenv(name, "settings.toml")
    assert "unknown environment variable" not in run("inspect", "model").errors


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("score live.csv", "--alarm-rate", "0"),
        ("score live.csv", "--alarm-rate", "0.05"),
        ("score live.csv", "--alarm-rate", "nan"),
        ("score live.csv", "--alarm-rate", "often"),
        ("score live.csv", "--max-keys", "0"),
        ("score live.csv", "--poll-records", "0"),
        ("score live.csv", "--resolve-after-events", "0"),
        ("score live.csv", "--cooldown-events", "0"),
        ("score live.csv", "--hold-events", "-1"),
        ("score live.csv", "--retention-s", "0"),
        ("score live.csv", "--give-up-after-s", "0"),
        ("score live.csv", "--on-model-change", "ignore"),
        ("train --stream s.toml", "--hidden", "0"),
        ("train --stream s.toml", "--hidden", "6"),
        ("train --stream s.toml", "--layers", "0"),
        ("train --stream s.toml", "--dropout", "1"),
        ("train --stream s.toml", "--dropout", "-0.1"),
        ("train --stream s.toml", "--horizon", "0"),
        ("train --stream s.toml", "--period", "0"),
        ("train --stream s.toml", "--updates", "0"),
        ("train --stream s.toml", "--lanes", "0"),
        ("train --stream s.toml", "--alarm-rate", "1"),
        ("train --stream s.toml", "--first-offset", "-1"),
        ("train --stream s.toml", "--last-offset", "-1"),
        ("replay f.csv --stream s.toml --log sqlite:///x", "--speed", "-1"),
        ("replay f.csv --stream s.toml --log sqlite:///x", "--partitions", "0"),
        ("replay f.csv --stream s.toml --log sqlite:///x", "--retention-s", "0"),
        ("inspect model", "--records", "0"),
        ("train --stream s.toml", "--seed", "-1"),
        ("train --stream s.toml", "--seed", "4294967296"),
        ("evaluate", "--seeds", "-1"),
        ("replay f.csv --stream s.toml --log sqlite:///x", "--seed", "-1"),
        ("simulate ecg", "--keys", "0"),
        ("simulate ecg", "--minutes", "0"),
        ("simulate ecg", "--minutes", "inf"),
        ("simulate ecg", "--clean-minutes", "-1"),
        ("simulate ecg", "--faults-per-hour", "-1"),
        ("simulate ecg", "--seed", "-1"),
        ("demo", "--seed", "-1"),
    ],
)
def test_value_out_of_range_is_refused(run: Run, command: str, option: str, value: str) -> None:
    """The message names option and value, before anything is read or written."""
    ended = run(*command.split(), f"{option}={value}")
    assert (ended.status, ended.out) == (2, "")
    assert option in ended.errors
    assert value in ended.errors
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("feed", ["ecg", "vibration", "energy", "traffic", "cards"])
def test_more_faults_than_fit_are_refused(run: Run, feed: str) -> None:
    """Twenty faults an hour suit a heart, not a household: one sentence, and nothing written."""
    ended = run("simulate", feed, "--faults-per-hour", 1000)
    assert (ended.status, ended.out) == (1, "")
    assert re.fullmatch(rf"error: {feed} with --faults-per-hour 1000\.0: faults .* lower .*\n", ended.errors)
    assert list(Path.cwd().iterdir()) == []


def test_simulated_feed_with_nothing_left_to_score_is_refused(run: Run) -> None:
    """A history as long as the feed."""
    ended = run("simulate", "energy", "--minutes", 10, "--clean-minutes", 10)
    assert ended.status == 1
    assert re.fullmatch(r"error: --clean-minutes (\S+) leave nothing to score of --minutes \1: .*\n", ended.errors)


@pytest.mark.parametrize("feed", ["energy", "traffic", "cards"])
def test_simulated_feed_is_written_with_its_own_keys_and_share_of_history(run: Run, feed: str) -> None:
    """What is not given suits the feed; the last line is the command that learns from it."""
    ended = run("simulate", feed, "--minutes", 8 * 1440, "--out", "feed")
    assert ended.status == 0
    assert f"next='streamlstm train --stream feed/{feed}.toml --history feed/{feed}.history.jsonl'" in ended.errors
    assert {path.name for path in Path("feed").iterdir()} == {
        f"{feed}.{end}" for end in ("toml", "history.jsonl", "live.jsonl", "truth.csv")
    }
    history, live = (Path(f"feed/{feed}.{part}.jsonl").read_text().splitlines() for part in ("history", "live"))
    assert 0.4 < len(history) / (len(history) + len(live)) < 0.8
    assert len({msgspec.json.decode(line)["key"] for line in [*history, *live]}) == (40 if feed == "cards" else 6)


REQUIRED = {
    "topics": "--log kafka://localhost",
    "schema infer": "f.csv",
    "train": "--stream s.toml",
    "replay": "f.csv --stream s.toml --log sqlite:///x",
    "alert": "--log sqlite:///x --webhook http://x",
    "dashboard": "--log sqlite:///x",
    "inspect": "model",
    "simulate": "ecg",
}


@pytest.mark.parametrize("words", commands())
def test_fraction_for_a_whole_number_is_refused(run: Run, words: str) -> None:
    """Rounding would be a setting that nobody gave."""
    arguments = commands()[words].assemble_argument_collection()
    whole = [argument.name for argument in arguments if "int" in str(argument.hint)]
    assert whole or words in ("schema infer", "config")
    for option in whole:
        ended = run(*words.split(), *REQUIRED.get(words, "").split(), f"{option}=12.5")
        assert (ended.status, ended.out) == (2, "")
        assert f'Invalid value for {option}: unable to convert "12.5" into int.' in ended.errors
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("score live.csv --modle x", "Unknown option: --modle. Did you mean --model?"),
        ("score live.csv more.csv", "more.csv"),
        ("scroe live.csv", 'Unknown command "scroe"'),
        ("train --stream", "parameter --stream requires an argument"),
    ],
)
def test_misspelt_or_missing_argument_is_refused(run: Run, arguments: str, message: str) -> None:
    """What is not understood is named."""
    ended = run(*arguments.split())
    assert (ended.status, ended.out) == (2, "")
    assert message in ended.errors


# What is missing


@pytest.mark.parametrize(
    ("arguments", "message", "example"),
    [
        ("train", "streamlstm train: --stream is missing", "streamlstm train --stream stream.toml --history "),
        ("train --sream x", "--stream is missing; there is no option --sream", "streamlstm train --stream "),
        ("alert", "streamlstm alert: --log is missing", "STREAMLSTM_WEBHOOK_SECRET=… streamlstm alert --log "),
        ("alert --log sqlite:///x", "alert: --webhook is missing", "STREAMLSTM_WEBHOOK_SECRET=… streamlstm alert "),
        ("replay", "streamlstm replay: FILE is missing", "streamlstm replay live.csv --stream stream.toml --log "),
        ("replay f.csv", "replay: --stream is missing", "streamlstm replay live.csv --stream stream.toml --log "),
        ("replay f.csv --stream s.toml", "replay: --log is missing", "streamlstm replay live.csv --stream stream.toml"),
        ("inspect", "streamlstm inspect: TARGET is missing", "streamlstm inspect model/"),
        (
            "schema infer",
            "streamlstm schema infer: FILE is missing",
            "streamlstm schema infer history.csv > stream.toml",
        ),
        ("simulate", "streamlstm simulate: FEED is missing", "streamlstm simulate ecg "),
    ],
)
def test_required_argument_that_is_missing_is_named_with_an_example(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: str, message: str, example: str
) -> None:
    """Two lines, whole however narrow the terminal: what is missing, and a line to copy."""
    monkeypatch.setenv("COLUMNS", "30")
    ended = run(*arguments.split())
    assert (ended.status, ended.out) == (2, "")
    first, second = ended.errors.splitlines()
    assert first.startswith("error: ")
    assert message in first
    assert second.startswith("example: " + example)


def test_required_option_may_come_from_anywhere(settings_of: Callable[..., TrainSettings]) -> None:
    """What the settings file gives is not missing."""
    Path("streamlstm.toml").write_text('[train]\nstream = "s.toml"\n')
    assert settings_of("train").stream == Path("s.toml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("score", "give either a FILE to score once, or --log URL to score a topic"),
        ("score live.csv --log sqlite:///log.db", "give either a FILE to score once, or --log URL to score a topic"),
        ("score live.csv --model nowhere", "nowhere is no model bundle: bundle.json is missing"),
        ("score gone.csv --model {model}", "gone.csv: there is no such file"),
        ("score gone.jsonl --model {model}", "gone.jsonl: there is no such file"),
        ("score --log sqlite:///gone.db --model {model}", "there is no file gone.db; `streamlstm replay` makes one"),
        ("score --log log.db --model {model}", "--log log.db: unknown kind of log; give sqlite:///FILE"),
        ("score --log sqlite:///log.db --model {model} --topic gone", "log.db has no topic 'gone'; it has events"),
        ("score --log sqlite:///stream.toml --model {model}", "stream.toml: file is not a database"),
        ("score live.csv --model {model} --stream gone.toml", "gone.toml: there is no such file"),
        ("score live.csv --model {model} --stream stream.toml", "does not fit stream.toml: features is"),
        ("score live.csv --config gone.toml", "--config gone.toml: there is no such file"),
        ("train --stream gone.toml --history live.csv", "gone.toml: there is no such file"),
        ("train --stream stream.toml --history gone.csv", "gone.csv: there is no such file"),
        ("train --stream stream.toml", "give either --history FILE (once per file) or --log URL"),
        ("train --stream live.csv --history live.csv", "live.csv: not TOML"),
        ("train --stream stream.toml --log sqlite:///gone.db", "there is no file gone.db"),
        ("train --stream stream.toml --log sqlite:///log.db --topic gone", "no topic 'gone'; it has events"),
        ("train --stream stream.toml --history live.csv", "live.csv: the schema asks for 'flow'; the file has 'a'"),
        ("replay gone.csv --stream stream.toml --log sqlite:///new.db", "gone.csv: there is no such file"),
        ("replay live.csv --stream gone.toml --log sqlite:///new.db", "gone.toml: there is no such file"),
        ("replay live.csv --stream stream.toml --log kafka", "--log kafka: unknown kind of log"),
        ("replay live.csv --stream stream.toml --log sqlite:///no/new.db", "there is no directory no"),
        ("inspect nothing", "nothing is no bundle directory; for a topic or a key, give --log URL"),
        ("inspect nothing --log sqlite:///gone.db", "there is no file gone.db"),
        ("inspect nothing --log sqlite:///log.db", "'nothing' is no topic of sqlite:///log.db, and no key"),
        ("inspect nothing --log sqlite:///log.db --topic gone", "'nothing' is neither a topic nor a key"),
        ("schema infer gone.csv", "gone.csv: there is no such file"),
        ("schema infer live.csv", "live.csv: no column reads as time; the columns are 'time', 'a'"),
    ],
)
def test_what_is_missing_ends_with_one_sentence(run: Run, bundle_directory: Path, arguments: str, message: str) -> None:
    """Exit status 1, a sentence that names what is missing, and no traceback."""
    Path("live.csv").write_text("a,time\n1,2\n")
    Path("stream.toml").write_text("[features.flow]")
    log = SqliteLog("log.db")
    log.create_topic("events", 1)
    log.close()
    ended = run(*arguments.format(model=bundle_directory).split())
    assert ended.status == 1, ended
    lines = ended.errors.splitlines()
    assert len([line for line in lines if line.startswith("error: ")]) == 1
    assert lines[-1].startswith("error: ")
    assert message in lines[-1]
    assert "Traceback" not in ended.errors


def test_output_that_cannot_be_written_ends_with_one_sentence(run: Run) -> None:
    """A fault of the file system is no traceback either."""
    Path("history.jsonl").write_bytes(b"\n".join(record.value for record in builders.make_feed(150)))
    Path("stream.toml").write_text(STREAM)
    Path("file").write_text("")
    ended = run(
        "train",
        "--stream",
        "stream.toml",
        "--history",
        "history.jsonl",
        "--out",
        "file/model",
        *TINY[2:],
        "--updates",
        1,
    )
    assert ended.status == 1
    assert re.fullmatch(
        r"error: file/model cannot be made: .*/file: Not a directory; choose another --out\n", ended.errors
    )
    ended = run("simulate", "ecg", "--out", "file/feed")
    assert ended.status == 1
    assert re.search(r"^error: .*Not a directory: '.*file/", ended.errors)


# The whole path


STREAM = 'key = "sensor"\ntimestamp = "time"\ntimestamp_unit = "ms"\n[features.flow]\n[features.pressure]\n'
TINY = ("--updates", 30, "--hidden", 8, "--lanes", 4)


def make_csv(path: Path, events: int, start: int = 0) -> str:
    """Write a feed of three keys as CSV, with an odd cell and a missing one; return it."""
    lines = ["time,sensor,flow,pressure"]
    for record in builders.make_feed(events, ("a", "b", "c"), start=start):
        event = msgspec.json.decode(record.value)
        lines.append(f"{event['time']},{event['sensor']},{event['flow']!r},{event['pressure']!r}")
    if start:
        lines[30] = lines[30].rpartition(",")[0] + ",broken"
        lines[60] = lines[60].rpartition(",")[0] + ","
    path.write_text("\n".join(lines) + "\n")
    return path.read_text()


def scores_of(path: Path) -> list[ScoreRecord]:
    """Return the scores of the topic, in order."""
    log = SqliteLog(path)
    scores = [decode_score(record.value) for record in log.read("events.scores", 0, 0, 1_000_000)]
    log.close()
    return scores


def test_path_from_a_file_to_scores_works_as_documented(run: Run) -> None:
    """Draft a schema, train, replay, score topic and file and standard input, look at everything."""
    make_csv(Path("history.csv"), 400)
    live = make_csv(Path("live.csv"), 120, start=400)

    drafted = run("schema", "infer", "history.csv")
    assert drafted.status == 0
    assert "why=" in drafted.errors
    Path("stream.toml").write_text(drafted.out)
    trained = run("train", "--stream", "stream.toml", "--history", "history.csv", "--out", "model", *TINY)
    assert trained.status == 0, trained
    assert trained.out == "", "what a command says goes to standard error, what it yields to standard output"
    name = read_bundle(Path("model")).name
    assert f"model={name}" in trained.errors

    replayed = run("replay", "live.csv", "--stream", "stream.toml", "--log", "sqlite:///log.db", "--speed", 0)
    assert replayed.status == 0
    assert "events=360" in replayed.errors
    of_topic = run("score", "--log", "sqlite:///log.db", "--model", "model", "--until-end", "--stream", "stream.toml")
    assert (of_topic.status, of_topic.out) == (0, "")
    assert {"events=360", "scored=358", "dead_letters=2"} <= set(of_topic.errors.partition("stopped")[2].split())

    of_file = run("score", "live.csv", "--model", "model")
    of_pipe = run("score", "-", "--model", "model", stdin=live)
    assert of_file.status == of_pipe.status == 0
    assert of_pipe.out == of_file.out.replace("live.csv:0:", "-:0:"), "but for the ids of alerts"
    rows = list(csv.DictReader(io.StringIO(of_file.out)))
    assert len(rows) == 360
    rejected = [row for row in rows if row["status"].startswith("rejected: invalid: ")]
    assert [row["offset"] for row in rejected] == ["29", "59"]
    kept = [row for row in rows if row not in rejected]
    scores = scores_of(Path("log.db"))
    assert any(score.score is not None for score in scores)
    for score, row in zip(scores, kept, strict=True):
        assert (str(score.offset), score.key, score.status) == (row["offset"], row["key"], row["status"])
        for field in ("score", "tail_probability", "threshold"):
            assert getattr(score, field) == (float(row[field]) if row[field] else None), "not the same bits"

    for target, options, shown in (
        ("model", (), name),
        ("events", ("--log", "sqlite:///log.db"), "Topic events: 1 partition, "),
        ("events.scores", ("--log", "sqlite:///log.db", "--records", 2), "offset 359"),
        ("b", ("--log", "sqlite:///log.db", "--model", "model"), "Key b, topic events, partition 0"),
    ):
        inspected = run("inspect", target, *options)
        assert (inspected.status, inspected.errors) == (0, "")
        assert shown in inspected.out


def test_scores_into_a_pipe_that_closes_end_quietly(bundle_directory: Path, tmp_path: Path) -> None:
    """``streamlstm score FILE | head`` is no error to complain of."""
    path = tmp_path / "live.jsonl"
    path.write_bytes(b"\n".join(record.value for record in builders.make_feed(5000)))
    process = runs.start("streamlstm", "score", path, "--model", bundle_directory)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("key,time_ms,offset")
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(runs.TIMEOUT_S) == cli.PIPE_CLOSED
    assert "error" not in errors.lower()
    assert "Traceback" not in errors


def test_inspected_records_into_a_pipe_are_whole_lines_and_its_end_is_quiet(tmp_path: Path) -> None:
    """``streamlstm inspect TOPIC | head``: a record a line, a digest in one piece, and no complaint."""
    log = SqliteLog(tmp_path / "log.db")
    log.create_topic("events", 1)
    log.append("events", [NewRecord(None, b'{"value": "%s"}' % (b"long words " * 100))] * 2000)
    log.close()
    process = runs.start("streamlstm", "inspect", "events", "--log", f"sqlite:///{tmp_path}/log.db", "--records", 2000)
    assert process.stdout is not None
    assert process.stderr is not None
    lines = [process.stdout.readline() for _ in range(10)]
    process.stdout.close()
    assert [line[-5:] for line in lines if line.startswith("0:")] == ['s "}\n'] * 4
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(runs.TIMEOUT_S), errors) == (cli.PIPE_CLOSED, "")


def test_inspected_bundle_in_a_pipe_has_its_digest_in_one_piece(
    run: Run, bundle_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To be searched and cut by other programs."""
    monkeypatch.setenv("COLUMNS", "40")
    assert read_bundle(bundle_directory).digest in run("inspect", bundle_directory).out


# Alarm budget


def test_alarm_budget_comes_from_flag_over_variable_over_file(
    settings_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As every option; the words stay as they were given."""
    Path("streamlstm.toml").write_text('[score]\nalarms = "1 per key per week"\n')
    score = ("score", "--log", "sqlite:///x")
    assert settings_of(*score).alarms == "1 per key per week"
    monkeypatch.setenv("STREAMLSTM_ALARMS", "2 per key per day")
    assert settings_of(*score).alarms == "2 per key per day"
    assert settings_of(*score, "--alarms", "3 per key per hour").alarms == "3 per key per hour"


def test_the_nearer_of_rate_and_budget_is_in_force(
    settings_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flag over a variable, a variable over the file, whichever of the two ways each says it."""
    Path("streamlstm.toml").write_text('[score]\nalarms = "1 per key per week"\n')
    score = ("score", "--log", "sqlite:///x")
    monkeypatch.setenv("STREAMLSTM_ALARM_RATE", "1e-4")
    found = settings_of(*score)
    assert (found.alarm_rate, found.alarms) == (1e-4, None)
    found = settings_of(*score, "--alarms", "2 per key per day")
    assert (found.alarm_rate, found.alarms) == (None, "2 per key per day")
    monkeypatch.delenv("STREAMLSTM_ALARM_RATE")
    found = settings_of(*score, "--alarm-rate", "1e-3")
    assert (found.alarm_rate, found.alarms) == (1e-3, None)


def test_alarm_budget_beside_a_rate_is_refused_where_neither_is_nearer(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are named; `config` then shows both, and where they came from."""
    monkeypatch.setenv("STREAMLSTM_ALARMS", "1 per key per week")
    monkeypatch.setenv("STREAMLSTM_ALARM_RATE", "1e-4")
    ended = run("score", "x.csv")
    assert ended.status == 1
    assert "--alarm-rate 0.0001 and --alarms '1 per key per week' promise two things" in ended.errors
    shown = run("config", "score").out
    assert re.search(r"alarm_rate +1e-4 +STREAMLSTM_ALARM_RATE", shown)
    assert re.search(r"alarms +1 per key per week +STREAMLSTM_ALARMS", shown)


@pytest.mark.parametrize("command", ["train", "score", "check", "evaluate", "dashboard", "config"])
def test_words_that_are_no_budget_are_refused_by_every_command(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """With what is accepted."""
    monkeypatch.setenv("STREAMLSTM_ALARMS", "rarely")
    needed = {"train": ["--stream", "s.toml"], "dashboard": ["--log", "sqlite:///x"]}
    ended = run(command, *needed.get(command, []))
    assert ended.status == 2
    assert "'rarely' is no alarm budget: give NUMBER per key per hour, day, week, month or year" in ended.errors
