"""The compiled normal numbers: words of the published generator, the distribution, and that rows stand alone."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from hwsim.execute.analog.normals import normal_rows, random_words

ROWS, WIDTH = 250, 1024


def drawn(key: int, first: int = 0, rows: int = ROWS, width: int = WIDTH, kind: str = "float64") -> np.ndarray:
    out = np.empty((rows, width), kind)
    normal_rows(key, first, out)
    return out


def test_words_of_splitmix() -> None:
    """The first outputs of SplitMix64 from state 0, as its authors' program prints them."""
    words = np.empty(2, np.uint64)
    random_words(0, 0, words)
    assert [int(word) for word in words] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def test_distribution() -> None:
    """Kolmogorov and Smirnov's distance (level 1e-4), four moments (|z| < 4.9), and neighbours without correlation."""
    z = drawn(11)
    n = z.size
    ordered = np.sort(z.reshape(-1))[::16]
    expected = np.array([NormalDist().cdf(value) for value in ordered])
    assert np.abs(expected - (np.arange(n)[::16] + 0.5) / n).max() * math.sqrt(n) < 2.23
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - mean) / math.sqrt(variance / n) < 4.9
    for a, b in ((z[:, :-1], z[:, 1:]), (z[:-1], z[1:]), (z[:, :512], z[:, 512:])):
        assert abs((a * b).mean()) * math.sqrt(a.size) < 4.9
    assert np.abs(z).max() > 4


def test_rows_stand_alone() -> None:
    """Row i is that of the counter: however many are drawn at once."""
    whole = drawn(3, 5, 7, 777)
    assert np.array_equal(whole[4:6], drawn(3, 9, 2, 777))
    assert np.array_equal(whole.astype(np.float32), drawn(3, 5, 7, 777, "float32"))
    assert not np.array_equal(whole, drawn(4, 5, 7, 777))
    assert np.unique(drawn(3, 0, 4, 5)).size == 20
