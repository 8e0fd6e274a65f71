"""Find the natural period of a signal, in events."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import find_peaks

from streamlstm.training.history import History

DEFAULT_PERIOD = 16  # events, where the signal has none
MAX_PERIOD = 512  # events: the longest that is looked for
MIN_CORRELATION = 0.15  # a peak of the autocorrelation below it is taken as noise
MAX_EVENTS = 1 << 16  # of the longest key; enough for hundreds of the longest periods
STRONG_SHARE = 0.6  # the first peak at least this high, relative to the highest, is the period


def natural_period(history: History, channels: int, frame_samples: int) -> tuple[int, bool]:
    """Return the period in events, and whether the signal has one.

    Source: first prominent peak of the autocorrelation (Wiener-Khinchin) of the longest key's
    training part, averaged over channels. Of a frame its log deviation is taken: how much happens in
    it. (Measured: it finds the beat in MIT-BIH 100, 106, 116 and 119, where the samples' own
    autocorrelation finds none or several beats.)
    """
    lengths = history.held_out - history.starts[:-1]
    longest = int(np.argmax(lengths))
    start, end = int(history.starts[longest]), int(history.held_out[longest])
    events = history.values[start:end].reshape(-1, channels, frame_samples)[-MAX_EVENTS:]
    series = events[:, :, 0] if frame_samples == 1 else _activity(events)
    correlation = np.mean([_autocorrelation(channel) for channel in series.T], axis=0)
    longest_lag = min(len(correlation) // 4, MAX_PERIOD)
    peaks, _ = find_peaks(correlation[:longest_lag], height=MIN_CORRELATION, prominence=MIN_CORRELATION / 2)
    if len(peaks) == 0:
        return DEFAULT_PERIOD, False
    strong = peaks[correlation[peaks] >= STRONG_SHARE * correlation[peaks].max()]
    return int(strong[0]), True


def _activity(events: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log deviation within each frame, (events, channels), NaN where nothing was measured."""
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation = events.std(axis=2)
    usual = [np.nanmedian(channel) if np.isfinite(channel).any() else 1.0 for channel in deviation.T]
    activity: NDArray[np.float64] = np.log(deviation + 0.1 * np.array(usual) + 1e-12)
    return activity


def _autocorrelation(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the autocorrelation of one channel at lags 0, 1, …; zeros if it never varies."""
    centred = np.nan_to_num(samples - np.nanmean(samples)) if np.isfinite(samples).any() else np.zeros_like(samples)
    size = 1 << (2 * len(centred) - 1).bit_length()
    power = np.abs(np.fft.rfft(centred, size)) ** 2
    covariance = np.fft.irfft(power, size)[: len(centred)]
    return covariance / covariance[0] if covariance[0] > 0 else np.zeros_like(covariance)
