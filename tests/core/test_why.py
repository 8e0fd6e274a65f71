"""What people read of an alert's channels."""

from __future__ import annotations

import pytest

from streamlstm.core.channels import NAMES
from streamlstm.core.record import AlertRecord, FeatureEvidence
from streamlstm.core.why import WORDS, why
from tests.alerts import make_alert


def alert_of(score: float = 5.0, **channels: float) -> AlertRecord:
    """Return an alert whose other channels tell nothing."""
    return make_alert(score=score, channels={**dict.fromkeys(NAMES[:-1], 0.3), NAMES[-1]: 0.0, **channels})


def test_every_channel_has_words() -> None:
    """A new channel needs its line."""
    assert set(WORDS) == set(NAMES)


@pytest.mark.parametrize("channel", NAMES[:-1])
def test_channel_with_the_most_decades_leads(channel: str) -> None:
    """Of those whose mean is the score."""
    assert why(alert_of(**{channel: 6.0})) == WORDS[channel]


def test_stillness_leads_from_half_of_the_score_on_and_says_which_value() -> None:
    """It is added whole, the others count by their weights: their decades alone are no comparison."""
    features = [FeatureEvidence(name, "", share, 1.0, 1.0, 0.0, 2.0) for name, share in (("flow", 0.4), ("heat", 0.6))]
    still = make_alert(score=4.0, channels={"novelty": 3.0, "stillness": 2.0}, features=features)
    assert why(still) == "stiller than ever seen: heat"
    assert why(alert_of(5.0, novelty=3.5, stillness=2.4)) == "a pattern never seen before"


def test_record_that_does_not_say_has_no_words() -> None:
    """An end is about a calm event, and a start anew about none."""
    assert why(make_alert(channels={})) is None
    assert why(make_alert(action="resolved")) is None
    assert why(make_alert(channels={"seventh_sense": 3.0})) == "seventh sense"
