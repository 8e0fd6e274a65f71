"""The receiver of alerts that the settings describe."""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from streamlstm.adapters.webhook import Webhook
from streamlstm.errors import SettingsError
from streamlstm.services.settings import AlertSettings

SHORTEST_SECRET = 16
SECRET_VARIABLE = "STREAMLSTM_WEBHOOK_SECRET"


def webhook_of(settings: AlertSettings, environment: Mapping[str, str]) -> Webhook:
    """Return the receiver of the settings; raises :class:`SettingsError`, with neither address nor secret in it."""
    wrong = SettingsError("--webhook (or STREAMLSTM_WEBHOOK) must be an address such as https://pager.example/in")
    try:
        url = httpx.URL(settings.webhook)
    except httpx.InvalidURL:
        raise wrong from None
    if url.scheme not in ("http", "https") or not url.host:
        raise wrong
    secrets = _secrets(settings, environment)
    if settings.template == "json" and not secrets:
        raise SettingsError(
            f"template json is signed, and there is no secret: set {SECRET_VARIABLE} or give --webhook-secret-file "
            "FILE; `openssl rand -hex 32` makes one"
        )
    return Webhook(
        url,
        settings.template,
        secrets,
        timeout_s=settings.timeout_s,
        public_only=settings.public_only,
        link=settings.link,
        hold_s=settings.hold_s,
    )


def _secrets(settings: AlertSettings, environment: Mapping[str, str]) -> tuple[bytes, ...]:
    file, given = settings.webhook_secret_file, environment.get(SECRET_VARIABLE)
    if file is not None and given is not None:
        raise SettingsError(f"give --webhook-secret-file or {SECRET_VARIABLE}, not both")
    if file is not None:
        try:
            given = file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"--webhook-secret-file {file}: cannot be read ({type(error).__name__})") from None
    if given is None:
        return ()
    secrets = tuple(line.strip().encode() for line in given.splitlines() if line.strip())
    if not secrets or min(map(len, secrets)) < SHORTEST_SECRET:
        raise SettingsError(
            f"the secret in {file or SECRET_VARIABLE} is shorter than {SHORTEST_SECRET} characters; "
            "`openssl rand -hex 32` makes one"
        )
    return secrets
