"""The command line on a broker that lets nobody in without TLS and a log-in, and nobody do a thing without an ACL.

Whatever a command does here, no password is in what it writes.
"""

from __future__ import annotations

import datetime
import io
import os
import re
import socket
import ssl
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from streamlstm import cli
from streamlstm.adapters.kafka.config import KafkaConfig
from streamlstm.adapters.kafka.log import KafkaLog
from streamlstm.adapters.kafka.session import CHANGELOG
from streamlstm.core.log import NewRecord
from tests import builders, kafka_broker
from tests.kafka_broker import SecureCluster, UnsignedToken
from tests.receiver import Receiver

STREAM = 'key = "sensor"\ntimestamp = "time"\ntimestamp_unit = "ms"\n[features.flow]\n[features.pressure]\n'
WRONG = "no-such-swordfish"
KEY_PASSWORD = "the-key-of-bob"
WEBHOOK_SECRET = "0123456789abcdef0123456789abcdef"
SECRETS = (WRONG, KEY_PASSWORD, *map(SecureCluster.password, SecureCluster.USERS))

# Kind of resource, name, operations; a name that ends with * is a prefix. T is the input topic, G the group.
Acls = Sequence[tuple[str, str, str]]
SCORER: Acls = [
    ("TOPIC", "T", "READ"),
    ("TOPIC", "T.scores", "WRITE"),
    ("TOPIC", "T.alerts", "WRITE"),
    ("TOPIC", "T.dead-letters", "WRITE"),
    ("TOPIC", "T.states.G", "READ WRITE"),
    ("GROUP", "G@T", "READ"),
    ("TRANSACTIONAL_ID", "G@T@*", "WRITE"),
]
ALERTER: Acls = [
    ("TOPIC", "T.alerts", "READ"),
    ("TOPIC", "T.alerts.dead-letters", "WRITE"),
    ("TOPIC", "T.feedback", "READ"),
    ("GROUP", "G@T.alerts", "READ"),
    ("TRANSACTIONAL_ID", "G@T.alerts@*", "WRITE"),
]
RESENDER: Acls = [
    ("TOPIC", "T.alerts", "READ"),
    ("TOPIC", "T.alerts.dead-letters", "READ WRITE"),
    ("GROUP", "G@T.alerts.dead-letters", "READ"),
    ("TRANSACTIONAL_ID", "G@T.alerts.dead-letters@*", "WRITE"),
]
REPLAYER: Acls = [("TOPIC", "T", "WRITE")]
INSPECTOR: Acls = [("TOPIC", "T", "READ"), ("TOPIC", "T.scores", "READ"), ("TOPIC", "T.states.G", "READ")]


class Ended(NamedTuple):
    """How a command ended, and what it wrote."""

    status: int | str | None
    out: str
    errors: str

    @property
    def told(self) -> str:
        """The one line with which it gave up."""
        assert self.status == 1, self.errors
        (line,) = [line for line in self.errors.splitlines() if line.startswith("error: ")]
        assert "Traceback" not in self.errors
        return line


