"""NAB's score on examples worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from streamlstm.evaluation.nab_score import (
    PROFILES,
    File,
    Profile,
    alarms_in,
    alarms_of,
    optimise,
    optimise_alarms,
    probation_rows,
    row_worth,
    scaled_sigmoid,
    score_detections,
)

STANDARD = PROFILES["standard"]
ROWS = 100  # 15 of them probation
WINDOW = (50, 59)


def detections(*rows: int, total: int = ROWS) -> np.ndarray:
    """Return flags that are set at some rows."""
    flags = np.zeros(total, dtype=bool)
    flags[list(rows)] = True
    return flags


def sigmoid(x: float) -> float:
    """Return the logistic function."""
    return 1 / (1 + math.exp(-x))


def test_scaled_sigmoid_has_the_published_values() -> None:
    """The paper's figure, and its end three windows on."""
    assert scaled_sigmoid(-1.0) == pytest.approx(0.98661, abs=1e-5)
    assert scaled_sigmoid(-0.5) == pytest.approx(0.84828, abs=1e-5)
    assert scaled_sigmoid(0.0) == 0.0
    assert scaled_sigmoid(1.0) == pytest.approx(-0.98661, abs=1e-5)
    assert scaled_sigmoid(2.999) > -1.0
    assert scaled_sigmoid(3.0) == -1.0


def test_probation_is_a_share_with_a_cap() -> None:
    """15 %, 750 rows at most."""
    assert [probation_rows(rows) for rows in (100, 1127, 5000, 20000)] == [15, 169, 750, 750]


def test_worth_of_rows_by_hand() -> None:
    """Before, in, right behind and far behind a window of ten rows."""
    worth = row_worth(ROWS, [WINDOW], STANDARD)
    most = 2 * sigmoid(5) - 1
    assert worth[49] == -0.11
    assert worth[50] == pytest.approx(1.0)
    assert worth[54] == pytest.approx((2 * sigmoid(3) - 1) / most)  # six of ten rows are left, this one too
    assert worth[59] == pytest.approx((2 * sigmoid(0.5) - 1) / most)
    assert worth[60] == pytest.approx(0.11 * (2 * sigmoid(-5 / 9) - 1))
    assert worth[86] == -0.11  # 27 rows behind, three times 9


def test_nothing_detected_is_0_and_everything_at_once_100() -> None:
    """The two ends of the scale, for each profile."""
    for profile in PROFILES.values():
        assert score_detections([(detections(), [WINDOW])], profile) == 0.0
        assert score_detections([(detections(50), [WINDOW])], profile) == pytest.approx(100.0)


def test_only_the_first_detection_in_a_window_counts() -> None:
    """More of them neither help nor harm."""
    assert score_detections([(detections(50, 51, 58), [WINDOW])], STANDARD) == pytest.approx(100.0)


def test_false_alarms_by_hand() -> None:
    """One far from any window, one right behind: −.11 and nearly nothing, of two windows in two files."""
    files = [(detections(30, 50), [WINDOW]), (detections(60), [WINDOW])]
    behind = 0.11 * (2 * sigmoid(-5 / 9) - 1)
    raw = -0.11 + 1.0 + behind - 1.0
    assert score_detections(files, STANDARD) == pytest.approx(100 * (raw + 2) / 4)
    low_fp = PROFILES["reward_low_FP"]
    assert score_detections(files, low_fp) == pytest.approx(100 * (2 * -0.11 + 2 * behind + 2) / 4)
    low_fn = PROFILES["reward_low_FN"]
    assert score_detections(files, low_fn) == pytest.approx(100 * (-0.11 + 1 + behind - 2 + 4) / 6)


def test_probation_does_not_count() -> None:
    """Neither a false alarm there, nor the part of a window that lies in it."""
    assert score_detections([(detections(3, 14), [WINDOW])], STANDARD) == 0.0
    assert score_detections([(detections(12), [(10, 29)])], STANDARD) == 0.0
    late = score_detections([(detections(12, 15), [(10, 29)])], STANDARD)
    assert late == score_detections([(detections(15), [(10, 29)])], STANDARD) > 50


def test_false_alarm_is_judged_by_the_window_before_it() -> None:
    """Not by the one that follows."""
    worth = row_worth(ROWS, [(20, 29), (60, 69)], STANDARD)
    assert worth[30] == pytest.approx(0.11 * scaled_sigmoid(1 / 9))
    assert worth[59] == -0.11
    assert worth[70] == pytest.approx(0.11 * scaled_sigmoid(1 / 9))


def random_files(seed: int) -> list[File]:
    """Return scores on a coarse grid, so that many are equal, with holes."""
    rng = np.random.default_rng(seed)
    files = []
    for _ in range(3):
        score = rng.integers(0, 30, 120).astype(float)
        score[rng.random(120) < 0.1] = np.nan
        files.append(File(score, [(20, 35), (70, 90)]))
    return files


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_optimum_is_the_best_of_all_thresholds(profile: Profile) -> None:
    """As found by trying each one."""
    files = random_files(1)
    by_threshold = {
        threshold: score_detections([(file.score >= threshold, file.windows) for file in files], profile)
        for threshold in [*range(30), math.inf]
    }
    found = optimise(files, profile)
    assert found.score == pytest.approx(max(by_threshold.values()))
    assert by_threshold[found.threshold] == pytest.approx(found.score)


def test_silence_is_the_optimum_of_useless_scores() -> None:
    """A detector that only hurts is best never listened to: 0."""
    score = np.ones(ROWS)
    score[50:60] = 0
    assert optimise([File(score, [WINDOW])], PROFILES["reward_low_FP"]).score == 0.0


def test_alarm_is_followed_by_a_refractory_span() -> None:
    """The next one comes when it is over, if the score still is high."""
    score = np.array([0, 1, 1, 1, 1, 0, np.nan, 1.0])
    assert np.flatnonzero(alarms_of(score, 1.0, 3)).tolist() == [1, 4, 7]


def test_alarms_start_after_probation() -> None:
    """A high score just before its end does not silence the rows behind it."""
    score = np.zeros(ROWS)
    score[14:17] = 1.0
    assert np.flatnonzero(alarms_in(File(score, []), 0.5)).tolist() == [15]


def test_refractory_span_spares_false_alarms() -> None:
    """A long false plateau is 1 alarm in 3 rows instead of 3."""
    score = np.zeros(ROWS)
    score[30:33], score[50] = 2.0, 2.0
    file = File(score, [WINDOW])
    assert optimise([file], STANDARD).score == pytest.approx(100 * (1 + 1 - 0.33) / 2)
    assert optimise_alarms([file], STANDARD).score == pytest.approx(100 * (1 + 1 - 0.11) / 2)
