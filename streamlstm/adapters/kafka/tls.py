"""What TLS needs: certificates, keys and lists of revoked ones, from files."""

from __future__ import annotations

import ssl
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamlstm.errors import SettingsError

FILES = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile")
# kafka-python 3.0.12 ignores the one, and fails on the other; its option ssl_context takes both.
OURS_TO_LOAD = ("ssl_ciphers", "ssl_crlfile")


class Wrong(SettingsError):
    """An option that cannot be right, and why."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"--log-config: {name} {what}")
        self.name, self.what = name, what


def tls_context(options: Mapping[str, Any]) -> ssl.SSLContext:
    """Load the files of options as the client does, without asking for a password; raises :class:`Wrong`."""
    for name in FILES:
        if name in options:
            _check_readable(name, Path(options[name]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = options.get("ssl_check_hostname", True)
    if "ssl_cafile" not in options:
        context.load_default_certs()
    for name in ("ssl_cafile", "ssl_crlfile"):
        if name in options:
            _load(context, name, options[name])
    if "ssl_crlfile" in options:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    if "ssl_certfile" in options or "ssl_keyfile" in options:
        _load_own(context, options)
    if "ssl_ciphers" in options:
        try:
            context.set_ciphers(options["ssl_ciphers"])
        except ssl.SSLError:
            raise Wrong("ssl_ciphers", "names no cipher that OpenSSL knows") from None
    return context


def _load(context: ssl.SSLContext, name: str, file: str) -> None:
    try:
        context.load_verify_locations(cafile=file)
    except ssl.SSLError:
        kind = "list of revoked certificates" if name == "ssl_crlfile" else "certificate"
        raise Wrong(name, f"{file} holds no {kind} in PEM") from None


def _load_own(context: ssl.SSLContext, options: Mapping[str, Any]) -> None:
    """Load the client's certificate and key."""
    if "ssl_certfile" not in options:
        raise Wrong("ssl_keyfile", "needs ssl_certfile")
    file, asked = options["ssl_certfile"], []
    key = options.get("ssl_keyfile", file)

    def password() -> str:
        asked.append(True)
        return str(options.get("ssl_password", ""))

    try:
        context.load_cert_chain(file, key, password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise Wrong("ssl_keyfile", f"{key} is not the key of {file}") from None
        if asked:
            state = "is wrong" if options.get("ssl_password") else "is missing"
            raise Wrong("ssl_password", f"{state}: {key} is encrypted") from None
        raise Wrong("ssl_certfile", f"{file} with {key} is no certificate and key in PEM") from None


def _check_readable(name: str, file: Path) -> None:
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise Wrong(name, f"{file} is no file")
        file.open("rb").close()
    except OSError as error:
        raise Wrong(name, f"{file} cannot be read ({error.strerror})") from None
