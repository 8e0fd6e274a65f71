"""How a cluster is reached: the URL, the TOML file with the client's options, its secrets, and what is shown."""

from __future__ import annotations

import base64
import gc
import json
import logging
import os
import re
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, errors
from kafka.net.manager import KafkaConnectionManager
from kafka.net.transport import KafkaTCPTransport
from structlog.testing import capture_logs

from streamlstm.adapters.kafka.config import KafkaConfig, config_of, servers_of
from streamlstm.adapters.kafka.connections import Connections, FirstContact, Refused, new_client
from streamlstm.adapters.kafka.failures import TELL_EVERY_S, Failures
from streamlstm.adapters.kafka.faults import Access, Denied, translated
from streamlstm.adapters.kafka.library_log import REPEAT_S, LibraryLog
from streamlstm.adapters.kafka.options import INSTEAD, OPTIONS, OURS
from streamlstm.adapters.kafka.python_options import admin, client_options, producer_options
from streamlstm.adapters.kafka.refusal import is_refusal, reason_of
from streamlstm.adapters.kafka.secret import SecretSource
from streamlstm.errors import Fenced, LogError, LogUnavailable, SettingsError, StreamlstmError
from streamlstm.services.log_url import open_log
from streamlstm.services.settings import InspectSettings
from tests.kafka_broker import Authority
from tests.kafka_fixtures import UNCLOSED

MARK = "swordfish-4711"  # a password: it may appear nowhere
SCRAM = 'security_protocol = "SASL_SSL"\nsasl_mechanism = "SCRAM-SHA-512"\nsasl_plain_username = "alice"\n'
TOKEN = 'security_protocol = "SASL_SSL"\nsasl_mechanism = "OAUTHBEARER"\n'
TLS = 'security_protocol = "SSL"\n'

Read = Callable[..., KafkaConfig]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write a TOML file that only its owner may read, and read it."""

    def read(text: str, environment: Mapping[str, str] | None = None) -> KafkaConfig:
        path = tmp_path / "kafka.toml"
        path.write_text(text)
        path.chmod(0o600)
        return config_of("kafka://broker", path, "host-0", environment or {})

    return read


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority with a certificate for alice, whose key has a password, and one for bob, whose key has none."""
    authority = Authority(tmp_path)
    authority.issue("alice", MARK)
    authority.issue("bob")
    return authority


def refused(call: Callable[[], object], kind: type[StreamlstmError] = SettingsError) -> str:
    """Return the message with which a call is refused; it is one line, and shows no password."""
    with pytest.raises(kind) as error:
        call()
    message = str(error.value)
    assert MARK not in message
    assert "\n" not in message
    assert error.value.__cause__ is None or MARK not in repr(error.value.__cause__)
    return message


# The URL


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("kafka://broker", ("broker:9092",)),
        ("kafka://a:9093,b,c.example:1", ("a:9093", "b:9092", "c.example:1")),
        ("kafka://[::1],[2001:db8::7]:9093", ("[::1]:9092", "[2001:db8::7]:9093")),
        ("kafka://127.0.0.1:65535", ("127.0.0.1:65535",)),
    ],
)
def test_url_names_servers(url: str, servers: tuple[str, ...]) -> None:
    """One or several, with Kafka's port unless given, and IPv6 in brackets."""
    assert servers_of(url) == servers


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("kafka://", "give at least one server"),
        ("kafka://a,,b", "give at least one server"),
        ("kafka://::1", "put an IPv6 address in brackets"),
        ("kafka://2001:db8::7:9092", "put an IPv6 address in brackets"),
        ("kafka://broker:kafka", "'broker:kafka' is no server"),
        ("kafka://broker:0", "a port is 1 to 65535"),
        ("kafka://broker:70000", "a port is 1 to 65535"),
        ("kafka://broker:9092/events", "nothing after it"),
        ("kafka://broker:9092?security_protocol=SSL", "nothing after it"),
        ("kafka://a:1,kafka://b:2", "'kafka://b:2' is no server"),
        ("kafka://a b", "'a b' is no server"),
        (f"kafka://alice:{MARK}@broker:9092", "put sasl_plain_username and sasl_plain_password into the file"),
        (f"kafka://a:1,alice:{MARK}/x@b:1", "no user and password in the URL"),
    ],
)
def test_wrong_url_is_refused(url: str, message: str) -> None:
    """The message says what is wrong, without the password that may be in it."""
    assert message in refused(lambda: servers_of(url))


