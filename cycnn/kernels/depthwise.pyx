"""Depthwise convolution: every channel is convolved by itself.

    y[n, o, c] = activation(bias[c] + sum over t of x[n, o * S + offset[t], c] * w[t, c])

So little work per byte that x must be read where it lies (depthwise_rows.pxd).  Vectors run over
channels; eight neighbouring pixels stay in registers while the sum walks over the taps, three at a
time where they lie side by side.  The input gradient is the same sum over other tables, but for the
usual stride of two.  A multiplier repeats channels before, or adds them up after.
"""
from libc.stdint cimport int64_t

from cycnn.kernels.ahead cimport LINE, fetch_lines
from cycnn.kernels.depthwise_rows cimport (
    LEFT, RIGHT, Inside, Row, Run, list_rows, load, rows_ahead, store,
)
from cycnn.kernels.simd cimport (
    VL, publish, real, vf, vf_fma, vf_max, vf_zero,
)
from cycnn.kernels.tile cimport RELU
from cycnn.kernels.window cimport Window

WINDOW_SLOTS = (
    "x* offset* source* D H W C OD OH OW SD SH SW TD TH TW LD LH LW "
    "planes block_planes block_rows block_columns copy "
)
INSIDE_SLOTS = "begin end shift edges "


cdef enum:
    AHEAD = 256 * LINE          # from outputs to those whose lines are fetched meanwhile


cdef struct DepthwiseArgs:
    Window window
    const real* w               # IN   (T of the kernel, C)
    const real* bias            # IN   (C,) or NULL
    real* y                     # OUT  (N, YD, YH, YW, C); output o is at U + o * V
    const int64_t* tap          # IN   (TD * TH * TW,), which tap of w is tap t
    Py_ssize_t YD, YH, YW
    Py_ssize_t UD, UH, UW
    Py_ssize_t VD, VH, VW
    Inside inside
    Py_ssize_t flags            # of the tile
    Py_ssize_t ahead            # input rows to fetch for the next output row, if any


cdef inline void put(
    real* y, vf sum, bint whole, Py_ssize_t columns, Py_ssize_t flags,
) noexcept nogil:
    """Store activation(sum)."""
    if flags & RELU:
        sum = vf_max(vf_zero(), sum)
    store(y, sum, whole, columns)


cdef struct Sums:
    # Of eight neighbouring outputs, one vector of channels each.
    vf a0, a1, a2, a3, a4, a5, a6, a7


cdef inline vf product(int tap, vf x, vf w0, vf w1, vf w2, vf sum) noexcept nogil:
    """Return sum + x * w of a tap, which is a constant, if it is one of the three."""
    if tap == 0:
        return vf_fma(x, w0, sum)
    if tap == 1:
        return vf_fma(x, w1, sum)
    if tap == 2:
        return vf_fma(x, w2, sum)
    return sum


cdef inline void spread(
    int pixels, int stride, int column, vf x, vf w0, vf w1, vf w2, Sums* s,
) noexcept nogil:
    """Add a column of x to the sums of all windows of three taps that it is in."""
    s.a0 = product(column, x, w0, w1, w2, s.a0)
    if pixels > 1:
        s.a1 = product(column - stride, x, w0, w1, w2, s.a1)
    if pixels > 2:
        s.a2 = product(column - 2 * stride, x, w0, w1, w2, s.a2)
    if pixels > 3:
        s.a3 = product(column - 3 * stride, x, w0, w1, w2, s.a3)
    if pixels > 4:
        s.a4 = product(column - 4 * stride, x, w0, w1, w2, s.a4)
    if pixels > 5:
        s.a5 = product(column - 5 * stride, x, w0, w1, w2, s.a5)
    if pixels > 6:
        s.a6 = product(column - 6 * stride, x, w0, w1, w2, s.a6)
    if pixels > 7:
        s.a7 = product(column - 7 * stride, x, w0, w1, w2, s.a7)


