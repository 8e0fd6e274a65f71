"""Real Apache Kafka brokers on this machine: found, started, killed, and gone with the process that started them.

:func:`find_broker` says where one comes from. Nothing here knows pytest; the fixtures are in ``kafka_fixtures``.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import ipaddress
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)
from kafka.errors import KafkaError
from kafka.net.sasl.oauth import AbstractTokenProvider

HOME = Path(__file__).parents[2] / "shared" / "kafka"
IMAGE = "apache/kafka:4.3.0"
HOST = "127.0.0.1"
START_S = 90.0  # a busy machine; a quiet one needs 4
STOP_S = 20.0

# Cheap, and quick at what tests would otherwise wait for: rebalances, time-outs, retention, compaction.
SETTINGS: Mapping[str, object] = {
    "auto.create.topics.enable": "false",
    "num.partitions": 1,
    "offsets.topic.num.partitions": 4,
    "transaction.state.log.num.partitions": 4,
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 1000,
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": 500,
    "log.initial.task.delay.ms": 500,
    "log.retention.check.interval.ms": 500,
    "log.segment.delete.delay.ms": 100,
    "log.cleaner.backoff.ms": 200,
    "log.cleaner.min.cleanable.ratio": 0.01,
    "log.cleaner.dedupe.buffer.size": 8 << 20,  # of the small heap; 128 MB otherwise
    "broker.session.timeout.ms": 2000,  # a killed node's partitions get a new leader, and it may return, after this
    "broker.heartbeat.interval.ms": 300,
}
JAVA = ("java", "-Xmx384m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dlog4j2.level=WARN")


class NoBroker(Exception):
    """No broker can be had; the message is one line: what was looked for, and what to do."""


class BrokerFailed(Exception):
    """A broker did not start or does not answer."""


def find_broker(own: Callable[[Path], Cluster] | None = None, environ: Mapping[str, str] = os.environ) -> Broker:
    """Return a broker that is not started yet: the given one, one of ``KAFKA_HOME``, or one in Docker, in this order.

    Args:
        own: Makes a cluster of a Kafka home, where it must be one that this process may kill or configure.
        environ: The environment variables.

    Raises:
        NoBroker: There is none of these.
    """
    sources: list[Callable[[], Broker]] = [lambda: (own or Cluster)(_home(environ))]
    if own is None:
        sources = [lambda: Given(environ), *sources, Container]
    reasons = []
    for source in sources:
        try:
            return source()
        except NoBroker as reason:
            reasons.append(str(reason))
    others = "" if own else "KAFKA_BOOTSTRAP=host:port, or "
    docker = "" if own else ", or start Docker and install testcontainers"
    raise NoBroker(
        f"no Kafka broker for this test ({'; '.join(reasons)}): "
        f"set {others}KAFKA_HOME to an unpacked Kafka 4, with Java 17 on PATH{docker}"
    )


def _home(environ: Mapping[str, str]) -> Path:
    home = Path(environ.get("KAFKA_HOME") or HOME).resolve()
    if not any(home.glob("libs/kafka-clients-*.jar")):
        raise NoBroker(f"no Kafka in {home}/libs")
    if shutil.which("java", path=environ.get("PATH")) is None:
        raise NoBroker("no java on PATH")
    return home


class Broker:
    """Something that answers at ``bootstrap``; ``admin_bootstrap`` asks for no password."""

    bootstrap: str
    admin_bootstrap: str
    start_s = START_S

    def start(self) -> None:
        """Start, and wait until it answers, ``start_s`` at the longest."""
        _wait_for_metadata(self.admin_bootstrap, time.monotonic() + self.start_s)

    def close(self) -> None:
        """End it, and remove what it wrote."""

    def admin(self) -> KafkaAdminClient:
        """Return an administrator's client; the caller closes it."""
        return KafkaAdminClient(bootstrap_servers=self.admin_bootstrap)

    def new_topic(self, partitions: int = 1, **configs: object) -> str:
        """Create a topic under a name of its own and return that; ``cleanup_policy`` stands for ``cleanup.policy``."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        settings = {key.replace("_", "."): str(value) for key, value in configs.items()}
        with contextlib.closing(self.admin()) as admin:
            admin.create_topics({name: {"num_partitions": partitions, "configs": settings}}, wait_for_metadata=True)
        return name

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Given(Broker):
    """The broker at ``KAFKA_BOOTSTRAP``, used as it is."""

    start_s = 10.0

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.bootstrap = self.admin_bootstrap = environ.get("KAFKA_BOOTSTRAP", "")
        if not self.bootstrap:
            raise NoBroker("KAFKA_BOOTSTRAP is not set")


class Container(Broker):
    """A single broker in Docker, through testcontainers, which removes it even if this process is killed."""

    def __init__(self) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import docker
                from testcontainers.core.container import DockerContainer
        except ImportError:
            raise NoBroker("testcontainers is not installed") from None
        try:
            with contextlib.closing(docker.from_env()) as client:
                client.ping()
        except docker.errors.DockerException:
            raise NoBroker("no Docker daemon answers") from None
        port, controller = free_ports(2)
        self.bootstrap = self.admin_bootstrap = f"{HOST}:{port}"
        settings = {
            **_node_settings(1, [controller], 1, {"PLAINTEXT": "PLAINTEXT"}, {"PLAINTEXT": port}),
            "listeners": f"PLAINTEXT://0.0.0.0:{port},CONTROLLER://{HOST}:{controller}",
            "log.dirs": "/tmp/kafka",
        }
        self._container = DockerContainer(IMAGE).with_bind_ports(port, port)
        for key, value in settings.items():
            self._container.with_env("KAFKA_" + key.replace(".", "_").upper(), str(value))

    def start(self) -> None:
        """Start the container and wait until the broker answers."""
        self._container.start()
        super().start()

    def close(self) -> None:
        """Remove the container."""
        self._container.stop()


class Cluster(Broker):
    """One node, or several, each broker and controller; they keep ports and data when killed and started again.

    Three nodes replicate every topic to all, and take a write when two have it.
    """

    # Listener name → protocol. The first is for clients, the last for administrators and the nodes themselves.
    listeners: Mapping[str, str] = {"PLAINTEXT": "PLAINTEXT"}

    def __init__(self, home: Path, nodes: int = 1) -> None:
        self.home = home
        self.nodes: Sequence[int] = range(1, nodes + 1)
        ports = iter(free_ports(nodes * (1 + len(self.listeners))))
        self._controllers = [next(ports) for _ in self.nodes]
        self._ports = {node: {name: next(ports) for name in self.listeners} for node in self.nodes}
        self.bootstrap = self.bootstrap_of(next(iter(self.listeners)))
        self.admin_bootstrap = self.bootstrap_of(list(self.listeners)[-1])
        self.directory = Path(tempfile.mkdtemp(prefix="kafka-"))
        self._leash = Leash(self.directory)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def bootstrap_of(self, listener: str) -> str:
        """Return the addresses of one listener on every node."""
        return ",".join(f"{HOST}:{self._ports[node][listener]}" for node in self.nodes)

    def start(self, node: int | None = None) -> None:
        """Start a node, or all, where it does not run, and wait until it answers and has caught up.

        Raises:
            BrokerFailed: It did not within ``start_s``; the message ends with the node's log.
        """
        deadline = time.monotonic() + self.start_s
        nodes = set(self.nodes if node is None else [node])
        dead = [n for n in nodes if n not in self._processes or self._processes[n].poll() is not None]
        formatting = {n: self._format(n) for n in dead if not self._node_directory(n).exists()}
        for n, process in formatting.items():
            if process.wait(self.start_s):
                raise BrokerFailed(f"Kafka node {n} could not be formatted:\n{self.log_tail(n)}")
        for n in dead:
            self._processes[n] = self._spawn(n, "kafka.Kafka", str(self._node_directory(n) / "server.properties"))
        for n in dead:
            self._wait_for_ports(n, deadline)
        try:
            _wait_for_metadata(self.admin_bootstrap, deadline, nodes)
        except BrokerFailed as failed:
            raise BrokerFailed("\n".join([f"{failed}:", *map(self.log_tail, nodes)])) from failed

    def kill(self, node: int = 1) -> None:
        """End a node at once (SIGKILL)."""
        process = self._processes.pop(node)
        process.kill()
        process.wait()

    def stop(self, node: int = 1) -> None:
        """Ask a node to end (SIGTERM), which hands over what it leads; kill it if it does not in :data:`STOP_S`."""
        process = self._processes[node]
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        self.kill(node)

    def pause(self, node: int = 1) -> None:
        """Let a node hang (SIGSTOP): its connections stay open and nothing answers."""
        self._processes[node].send_signal(signal.SIGSTOP)

    def resume(self, node: int = 1) -> None:
        """Let a node go on (SIGCONT)."""
        self._processes[node].send_signal(signal.SIGCONT)

    def heal(self) -> None:
        """Let every node run again that was killed, stopped or paused."""
        for node in self._processes:
            self.resume(node)
        self.start()

    def close(self) -> None:
        """Kill all nodes and remove their data."""
        self._leash.close()
        for process in self._processes.values():
            process.wait()
        self._processes.clear()

    def pid(self, node: int = 1) -> int:
        """Return the process id of a node that runs."""
        return self._processes[node].pid

    def log_tail(self, node: int = 1, lines: int = 40) -> str:
        """Return the last lines that a node wrote."""
        log = self._node_directory(node) / "server.log"
        return "\n".join(line[:300] for line in log.read_text(errors="replace").splitlines()[-lines:])

    def settings_of(self, node: int) -> dict[str, object]:
        """Return what ``server.properties`` says."""
        return {
            **_node_settings(node, self._controllers, len(self.nodes), self.listeners, self._ports[node]),
            "log.dirs": self._node_directory(node) / "data",
        }

    def format_options(self) -> list[str]:
        """Return options of StorageTool beyond the usual."""
        return []

    def _node_directory(self, node: int) -> Path:
        return self.directory / f"node{node}"

    def _format(self, node: int) -> subprocess.Popen[bytes]:
        self._node_directory(node).mkdir()
        config = self._node_directory(node) / "server.properties"
        config.write_text("".join(f"{key}={value}\n" for key, value in self.settings_of(node).items()))
        identity = base64.urlsafe_b64encode(uuid.uuid5(uuid.NAMESPACE_URL, str(self.directory)).bytes)
        options = [f"--cluster-id={identity.decode().rstrip('=')}", "-c", str(config), *self.format_options()]
        return self._spawn(node, "kafka.tools.StorageTool", "format", *options)

    def _spawn(self, node: int, *command: str) -> subprocess.Popen[bytes]:
        with (self._node_directory(node) / "server.log").open("ab") as log:
            return self._leash.spawn([*JAVA, "-cp", f"{self.home}/libs/*", *command], log)

    def _wait_for_ports(self, node: int, deadline: float) -> None:
        while not all(map(_connects, self._ports[node].values())):
            code = self._processes[node].poll()
            if code is not None or time.monotonic() > deadline:
                state = "does not answer" if code is None else f"ended with {code}"
                raise BrokerFailed(f"Kafka node {node} {state}:\n{self.log_tail(node)}")
            time.sleep(0.05)


class SecureCluster(Cluster):
    """One node that lets nobody in without TLS and a password, a token or a certificate, and nobody do a thing
    without an ACL, except the super user :data:`ADMIN`.

    The administrators' listener is plain; who comes through it is ``ANONYMOUS``, a super user too. Nobody becomes
    ``ANONYMOUS`` through the others: one asks for SASL, the other for a certificate.
    """

    ADMIN = "admin"
    USERS = (ADMIN, "alice", "bob")
    MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN", "OAUTHBEARER")

    listeners: Mapping[str, str] = {"SASL": "SASL_SSL", "TLS": "SSL", "INTERNAL": "PLAINTEXT"}

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.authority = Authority(self.directory)

    def sasl(self, user: str, mechanism: str = "SCRAM-SHA-512") -> dict[str, Any]:
        """Return the arguments with which a kafka-python client logs in by SASL over TLS."""
        arguments = {
            "bootstrap_servers": self.bootstrap,
            "security_protocol": "SASL_SSL",
            "ssl_cafile": str(self.authority.certificate),
            "sasl_mechanism": mechanism,
        }
        if mechanism == "OAUTHBEARER":
            return {**arguments, "sasl_oauth_token_provider": UnsignedToken(user)}
        return {**arguments, "sasl_plain_username": user, "sasl_plain_password": self.password(user)}

    def tls(self, user: str) -> dict[str, Any]:
        """Return the arguments with which a kafka-python client logs in by a certificate."""
        certificate, key = self.authority.issue(user)
        return {
            "bootstrap_servers": self.bootstrap_of("TLS"),
            "security_protocol": "SSL",
            "ssl_cafile": str(self.authority.certificate),
            "ssl_certfile": str(certificate),
            "ssl_keyfile": str(key),
        }

    @staticmethod
    def password(user: str) -> str:
        """Return the password of one of :data:`USERS`."""
        return f"{user}-secret"

    def allow(self, user: str, kind: str, name: str, *operations: str, prefix: bool = False) -> None:
        """Allow a user operations such as ``READ`` on a resource of a kind such as ``TOPIC``, and wait until it holds.

        With ``prefix``, the resources whose names begin with ``name``.
        """
        pattern = ACLResourcePatternType.PREFIXED if prefix else ACLResourcePatternType.LITERAL
        resource = ResourcePattern(ResourceType[kind], name, pattern)
        wanted = [
            ACL(f"User:{user}", "*", ACLOperation[operation], ACLPermissionType.ALLOW, resource)
            for operation in operations
        ]
        with contextlib.closing(self.admin()) as admin:
            admin.create_acls(wanted)
            _until(lambda: all(acl in admin.describe_acls(_acls_of(user))[0] for acl in wanted))

    def revoke(self, user: str) -> None:
        """Take all from a user that was allowed, and wait until it is gone."""
        with contextlib.closing(self.admin()) as admin:
            admin.delete_acls([_acls_of(user)])
            _until(lambda: not admin.describe_acls(_acls_of(user))[0])

    def settings_of(self, node: int) -> dict[str, object]:
        """Return the settings with TLS, the log-ins, and ACLs."""
        keystore = self.directory / "broker.keystore.pem"
        keystore.write_text("".join(file.read_text() for file in self.authority.issue("broker")))
        security = "org.apache.kafka.common.security"
        users = " ".join(f'user_{user}="{self.password(user)}"' for user in self.USERS)
        logins = {
            "scram-sha-512": f"{security}.scram.ScramLoginModule required;",
            "scram-sha-256": f"{security}.scram.ScramLoginModule required;",
            "plain": f"{security}.plain.PlainLoginModule required {users};",
            "oauthbearer": f"{security}.oauthbearer.OAuthBearerLoginModule required "
            'unsecuredLoginStringClaim_sub="broker";',
        }
        return {
            **super().settings_of(node),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": f"User:{self.ADMIN};User:ANONYMOUS",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": keystore,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self.authority.certificate,
            "ssl.principal.mapping.rules": "RULE:^CN=(.*)$/$1/",
            "listener.name.tls.ssl.client.auth": "required",
            "listener.name.sasl.sasl.enabled.mechanisms": ",".join(self.MECHANISMS),
            **{f"listener.name.sasl.{name}.sasl.jaas.config": login for name, login in logins.items()},
        }

    def format_options(self) -> list[str]:
        """Return the SCRAM users."""
        pairs = [(user, mechanism) for user in self.USERS for mechanism in self.MECHANISMS if "SCRAM" in mechanism]
        users = [f"{mechanism}=[name={user},password={self.password(user)}]" for user, mechanism in pairs]
        return [word for user in users for word in ("--add-scram", user)]


class Authority:
    """A certificate authority of its own, with what it issued, as PEM files in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _common_name("the tests' certificate authority")
        self.certificate = directory / "ca.pem"
        ca = x509.BasicConstraints(ca=True, path_length=0)
        self.certificate.write_bytes(self._sign(self._name, self._key.public_key(), ca))

    def issue(self, name: str, password: str | None = None) -> tuple[Path, Path]:
        """Return the files with a certificate for a name and with its key, which ``password`` encrypts."""
        key = ec.generate_private_key(ec.SECP256R1())
        encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
        addresses = [x509.IPAddress(ipaddress.ip_address(HOST)), x509.DNSName("localhost")]
        certificate_file, key_file = self._directory / f"{name}.pem", self._directory / f"{name}.key"
        certificate_file.write_bytes(
            self._sign(_common_name(name), key.public_key(), x509.SubjectAlternativeName(addresses))
        )
        key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        return certificate_file, key_file

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, extension: x509.ExtensionType) -> bytes:
        now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
        builder = x509.CertificateBuilder(self._name, subject, key, x509.random_serial_number(), now - day, now + day)
        return builder.add_extension(extension, True).sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