def test_unknown_kind_of_log_is_refused_without_its_password() -> None:
    """Who mistypes the scheme may have given a password."""
    settings = InspectSettings(log=f"kafkas://alice:{MARK}@broker:9092")
    assert "--log kafkas://…@broker:9092: unknown kind of log" in refused(lambda: open_log(settings))
    settings = InspectSettings(log=f"kafkas://alice:{MARK}@broker:9092", log_config=Path("kafka.toml"))
    assert "is for kafka://" in refused(lambda: open_log(settings))


# The file


def test_every_option_of_the_library_is_known() -> None:
    """Each is the user's to set or ours; none is forgotten when the library gets a new one."""
    theirs = {*KafkaConsumer.DEFAULT_CONFIG, *KafkaProducer.DEFAULT_CONFIG, *KafkaAdminClient.DEFAULT_CONFIG}
    ours = OURS | set(INSTEAD)
    assert theirs == set(OPTIONS) | ours
    assert ours.isdisjoint(OPTIONS)
    assert {name for name in OPTIONS if name.startswith(("ssl_", "sasl_"))} == {
        name for name in theirs if name.startswith(("ssl_", "sasl_"))
    } - {"ssl_context", "sasl_oauth_token_provider"}


@pytest.mark.parametrize("kind", [KafkaConsumer, KafkaProducer, KafkaAdminClient])
def test_types_are_those_of_the_library(kind: type) -> None:
    """Wherever its default says which."""
    for name, default in kind.DEFAULT_CONFIG.items():  # type: ignore[attr-defined]
        if name in OPTIONS and default is not None:
            assert OPTIONS[name] is type(default), name


