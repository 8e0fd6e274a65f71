"""The schema registry that the settings name, if records are Avro."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from streamlstm.core.schema import StreamSchema
from streamlstm.errors import SettingsError

LOGIN_VARIABLE = "STREAMLSTM_REGISTRY_LOGIN"


class RegistrySettings(Protocol):
    """The settings that say what records are."""

    @property
    def registry(self) -> str | None:
        """The registry's address; records are JSON without one."""


def parser_of(
    settings: RegistrySettings, schema: StreamSchema, environment: Mapping[str, str] = os.environ
) -> Callable[[bytes], object] | None:
    """Return what makes events of Avro records, or None for JSON; raises :class:`SettingsError`, without a secret."""
    if settings.registry is None:
        return None
    url = urlsplit(settings.registry)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise SettingsError("--registry must be an address such as https://registry.example:8081")
    if url.username or url.password:
        raise SettingsError(f"--registry: no user and password in the address; set {LOGIN_VARIABLE}=USER:PASSWORD")
    configuration: dict[str, Any] = {"url": settings.registry}
    if login := environment.get(LOGIN_VARIABLE):
        if ":" not in login:
            raise SettingsError(f"{LOGIN_VARIABLE} must be USER:PASSWORD")
        configuration["basic.auth.user.info"] = login

    from streamlstm.adapters.avro import avro_parser  # needs an extra

    return avro_parser(configuration, schema)
