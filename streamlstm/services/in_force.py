"""What settings are in force, and where each came from."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cyclopts import App
from cyclopts.config import Dict
from rich.console import Console
from rich.table import Table

from streamlstm.errors import SettingsError

SECRETS = {"webhook"}  # options whose values are never shown
HIDDEN = "(hidden)"
ONE_OF = ("alarm_rate", "alarms")  # two ways to say one thing: the nearer source's is in force
CONFIG = "streamlstm.toml"  # read if it is there
ALSO_READ = {"check": {"score", "alert"}}  # by a command: tables of others
Source = Callable[[App, tuple[str, ...], Any], object]
USER_INFO = re.compile(r"//[^/@]*@")


class Setting(NamedTuple):
    """One option of a command: its value as text, and where it came from."""

    name: str
    value: str
    source: str


def show_settings(
    commands: Mapping[str, App], sources: Sequence[Source] | None, secret_variables: Collection[str], console: Console
) -> None:
    """Print a table for each command that has options; ``commands`` maps the words that call it to a command.

    ``sources`` are where settings come from, the first that has one wins; a command may have its own.
    Of ``secret_variables`` is told only whether they are set. Raises what the command itself would for a value
    that it cannot take.
    """
    for words, app in commands.items():
        table = Table(title=words, title_justify="left", title_style="bold", box=None, show_header=False)
        for setting in settings_of(words, app, app.config or sources or ()):
            table.add_row(*setting)
        if table.row_count:
            console.print(table)
    for name in sorted(secret_variables):
        if name in os.environ:
            console.print(f"{name} is set {HIDDEN}", markup=False, highlight=False)


def settings_of(words: str, app: App, sources: Iterable[Source]) -> Iterator[Setting]:
    """Yield a command's options, as its next run without flags would have them."""
    arguments = app.assemble_argument_collection()
    for source in sources:
        source(app, tuple(words.split()), arguments)
    for argument in arguments:
        if argument.name == "*" or argument.field_info.is_positional:
            continue
        name = argument.name.removeprefix("--").replace("-", "_")
        default = argument.field_info.default
        if argument.tokens:
            argument.convert_and_validate()
            value = ", ".join(token.value for token in argument.tokens)
            first = argument.tokens[0]
            yield Setting(name, shown(name, value), (first.keyword or "") if first.source == "env" else first.source)
        elif default is argument.field_info.empty:
            yield Setting(name, "", "missing: it must be given")
        else:
            yield Setting(name, shown(name, _text(default)), "default")


def shown(name: str, value: str) -> str:
    """Return a value without what nobody should read: a secret address, or user and password in one.

    >>> shown("webhook", "https://pager/T/B/x"), shown("registry", "http://me:pass@host:1"), shown("topic", "a@b")
    ('(hidden)', 'http://…@host:1', 'a@b')
    """
    if name in SECRETS:
        return HIDDEN if value else ""
    return USER_INFO.sub("//…@", value)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def settings_file(given: Path | None, tables: Collection[str]) -> Path:
    """Return the settings file; refuse one that is missing, no TOML, or has keys outside commands' tables.

    Unknown keys within a command's table are refused when that command reads it.
    """
    path = given or Path(CONFIG)
    if not path.is_file():
        if given:
            raise SettingsError(f"--config {path}: there is no such file")
        return path
    try:
        names = set(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from error
    for name in sorted(names.difference(tables)):
        near = did_you_mean(name, tables)
        raise SettingsError(
            f"{path}: unknown key or table {name!r}{near}; there is a table for each of {', '.join(tables)}"
        )
    return path


def refuse_unknown_variables(prefix: str, options: Callable[[], Iterable[str]], others: Collection[str]) -> None:
    """Refuse a variable that is neither one of the ``others`` nor an option's; ``options`` is asked at need."""
    given = [name for name in os.environ if name.startswith(prefix)]
    known = {prefix + name.upper() for name in options()}.union(others) if given else set()
    for name in given:
        if name not in known:
            raise SettingsError(f"unknown environment variable {name}{did_you_mean(name, known)}")


def refuse_unknown_keys(path: Path, commands: Mapping[str, App], tokens: Sequence[str]) -> None:
    """Refuse unknown keys in the tables that a command line reads, with the nearest name; `config` reads all."""
    if not path.is_file():
        return
    called = " ".join(tokens[:2]) + " "
    read = {words for words in commands if called.startswith((f"{words} ", "config "))}
    read |= {also for words in read for also in ALSO_READ.get(words, ())}
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    for words, app in commands.items():
        if words not in read:
            continue
        table: Any = tables
        for word in words.split():
            table = table.get(word, {}) if isinstance(table, dict) else {}
        names = {argument.name.removeprefix("--").replace("-", "_") for argument in app.assemble_argument_collection()}
        for key in table if isinstance(table, dict) else ():
            if key.replace("-", "_") not in names:
                raise SettingsError(f"{path}: [{words.replace(' ', '.')}] has no {key!r}{did_you_mean(key, names)}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean …?`` with the nearest known name, or nothing.

    >>> did_you_mean("modle", ["model", "log"]), did_you_mean("xyz", ["model"])
    ('; did you mean model?', '')
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def nearer_of_two(_app: App, _words: tuple[str, ...], arguments: Any) -> None:
    """Drop the one of :data:`ONE_OF` that a flag overrides in a variable or file, or a variable in a file.

    As a source of settings, after all others. Two from the same source stay, and are refused.
    """
    given = {
        ("cli", "env").index(source) if (source := argument.tokens[0].source) in ("cli", "env") else 2: argument
        for argument in arguments
        if argument.tokens and argument.name.removeprefix("--").replace("-", "_") in ONE_OF
    }
    for rank, argument in given.items():
        if rank > min(given):
            argument.tokens.clear()


def part_of(path: Path, table: str, names: Collection[str]) -> Dict:
    """Return some keys of a command's table, for another command that takes them too."""
    found = tomllib.loads(path.read_text(encoding="utf-8")).get(table, {}) if path.is_file() else {}
    part = {name: value for name, value in found.items() if name.replace("-", "_") in names}
    return Dict(part, source=str(path.resolve()), use_commands_as_keys=False)
