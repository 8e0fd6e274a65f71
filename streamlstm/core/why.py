"""Why an alert fires, in words: the channel that leads its score."""

from __future__ import annotations

from streamlstm.core.channels import forecast_error, level, novelty, record, smoothed_error, stillness
from streamlstm.core.record import AlertRecord

WORDS = {
    forecast_error.NAME: "far from the forecast",
    smoothed_error.NAME: "off the forecast for a while",
    novelty.NAME: "a pattern never seen before",
    level.NAME: "far from its usual level for a while",
    record.NAME: "outside the range seen so far",
    stillness.NAME: "stiller than ever seen",
}


def why(alert: AlertRecord) -> str | None:
    """Return what leads the score of an alert's event; None if the record does not say, or is about a calm event.

    Stillness leads if it makes half of the score, to which it is added whole; else, of those whose mean is the rest,
    the one with the most decades. What is still has a name: the feature with the largest share, which is then the
    stillest one's.
    """
    if not alert.channels or alert.action == "resolved":
        return None
    still = alert.channels.get(stillness.NAME, 0.0)
    if still > 0 and 2 * still >= (alert.score or 0.0):
        stillest = max(alert.features, key=lambda feature: feature.share, default=None)
        return f"{WORDS[stillness.NAME]}: {stillest.name}" if stillest else WORDS[stillness.NAME]
    averaged = {name: decades for name, decades in alert.channels.items() if name != stillness.NAME}
    leading = max(averaged, key=averaged.__getitem__, default=stillness.NAME)
    return WORDS.get(leading, leading.replace("_", " "))
