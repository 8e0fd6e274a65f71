"""Elementary functions with the same bits on every machine.

``exp``, ``log`` and ``sin`` of a C library differ in the last bit between libraries and CPU
generations. These use only +, −, ×, ÷ and bit patterns, which IEEE 754 fixes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamlstm.core.compiled import compiled

_F = np.float32
_I = np.int32


@compiled
def copy(target: NDArray[np.float32], source: NDArray[np.float32]) -> None:
    """Copy ``source`` (n,) to the first n of ``target``; they must not overlap (assigning to a slice tests for it)."""
    for i in range(source.shape[0]):
        target[i] = source[i]


@compiled
def exp32(x: np.float32) -> np.float32:
    """Return e to the x, float32, for x clipped to ±87; relative error below 2e-7.

    Source: Cephes ``expf`` (Moshier 1989): x = n ln 2 + r, polynomial of degree 7 in r.
    """
    x = min(max(x, _F(-87.0)), _F(87.0))
    n = np.floor(x * _F(1.44269504088896341) + _F(0.5))
    r = x - n * _F(0.693359375)
    r = r - n * _F(-2.12194440e-4)
    p = _F(1.9875691500e-4)
    p = p * r + _F(1.3981999507e-3)
    p = p * r + _F(8.3334519073e-3)
    p = p * r + _F(4.1665795894e-2)
    p = p * r + _F(1.6666665459e-1)
    p = p * r + _F(5.0000001201e-1)
    power = _I((_I(n) + _I(127)) << _I(23)).view(np.float32)
    return _F((p * r * r + r + _F(1.0)) * power)


@compiled
def sigmoid32(x: np.float32) -> np.float32:
    """Return 1 / (1 + e^−x)."""
    return _F(1.0) / (_F(1.0) + exp32(-x))


@compiled
def tanh32(x: np.float32) -> np.float32:
    """Return the hyperbolic tangent; absolute error below 3e-7 (cancellation near 0)."""
    return _F(1.0) - _F(2.0) / (exp32(_F(2.0) * x) + _F(1.0))


@compiled
def log32(x: np.float32) -> np.float32:
    """Return the natural logarithm of a positive, normal float32; relative error below 3e-7.

    Source: x = 2^k · m with m in [√½, √2), log m = 2 atanh((m−1)/(m+1)) as its series to the
    eleventh power, whose remainder is below 2^-27 there.
    """
    bits = _F(x).view(np.int32)
    k = ((bits - _I(0x3F3504F3)) >> _I(23)) + _I(0)
    m = _I(bits - _I(k << _I(23))).view(np.float32)
    s = (m - _F(1.0)) / (m + _F(1.0))
    z = s * s
    p = _F(2.0 / 11.0)
    p = p * z + _F(2.0 / 9.0)
    p = p * z + _F(2.0 / 7.0)
    p = p * z + _F(2.0 / 5.0)
    p = p * z + _F(2.0 / 3.0)
    p = p * z + _F(2.0)
    return _F(k) * _F(0.693359375) + (_F(k) * _F(-2.12194440e-4) + p * s)


@compiled
def softplus32(x: np.float32) -> np.float32:
    """Return log(1 + e^x), as max(x, 0) + log(1 + e^−|x|)."""
    return max(x, _F(0.0)) + log32(_F(1.0) + exp32(-abs(x)))


@compiled
def sine_of_turn32(turn: np.float32) -> np.float32:
    """Return sin(2π·turn) for a turn in [0, 1.25); absolute error below 1e-6.

    Source: Taylor series to the eleventh power after folding into a quarter turn.
    """
    if turn >= _F(1.0):
        turn -= _F(1.0)
    if turn > _F(0.75):
        turn -= _F(1.0)
    elif turn > _F(0.25):
        turn = _F(0.5) - turn
    a = turn * _F(6.283185307179586)
    z = a * a
    p = _F(-1.0 / 39916800.0)
    p = p * z + _F(1.0 / 362880.0)
    p = p * z + _F(-1.0 / 5040.0)
    p = p * z + _F(1.0 / 120.0)
    p = p * z + _F(-1.0 / 6.0)
    p = p * z + _F(1.0)
    return a * p
