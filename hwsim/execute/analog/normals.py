"""Standard normal numbers at the rate of the products: counted random words, then Box and Muller's pairs, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

GOLDEN, FIRST, SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
ONE_BITS, FRACTION_BITS, EXPONENT_ONE = np.uint64(0x3FF0000000000000), np.uint64(12), np.int64(1023)
MANTISSA = np.int64(2**52 - 1)
LOG_2, ROOT_2, HALF_TURN = 0.6931471805599453, 1.4142135623730951, 3.141592653589793
PAIRS = 512
"""Most pairs at once: what lies between them stays in the first cache."""


@njit(cache=True, nogil=True)
def random_words(key: int, counter: int, out: Any) -> None:
    """64 random bits for each number of a counter, by the finalizer of SplitMix64."""
    for i in range(out.size):
        z = np.uint64(key) + (np.uint64(counter) + np.uint64(i + 1)) * GOLDEN
        z = (z ^ (z >> np.uint64(30))) * FIRST
        z = (z ^ (z >> np.uint64(27))) * SECOND
        out[i] = z ^ (z >> np.uint64(31))


@njit(cache=True, nogil=True)
def radii(words: Any, room: Any, out: Any) -> None:
    """sqrt(-2 ln u) of u in (0, 1] from the upper 52 bits of words: u = m 2^e, ln m by the series of atanh."""
    bits = room.view(np.int64)
    for i in range(out.size):
        words[i] = ONE_BITS | (words[i] >> FRACTION_BITS)
    ones = words.view(np.float64)
    for i in range(out.size):
        room[i] = 2.0 - ones[i]
    for i in range(out.size):
        exponent = float((bits[i] >> np.int64(52)) - EXPONENT_ONE)
        bits[i] = (bits[i] & MANTISSA) | np.int64(ONE_BITS)
        out[i] = exponent
    for i in range(out.size):
        mantissa = room[i]
        s = (mantissa - ROOT_2) / (mantissa + ROOT_2)
        t = s * s
        series = 1.0 + t * (1 / 3 + t * (1 / 5 + t * (1 / 7 + t * (1 / 9 + t * (1 / 11)))))
        logarithm = (out[i] + 0.5) * LOG_2 + 2.0 * s * series
        out[i] = np.sqrt(max(-2.0 * logarithm, 0.0))


@njit(cache=True, nogil=True)
def turned(words: Any, radius: Any, even: Any, odd: Any) -> None:
    """radius cos(2 a) and radius sin(2 a), a uniform in -pi / 2 to pi / 2 from the upper 52 bits of words."""
    for i in range(radius.size):
        words[i] = ONE_BITS | (words[i] >> FRACTION_BITS)
    ones = words.view(np.float64)
    for i in range(radius.size):
        a = HALF_TURN * (ones[i] - 1.5)
        t = a * a
        sine = a * (1 - t / 6 * (1 - t / 20 * (1 - t / 42 * (1 - t / 72 * (1 - t / 110 * (1 - t / 156))))))
        cosine = 1 - t / 2 * (1 - t / 12 * (1 - t / 30 * (1 - t / 56 * (1 - t / 90 * (1 - t / 132 * (1 - t / 182))))))
        even[i] = radius[i] * (cosine * cosine - sine * sine)
        odd[i] = radius[i] * 2.0 * sine * cosine


@njit(cache=True, nogil=True)
def normal_rows(key: int, first: int, out: Any) -> None:
    """Standard normal numbers out (rows, width) of any floating type; row i depends on `key` and `first` + i alone."""
    rows, width = out.shape
    pairs = min(PAIRS, (width + 1) // 2)
    words, more, room, radius = np.empty(pairs, np.uint64), np.empty(pairs, np.uint64), np.empty(pairs), np.empty(pairs)
    even, odd = np.empty(pairs), np.empty(pairs)
    blocks = (width + 2 * pairs - 1) // (2 * pairs)
    for row in range(rows):
        for block in range(blocks):
            counter = ((first + row) * blocks + block) * 2 * pairs
            random_words(key, counter, words)
            random_words(key, counter + pairs, more)
            radii(words, room, radius)
            turned(more, radius, even, odd)
            at = block * 2 * pairs
            count = min(pairs, width - at)
            for i in range(count):
                out[row, at + i] = even[i]
            for i in range(min(pairs, width - at - count)):
                out[row, at + pairs + i] = odd[i]