cdef inline void spread_row(
    int pixels, int stride, bint whole, const real* x, Py_ssize_t C, Py_ssize_t columns,
    Py_ssize_t edges, vf w0, vf w1, vf w2, Sums* s,
) noexcept nogil:
    """Add three taps next to each other: each column is loaded once for the windows it is in."""
    cdef int last = (pixels - 1) * stride + 2
    spread(pixels, stride, 0, vf_zero() if edges & LEFT else load(x, whole, columns), w0, w1, w2, s)
    spread(pixels, stride, 1, load(x + C, whole, columns), w0, w1, w2, s)
    if last > 2:
        spread(pixels, stride, 2, load(x + 2 * C, whole, columns), w0, w1, w2, s)
    if last > 3:
        spread(pixels, stride, 3, load(x + 3 * C, whole, columns), w0, w1, w2, s)
    if last > 4:
        spread(pixels, stride, 4, load(x + 4 * C, whole, columns), w0, w1, w2, s)
    if last > 5:
        spread(pixels, stride, 5, load(x + 5 * C, whole, columns), w0, w1, w2, s)
    if last > 6:
        spread(pixels, stride, 6, load(x + 6 * C, whole, columns), w0, w1, w2, s)
    if last > 7:
        spread(pixels, stride, 7, load(x + 7 * C, whole, columns), w0, w1, w2, s)
    if last > 8:
        spread(pixels, stride, 8, load(x + 8 * C, whole, columns), w0, w1, w2, s)
    if last > 9:
        spread(pixels, stride, 9, load(x + 9 * C, whole, columns), w0, w1, w2, s)
    if last > 10:
        spread(pixels, stride, 10, load(x + 10 * C, whole, columns), w0, w1, w2, s)
    if last > 11:
        spread(pixels, stride, 11, load(x + 11 * C, whole, columns), w0, w1, w2, s)
    if last > 12:
        spread(pixels, stride, 12, load(x + 12 * C, whole, columns), w0, w1, w2, s)
    if last > 13:
        spread(pixels, stride, 13, load(x + 13 * C, whole, columns), w0, w1, w2, s)
    if last > 14:
        spread(pixels, stride, 14, load(x + 14 * C, whole, columns), w0, w1, w2, s)
    if last > 15:
        spread(pixels, stride, 15, load(x + 15 * C, whole, columns), w0, w1, w2, s)
    spread(pixels, stride, last,
           vf_zero() if edges & RIGHT else load(x + last * C, whole, columns), w0, w1, w2, s)


cdef inline void convolve(
    int pixels, bint whole,
    const real* x,              # IN   window of the first pixel
    Py_ssize_t step,            # from one window to the next
    const int64_t* offset,      # IN   of each tap
    const int64_t* tap,         # IN   where its weights are
    Py_ssize_t threes,          # taps in threes that lie side by side
    Py_ssize_t taps,
    const real* w,              # IN   (T, C)
    Py_ssize_t C,
    const real* bias,           # IN   or NULL
    real* y,                    # OUT
    Py_ssize_t y_step,          # from one pixel to the next
    Py_ssize_t columns,
    Py_ssize_t flags,
    Py_ssize_t edges,           # LEFT, RIGHT: that of these pixels is an edge of the row
) noexcept nogil:
    """Sum over the taps for `pixels` (a constant) neighbours and one vector of channels."""
    cdef vf w0 = load(bias, whole, columns) if bias != NULL else vf_zero(), w1, w2
    cdef const real* p
    cdef Py_ssize_t t = 0
    cdef Sums s
    s.a0 = s.a1 = s.a2 = s.a3 = s.a4 = s.a5 = s.a6 = s.a7 = w0
    while t < threes:
        p = x + offset[t]
        w0 = load(w + tap[t], whole, columns)
        w1 = load(w + tap[t + 1], whole, columns)
        w2 = load(w + tap[t + 2], whole, columns)
        t = t + 3
        if step == C:
            spread_row(pixels, 1, whole, p, C, columns, edges, w0, w1, w2, &s)
        else:
            spread_row(pixels, 2, whole, p, C, columns, edges, w0, w1, w2, &s)
    while t < taps:
        p = x + offset[t]
        w0 = load(w + tap[t], whole, columns)
        t = t + 1
        s.a0 = vf_fma(load(p, whole, columns), w0, s.a0)
        if pixels > 1:
            s.a1 = vf_fma(load(p + 1 * step, whole, columns), w0, s.a1)
        if pixels > 2:
            s.a2 = vf_fma(load(p + 2 * step, whole, columns), w0, s.a2)
        if pixels > 3:
            s.a3 = vf_fma(load(p + 3 * step, whole, columns), w0, s.a3)
        if pixels > 4:
            s.a4 = vf_fma(load(p + 4 * step, whole, columns), w0, s.a4)
        if pixels > 5:
            s.a5 = vf_fma(load(p + 5 * step, whole, columns), w0, s.a5)
        if pixels > 6:
            s.a6 = vf_fma(load(p + 6 * step, whole, columns), w0, s.a6)
        if pixels > 7:
            s.a7 = vf_fma(load(p + 7 * step, whole, columns), w0, s.a7)
    put(y, s.a0, whole, columns, flags)
    if pixels > 1:
        put(y + 1 * y_step, s.a1, whole, columns, flags)
    if pixels > 2:
        put(y + 2 * y_step, s.a2, whole, columns, flags)
    if pixels > 3:
        put(y + 3 * y_step, s.a3, whole, columns, flags)
    if pixels > 4:
        put(y + 4 * y_step, s.a4, whole, columns, flags)
    if pixels > 5:
        put(y + 5 * y_step, s.a5, whole, columns, flags)
    if pixels > 6:
        put(y + 6 * y_step, s.a6, whole, columns, flags)
    if pixels > 7:
        put(y + 7 * y_step, s.a7, whole, columns, flags)


