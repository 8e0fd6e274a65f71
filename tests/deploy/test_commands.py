"""Every command line, variable and settings file in ``deploy/`` is one that the real command line takes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

from streamlstm import cli
from streamlstm.adapters.kafka.config import SCHEME, config_of
from streamlstm.services.dashboard import check
from streamlstm.services.receiver import webhook_of
from streamlstm.services.settings import AlertSettings, DashboardSettings, ScoreSettings
from tests.deploy import ways


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Go the way of ``cli.main`` as far as a command's settings, with the files it reads under a directory."""
    ways.lay_out(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.app, "config", ())
    for name in list(os.environ):
        if name.startswith(cli.PREFIX):
            monkeypatch.delenv(name)

    def parse(app: App, tokens: list[str]) -> dict[str, Any]:
        _, bound, _ = app.parse_args(tokens, print_error=False, exit_on_error=False)
        return dict(bound.arguments)

    def settings_of(command: ways.Command) -> dict[str, Any]:
        placed = command.under(tmp_path)
        for name, value in placed.variables.items():
            monkeypatch.setenv(name, value)
        cli.refuse_unknown_variables(cli.PREFIX, cli.option_names, cli.OTHER_VARIABLES)
        launch, bound, _ = cli.app.meta.parse_args(placed.words, print_error=False, exit_on_error=False)
        found: dict[str, Any] = {}
        with monkeypatch.context() as patched:
            patched.setattr(App, "__call__", lambda app, tokens: found.update(parse(app, tokens)))
            launch(*bound.args, **bound.kwargs)
        return found

    return settings_of


@pytest.mark.parametrize("command", ways.commands(), ids=lambda command: command.where)
def test_command_is_taken_with_its_settings_and_secrets(command: ways.Command, settings_of: Any) -> None:
    """Options, variables, TOML tables, Kafka's options, certificates and secrets, all by the code that reads them."""
    settings = settings_of(command).get("settings")
    url = getattr(settings, "log", None)
    if url is not None and url.startswith(SCHEME):
        config_of(url, settings.log_config, "", {})
    if isinstance(settings, AlertSettings):
        webhook_of(settings, {} if settings.webhook_secret_file else {"STREAMLSTM_WEBHOOK_SECRET": 32 * "s"})
    if isinstance(settings, DashboardSettings):
        check(settings)


def test_every_way_runs_the_services() -> None:
    """Scorer, alerter and live page; a trainer and the topics where there is Kafka."""
    found = {command.where: set(command.words) for command in ways.commands()}
    for way in ("compose", "kubernetes", "systemd"):
        words = set().union(*(found[where] for where in found if where.startswith(way)))
        assert {"score", "alert", "dashboard"} <= words, way
        assert way == "systemd" or {"topics", "train"} <= words, way


def test_an_instance_is_named_where_kafka_has_members(settings_of: Any) -> None:
    """The same name after a restart is the same member, and the same transactional id."""
    for command in [*ways.compose_commands(), *ways.kubernetes_commands()]:
        settings = settings_of(command).get("settings")
        if isinstance(settings, ScoreSettings | AlertSettings):
            assert settings.instance, command.where
            assert settings.metrics_port == 9464, command.where


def test_a_command_with_a_mistake_would_be_found(settings_of: Any) -> None:
    """The check itself: a wrong option, a wrong variable, a wrong value."""
    good = next(command for command in ways.commands() if command.where == "compose score")
    for words, variables in [
        ((*good.words, "--modle", "x"), {}),
        ((*good.words, "--alarm-rate", "2"), {}),
        (good.words, {"STREAMLSTM_SCORE_SERVICE_HOST": "10.0.0.1"}),  # as Kubernetes' service links would
    ]:
        with pytest.raises(Exception, match=r"modle|rate|SERVICE_HOST"):
            settings_of(ways.Command("wrong", words, {**good.variables, **variables}))
