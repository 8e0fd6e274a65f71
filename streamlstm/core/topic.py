"""Names of the topics that belong to an input topic."""


def scores_topic(topic: str) -> str:
    """Return the topic of score records."""
    return f"{topic}.scores"


def alerts_topic(topic: str) -> str:
    """Return the topic of alert records."""
    return f"{topic}.alerts"


def feedback_topic(topic: str) -> str:
    """Return the topic of what people say about alerts and keys."""
    return f"{topic}.feedback"


DEAD_LETTERS = ".dead-letters"


def dead_letters_topic(topic: str) -> str:
    """Return the topic of records that could not be scored, as they were."""
    return topic + DEAD_LETTERS