def test_options_reach_each_client_that_knows_them(read: Read) -> None:
    """Ours win, and the two that concern the group alone are kept apart."""
    config = read(
        'client_id = "c"\nclient_rack = "r1"\ncompression_type = "gzip"\nrequest_timeout_ms = 7000\n'
        "session_timeout_ms = 9000\nmax_poll_interval_ms = 60000\nbootstrap_timeout_ms = 5000\n"
    )
    consumer, producer = client_options(config, KafkaConsumer, group_id="g"), producer_options(config)
    assert (consumer["client_rack"], consumer["request_timeout_ms"], consumer["group_id"]) == ("r1", 7000, "g")
    assert (producer["compression_type"], producer["acks"], producer["client_id"]) == ("gzip", "all", "c")
    assert "client_rack" not in producer
    assert "compression_type" not in consumer
    assert (config.session_timeout_ms, config.max_poll_interval_ms) == (9000, 60_000)
    assert "session_timeout_ms" not in consumer
    assert producer["bootstrap_timeout_ms"] == 5000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sasl_plain_pasword = 'x'", "unknown key 'sasl_plain_pasword'; did you mean sasl_plain_password?"),
        ("[security]\nprotocol = 'SSL'", "unknown key 'security'; did you mean security_protocol?"),
        ("xyzzy = 1", "unknown key 'xyzzy'"),
        ("group_id = 'g'", "group_id is for streamlstm to set, so that nothing is lost or doubled; give --group"),
        ("acks = 1", "acks is for streamlstm to set, so that nothing is lost or doubled"),
        ("isolation_level = 'read_uncommitted'", "isolation_level is for streamlstm to set"),
        ("transactional_id = 't'", "transactional_id is for streamlstm to set"),
        ("bootstrap_servers = 'b'", "give --log kafka://HOST:PORT"),
        ("sasl_oauth_token_provider = 'x'", "give oauth_token"),
        ("request_timeout_ms = '5 s'", "request_timeout_ms must be a whole number, not text"),
        ("request_timeout_ms = 5.0", "request_timeout_ms must be a whole number, not a fraction"),
        ("request_timeout_ms = true", "request_timeout_ms must be a whole number, not true or false"),
        ("request_timeout_ms = -1", "request_timeout_ms must not be negative"),
        ("request_timeout_ms = { file = 'x' }", "request_timeout_ms is no secret; write its value here"),
        ("ssl_check_hostname = 'no'", "ssl_check_hostname must be true or false, not text"),
        ("client_id = 7", "client_id must be text, not a whole number"),
        ("client_id = ['a']", "client_id must be text, not a list"),
        ("client_id = 1979-05-27", "client_id must be text, not date"),
        ("security_protocol = 'sasl_ssl'", "must be one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"),
        (SCRAM.replace("512", "1"), "sasl_mechanism must be one of PLAIN, SCRAM-SHA-256"),
        ("compression_type = 'rar'", "compression_type must be one of gzip"),
        ("client_id = { path = 'x' }", 'client_id must be text, { file = "…" } or { env = "…" }'),
        ("client_id = { file = 'x', env = 'Y' }", 'client_id must be text, { file = "…" } or { env = "…" }'),
        ("client_id = { file = 7 }", 'client_id must be text, { file = "…" } or { env = "…" }'),
        ("client_id = { env = '' }", 'client_id must be text, { file = "…" } or { env = "…" }'),
        ("client_id =", "not TOML: Invalid value (at end of document)"),
        (f"proxy_url = 'ftp://alice:{MARK}@proxy:1'", "proxy_url must be socks5://HOST:PORT"),
    ],
)
def test_wrong_option_is_refused(read: Read, tmp_path: Path, text: str, message: str) -> None:
    """With the file, the key, and what would be right."""
    told = refused(lambda: read(text))
    assert told.startswith(f"--log-config {tmp_path}/kafka.toml: ")
    assert message in told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"sasl_plain_password = '{MARK}'", "sasl_plain_password does nothing with security_protocol PLAINTEXT"),
        ("sasl_mechanism = 'PLAIN'", "set that to SASL_SSL or SASL_PLAINTEXT"),
        ("ssl_cafile = 'ca.pem'", "ssl_cafile does nothing with security_protocol PLAINTEXT; set that to SSL"),
        (TLS + "oauth_token = { env = 'TOKEN' }", "oauth_token does nothing with security_protocol SSL"),
        ("security_protocol = 'SASL_SSL'", "SASL_SSL needs sasl_mechanism"),
        (SCRAM, "SCRAM-SHA-512 needs sasl_plain_password"),
        (SCRAM.replace('"alice"', '""') + "sasl_plain_password = 'x'", "needs sasl_plain_username"),
        (TOKEN, "oauth_token and sasl_mechanism OAUTHBEARER go together"),
        (TOKEN + f"oauth_token = '{MARK}'", 'oauth_token is { file = "…" } or { env = "…" }'),
        (SCRAM + "sasl_plain_password = 'x'\noauth_token = { env = 'TOKEN' }", "go together; one is missing"),
        (TOKEN.replace("OAUTHBEARER", "AWS_MSK_IAM"), "AWS_MSK_IAM needs the Python package botocore; install it"),
        (TOKEN.replace("OAUTHBEARER", "GSSAPI"), "GSSAPI needs the Python package gssapi; install it"),
    ],
)
def test_options_that_look_safe_and_are_not_are_refused(read: Read, text: str, message: str) -> None:
    """kafka-python would connect in the clear without a word, or fail somewhere else."""
    assert message in refused(lambda: read(text, {"TOKEN": MARK}))


def test_missing_file_is_refused(tmp_path: Path) -> None:
    """And a directory, and what is no text."""
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    for name, message in [("no.toml", "(No such file"), (".", "(Is a directory"), ("bytes.toml", "no UTF-8")]:
        assert message in refused(lambda name=name: config_of("kafka://broker", tmp_path / name, "x"))  # type: ignore[misc]