cdef inline void fetch_rows(
    const real* x, Py_ssize_t lines, Py_ssize_t rows, Py_ssize_t row_step,
) noexcept nogil:
    """Fetch `lines` cache lines, one after the other, of each of some rows up from that of x."""
    cdef Py_ssize_t _row
    for _row in range(rows):
        fetch_lines(x, lines)
        x = x - row_step


cdef inline void convolve_channels(
    int pixels, const DepthwiseArgs* a, const Row* row, const Run* run, Py_ssize_t done, real* y,
    Py_ssize_t below,           # from a window to the last row of the window below
) noexcept nogil:
    """Write all channels of `pixels` (a constant) outputs of a run, after `done`."""
    cdef const Window* v = &a.window
    cdef Py_ssize_t C = v.C, step = v.SW * C, y_step = a.VW * C, c = 0, edges = run.edges
    cdef const real* x = run.x + done * step
    cdef const real* bias = NULL
    if done > 0:
        edges = edges & ~LEFT
    if done + pixels < run.count:
        edges = edges & ~RIGHT
    y = y + (run.column + done) * y_step
    while c < C:
        if a.ahead > 0 and c % LINE == 0:       # in the order of memory, whatever that of the sums
            fetch_rows(x + below + c * pixels * v.SW, pixels * v.SW, a.ahead, v.W * C)
            if a.VW == 1:                       # the outputs of a phase do not lie side by side
                fetch_lines(y + AHEAD + c * pixels, pixels)
        if a.bias != NULL:
            bias = a.bias + c
        if C - c >= VL:
            convolve(pixels, True, x + c, step, run.offset, row.tap, run.threes, row.taps, a.w + c,
                     C, bias, y + c, y_step, VL, a.flags, edges)
        else:
            convolve(pixels, False, x + c, step, run.offset, row.tap, run.threes, row.taps, a.w + c,
                     C, bias, y + c, y_step, C - c, a.flags, edges)
        c = c + VL


cdef inline void convolve_row(const DepthwiseArgs* a, const Row* row) noexcept nogil:
    """Write an output row in equal groups of at most eight pixels, all channels of each in turn."""
    cdef Py_ssize_t n = row.plane // a.window.OD, od = row.plane - n * a.window.OD
    cdef Py_ssize_t i, done, groups, pixels, below = rows_ahead(&a.window, row)
    cdef real* y = a.y + (((n * a.YD + a.UD + od * a.VD) * a.YH + a.UH + row.oh * a.VH) * a.YW
                          + a.UW) * a.window.C
    cdef const Run* run
    for i in range(row.count):
        run = row.runs + i
        done = 0
        groups = (run.count + 7) // 8
        while groups > 0:
            pixels = (run.count - done + groups - 1) // groups
            if pixels == 8:
                convolve_channels(8, a, row, run, done, y, below)
            elif pixels == 7:
                convolve_channels(7, a, row, run, done, y, below)
            elif pixels == 6:
                convolve_channels(6, a, row, run, done, y, below)
            elif pixels == 5:
                convolve_channels(5, a, row, run, done, y, below)
            elif pixels == 4:
                convolve_channels(4, a, row, run, done, y, below)
            elif pixels == 3:
                convolve_channels(3, a, row, run, done, y, below)
            elif pixels == 2:
                convolve_channels(2, a, row, run, done, y, below)
            else:
                convolve_channels(1, a, row, run, done, y, below)
            done = done + pixels
            groups = groups - 1