class Station:
    """The command line in this process, with a topic and a group of its own."""

    def __init__(self, broker: SecureCluster, directory: Path, run: Callable[..., Ended], model: Path) -> None:
        self.broker, self.directory, self.run, self.model = broker, directory, run, model
        self.topic = f"t{uuid.uuid4().hex[:8]}"
        self.group = f"g{uuid.uuid4().hex[:8]}"
        self.url = f"kafka://{broker.bootstrap}"
        self.config: Path | None = None

    def log_in(self, user: str, mechanism: str = "SCRAM-SHA-512", **options: object) -> None:
        """Write a configuration that logs in by SASL; its password lies in a file of its own."""
        given: dict[str, object] = {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": mechanism,
            "ssl_cafile": str(self.broker.authority.certificate),
        }
        if mechanism == "OAUTHBEARER":
            (self.directory / "token").write_text(UnsignedToken(user).token() + "\n")
            given["oauth_token"] = '{ file = "token" }'
        else:
            (self.directory / "password").write_text(SecureCluster.password(user) + "\n")
            given |= {"sasl_plain_username": user, "sasl_plain_password": '{ file = "password" }'}
        self.configure(given | options)

    def configure(self, options: Mapping[str, object]) -> None:
        """Write a configuration."""
        self.config = self.directory / "kafka.toml"
        texts = {
            name: value if not isinstance(value, str) or value.startswith("{") else f'"{value}"'
            for name, value in options.items()
            if value != ""
        }
        self.config.write_text("".join(f"{name} = {text}\n" for name, text in texts.items()))

    def command(self, name: str, *arguments: object) -> Ended:
        """Run a command on the log."""
        config = ["--log-config", self.config] if self.config else []
        ended = self.run(name, *arguments, "--log", self.url, *config)
        assert not [secret for secret in SECRETS if secret in ended.out + ended.errors]
        return ended

    def inspect(self, target: str | None = None) -> Ended:
        """Look at the topic."""
        return self.command("inspect", target or self.topic, "--topic", self.topic, "--group", self.group)

    def replay(self, file: Path) -> Ended:
        """Write a file to the topic."""
        (self.directory / "stream.toml").write_text(STREAM)
        stream = self.directory / "stream.toml"
        return self.command("replay", file, "--stream", stream, "--topic", self.topic, "--speed", 0)

    def score(self) -> Ended:
        """Score the topic to its end."""
        place = ["--topic", self.topic, "--group", self.group, "--instance", "i-0"]
        return self.command("score", "--model", self.model, *place, "--until-end")

    def alert(self, *options: str) -> Ended:
        """Deliver the alerts there are."""
        place = ["--topic", self.topic, "--group", self.group, "--instance", "i-0"]
        return self.command("alert", *place, *options)

    def make_topics(self, *, events: bool = True) -> None:
        """Make all topics, as an administrator; the input with events in it."""
        make_topics(self.broker, self.topic, events=events)
        self.make_states()

    def make_states(self) -> None:
        """Make the group's topic of states."""
        with closing(KafkaLog(KafkaConfig((self.broker.admin_bootstrap,)))) as log:
            log.cluster.create(f"{self.topic}.states.{self.group}", 1, CHANGELOG)

    def allow(self, acls: Acls, user: str = "alice") -> None:
        """Let a user do these things and no others."""
        self.broker.revoke(user)
        for kind, name, operations in acls:
            name = self.named(name)
            self.broker.allow(user, kind, name.removesuffix("*"), *operations.split(), prefix=name.endswith("*"))

    def named(self, name: str) -> str:
        """Return the name of a resource."""
        return re.sub(r"\bT\b", self.topic, re.sub(r"\bG\b", self.group, name))


def make_topics(broker: SecureCluster, topic: str, *, events: bool = True) -> None:
    """Make the topics that all groups share."""
    with closing(KafkaLog(KafkaConfig((broker.admin_bootstrap,)))) as log:
        for end in ("", ".scores", ".alerts", ".dead-letters", ".alerts.dead-letters", ".feedback"):
            log.create_topic(topic + end, 1)
        if events:
            log.append(topic, [NewRecord(r.key, r.value) for r in builders.make_troubled_feed(120)])


