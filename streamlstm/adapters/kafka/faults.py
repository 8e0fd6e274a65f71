"""What kafka-python's errors mean to us: wait, stop, or mend what is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kafka import errors

from streamlstm.adapters.kafka.config import KafkaConfig
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


@contextmanager
def translated(config: KafkaConfig, doing: str, topic: str = "") -> Iterator[None]:
    """Raise our errors for kafka-python's; ``doing`` says what was tried."""
    try:
        yield
    except errors.KafkaError as error:
        raise _meaning(_root(error), f"kafka://{','.join(config.servers)}: could not {doing}", topic) from error
    except (OSError, ValueError, AssertionError) as error:  # certificate files, a record for no partition
        raise LogError(f"kafka://{','.join(config.servers)}: could not {doing}: {error}") from error


def _root(error: BaseException) -> BaseException:
    """Return the error that made a transaction fail; kafka-python wraps it."""
    inner = [argument for argument in error.args if isinstance(argument, errors.KafkaError)]
    return _root(inner[0]) if inner else error


def _meaning(error: BaseException, what: str, topic: str) -> LogError:
    text = f"{what}: {type(error).__name__.removesuffix('Error')}: {error}"
    if isinstance(error, FENCED):
        return Fenced(f"{text}. Another process runs as this --instance, or did so while this one was stopped")
    if isinstance(error, errors.OffsetOutOfRangeError):
        return OffsetExpired(
            f"{what}: a position of topic {topic!r} was removed by retention while it was being read ({error}): "
            "records are lost. Give the topic a longer retention, and continue under a new --group"
        )
    if isinstance(error, errors.AuthorizationError):
        return LogError(f"{text}. The user lacks a permission (ACL) on what is named here")
    if isinstance(error, errors.SaslAuthenticationFailedError):
        return LogError(f"{text}. Check user, password and mechanism in --log-config")
    if isinstance(error, errors.MessageSizeTooLargeError):
        return LogError(f"{text}. Raise max.message.bytes of the topic written to; `streamlstm topics` says which")
    if isinstance(error, (*LOST, errors.RetriableError)):
        return LogUnavailable(text)
    return LogError(text)
