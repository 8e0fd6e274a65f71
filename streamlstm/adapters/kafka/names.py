"""What the topics and groups of a scorer are called in Kafka."""

from __future__ import annotations

import re
from dataclasses import dataclass

from streamlstm.core.topic import alerts_topic, dead_letters_topic, scores_topic


def group_id(topic: str, group: str) -> str:
    """Return the consumer group's id in Kafka; no topic name holds an ``@``, so two groups never share one."""
    return f"{group}@{topic}"


def changelog_topic(topic: str, group: str) -> str:
    """Return the topic of a group's states. What a topic's name may not hold is written ``_xx``, in hexadecimal."""
    safe = re.sub(r"[^A-Za-z0-9-]", lambda found: "".join(f"_{byte:02x}" for byte in found[0].encode()), group)
    return f"{topic}.states.{safe}"


@dataclass(frozen=True)
class Names:
    """What a session is about, as Kafka knows it."""

    topic: str
    group: str
    changelog: str
    partitions: int

    @property
    def outputs(self) -> tuple[str, ...]:
        """The topics that transactions write to."""
        return (*(output(self.topic) for output in (scores_topic, alerts_topic, dead_letters_topic)), self.changelog)
