"""What kafka-python's errors mean to us: wait, stop, or mend what is named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kafka import errors

from streamlstm.adapters.kafka.config import KafkaConfig
from streamlstm.adapters.kafka.connections import Refused
from streamlstm.errors import Fenced, LogError, LogUnavailable, OffsetExpired

# Another process has this one's identity, or took its place: nothing of this one's may be kept.
FENCED = (errors.ProducerFencedError, errors.FencedInstanceIdError)
# The group went on without this member, or the transaction was ended from outside: nothing was kept, begin anew.
LOST = (
    errors.CommitFailedError,
    errors.IllegalGenerationError,
    errors.UnknownMemberIdError,
    errors.RebalanceInProgressError,
    errors.TransactionAbortedError,
    errors.TransactionAbortableError,
    errors.InvalidProducerEpochError,
    errors.InvalidTxnStateError,
    errors.InvalidProducerIdMappingError,
    errors.OutOfOrderSequenceNumberError,
    errors.UnknownProducerIdError,
)
# A connection that failed may be behind these.
CONNECTING = (
    Refused,
    errors.KafkaConnectionError,
    errors.KafkaTimeoutError,
    errors.NodeNotReadyError,
    errors.RequestTimedOutError,
    errors.SaslAuthenticationFailedError,
)
RECENT_S = 40.0  # a client tries a broker again after 30 s at the latest; what failed before that is over


class Denied(LogError):
    """A permission is missing; the message names it."""


@dataclass(frozen=True)
class Access:
    """What a call does, so that a missing permission can be named: an operation on a topic, and with what.

    Other topics that an error names are being written to.
    """

    topic: str = ""
    operation: str = "Read"
    group: str = ""
    transactional_id: str = ""


@contextmanager
def translated(config: KafkaConfig, doing: str, access: Access = Access()) -> Iterator[None]:
    """Raise our errors for kafka-python's; ``doing`` says what was tried."""
    start_s = config.failures.clock()
    try:
        yield
    except errors.KafkaError as error:
        root, what = cause_of(error), f"{config.url}: could not {doing}"
        raise _connecting(config, root, what, start_s) or _meaning(config, root, what, access) from error
    except (OSError, ValueError, AssertionError) as error:  # a record for no partition
        raise LogError(f"{config.url}: could not {doing}: {error}") from error


def denied(config: KafkaConfig, operation: str, resource: str) -> Denied:
    """Return the error of a missing permission."""
    return Denied(f"{config.url}: {_lacks(config, operation, resource)}")


def _lacks(config: KafkaConfig, operation: str, resource: str) -> str:
    also = ", which Read and Write include" if operation == "Describe" else ""
    return f"{config.principal} lacks the permission (ACL) {operation} on {resource}{also}"


def cause_of(error: BaseException) -> BaseException:
    """Return the error that made a transaction fail; kafka-python wraps it, or only writes down which it was."""
    inner = [argument for argument in error.args if isinstance(argument, errors.KafkaError)]
    if inner:
        return cause_of(inner[0])
    written = re.search(r"^Unexpected error in \w+: \[Error (\d+)\]", str(error.args[0]) if error.args else "")
    return errors.for_code(int(written[1]))() if written else error


def _connecting(config: KafkaConfig, error: BaseException, what: str, start_s: float) -> LogError | None:
    """Return what is wrong with connections, if that is why a call failed."""
    if not isinstance(error, CONNECTING):
        return None
    failures = config.failures.since(start_s - RECENT_S)
    if not failures:
        return None
    final = [failure for failure in failures if failure.final]
    reasons = [
        failure.reason if config.servers == (failure.server,) else f"{failure.server}: {failure.reason}"
        for failure in final or failures
    ]
    return (LogError if final else LogUnavailable)(f"{what}: {'; '.join(reasons)}")


def _meaning(config: KafkaConfig, error: BaseException, what: str, access: Access) -> LogError:
    text = f"{what}: {type(error).__name__.removesuffix('Error')}: {error}"
    if isinstance(error, FENCED):
        return Fenced(f"{text}. Another process runs as this --instance, or did so while this one was stopped")
    if isinstance(error, errors.OffsetOutOfRangeError):
        return OffsetExpired(
            f"{what}: a position of topic {access.topic!r} was removed by retention while it was being read ({error}): "
            "records are lost. Give the topic a longer retention, and continue under a new --group"
        )
    if isinstance(error, errors.AuthorizationError):
        return Denied(f"{what}: {_permission(config, error, access) or error}")
    if isinstance(error, errors.InvalidSessionTimeoutError):
        return LogError(
            f"{text}. Set session_timeout_ms between the broker's group.min.session.timeout.ms and "
            "group.max.session.timeout.ms"
        )
    if isinstance(error, errors.MessageSizeTooLargeError):
        return LogError(f"{text}. Raise max.message.bytes of the topic written to; `streamlstm topics` says which")
    if isinstance(error, (*LOST, errors.RetriableError, errors.UnknownBrokerIdError)):  # the last: no leader just now
        return LogUnavailable(text)
    return LogError(text)


def _permission(config: KafkaConfig, error: errors.AuthorizationError, access: Access) -> str:
    """Return which permission is missing; empty where that cannot be known."""
    if isinstance(error, errors.TopicAuthorizationFailedError):
        given = error.args[0] if error.args else ()  # names, one name, or an admin client's whole answer
        names = [given] if isinstance(given, str) else given
        topics = sorted(name for name in names if isinstance(name, str) and " " not in name) or [access.topic]
        return "; ".join(
            _lacks(config, access.operation if topic == access.topic else "Write", f"topic {topic!r}")
            for topic in topics
        )
    if isinstance(error, errors.GroupAuthorizationFailedError):
        return _lacks(config, "Read", f"group {access.group or str(error.args[0])!r}")
    if isinstance(error, errors.TransactionalIdAuthorizationFailedError):
        return _lacks(config, "Write", f"transactional id {access.transactional_id!r}")
    if isinstance(error, errors.ClusterAuthorizationFailedError):
        if access.operation == "Write":
            also = ", and with a broker before 2.8, IdempotentWrite on the cluster"
            return _lacks(config, "Write", f"topic {access.topic!r}{also}")
        return _lacks(config, access.operation, "the cluster")
    return ""