@pytest.fixture(scope="module")
def topic(secure_kafka: SecureCluster) -> str:
    """Topics with events in the first, for groups that get nowhere."""
    topic = f"t{uuid.uuid4().hex[:8]}"
    make_topics(secure_kafka, topic)
    return topic


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Ended]:
    """Run the command line in this process, in an empty directory and without any variables."""
    for name in list(os.environ):
        if name.startswith("STREAMLSTM_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("STREAMLSTM_LOG_FORMAT", "console")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(cli.app, "config", ())
        monkeypatch.setattr(sys, "argv", ["streamlstm", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        capsys.readouterr()
        try:
            with pytest.raises(SystemExit) as ended:
                cli.main()
        finally:
            structlog.reset_defaults()  # the command's logger writes to a standard error that is gone
        return Ended(ended.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def station(
    secure_kafka: SecureCluster,
    tmp_path: Path,
    run: Callable[..., Ended],
    kafka_model: Path,
    caplog: pytest.LogCaptureFixture,
) -> Iterator[Station]:
    """The command line, and a topic's name."""
    caplog.set_level("WARNING", "kafka")
    yield Station(secure_kafka, tmp_path, run, kafka_model)
    for user in ("alice", "bob"):
        secure_kafka.revoke(user)


# Who comes in


def test_file_is_replayed_scored_and_inspected_over_sasl_ssl(station: Station) -> None:
    """SCRAM-SHA-512, by the super user: every topic is made on the way."""
    station.log_in(SecureCluster.ADMIN)
    file = station.directory / "live.jsonl"
    file.write_bytes(b"\n".join(record.value for record in builders.make_feed(60)))
    replayed = station.replay(file)
    assert (replayed.status, "events=120" in replayed.errors) == (0, True), replayed.errors
    scored = station.score()
    assert (scored.status, "scored=120" in scored.errors) == (0, True), scored.errors
    topic = station.inspect(f"{station.topic}.scores")
    assert (topic.status, "1 partition, kept for ever" in topic.out) == (0, True), topic.errors
    key = station.inspect("a")
    assert (key.status, "state of bundle" in key.out) == (0, True), key.errors


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "PLAIN", "OAUTHBEARER"])
def test_user_logs_in(station: Station, mechanism: str) -> None:
    """With a password or a token, over TLS; what may not be seen is told of this very user."""
    station.log_in("bob", mechanism)
    assert f"user 'bob' lacks the permission (ACL) Describe on topic '{station.topic}'" in station.inspect().told
    station.make_topics(events=False)
    station.allow([("TOPIC", "T", "READ")], "bob")
    ended = station.inspect()
    assert (ended.status, f"Topic {station.topic}" in ended.out) == (0, True), ended.errors
    assert "kept for a time that this user may not see" in " ".join(ended.out.split())


def test_certificate_logs_in(station: Station) -> None:
    """Mutual TLS, with a key that has a password."""
    certificate, key = station.broker.authority.issue("bob", KEY_PASSWORD)
    station.url = f"kafka://{station.broker.bootstrap_of('TLS')}"
    station.configure(
        {
            "security_protocol": "SSL",
            "ssl_cafile": str(station.broker.authority.certificate),
            "ssl_certfile": str(certificate),
            "ssl_keyfile": str(key),
            "ssl_password": '{ env = "KEY_PASSWORD" }',
        }
    )
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("KEY_PASSWORD", KEY_PASSWORD)
        assert f"the owner of certificate {certificate} lacks" in station.inspect().told
        station.make_topics(events=False)
        station.allow([("TOPIC", "T", "READ DESCRIBE_CONFIGS")], "bob")
        ended = station.inspect()
    assert (ended.status, "kept for ever" in ended.out) == (0, True), ended.errors


def test_renewed_token_is_taken_up(station: Station) -> None:
    """Who bears it is who the new one names."""
    station.log_in("alice", "OAUTHBEARER")
    assert "user 'alice' lacks" in station.inspect().told
    (station.directory / "token").write_text(UnsignedToken("bob").token())
    assert "user 'bob' lacks" in station.inspect().told


# Who does not


REFUSED_LOGIN = "was refused (Authentication failed during authentication due to invalid credentials"


@pytest.mark.parametrize(
    ("mechanism", "options", "message"),
    [
        ("SCRAM-SHA-512", {"sasl_plain_password": WRONG}, f"user 'alice' {REFUSED_LOGIN}"),
        ("SCRAM-SHA-512", {"sasl_plain_username": "mallory"}, f"user 'mallory' {REFUSED_LOGIN}"),
        ("PLAIN", {"sasl_plain_password": WRONG}, "user 'alice' was refused (Authentication failed: Invalid username"),
        ("OAUTHBEARER", {"oauth_token": '{ env = "TOKEN" }'}, "the bearer of oauth_token was refused ("),
        ("SCRAM-SHA-512", {"ssl_cafile": ""}, "its certificate is not trusted (unable to get local issuer certificate"),
        ("SCRAM-SHA-512", {"ssl_cafile": "gone.pem"}, "ssl_cafile {tmp}/gone.pem cannot be read (No such file"),
        ("SCRAM-SHA-512", {"ssl_crlfile": "revoked.pem"}, "its certificate is not trusted (certificate revoked)"),
    ],
)
def test_refused_log_in_ends_at_once_with_the_reason(
    station: Station, monkeypatch: pytest.MonkeyPatch, mechanism: str, options: dict[str, str], message: str
) -> None:
    """One sentence that names who, what failed, and what to do."""
    monkeypatch.setenv("TOKEN", WRONG)
    write_revoked(station.broker, station.directory / "revoked.pem")
    station.log_in("alice", mechanism, **options)
    told = station.inspect().told
    assert message.format(tmp=station.directory) in told
    assert told.startswith("error: --log-config" if "gone" in str(options) else f"error: {station.url}: could not")


def write_revoked(broker: SecureCluster, path: Path) -> None:
    """Write the authority's list of revoked certificates: the broker's."""
    authority, now = broker.authority, datetime.datetime.now(datetime.UTC)
    chain = (broker.directory / "broker.pem").read_bytes()
    revoked = x509.RevokedCertificateBuilder(x509.load_pem_x509_certificate(chain).serial_number, now).build()
    builder = x509.CertificateRevocationListBuilder(
        authority._name, now, now + datetime.timedelta(days=1), [], [revoked]
    )
    path.write_bytes(builder.sign(authority._key, hashes.SHA256()).public_bytes(Encoding.PEM))


@pytest.mark.parametrize(
    ("listener", "host", "options", "message"),
    [
        (
            "SASL",
            "127.1",
            {},
            "its certificate is not trusted (Hostname mismatch, certificate is not valid for '127.1')",
        ),
        ("SASL", "127.0.0.1", {"security_protocol": "SASL_PLAINTEXT", "ssl_cafile": ""}, "TLS is spoken at this port"),
        ("TLS", "127.0.0.1", {}, "our certificate was refused"),
        ("INTERNAL", "127.0.0.1", {"security_protocol": "SASL_PLAINTEXT", "ssl_cafile": ""}, "no log-in is wanted"),
    ],
)
def test_wrong_port_or_name_is_told_at_once(
    station: Station, listener: str, host: str, options: dict[str, str], message: str
) -> None:
    """By what the broker there answers."""
    station.url = f"kafka://{station.broker.bootstrap_of(listener).replace('127.0.0.1', host)}"
    station.log_in("alice", **options)
    told = station.inspect().told
    assert told.startswith(f"error: {station.url}: could not connect: {message}")


@pytest.mark.parametrize(
    ("listener", "security", "message"),
    [
        (
            "INTERNAL",
            "SASL_SSL",
            "the connection was closed during the TLS handshake: the broker is not up, or this port",
        ),
        ("SASL", "SSL", "the connection was closed by the other side; if it wants a log-in, set security_protocol"),
    ],
)
def test_closed_connection_is_told(station: Station, listener: str, security: str, message: str) -> None:
    """With both that it may mean: a broker that is not up yet looks like this, too."""
    station.url = f"kafka://{station.broker.bootstrap_of(listener)}"
    station.log_in("alice")
    options = {"security_protocol": security, "ssl_cafile": str(station.broker.authority.certificate)}
    if security == "SASL_SSL":
        options |= {"sasl_mechanism": "PLAIN", "sasl_plain_username": "alice", "sasl_plain_password": WRONG}
    station.configure({**options, "bootstrap_timeout_ms": 3000})
    assert message in station.inspect().told


def test_absent_broker_is_waited_for(station: Station) -> None:
    """A scorer gives up in the end; a look does so at once."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        station.url = f"kafka://127.0.0.1:{taken.getsockname()[1]}"
    station.configure({"bootstrap_timeout_ms": 300})
    message = f"{station.url}: could not connect: Connection refused: is the broker up, and the address right?"
    assert station.inspect().told == f"error: {message}"
    waited = station.command("score", "--model", station.model, "--instance", "i-0", "--give-up-after-s", 0.5)
    assert waited.told == f"error: {message}"
    assert "log out of reach, waiting" in waited.errors


def test_silent_server_is_passed_over(station: Station) -> None:
    """The others of the URL are asked before it is asked again."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        station.url = f"kafka://127.0.0.1:{silent.getsockname()[1]},{station.broker.bootstrap}"
        station.log_in(SecureCluster.ADMIN, bootstrap_timeout_ms=3000)
        station.make_topics(events=False)
        assert station.inspect().status == 0


def test_expired_certificate_is_told(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a server that shows one."""
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=30)
    with monkeypatch.context() as clock:
        at_past = SimpleNamespace(now=lambda zone: past)
        clock.setattr(kafka_broker, "datetime", SimpleNamespace(**{**vars(datetime), "datetime": at_past}))
        certificate, key = station.broker.authority.issue("expired")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        thread = threading.Thread(target=shake_hands, args=(server, context), daemon=True)
        thread.start()
        station.url = f"kafka://127.0.0.1:{server.getsockname()[1]}"
        station.log_in("alice")
        assert "(certificate has expired): renew it on the broker" in station.inspect().told
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def shake_hands(server: socket.socket, context: ssl.SSLContext) -> None:
    """Answer TLS handshakes until the server is shut down."""
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with suppress(OSError), context.wrap_socket(connection, server_side=True):
            pass
        connection.close()


# Who may do what


def test_minimal_permissions_suffice(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replayer, scorer, inspector and alerter, each with its own and no more, on topics made beforehand."""
    station.make_topics()
    station.log_in("alice")
    file = station.directory / "live.jsonl"
    file.write_bytes(b"\n".join(record.value for record in builders.make_feed(5)))
    station.allow(REPLAYER)
    replayed = station.replay(file)
    assert (replayed.status, "events=10" in replayed.errors) == (0, True), replayed.errors
    station.allow(SCORER)
    for _ in range(2):  # the second one restores the states
        scored = station.score()
        assert (scored.status, "warning" in scored.errors) == (0, False), scored.errors
    station.allow(INSPECTOR)
    inspected = station.inspect("a")
    assert (inspected.status, "state of bundle" in inspected.out) == (0, True), inspected.errors
    monkeypatch.setenv("STREAMLSTM_WEBHOOK_SECRET", WEBHOOK_SECRET)
    with Receiver() as receiver:
        station.allow(ALERTER)
        alerted = station.alert("--webhook", receiver.url, "--until-end")
        assert (alerted.status, "warning" in alerted.errors) == (0, False), alerted.errors
        assert receiver.requests
        station.allow(RESENDER)
        resent = station.alert("--webhook", receiver.url, "--resend-dead-letters")
        assert (resent.status, "warning" in resent.errors) == (0, False), resent.errors


@pytest.mark.parametrize(
    ("change", "lacks"),
    [
        ({"T": ""}, "Describe on topic 'T'"),
        ({"T": "DESCRIBE"}, "Read on topic 'T'"),
        ({"T.scores": ""}, "Describe on topic 'T.scores'"),
        ({"T.scores": "DESCRIBE"}, "Write on topic 'T.scores'"),
        ({"T.alerts": "DESCRIBE"}, "Write on topic 'T.alerts'"),
        ({"T.dead-letters": "DESCRIBE"}, "Write on topic 'T.dead-letters'"),
        ({"T.states.G": ""}, "Describe on topic 'T.states.G'"),
        ({"T.states.G": "READ"}, "Write on topic 'T.states.G'"),
        ({"G@T": ""}, "Read on group 'G@T'"),
        ({"G@T": "DESCRIBE"}, "Read on group 'G@T'"),
        ({"G@T@*": ""}, "Write on transactional id 'G@T@i-0'"),
        ({"G@T@*": "DESCRIBE"}, "Write on transactional id 'G@T@i-0'"),
    ],
    ids=str,
)
def test_permission_that_a_scorer_lacks_is_named(
    station: Station, topic: str, change: dict[str, str], lacks: str
) -> None:
    """The user, the operation, and the resource by its name."""
    station.topic = topic
    station.make_states()
    station.log_in("alice")
    station.allow([(kind, name, change.get(name, held)) for kind, name, held in SCORER if change.get(name, held)])
    assert f"user 'alice' lacks the permission (ACL) {station.named(lacks)}" in station.score().told


def test_permission_to_read_states_back_is_named(station: Station) -> None:
    """A scorer that may only write them finds out when it starts again."""
    station.make_topics()
    station.log_in("alice")
    station.allow(SCORER)
    assert station.score().status == 0
    station.allow([(kind, name, "WRITE" if "states" in name else held) for kind, name, held in SCORER])
    assert station.named("lacks the permission (ACL) Read on topic 'T.states.G'") in station.score().told


def test_permission_to_make_topics_is_named(station: Station) -> None:
    """For who comes to a cluster where nothing is prepared."""
    station.log_in("alice")
    file = station.directory / "live.jsonl"
    file.write_bytes(builders.make_record().value)
    station.allow(REPLAYER)
    assert station.named("lacks the permission (ACL) Create on topic 'T'") in station.replay(file).told
    station.allow([("TOPIC", "T", "WRITE CREATE")])
    assert station.replay(file).status == 0
    station.allow(SCORER)
    assert station.named("lacks the permission (ACL) Create on topic 'T.scores'") in station.score().told


def test_permission_that_a_replayer_lacks_is_named(station: Station) -> None:
    """Seeing a topic is not writing to it."""
    station.make_topics(events=False)
    station.log_in("alice")
    file = station.directory / "live.jsonl"
    file.write_bytes(builders.make_record().value)
    station.allow([("TOPIC", "T", "DESCRIBE")])
    assert station.named("lacks the permission (ACL) Write on topic 'T'") in station.replay(file).told


@pytest.mark.parametrize(
    ("change", "lacks"),
    [
        ({"T.alerts": ""}, "Describe on topic 'T.alerts'"),
        ({"T.alerts": "DESCRIBE"}, "Read on topic 'T.alerts'"),
        ({"T.alerts.dead-letters": ""}, "Describe on topic 'T.alerts.dead-letters'"),
        ({"T.feedback": ""}, "Describe on topic 'T.feedback'"),
        ({"G@T.alerts": ""}, "Read on group 'G@T.alerts'"),
        ({"G@T.alerts@*": ""}, "Write on transactional id 'G@T.alerts@i-0'"),
    ],
    ids=str,
)
def test_permission_that_an_alerter_lacks_is_named(
    station: Station, topic: str, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], lacks: str
) -> None:
    """Before anything is sent."""
    monkeypatch.setenv("STREAMLSTM_WEBHOOK_SECRET", WEBHOOK_SECRET)
    station.topic = topic
    station.log_in("alice")
    station.allow([(kind, name, change.get(name, held)) for kind, name, held in ALERTER if change.get(name, held)])
    ended = station.alert("--webhook", "http://127.0.0.1:1/", "--until-end")
    assert f"user 'alice' lacks the permission (ACL) {station.named(lacks)}" in ended.told


# Before a deployment


@pytest.mark.parametrize("lost", [None, *range(1, len(SCORER))])
def test_check_names_each_missing_permission_and_is_content_with_the_least(station: Station, lost: int | None) -> None:
    """What the README's table gives a scorer is enough; with one of it gone, that one is named."""
    station.log_in("alice")
    station.make_topics()
    station.allow(SCORER)
    place = ["--topic", station.topic, "--group", station.group, "--model", station.model]
    assert station.score().status == 0
    if lost is None:
        ended = station.command("check", *place)
        assert (ended.status, "wrong" in ended.out) == (0, False), ended
        return
    _, name, _ = SCORER[lost]
    station.allow([acl for acl in SCORER if acl != SCORER[lost]])
    ended = station.command("check", *place)
    assert ended.status == 1
    (line, *_) = [line for line in ended.out.splitlines() if line.startswith("wrong permission")]
    assert "(ACL) " in line
    assert station.named(name).rstrip("*") in line
