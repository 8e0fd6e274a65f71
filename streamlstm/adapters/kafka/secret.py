"""Secrets in files and environment variables, read when they are needed, and never shown."""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from streamlstm.errors import SettingsError


class Secret(str):
    """Text that does not show in a dump of options: kafka-python logs all of them when it is asked for details."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'(secret)'"


@dataclass(frozen=True)
class SecretSource:
    """Where a secret is: the first line of a file, or an environment variable. ``owner`` says whose it is, for errors.

    A file may be replaced at any time, as Kubernetes and agents do; each :meth:`read` takes what is there.
    """

    owner: str
    file: Path | None = None
    variable: str = ""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    def read(self) -> Secret:
        """Return the secret; raises :class:`SettingsError` that says where it should be."""
        if self.file is None:
            text, place = self.environment.get(self.variable), f"environment variable {self.variable}"
            if text is None:
                raise SettingsError(f"{self.owner}: {place} is not set")
        else:
            text, place = self._first_line(self.file), f"file {self.file}"
        if not text:
            raise SettingsError(f"{self.owner}: {place} is empty")
        return Secret(text)

    def _first_line(self, file: Path) -> str:
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise SettingsError(f"{self.owner}: file {file} cannot be read ({error.strerror})") from None
        except UnicodeDecodeError:
            raise SettingsError(f"{self.owner}: file {file} is no UTF-8 text") from None
        return text.split("\n", 1)[0].removesuffix("\r")


def name_in_token(source: SecretSource) -> str:
    """Return the subject that a JSON Web Token names; empty where it is none, or cannot be read now."""
    try:
        payload = source.read().split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (SettingsError, IndexError, ValueError):
        return ""
    subject = claims.get("sub") if isinstance(claims, dict) else None
    return subject if isinstance(subject, str) else ""


def may_be_read_by_others(path: Path) -> bool:
    """Say whether a file's mode lets its group or everybody read it."""
    return os.name == "posix" and bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))
