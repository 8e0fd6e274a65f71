"""The receiver that the settings describe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamlstm.errors import SettingsError
from streamlstm.services.receiver import webhook_of
from streamlstm.services.settings import AlertSettings

SECRET = "0123456789abcdef"


def make_settings(webhook: str = "https://pager.example/in", **options: Any) -> AlertSettings:
    """Return settings of the alerter."""
    return AlertSettings(log="sqlite:///log.db", webhook=webhook, **options)


def test_webhook_of_secret_from_environment_signs() -> None:
    """The environment is one way to give the secret."""
    assert webhook_of(make_settings(), {"STREAMLSTM_WEBHOOK_SECRET": SECRET}).secrets == (SECRET.encode(),)


def test_webhook_of_secret_file_with_two_lines_signs_with_both(tmp_path: Path) -> None:
    """While a secret is replaced, the file holds the new one and the old one."""
    (tmp_path / "secret").write_text(f"new-{SECRET}\n\n  old-{SECRET}  \n")

    webhook = webhook_of(make_settings(webhook_secret_file=tmp_path / "secret"), {})

    assert webhook.secrets == (f"new-{SECRET}".encode(), f"old-{SECRET}".encode())


def test_webhook_of_json_without_secret_is_refused() -> None:
    """The signed format is never sent unsigned."""
    with pytest.raises(SettingsError, match=r"set STREAMLSTM_WEBHOOK_SECRET or give --webhook-secret-file"):
        webhook_of(make_settings(), {})


@pytest.mark.parametrize("template", ["slack", "alertmanager"])
def test_webhook_of_other_templates_need_no_secret(template: Any) -> None:
    """They have no use for one."""
    assert webhook_of(make_settings(template=template), {}).secrets == ()


def test_webhook_of_secret_given_twice_is_refused(tmp_path: Path) -> None:
    """Which one is meant cannot be guessed."""
    settings = make_settings(webhook_secret_file=tmp_path / "secret")

    with pytest.raises(SettingsError, match="not both"):
        webhook_of(settings, {"STREAMLSTM_WEBHOOK_SECRET": SECRET})


@pytest.mark.parametrize("secret", ["", " \n", "short", f"{SECRET}\nshort"])
def test_webhook_of_short_secret_is_refused_and_not_shown(secret: str) -> None:
    """A secret that can be guessed signs nothing; the message does not repeat it."""
    with pytest.raises(SettingsError, match="shorter than 16 characters") as error:
        webhook_of(make_settings(), {"STREAMLSTM_WEBHOOK_SECRET": secret})

    assert SECRET not in str(error.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe secret"])
def test_webhook_of_unreadable_secret_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """The message names the file, and nothing of what is in it."""
    if content is not None:
        (tmp_path / "secret").write_bytes(content)

    with pytest.raises(SettingsError, match=r"secret: cannot be read \((FileNotFoundError|UnicodeDecodeError)\)"):
        webhook_of(make_settings(webhook_secret_file=tmp_path / "secret"), {})


@pytest.mark.parametrize(
    "address",
    [
        "",
        "pager.example/in",
        "ftp://pager.example/token",
        "https:///token",
        "http://pa\x00ger/token",
        "https://a:token/",
    ],
)
def test_webhook_of_wrong_address_is_refused_and_not_shown(address: str) -> None:
    """The address may be a secret, even one with a mistake in it."""
    with pytest.raises(SettingsError, match="--webhook") as error:
        webhook_of(make_settings(address), {"STREAMLSTM_WEBHOOK_SECRET": SECRET})

    assert "token" not in str(error.value)


def test_settings_shown_hide_the_address() -> None:
    """An address such as Slack's is a secret."""
    assert "hooks" not in repr(make_settings("https://hooks.slack.com/services/T/B/x"))
