"""Depthwise convolution: every channel is convolved by itself.

    y[n, o, c] = activation(bias[c] + sum over t of x[n, o * S + offset[t], c] * w[t, c])

So little work per byte that x must be read where it lies (depthwise_rows.pxd).  Vectors run over
channels, up to eight outputs at a time (depthwise_tile.pxd).  The input gradient is the same sum
over other tables, but for the usual stride of two.  A multiplier repeats channels before, or adds
them up after.
"""
from libc.stdint cimport int64_t

from cycnn.kernels.ahead cimport LINE, fetch_lines
from cycnn.kernels.depthwise_rows cimport (
    LEFT, RIGHT, Inside, Row, Run, list_rows, load, rows_ahead,
)
from cycnn.kernels.depthwise_tile cimport Group, Reach, convolve, put
from cycnn.kernels.simd cimport MR, VL, publish, real, vf, vf_fma, vf_zero
from cycnn.kernels.window cimport Window

WINDOW_SLOTS = (
    "x* offset* source* D H W C OD OH OW SD SH SW TD TH TW LD LH LW "
    "planes block_planes block_rows block_columns copy "
)
INSIDE_SLOTS = "begin end shift edges "


cdef enum:
    AHEAD = 256 * LINE          # from outputs to those whose lines are fetched meanwhile
    ALONE = 8                   # outputs that a tile has of one row
    PAIRED = MR // 6 * 4        # and of each of two, beside twice the weights: four, or eight


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
    Py_ssize_t pairs            # whether rows go two at a time


cdef inline void fetch_next(
    int rows, int pixels, int stride, const Group* g, const real* x, const real* y,
) noexcept nogil:
    """Fetch lines of what the next rows read, and of outputs of the next two, or further on.

    With a stride of two, y is the smaller part, and outputs are better left alone.
    """
    cdef Py_ssize_t _row
    cdef int _r
    for _r in range(rows):
        for _row in range(g.ahead):
            fetch_lines(x - _row * g.x_row, pixels * stride)
        if stride == 1 and g.y_step == g.C:     # the outputs of a phase do not lie side by side
            fetch_lines(y + (2 * g.y_row if rows == 2 else <Py_ssize_t>AHEAD), pixels)
        x = x + g.x_rows
        y = y + g.y_row


cdef inline void convolve_channels(
    int rows, int pixels, int stride, const Group* group, Py_ssize_t done, real* y,
) noexcept nogil:
    """Write all channels of the outputs, whose number is a constant, after those `done`."""
    cdef Group g = group[0]                     # a copy, which no store to y can change
    cdef Py_ssize_t first = done * g.step
    y = y + done * g.y_step
    g.c = 0
    while True:
        g.at = first + g.c
        if g.ahead > 0 and g.c % LINE == 0:     # in the order of memory, whatever that of the sums
            fetch_next(rows, pixels, stride, &g, g.next_x + first + g.c * pixels * stride,
                       y + g.c * pixels)
        if g.columns == VL:
            convolve(rows, pixels, stride, True, &g, y + g.c)
        elif rows == 1:
            convolve(1, pixels, stride, False, &g, y)
        g.c = g.c + VL
        if g.c > g.C - VL:                      # the last vector may do some channels again
            if g.c >= g.C:
                return
            g.c = g.C - VL


cdef inline void convolve_run(
    int rows, int stride, Group* g, Py_ssize_t count, Py_ssize_t edges, real* y,
) noexcept nogil:
    """Write a run in equal groups of outputs."""
    cdef Py_ssize_t most = ALONE if rows == 1 else PAIRED
    cdef Py_ssize_t done = 0, pixels, groups
    if stride == 2 and g.ahead > 0:             # from memory, few lines to wait for at a time
        most = 4
    groups = (count + most - 1) // most
    while groups > 0:
        pixels = (count - done + groups - 1) // groups
        g.edges = edges
        if done > 0:
            g.edges = g.edges & ~LEFT
        if done + pixels < count:
            g.edges = g.edges & ~RIGHT
        if most > 4 and pixels == 8:
            convolve_channels(rows, 8, stride, g, done, y)
        elif most > 4 and pixels == 7:
            convolve_channels(rows, 7, stride, g, done, y)
        elif most > 4 and pixels == 6:
            convolve_channels(rows, 6, stride, g, done, y)
        elif most > 4 and pixels == 5:
            convolve_channels(rows, 5, stride, g, done, y)
        elif pixels == 4:
            convolve_channels(rows, 4, stride, g, done, y)
        elif pixels == 3:
            convolve_channels(rows, 3, stride, g, done, y)
        elif pixels == 2:
            convolve_channels(rows, 2, stride, g, done, y)
        else:
            convolve_channels(rows, 1, stride, g, done, y)
        done = done + pixels
        groups = groups - 1