def test_missing_package_for_compression_is_named(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """kafka-python would end in a RuntimeError at the first record."""
    monkeypatch.setitem(producer_options.__globals__["CODECS"], "zstd", lambda: False)
    config = read("compression_type = 'zstd'")
    assert "pip install kafka-python[zstd]" in refused(lambda: producer_options(config))


# Secrets


def test_secrets_come_from_files_and_variables(read: Read, tmp_path: Path) -> None:
    """The first line of a file that lies beside the TOML file; spaces belong to a password."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/password").write_text(f" {MARK}\r\nsecond line\n")
    config = read(
        'security_protocol = "SASL_PLAINTEXT"\nsasl_mechanism = "PLAIN"\nsasl_plain_username = { env = "KAFKA_USER" }\n'
        'sasl_plain_password = { file = "secrets/password" }\n',
        {"KAFKA_USER": "alice"},
    )
    assert config.options["sasl_plain_password"] == f" {MARK}"
    assert config.options["sasl_plain_username"] == "alice"
    assert config.principal == "user 'alice'"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{ file = 'gone' }", "sasl_plain_password: file {tmp}/gone cannot be read (No such file or directory)"),
        ("{ file = 'empty' }", "sasl_plain_password: file {tmp}/empty is empty"),
        ("{ file = 'bytes' }", "sasl_plain_password: file {tmp}/bytes is no UTF-8 text"),
        ("{ file = '.' }", "sasl_plain_password: file {tmp} cannot be read (Is a directory)"),
        ("{ env = 'GONE' }", "sasl_plain_password: environment variable GONE is not set"),
        ("{ env = 'EMPTY' }", "sasl_plain_password: environment variable EMPTY is empty"),
        ("{ env = 'STREAMLSTM_PW' }", "variables STREAMLSTM_… are options of streamlstm; name it otherwise"),
    ],
)
def test_missing_secret_is_named(read: Read, tmp_path: Path, source: str, message: str) -> None:
    """By where it should be, and without what is there."""
    (tmp_path / "empty").write_text(f"\n{MARK}")
    (tmp_path / "bytes").write_bytes(MARK.encode() + b"\xff")
    text = SCRAM + f"sasl_plain_password = {source}"
    assert message.format(tmp=tmp_path) in refused(lambda: read(text, {"EMPTY": "", "STREAMLSTM_PW": MARK}))


def test_secrets_are_not_shown(read: Read, tmp_path: Path) -> None:
    """Neither where the configuration is shown, nor where kafka-python dumps its options, as it does for DEBUG."""
    (tmp_path / "password").write_text(MARK)
    config = read(
        SCRAM + f'sasl_plain_password = {{ file = "password" }}\nssl_password = "{MARK}"\n'
        f'proxy_url = "http://u:{MARK}@proxy:1"'
    )
    shown = [repr(config), str(config.options), f"{client_options(config, KafkaAdminClient)}", str(config.failures)]
    assert MARK not in "".join(shown)
    assert config.options["ssl_password"] == MARK


def test_token_is_read_anew_for_each_log_in(read: Read, tmp_path: Path) -> None:
    """Somebody keeps it fresh; who it names is whom errors name."""
    claims = base64.urlsafe_b64encode(json.dumps({"sub": "bob"}).encode()).decode().rstrip("=")
    (tmp_path / "token").write_text(f"h.{claims}.s\n")
    config = read(TOKEN + 'oauth_token = { file = "token" }')
    provider = client_options(config, KafkaConsumer)["sasl_oauth_token_provider"]
    assert "oauth_token" not in client_options(config, KafkaConsumer)
    assert provider.token() == f"h.{claims}.s"
    assert config.principal == "user 'bob'"
    (tmp_path / "token").write_text("opaque\n")
    assert provider.token() == "opaque"
    assert config.principal == "the bearer of oauth_token"
    (tmp_path / "token").unlink()
    assert "file" in refused(provider.token)


@pytest.mark.parametrize(
    ("given", "principal"),
    [
        ("", "user 'ANONYMOUS'"),
        (TLS, "user 'ANONYMOUS'"),
        (TLS + 'ssl_certfile = "bob.pem"\nssl_keyfile = "bob.key"', "the owner of certificate {tmp}/bob.pem"),
    ],
)
def test_principal_is_named_as_far_as_it_is_known(
    read: Read, authority: Authority, tmp_path: Path, given: str, principal: str
) -> None:
    """Without a log-in, a certificate says it, to the broker."""
    assert read(given).principal == principal.format(tmp=tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
@pytest.mark.parametrize(
    ("mode", "text", "warned"),
    [
        (0o644, f'sasl_plain_password = "{MARK}"', True),
        (0o640, f'sasl_plain_password = "{MARK}"', True),
        (0o600, f'sasl_plain_password = "{MARK}"', False),
        (0o644, 'sasl_plain_password = { env = "PW" }', False),
        (0o644, f'sasl_plain_password = {{ env = "PW" }}\nproxy_url = "http://u:{MARK}@proxy:1"', True),
    ],
)
def test_password_in_a_file_that_others_may_read_is_told(tmp_path: Path, mode: int, text: str, warned: bool) -> None:
    """Once, with what to do; a file that only points to secrets may be read by all."""
    path = tmp_path / "kafka.toml"
    path.write_text(SCRAM + text)
    path.chmod(mode)
    with capture_logs() as lines:
        config_of("kafka://broker", path, "host-0", {"PW": MARK})
    assert [line["log_level"] for line in lines] == ["warning"] * warned
    assert MARK not in str(lines)


# TLS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ssl_cafile = 'gone.pem'", "ssl_cafile {tmp}/gone.pem cannot be read (No such file or directory)"),
        ("ssl_cafile = '.'", "ssl_cafile {tmp} is no file"),
        ("ssl_cafile = 'bob.key'", "ssl_cafile {tmp}/bob.key holds no certificate in PEM"),
        ("ssl_crlfile = 'bob.key'", "ssl_crlfile {tmp}/bob.key holds no list of revoked certificates in PEM"),
        ("ssl_keyfile = 'bob.key'", "ssl_keyfile needs ssl_certfile"),
        ("ssl_certfile = 'bob.pem'", "ssl_certfile {tmp}/bob.pem with {tmp}/bob.pem is no certificate and key in PEM"),
        ("ssl_certfile = 'bob.pem'\nssl_keyfile = 'gone'", "ssl_keyfile {tmp}/gone cannot be read"),
        (
            "ssl_certfile = 'bob.pem'\nssl_keyfile = 'alice.key'",
            "ssl_password is missing: {tmp}/alice.key is encrypted",
        ),
        (
            "ssl_certfile = 'alice.pem'\nssl_keyfile = 'alice.key'\nssl_password = 'no'",
            "ssl_password is wrong: {tmp}/alice.key is encrypted",
        ),
        (
            f"ssl_certfile = 'bob.pem'\nssl_keyfile = 'alice.key'\nssl_password = '{MARK}'",
            "ssl_keyfile {tmp}/alice.key is not the key of {tmp}/bob.pem",
        ),
        ("ssl_ciphers = 'NONE-OF-THESE'", "ssl_ciphers names no cipher that OpenSSL knows"),
    ],
)
def test_wrong_tls_file_is_refused_at_once(
    read: Read, authority: Authority, tmp_path: Path, text: str, message: str
) -> None:
    """kafka-python would notice at each connection, and OpenSSL ask for the password on the terminal."""
    expected = f"--log-config {tmp_path}/kafka.toml: {message.format(tmp=tmp_path)}"
    assert refused(lambda: read(TLS + text)).startswith(expected)


def test_tls_files_lie_beside_the_toml_file(read: Read, authority: Authority, tmp_path: Path) -> None:
    """Wherever the process was started."""
    config = read(
        TLS + f'ssl_cafile = "ca.pem"\nssl_certfile = "alice.pem"\nssl_keyfile = "alice.key"\nssl_password = "{MARK}"'
    )
    assert config.options["ssl_cafile"] == str(tmp_path / "ca.pem")
    options = client_options(config, KafkaConsumer)
    assert "ssl_context" not in options  # kafka-python loads them for each connection: renewed ones are taken up


def test_ciphers_that_the_library_ignores_are_set(read: Read, authority: Authority) -> None:
    """Through a context of ours."""
    config = read(TLS + "ssl_ciphers = 'ECDHE-ECDSA-AES256-GCM-SHA384'\nssl_cafile = 'ca.pem'")
    context = client_options(config, KafkaAdminClient)["ssl_context"]
    assert isinstance(context, ssl.SSLContext)
    tls_1_2 = [cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] == "TLSv1.2"]
    assert tls_1_2 == ["ECDHE-ECDSA-AES256-GCM-SHA384"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


# What goes wrong


CONFIG = KafkaConfig(
    ("broker:9092",), {"sasl_mechanism": "PLAIN", "sasl_plain_username": "alice", "sasl_plain_password": MARK}
)


def wrapped(error: BaseException) -> BaseException:
    """Return an error as kafka-python wraps one of a handshake."""
    try:
        try:
            raise error
        except type(error) as inner:
            raise errors.KafkaConnectionError(f"Handshake failed: {inner}")  # noqa: B904
    except errors.KafkaConnectionError as outer:
        return outer


def tls_error(reason: str, kind: type[ssl.SSLError] = ssl.SSLError, **fields: object) -> BaseException:
    """Return an error of OpenSSL."""
    error = kind(1, f"[SSL: {reason}]")
    error.reason = reason
    for name, value in fields.items():
        setattr(error, name, value)
    return wrapped(error)


def certificate_error(code: int, message: str) -> BaseException:
    """Return the error of a certificate that is not trusted."""
    return tls_error(
        "CERTIFICATE_VERIFY_FAILED", ssl.SSLCertVerificationError, verify_code=code, verify_message=message
    )


@pytest.mark.parametrize(
    ("error", "final", "reason"),
    [
        (errors.SaslAuthenticationFailedError("bad"), True, "user 'alice' was refused (bad): check sasl_mechanism"),
        (errors.UnsupportedSaslMechanismError(), True, "sasl_mechanism PLAIN is not offered at this port"),
        (errors.IllegalSaslStateError(), True, "no log-in is wanted at this port"),
        (errors.InvalidReceiveError("Invalid frame length: 352518912"), True, "TLS is spoken at this port"),
        (errors.InvalidReceiveError("Invalid frame length: 1213486160"), False, "InvalidReceiveError"),
        (certificate_error(20, "unable to get local issuer certificate"), True, "as ssl_cafile"),
        (certificate_error(62, "Hostname mismatch"), True, "use a name that it is made for"),
        (certificate_error(10, "certificate has expired"), True, "renew it on the broker"),
        (certificate_error(23, "certificate revoked"), True, "replace it on the broker"),
        (tls_error("WRONG_VERSION_NUMBER"), True, "no TLS is spoken at this port"),
        (tls_error("TLSV13_ALERT_CERTIFICATE_REQUIRED"), True, "our certificate was refused"),
        (tls_error("TLSV1_ALERT_UNKNOWN_CA"), True, "our certificate was refused"),
        (tls_error("NO_PROTOCOLS_AVAILABLE"), True, "TLS failed (NO_PROTOCOLS_AVAILABLE)"),
        (wrapped(ssl.SSLEOFError(8, "EOF")), False, "closed during the TLS handshake"),
        (
            errors.KafkaConnectionError("unable to connect: 111 ECONNREFUSED"),
            False,
            "Connection refused: is the broker",
        ),
        (errors.KafkaConnectionError("DNS Resolution failure"), False, "there is no such host name"),
        (errors.KafkaConnectionError("socket disconnected"), False, "the connection was closed by the other side"),
        (errors.KafkaConnectionError(ConnectionResetError(104, "reset")), False, "reset"),
        (errors.RequestTimedOutError("after 3 ms"), False, "no answer in time"),
        (errors.KafkaConnectionError("no answer within 3 s"), False, "no answer within 3 s: is the broker up"),
        (RuntimeError("GSSAPI lib not found!"), True, "RuntimeError: GSSAPI lib not found!"),
        (SettingsError("--log-config k.toml: oauth_token: file t is empty"), True, "oauth_token: file t is empty"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_reason_of_a_failed_connection(error: BaseException, final: bool, reason: str) -> None:
    """Whether trying again can help, and what will."""
    assert is_refusal(error) is final
    assert reason in reason_of(error, CONFIG)
    assert MARK not in reason_of(error, CONFIG)


def failing(config: KafkaConfig, error: Exception, access: Access | None = None) -> StreamlstmError:
    """Return our error for one of kafka-python's."""
    with pytest.raises(LogError) as caught, translated(config, "do it", *([access] if access else [])):
        raise error
    return caught.value


def test_reason_is_told_by_the_call_that_fails_of_it() -> None:
    """A refusal stops; a broker that has let us in before may do so again, and is waited for."""
    clock = [100.0]
    config = KafkaConfig(("a:1", "b:1"), failures=Failures(lambda: clock[0]))
    config.failures.note("a:1", "gone", refused=False)
    waiting = failing(config, errors.KafkaTimeoutError("hidden"))
    assert str(waiting) == "kafka://a:1,b:1: could not do it: a:1: gone"
    assert isinstance(waiting, LogUnavailable)
    config.failures.note("b:1", "refused", refused=True)
    stopping = failing(config, errors.KafkaTimeoutError("hidden"))
    assert str(stopping) == "kafka://a:1,b:1: could not do it: b:1: refused"
    assert not isinstance(stopping, LogUnavailable)
    config.failures.reached("b:1")
    with capture_logs():
        config.failures.note("b:1", "refused", refused=True)
    assert isinstance(failing(config, errors.SaslAuthenticationFailedError("x")), LogUnavailable)
    clock[0] += 60
    assert "hidden" in str(failing(config, errors.KafkaTimeoutError("hidden")))  # that was long ago


def test_lost_broker_is_told_once_a_minute() -> None:
    """Not at the first contact, which ends in an error, and not at each of many tries."""
    clock = [0.0]
    failures = Failures(lambda: clock[0])
    with capture_logs() as lines:
        failures.note("a:1", "no answer", refused=False)
        failures.reached("a:1")
        failures.note("a:1", "gone", refused=False)
        failures.note("a:1", "gone", refused=False)
        clock[0] += TELL_EVERY_S
        failures.note("a:1", "still gone", refused=False)
    assert [(line["broker"], line["reason"]) for line in lines] == [("a:1", "gone"), ("a:1", "still gone")]


@pytest.mark.parametrize(
    ("error", "access", "lacks"),
    [
        (errors.TopicAuthorizationFailedError({"events"}), Access("events"), "Read on topic 'events'"),
        (errors.TopicAuthorizationFailedError("events"), Access("events", "Write"), "Write on topic 'events'"),
        (errors.TopicAuthorizationFailedError({"events.scores"}), Access("events"), "Write on topic 'events.scores'"),
        (
            errors.TopicAuthorizationFailedError("Request 'CreateTopicsRequest(…)' failed"),
            Access("events", "Create"),
            "Create on topic 'events'",
        ),
        (errors.GroupAuthorizationFailedError("g@events"), Access("events"), "Read on group 'g@events'"),
        (errors.GroupAuthorizationFailedError("…"), Access("events", group="g@events"), "Read on group 'g@events'"),
        (errors.TransactionalIdAuthorizationFailedError(), Access("e", transactional_id="t"), "Write on transactional"),
        (errors.ClusterAuthorizationFailedError(), Access("events", "Create"), "Create on the cluster"),
        (errors.KafkaError(errors.TransactionalIdAuthorizationFailedError()), Access(transactional_id="t"), "id 't'"),
    ],
    ids=str,
)
def test_missing_permission_is_named(error: Exception, access: Access, lacks: str) -> None:
    """Who lacks it, which operation it is, and on what."""
    denied = failing(CONFIG, error, access)
    assert isinstance(denied, Denied)
    assert "user 'alice' lacks the permission (ACL) " in str(denied)
    assert lacks in str(denied)


def test_other_errors_keep_their_meaning() -> None:
    """A lost place in the group is waited for, another with our identity stops us."""
    assert isinstance(failing(CONFIG, errors.CommitFailedError()), LogUnavailable)
    assert isinstance(failing(CONFIG, errors.UnknownBrokerIdError(-1)), LogUnavailable)
    assert isinstance(failing(CONFIG, errors.ProducerFencedError()), Fenced)
    assert type(failing(CONFIG, errors.InvalidTopicError())) is LogError


# What an operator sees of the library's own log


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> tuple[logging.Logger, list[float]]:
    """A logger below kafka's whose records go to ours, and the clock of what it shows."""
    clock = [0.0]
    kafka = logging.getLogger("kafka")
    monkeypatch.setattr(kafka, "handlers", [LibraryLog(lambda: clock[0])])
    monkeypatch.setattr(kafka, "level", logging.DEBUG)
    structlog.reset_defaults()
    return logging.getLogger("kafka.producer.sender"), clock


def test_library_says_a_thing_in_one_line_once_a_minute(library: tuple[logging.Logger, list[float]]) -> None:
    """Without traceback; what it says meanwhile is counted."""
    sender, clock = library

    def say(number: int) -> None:
        sender.error("uncaught\n%d", number, exc_info=ValueError(f"line {number}\nand more"))

    with capture_logs() as lines:
        for number in range(3):
            say(number)
        clock[0] += REPEAT_S
        say(3)
    assert [line["says"] for line in lines] == [f"uncaught {n} (ValueError: line {n} and more)" for n in (0, 3)]
    assert [line.get("repeated") for line in lines] == [None, 2]
    assert {line["log_level"] for line in lines} == {"warning"}


def test_library_says_nothing_of_what_it_mends_itself(library: tuple[logging.Logger, list[float]]) -> None:
    """Nor of connections, of which we tell, nor any detail."""
    sender, _ = library
    with capture_logs() as lines:
        logging.getLogger("kafka.net.manager").error("Connection failed: %s", ValueError("x"))
        logging.getLogger("kafka.net.selector").warning("Task ran for 0.2 s")
        sender.error("Fetch to node 1 failed: %s", errors.KafkaConnectionError("111 ECONNREFUSED"))
        sender.debug("Starting with configuration: %s", {"sasl_plain_password": MARK})
        sender.info("Authenticated as %s", MARK)
    assert lines == []
    with capture_logs() as lines:
        logging.getLogger("kafka.net.selector").error("IO loop crashed")
    assert [line["says"] for line in lines] == ["IO loop crashed"]


# The first contact, with something that is no broker


def test_what_was_received_comes_before_the_end_of_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker refuses a log-in with an answer and closes; kafka-python throws away an answer read with the end."""
    assert callable(KafkaTCPTransport._sock_recv)  # what this stands on, and nothing promises
    lost = errors.KafkaConnectionError("socket disconnected")
    reads = iter([(b"refused", lost), (b"", lost)])
    transport = SimpleNamespace(_sock_recv=lambda: next(reads))

    async def build(*_: object) -> object:
        return transport

    monkeypatch.setattr(KafkaConnectionManager, "_build_transport", build)
    with pytest.raises(StopIteration) as built:
        Connections._build_transport(Connections.__new__(Connections), None).send(None)
    assert built.value.value is transport
    assert transport._sock_recv() == (b"refused", None)
    assert transport._sock_recv() == (b"", lost)


@pytest.fixture
def forgotten(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Collect the sockets that kafka-python forgets wherever it cannot connect; records of its log hold them."""
    caplog.set_level(logging.CRITICAL, "kafka")
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def connect(config: KafkaConfig) -> str:
    """Return why a client cannot connect."""
    with pytest.raises(LogError) as error:
        admin(config)
    return f"{type(error.value).__name__}: {error.value}"


def test_each_server_is_asked_once_before_any_is_asked_again() -> None:
    """And none again when there is no time left, or all refused."""
    first = FirstContact(timeout_ms=1000)
    later = {"a": 0.05, "b": 0.0}
    first.check("a", later)
    first.asked["a"] = SimpleNamespace(closed=True)
    with pytest.raises(errors.NodeNotReadyError):
        first.check("a", later)
    first.check("b", later)
    first.asked["b"] = SimpleNamespace(closed=True)
    first.check("a", later)
    with pytest.raises(errors.KafkaTimeoutError):
        first.check("a", {"a": 1.0, "b": 2.0})
    first.refused |= {"a", "b"}
    with pytest.raises(Refused):
        first.check("b", later)


def test_node_that_is_away_is_not_ready_and_raises_nothing() -> None:
    """If it raised, the producer would forget its request, and a transaction would never end."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with closing(new_client(KafkaConfig((address,)), bootstrap_servers=[address])) as client:
            assert client.await_ready("bootstrap-0", 500) is False


@pytest.mark.filterwarnings(UNCLOSED)
@pytest.mark.parametrize("security", ["PLAINTEXT", "SSL"])
def test_server_that_never_answers_is_given_up(security: str, authority: Authority, forgotten: None) -> None:
    """kafka-python waits for the answer to a TLS handshake without end."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        options: dict[str, object] = {"security_protocol": security, "bootstrap_timeout_ms": 1800}
        if security == "SSL":
            options["ssl_cafile"] = str(authority.certificate)
        message = connect(KafkaConfig((address,), options))
    assert re.match(
        rf"LogUnavailable: kafka://{address}: could not connect: no answer (within 0\.\d s|in time)", message
    )


@pytest.mark.filterwarnings(UNCLOSED)
def test_unreachable_server_is_a_passing_fault(forgotten: None) -> None:
    """It is told with its reason, after the time for the first contact; no thread is left behind."""
    threads = threading.active_count()
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    message = connect(KafkaConfig((address,), {"bootstrap_timeout_ms": 300}))
    assert message == (
        f"LogUnavailable: kafka://{address}: could not connect: "
        "Connection refused: is the broker up, and the address right?"
    )
    assert threading.active_count() == threads


def test_missing_token_is_named_by_its_owner() -> None:
    """A source outlives the configuration it was read from."""
    source = SecretSource("--log-config k.toml: oauth_token", variable="GONE", environment={})
    options: dict[str, Any] = {"sasl_mechanism": "OAUTHBEARER", "oauth_token": source}
    assert KafkaConfig(("a:1",), options).principal == "the bearer of oauth_token"
    assert refused(source.read) == "--log-config k.toml: oauth_token: environment variable GONE is not set"


def test_a_broker_that_was_reached_is_lost_once_until_it_is_reached_again() -> None:
    """Neither one that never was, nor each try to reach it again."""
    failures = Failures()
    failures.note("a:1", "no answer", refused=False)
    assert failures.lost == 0
    for times in (1, 2):
        failures.reached("a:1")
        for _ in range(3):
            failures.note("a:1", "gone", refused=False)
        assert failures.lost == times
