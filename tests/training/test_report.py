"""The training report: one page that needs nothing else, and shows what it is given as text."""

from __future__ import annotations

import functools
import re

import pytest

from streamlstm.core.schema import StreamSchema
from streamlstm.training.report import report_html
from streamlstm.training.train import Options, train
from tests.builders import RICH, changed, make_feed, make_history, make_rich_feed, rich, trained

EVIL = "<script>alert(1)</script>"


@functools.cache
def page() -> str:
    """Return the report of the small model."""
    return report_html(trained())


@functools.cache
def evil_page() -> str:
    """Return the report of a stream whose feature, unit and keys are markup."""
    schema = StreamSchema.from_toml(
        f'key = "sensor"\ntimestamp_unit = "ms"\n[features."{EVIL}"]\nunit = "{EVIL}"\n'
        f"[features.mode]\nkind = 'categorical'\noptional = true"
    )
    feed = [changed(r, sensor=EVIL, **{EVIL: float(i % 9)}) for i, r in enumerate(make_feed(250, ("a",)))]
    return report_html(train(make_history(feed, schema), schema, Options(hidden=4, updates=2, lanes=2, period=9)))


def test_report_is_one_page_with_three_figures() -> None:
    """Loss, forecast against actual, and scores; plotly's code is in the page, once."""
    assert page().startswith("<!doctype html>")
    assert page().rstrip().endswith("</html>")
    assert page().count('class="plotly-graph-div"') == 3
    assert page().count("Plotly.newPlot(") >= 3
    assert len(re.findall(r"plotly\.js v\d", page())) == 1


@pytest.mark.parametrize("pattern", [r"<(script|img|iframe)[^>]*\ssrc\s*=", r"<link\b", r"@import\s+(url|[\"'])"])
def test_report_loads_nothing_from_elsewhere(pattern: str) -> None:
    """It is read years later, on a machine without a network."""
    outside_code = re.sub(r"<script[^>]*>.*?</script>", "", page(), flags=re.DOTALL)
    assert not re.search(pattern, outside_code)
    assert not re.search(r"""src\s*=\s*["']https?:""", page())
    assert "cdn.plot.ly" not in re.sub(r"/\*\*.*?\*/", "", outside_code)


def test_report_names_model_data_and_choices() -> None:
    """What a person asks first stands in the table."""
    bundle = trained().bundle
    for text in (
        f"<title>streamlstm model {bundle.name}</title>",
        "4,500 events of 3 keys, 2020-09-13",
        "1,125 events, the latest of each key",
        "flow [l/min], pressure [bar]",
        f"{bundle.calibration.period} events (found in the data)",
        f"{bundle.calibration.warmup_events} events per key before its first score",
        "training ran to its end",
        "scaled alike for all keys",
    ):
        assert text in page()


def test_report_of_a_rich_stream_names_every_input() -> None:
    """Mask, gap, calendar, categories and scales per key are told."""
    found = report_html(rich())
    for text in ("mask of missing values", "gap since the last event", "hour and weekday", "category mode", "(2 keys)"):
        assert text in found
    coverage = re.search(r"The band held ([\d.]+)%", found)
    assert coverage
    assert float(coverage[1]) == pytest.approx(99, abs=1.2)


def test_report_of_a_feature_that_fell_silent_is_drawn_all_the_same() -> None:
    """Nothing measured in the events shown: an empty panel, and no warning."""
    feed = make_rich_feed(250)
    feed[300:] = [changed(record, speed=None) for record in feed[300:]]
    options = Options(hidden=4, updates=2, lanes=2, horizon=2)
    assert "speed" in report_html(train(make_history(feed, RICH), RICH, options))


def test_report_escapes_names_that_are_markup() -> None:
    """A feature called <script> is shown, in the table and in the figures, and never run."""
    assert EVIL not in evil_page()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in evil_page()
    assert "\\u003cscript\\u003ealert(1)" in evil_page()


def test_report_says_where_the_period_came_from() -> None:
    """Found, given, or a default for want of one."""
    assert "9 events (as given)" in evil_page()
    assert "16 events (none of 512 events or fewer found, a default)" in report_html(rich())