cdef inline Reach* merge(
    const DepthwiseArgs* a, const Row* row, const Row* below, Py_ssize_t run,
    Py_ssize_t i, Py_ssize_t i_end, Py_ssize_t j, Py_ssize_t j_end, Py_ssize_t taps, Reach* reach,
) noexcept nogil:
    """List what a run of a row, and of the row below, reads; return where the list ends.

    That is taps i ... of the one and j ... of the other, `taps` side by side at a time.  Those of
    both that read the same pixels become one; each row's keep their order.
    """
    cdef const int64_t* upper = row.runs[run].offset
    cdef const int64_t* lower = below.runs[run].offset
    cdef bint first, second
    while i < i_end or j < j_end:
        first = i < i_end and (j >= j_end or upper[i] <= lower[j])
        second = j < j_end and (i >= i_end or lower[j] <= upper[i])
        reach.x = row.runs[run].x + (upper[i] if first else lower[j])
        reach.upper = a.w + a.tap[row.tap[i]] * a.window.C if first else NULL
        reach.lower = a.w + a.tap[below.tap[j]] * a.window.C if second else NULL
        i = i + taps * first
        j = j + taps * second
        reach = reach + 1
    return reach


cdef inline void convolve_rows(
    int rows, const DepthwiseArgs* a, const Row* row, Reach* reach,
) noexcept nogil:
    """Write a row of outputs, or two, one below the other."""
    cdef const Window* v = &a.window
    cdef const Row* below = row + rows - 1
    cdef Py_ssize_t n = row.plane // v.OD, od = row.plane - n * v.OD, i, upper, lower
    cdef Py_ssize_t ahead = rows_ahead(v, below), taps_below = below.taps if rows == 2 else 0
    cdef real* y = a.y + (((n * a.YD + a.UD + od * a.VD) * a.YH + a.UH + row.oh * a.VH) * a.YW
                          + a.UW) * v.C
    cdef const Run* run
    cdef Reach* end
    cdef Group g
    g.reach = reach
    g.C = v.C
    g.step = v.SW * v.C
    g.across = (a.tap[1] - a.tap[0]) * v.C if v.TW > 1 else 0
    g.bias = a.bias
    g.y_step = a.VW * v.C
    g.y_row = a.VH * a.YW * v.C
    g.flags = a.flags
    g.ahead = a.ahead
    g.x_row = v.W * v.C
    g.x_rows = v.SH * g.x_row
    g.columns = min(v.C, <Py_ssize_t>VL)
    for i in range(row.count):
        run = row.runs + i
        upper = lower = 0                       # taps in threes: less than a vector has none
        if v.C >= VL:
            upper = run.threes
            lower = min(below.runs[i].threes, taps_below)
        end = merge(a, row, below, i, 0, upper, 0, lower, 3, reach)
        g.threes = end - reach
        g.ones = merge(a, row, below, i, upper, row.taps, lower, taps_below, 1, end) - end
        g.next_x = run.x + ahead
        if rows == 2 or v.SW == 1:
            convolve_run(rows, 1, &g, run.count, run.edges, y + run.column * g.y_step)
        else:
            convolve_run(1, 2, &g, run.count, run.edges, y + run.column * g.y_step)


cdef void depthwise(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """One job is `block_planes` planes, or `block_rows` output rows of one."""
    cdef const DepthwiseArgs* a = <const DepthwiseArgs*>args
    cdef const Window* v = &a.window
    cdef Py_ssize_t bands = (v.OH + v.block_rows - 1) // v.block_rows
    cdef Py_ssize_t plane = job // bands * v.block_planes, band = job % bands * v.block_rows
    cdef Py_ssize_t count = min(v.block_rows, v.OH - band), r = 0
    cdef Reach* reach = <Reach*>scratch
    cdef Row* rows
    if bands == 1:
        count = min(v.block_planes, v.planes - plane) * v.OH
    rows = list_rows(v, &a.inside, plane * v.OH + band, count,
                     <char*>(reach + 2 * v.TD * v.TH * v.TW))
    while r < count:
        if a.pairs and r + 1 < count and rows[r].plane == rows[r + 1].plane:
            convolve_rows(2, a, rows + r, reach)
            r = r + 2
        else:
            convolve_rows(1, a, rows + r, reach)
            r = r + 1


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
        "w* bias* y* tap* YD YH YW UD UH UW VD VH VW " + INSIDE_SLOTS + "flags ahead pairs")),
    "depthwise_pairs": publish(<void*>depthwise_pairs, sizeof(PairsArgs),
                               "dy* w* dx* N H W C OH OW TH SH DH PH PW rows ahead"),
    "repeat_channels": publish(<void*>repeat_channels, sizeof(RepeatArgs),
                               "x* y* size times block"),
    "sum_repeats": publish(<void*>sum_repeats, sizeof(RepeatArgs), "x* y* size times block"),
}
