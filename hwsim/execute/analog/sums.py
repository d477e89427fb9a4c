"""Compiled sums over the rows of tiles: the bulk of the work.

One row of inputs is summed in the same order whatever rows are computed with it, so that pieces of an utterance give
the sums of the whole. Single-threaded, without the interpreter's lock.
"""

from __future__ import annotations

from typing import Any

from numba import njit

BLOCK = 1024
"""Columns whose sums stay in the first caches while rows of weights pass by."""


@njit(cache=True, nogil=True, fastmath={"contract"})
def add_rows_of_one(x: Any, w: Any, k: int, start: int, stop: int, out: Any) -> None:
    """out += x[k : k + 8] @ w[k : k + 8, start:stop], one row after the other."""
    a, b, c, d = w[k, start:stop], w[k + 1, start:stop], w[k + 2, start:stop], w[k + 3, start:stop]
    e, f, g, h = w[k + 4, start:stop], w[k + 5, start:stop], w[k + 6, start:stop], w[k + 7, start:stop]
    xa, xb, xc, xd, xe, xf, xg, xh = x[k], x[k + 1], x[k + 2], x[k + 3], x[k + 4], x[k + 5], x[k + 6], x[k + 7]
    real = x.dtype.type
    for n in range(out.size):
        out[n] = (out[n] + xa * real(a[n]) + xb * real(b[n]) + xc * real(c[n]) + xd * real(d[n])
                  + xe * real(e[n]) + xf * real(f[n]) + xg * real(g[n]) + xh * real(h[n]))  # fmt: skip


@njit(cache=True, nogil=True, fastmath={"contract"})
def add_rows_of_two(x: Any, w: Any, k: int, start: int, stop: int, out: Any, m: int) -> None:
    """The same of four rows of weights for the inputs m and m + 1."""
    a, b, c, d = w[k, start:stop], w[k + 1, start:stop], w[k + 2, start:stop], w[k + 3, start:stop]
    p, q = out[m, start:stop], out[m + 1, start:stop]
    pa, pb, pc, pd = x[m, k], x[m, k + 1], x[m, k + 2], x[m, k + 3]
    qa, qb, qc, qd = x[m + 1, k], x[m + 1, k + 1], x[m + 1, k + 2], x[m + 1, k + 3]
    real = x.dtype.type
    for n in range(p.size):
        va, vb, vc, vd = real(a[n]), real(b[n]), real(c[n]), real(d[n])
        p[n] = p[n] + pa * va + pb * vb + pc * vc + pd * vd
        q[n] = q[n] + qa * va + qb * vb + qc * vc + qd * vd


@njit(cache=True, nogil=True, fastmath={"contract"})
def add_rows_of_four(x: Any, w: Any, k: int, start: int, stop: int, out: Any, m: int) -> None:
    """The same for the inputs m to m + 3."""
    a, b, c, d = w[k, start:stop], w[k + 1, start:stop], w[k + 2, start:stop], w[k + 3, start:stop]
    p, q, r, s = out[m, start:stop], out[m + 1, start:stop], out[m + 2, start:stop], out[m + 3, start:stop]
    pa, pb, pc, pd = x[m, k], x[m, k + 1], x[m, k + 2], x[m, k + 3]
    qa, qb, qc, qd = x[m + 1, k], x[m + 1, k + 1], x[m + 1, k + 2], x[m + 1, k + 3]
    ra, rb, rc, rd = x[m + 2, k], x[m + 2, k + 1], x[m + 2, k + 2], x[m + 2, k + 3]
    sa, sb, sc, sd = x[m + 3, k], x[m + 3, k + 1], x[m + 3, k + 2], x[m + 3, k + 3]
    real = x.dtype.type
    for n in range(p.size):
        va, vb, vc, vd = real(a[n]), real(b[n]), real(c[n]), real(d[n])
        p[n] = p[n] + pa * va + pb * vb + pc * vc + pd * vd
        q[n] = q[n] + qa * va + qb * vb + qc * vc + qd * vd
        r[n] = r[n] + ra * va + rb * vb + rc * vc + rd * vd
        s[n] = s[n] + sa * va + sb * vb + sc * vc + sd * vd


@njit(cache=True, nogil=True, fastmath={"contract"})
def add_row(x: Any, w: Any, k: int, start: int, stop: int, out: Any) -> None:
    """out += x[k] w[k, start:stop]."""
    row, value, real = w[k, start:stop], x[k], x.dtype.type
    for n in range(out.size):
        out[n] = out[n] + value * real(row[n])


@njit(cache=True, nogil=True)
def add_block(x: Any, w: Any, rows: Any, start: int, stop: int, out: Any) -> None:
    """out (M, N) += x @ w of the rows `rows` (first, last) and the columns from `start` to before `stop`."""
    first, last = rows
    m = 0
    while m < len(x):
        count = 4 if m + 4 <= len(x) else 2 if m + 2 <= len(x) else 1
        step = 8 if count == 1 else 4
        k = first
        while k + step <= last:
            if count == 4:
                add_rows_of_four(x, w, k, start, stop, out, m)
            elif count == 2:
                add_rows_of_two(x, w, k, start, stop, out, m)
            else:
                add_rows_of_one(x[m], w, k, start, stop, out[m, start:stop])
            k += step
        while k < last:
            for each in range(m, m + count):
                add_row(x[each], w, k, start, stop, out[each, start:stop])
            k += 1
        m += count


@njit(cache=True, nogil=True)
def tile_sums(x: Any, w: Any, rows: int, out: Any) -> None:
    """out (tiles, M, N) = x (M, K) @ w (K, N), the sums of each `rows` of K apart, in the order of K.

    w of integers or reals; sums in the type of x and out.
    """
    columns = w.shape[1]
    block = columns if len(x) <= 2 else BLOCK
    for tile in range(len(out)):
        part = (tile * rows, min(len(w), (tile + 1) * rows))
        for start in range(0, columns, block):
            stop = min(columns, start + block)
            out[tile, :, start:stop] = 0
            add_block(x, w, part, start, stop, out[tile])