cdef void depthwise(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """One job is `block_rows` output rows, counted over all planes."""
    cdef const DepthwiseArgs* a = <const DepthwiseArgs*>args
    cdef const Window* v = &a.window
    cdef Py_ssize_t first = job * v.block_rows, count = min(v.block_rows, v.planes * v.OH - first)
    cdef Row* rows = list_rows(v, &a.inside, first, count, scratch)
    cdef Py_ssize_t r, i
    for r in range(count):
        for i in range(rows[r].taps):
            rows[r].tap[i] = a.tap[rows[r].tap[i]] * v.C
        convolve_row(a, rows + r)


cdef struct PairsArgs:
    const real* dy              # IN   (N, OH, OW, C)
    const real* w               # IN   (TH, 3, C)
    real* dx                    # OUT  (N, H, W, C)
    Py_ssize_t N, H, W, C, OH, OW, TH
    Py_ssize_t SH, DH           # stride and dilation of the rows
    Py_ssize_t PH, PW           # zeros before the first row and column
    Py_ssize_t rows             # of dx, in one job
    Py_ssize_t ahead            # whether to fetch what comes next


cdef struct PairSums:
    # Of four pairs of neighbouring columns.
    vf a0, a1, a2, a3
    vf b0, b1, b2, b3


cdef inline void spread_pairs(
    int pairs, bint whole, const PairsArgs* a, const real** dy, const real** w, Py_ssize_t taps,
    Py_ssize_t q, Py_ssize_t c, real* dx, bint left, bint right,
) noexcept nogil:
    """Write `pairs` (one or four) pairs of columns, the first from column q of dy.

    dy has tap 0 of the first column of its pair, tap 1 of the second and tap 2 of the first one of
    the next.  With one pair, `left` and `right` say which of the two are there.
    """
    cdef Py_ssize_t C = a.C, columns = C - c, t
    cdef vf w0, w1, w2, before, d
    cdef const real* p
    cdef PairSums s
    s.a0 = s.a1 = s.a2 = s.a3 = s.b0 = s.b1 = s.b2 = s.b3 = vf_zero()
    for t in range(taps):
        w0 = load(w[t] + c, whole, columns)
        w1 = load(w[t] + C + c, whole, columns)
        w2 = load(w[t] + 2 * C + c, whole, columns)
        p = dy[t] + q * C + c
        before = load(p - C, whole, columns) if pairs > 1 or 0 < q <= a.OW else vf_zero()
        d = load(p, whole, columns) if pairs > 1 or q < a.OW else vf_zero()
        s.a0 = vf_fma(before, w2, vf_fma(d, w0, s.a0))
        s.b0 = vf_fma(d, w1, s.b0)
        if pairs > 1:
            before = d
            d = load(p + C, whole, columns)
            s.a1 = vf_fma(before, w2, vf_fma(d, w0, s.a1))
            s.b1 = vf_fma(d, w1, s.b1)
            before = d
            d = load(p + 2 * C, whole, columns)
            s.a2 = vf_fma(before, w2, vf_fma(d, w0, s.a2))
            s.b2 = vf_fma(d, w1, s.b2)
            before = d
            d = load(p + 3 * C, whole, columns)
            s.a3 = vf_fma(before, w2, vf_fma(d, w0, s.a3))
            s.b3 = vf_fma(d, w1, s.b3)
    dx = dx + (2 * q - a.PW) * C + c
    if pairs > 1 or left:
        put(dx, s.a0, whole, columns, 0)
    if pairs > 1 or right:
        put(dx + C, s.b0, whole, columns, 0)
    if pairs > 1:
        put(dx + 2 * C, s.a1, whole, columns, 0)
        put(dx + 3 * C, s.b1, whole, columns, 0)
        put(dx + 4 * C, s.a2, whole, columns, 0)
        put(dx + 5 * C, s.b2, whole, columns, 0)
        put(dx + 6 * C, s.a3, whole, columns, 0)
        put(dx + 7 * C, s.b3, whole, columns, 0)


cdef inline void spread_channels(
    int pairs, const PairsArgs* a, const real** dy, const real** w, Py_ssize_t taps, Py_ssize_t q,
    real* dx, bint left, bint right,
) noexcept nogil:
    cdef Py_ssize_t c = 0
    cdef const real* next_dx = dx + (2 * q - a.PW) * a.C + AHEAD
    while c + VL <= a.C:
        if a.ahead and pairs > 1 and taps > 0 and c % LINE == 0:
            fetch_lines(next_dx + c * 2 * pairs, 2 * pairs)
            fetch_lines(dy[0] + (a.OW + q) * a.C + c * pairs, pairs)
        spread_pairs(pairs, True, a, dy, w, taps, q, c, dx, left, right)
        c = c + VL
    if c < a.C:
        spread_pairs(pairs, False, a, dy, w, taps, q, c, dx, left, right)


cdef void depthwise_pairs(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """Input gradient of three taps, two columns apart: dx in pairs of columns, in one pass.

    As phases of the stride, each would skip every other column of dx and read dy again.  One job is
    `rows` rows of dx, counted over all images.
    """
    cdef const PairsArgs* a = <const PairsArgs*>args
    cdef const real** dy = <const real**>scratch
    cdef const real** w = dy + a.TH
    cdef Py_ssize_t row, n, h, th, taps, q, last = (a.W - 1 + a.PW) // 2
    cdef Py_ssize_t inner = min(a.OW, (a.W + a.PW) // 2)        # the pairs before it are whole
    cdef real* dx
    for row in range(job * a.rows, min(a.N * a.H, (job + 1) * a.rows)):
        n = row // a.H
        taps = 0
        for th in range(a.TH):
            h = row - n * a.H + a.PH - th * a.DH
            if h >= 0 and h % a.SH == 0 and h // a.SH < a.OH:
                dy[taps] = a.dy + (n * a.OH + h // a.SH) * a.OW * a.C
                w[taps] = a.w + th * 3 * a.C
                taps = taps + 1
        dx = a.dx + row * a.W * a.C
        q = a.PW // 2
        while q <= last:
            if 0 < q and 2 * q >= a.PW and q + 4 <= inner:
                spread_channels(4, a, dy, w, taps, q, dx, True, True)
                q = q + 4
            else:
                spread_channels(1, a, dy, w, taps, q, dx, 2 * q >= a.PW, 2 * q + 1 - a.PW < a.W)
                q = q + 1


cdef struct RepeatArgs:
    const real* x               # IN   (pixels * C,)
    real* y                     # OUT  (pixels * C * times,)
    Py_ssize_t size             # of the smaller array
    Py_ssize_t times, block     # elements of the smaller array in one job


cdef void repeat_channels(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y[i * times + j] = x[i]."""
    cdef const RepeatArgs* a = <const RepeatArgs*>args
    cdef Py_ssize_t i, j
    for i in range(job * a.block, min(a.size, (job + 1) * a.block)):
        for j in range(a.times):
            a.y[i * a.times + j] = a.x[i]


cdef void sum_repeats(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y[i] = sum over j of x[i * times + j]."""
    cdef const RepeatArgs* a = <const RepeatArgs*>args
    cdef Py_ssize_t i, j
    cdef real sum
    for i in range(job * a.block, min(a.size, (job + 1) * a.block)):
        sum = 0
        for j in range(a.times):
            sum = sum + a.x[i * a.times + j]
        a.y[i] = sum


JOBS = {
    "depthwise": publish(<void*>depthwise, sizeof(DepthwiseArgs), WINDOW_SLOTS + (
        "w* bias* y* tap* YD YH YW UD UH UW VD VH VW " + INSIDE_SLOTS + "flags ahead")),
    "depthwise_pairs": publish(<void*>depthwise_pairs, sizeof(PairsArgs),
                               "dy* w* dx* N H W C OH OW TH SH DH PH PW rows ahead"),
    "repeat_channels": publish(<void*>repeat_channels, sizeof(RepeatArgs),
                               "x* y* size times block"),
    "sum_repeats": publish(<void*>sum_repeats, sizeof(RepeatArgs), "x* y* size times block"),
}