class UnsignedToken(AbstractTokenProvider):
    """A token that says who its bearer is; the broker believes it, as its validator for tests does."""

    def __init__(self, user: str, lifetime_s: float = 3600) -> None:
        super().__init__()
        self._user = user
        self._lifetime_s = lifetime_s

    def token(self) -> str:
        """Return a JSON Web Token without a signature."""
        now = int(time.time())
        parts = {"alg": "none"}, {"sub": self._user, "iat": now, "exp": now + self._lifetime_s}
        return ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts) + "."


class Leash:
    """Processes and a directory that do not outlive this process, however it ends.

    A watchdog waits at a pipe that closes with this process, kill −9 included, and leads the process group of all it
    guards. It then kills the group: no process id can have passed to another meanwhile. (Linux would tell a child of
    its parent's death, but of that of the *thread* that started it; and atexit hears of no kill.)
    """

    _WATCHDOG = """
import os, shutil, signal, sys, time
sys.stdin.buffer.read()
group = os.getpgrp()
if os.fork() == 0:
    os.setpgid(0, 0)
    os.killpg(group, signal.SIGKILL)
    time.sleep(0.3)
    shutil.rmtree(sys.argv[1], ignore_errors=True)
"""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        command = [sys.executable, "-I", "-S", "-c", self._WATCHDOG, str(directory)]
        self._watchdog = subprocess.Popen(command, stdin=subprocess.PIPE, process_group=0)

    def spawn(self, command: Sequence[str], log: Any) -> subprocess.Popen[bytes]:
        """Start a process that writes to ``log``."""
        group = self._watchdog.pid
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, process_group=group
        )

    def close(self) -> None:
        """Kill all, and remove the directory; whoever spawned a process waits for it."""
        if self._watchdog.returncode is None:
            os.killpg(self._watchdog.pid, signal.SIGKILL)
            self._watchdog.communicate()
        shutil.rmtree(self._directory, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens at.

    They lie below those the system gives to outgoing connections: of these, one of a client that tries to reach a
    killed broker could take the broker's port before the broker comes back.
    """
    found: set[int] = set()
    while len(found) < count:
        port = random.SystemRandom().randrange(15000, 30000)
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind((HOST, port))
            found.add(port)
    return list(found)


def _node_settings(
    node: int, controllers: Sequence[int], nodes: int, protocols: Mapping[str, str], ports: Mapping[str, int]
) -> dict[str, object]:
    """Return the settings of a node, without its directory."""
    clients = [f"{name}://{HOST}:{port}" for name, port in ports.items()]
    enough = (nodes + 2) // 2  # 1 of 1, 2 of 3
    return {
        "process.roles": "broker,controller",
        "node.id": node,
        "controller.quorum.voters": ",".join(f"{n}@{HOST}:{port}" for n, port in enumerate(controllers, 1)),
        "controller.listener.names": "CONTROLLER",
        "listeners": ",".join([*clients, f"CONTROLLER://{HOST}:{controllers[node - 1]}"]),
        "advertised.listeners": ",".join(clients),
        "listener.security.protocol.map": ",".join(
            ["CONTROLLER:PLAINTEXT", *(f"{name}:{protocol}" for name, protocol in protocols.items())]
        ),
        "inter.broker.listener.name": list(ports)[-1],
        "default.replication.factor": nodes,
        "min.insync.replicas": enough,
        "offsets.topic.replication.factor": nodes,
        "transaction.state.log.replication.factor": nodes,
        "transaction.state.log.min.isr": enough,
        **SETTINGS,
    }


def _connects(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
        return True
    return False


def _wait_for_metadata(bootstrap: str, deadline: float, nodes: Set[int] = frozenset()) -> None:
    """Wait until a broker answers, and until these nodes work and are in sync for all that they replicate.

    For Kafka waits with every write for a follower that is about to be in sync: one killed at that moment
    holds it up for half a minute.
    """
    timeout_s = max(deadline - time.monotonic(), 1)
    try:
        with contextlib.closing(
            KafkaAdminClient(bootstrap_servers=bootstrap, bootstrap_timeout_ms=int(timeout_s * 1000))
        ) as admin:
            _until(lambda: _are_in_sync(admin, nodes), timeout_s)
    except (KafkaError, TimeoutError) as error:
        raise BrokerFailed(f"no Kafka broker is ready at {bootstrap}: {error}") from error


def _are_in_sync(admin: KafkaAdminClient, nodes: Set[int]) -> bool:
    try:
        working = {broker["broker_id"] for broker in admin.describe_cluster()["brokers"] if not broker.get("is_fenced")}
        partitions = [partition for topic in admin.describe_topics() for partition in topic["partitions"]]
    except KafkaError:  # a node that does not run was asked
        return False
    return nodes <= working and all(
        partition["leader_id"] >= 0 and nodes & set(partition["replica_nodes"]) <= set(partition["isr_nodes"])
        for partition in partitions
        if nodes & set(partition["replica_nodes"])
    )


def _acls_of(user: str) -> ACLFilter:
    """Return the filter for all ACLs of a user."""
    everything = ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY)
    return ACLFilter(f"User:{user}", None, ACLOperation.ANY, ACLPermissionType.ANY, everything)


def _until(holds: Callable[[], bool], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"still not so after {timeout_s:.0f} s")
        time.sleep(0.02)
