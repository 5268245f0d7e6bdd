"""Depthwise convolution: every channel is convolved by itself.

    y[n, o, c] = activation(bias[c] + sum over t of x[n, o * S + offset[t], c] * w[t, c])

So little work per byte that x must be read where it lies (depthwise_rows.pxd).  Vectors run over
channels; eight neighbouring pixels stay in registers while the sum walks over the taps.  The input
gradient is the same sum over other tables.  A multiplier repeats channels before, or adds them up
after.
"""
from libc.stdint cimport int64_t

from cycnn.kernels.depthwise_rows cimport LEFT, RIGHT, Inside, Row, Run, list_rows, load
from cycnn.kernels.simd cimport (
    VL, publish, real, vf, vf_fma, vf_max, vf_store, vf_store_part, vf_zero,
)
from cycnn.kernels.tile cimport RELU
from cycnn.kernels.window cimport Window

WINDOW_SLOTS = (
    "x* offset* source* D H W C OD OH OW SD SH SW TD TH TW LD LH LW "
    "planes block_planes block_rows block_columns copy "
)
INSIDE_SLOTS = "begin end shift edges "


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


cdef inline void put(
    real* y, vf sum, bint whole, Py_ssize_t columns, Py_ssize_t flags,
) noexcept nogil:
    """Store activation(sum)."""
    if flags & RELU:
        sum = vf_max(vf_zero(), sum)
    if whole:
        vf_store(y, sum)
    else:
        vf_store_part(y, sum, columns)


cdef inline void convolve(
    int pixels, bint whole,
    const real* x,              # IN   window of the first pixel
    Py_ssize_t step,            # from one window to the next
    const int64_t* offset,      # IN   of each tap
    const int64_t* tap,         # IN   which they are, in w
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
    cdef vf wv = load(bias, whole, columns) if bias != NULL else vf_zero(), w1, w2, xv
    cdef const real* p
    cdef Py_ssize_t t = 0
    cdef vf a0 = wv, a1 = wv, a2 = wv, a3 = wv, a4 = wv, a5 = wv, a6 = wv, a7 = wv
    while t < taps:
        p = x + offset[t]
        wv = load(w + tap[t] * C, whole, columns)
        if (t + 2 < taps and offset[t + 1] - offset[t] == step
                and offset[t + 2] - offset[t + 1] == step):
            # Three taps a pixel apart: each pixel is loaded once for the three windows it is in.
            w1 = load(w + tap[t + 1] * C, whole, columns)
            w2 = load(w + tap[t + 2] * C, whole, columns)
            t = t + 3
            xv = vf_zero() if edges & LEFT else load(p, whole, columns)
            a0 = vf_fma(xv, wv, a0)
            p = p + step
            xv = load(p, whole, columns)
            if pixels > 1:
                a1 = vf_fma(xv, wv, a1)
            a0 = vf_fma(xv, w1, a0)
            p = p + step
            xv = vf_zero() if pixels == 1 and edges & RIGHT else load(p, whole, columns)
            if pixels > 2:
                a2 = vf_fma(xv, wv, a2)
            if pixels > 1:
                a1 = vf_fma(xv, w1, a1)
            a0 = vf_fma(xv, w2, a0)
            if pixels > 1:
                p = p + step
                xv = vf_zero() if pixels == 2 and edges & RIGHT else load(p, whole, columns)
                if pixels > 3:
                    a3 = vf_fma(xv, wv, a3)
                if pixels > 2:
                    a2 = vf_fma(xv, w1, a2)
                a1 = vf_fma(xv, w2, a1)
            if pixels > 2:
                p = p + step
                xv = vf_zero() if pixels == 3 and edges & RIGHT else load(p, whole, columns)
                if pixels > 4:
                    a4 = vf_fma(xv, wv, a4)
                if pixels > 3:
                    a3 = vf_fma(xv, w1, a3)
                a2 = vf_fma(xv, w2, a2)
            if pixels > 3:
                p = p + step
                xv = vf_zero() if pixels == 4 and edges & RIGHT else load(p, whole, columns)
                if pixels > 5:
                    a5 = vf_fma(xv, wv, a5)
                if pixels > 4:
                    a4 = vf_fma(xv, w1, a4)
                a3 = vf_fma(xv, w2, a3)
            if pixels > 4:
                p = p + step
                xv = vf_zero() if pixels == 5 and edges & RIGHT else load(p, whole, columns)
                if pixels > 6:
                    a6 = vf_fma(xv, wv, a6)
                if pixels > 5:
                    a5 = vf_fma(xv, w1, a5)
                a4 = vf_fma(xv, w2, a4)
            if pixels > 5:
                p = p + step
                xv = vf_zero() if pixels == 6 and edges & RIGHT else load(p, whole, columns)
                if pixels > 7:
                    a7 = vf_fma(xv, wv, a7)
                if pixels > 6:
                    a6 = vf_fma(xv, w1, a6)
                a5 = vf_fma(xv, w2, a5)
            if pixels > 6:
                p = p + step
                xv = vf_zero() if pixels == 7 and edges & RIGHT else load(p, whole, columns)
                if pixels > 7:
                    a7 = vf_fma(xv, w1, a7)
                a6 = vf_fma(xv, w2, a6)
            if pixels > 7:
                p = p + step
                xv = vf_zero() if pixels == 8 and edges & RIGHT else load(p, whole, columns)
                a7 = vf_fma(xv, w2, a7)
        else:
            t = t + 1
            a0 = vf_fma(load(p, whole, columns), wv, a0)
            if pixels > 1:
                a1 = vf_fma(load(p + 1 * step, whole, columns), wv, a1)
            if pixels > 2:
                a2 = vf_fma(load(p + 2 * step, whole, columns), wv, a2)
            if pixels > 3:
                a3 = vf_fma(load(p + 3 * step, whole, columns), wv, a3)
            if pixels > 4:
                a4 = vf_fma(load(p + 4 * step, whole, columns), wv, a4)
            if pixels > 5:
                a5 = vf_fma(load(p + 5 * step, whole, columns), wv, a5)
            if pixels > 6:
                a6 = vf_fma(load(p + 6 * step, whole, columns), wv, a6)
            if pixels > 7:
                a7 = vf_fma(load(p + 7 * step, whole, columns), wv, a7)
    put(y, a0, whole, columns, flags)
    if pixels > 1:
        put(y + 1 * y_step, a1, whole, columns, flags)
    if pixels > 2:
        put(y + 2 * y_step, a2, whole, columns, flags)
    if pixels > 3:
        put(y + 3 * y_step, a3, whole, columns, flags)
    if pixels > 4:
        put(y + 4 * y_step, a4, whole, columns, flags)
    if pixels > 5:
        put(y + 5 * y_step, a5, whole, columns, flags)
    if pixels > 6:
        put(y + 6 * y_step, a6, whole, columns, flags)
    if pixels > 7:
        put(y + 7 * y_step, a7, whole, columns, flags)


cdef inline void convolve_channels(
    int pixels, const DepthwiseArgs* a, const Row* row, const Run* run, Py_ssize_t done, real* y,
) noexcept nogil:
    """Write all channels of `pixels` (a constant) outputs of a run, after `done`."""
    cdef Py_ssize_t C = a.window.C, step = a.window.SW * C, y_step = a.VW * C, c = 0
    cdef Py_ssize_t edges = run.edges
    cdef const real* x = run.x + done * step
    cdef const real* bias = NULL
    if done > 0:
        edges = edges & ~LEFT
    if done + pixels < run.count:
        edges = edges & ~RIGHT
    y = y + (run.column + done) * y_step
    while c < C:
        if a.bias != NULL:
            bias = a.bias + c
        if C - c >= VL:
            convolve(pixels, True, x + c, step, run.offset, row.tap, row.taps, a.w + c, C, bias,
                     y + c, y_step, VL, a.flags, edges)
        else:
            convolve(pixels, False, x + c, step, run.offset, row.tap, row.taps, a.w + c, C, bias,
                     y + c, y_step, C - c, a.flags, edges)
        c = c + VL


cdef inline void convolve_row(const DepthwiseArgs* a, const Row* row) noexcept nogil:
    """Write an output row in equal groups of at most eight pixels, all channels of each in turn."""
    cdef Py_ssize_t n = row.plane // a.window.OD, od = row.plane - n * a.window.OD
    cdef Py_ssize_t i, done, groups, pixels
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
                convolve_channels(8, a, row, run, done, y)
            elif pixels == 7:
                convolve_channels(7, a, row, run, done, y)
            elif pixels == 6:
                convolve_channels(6, a, row, run, done, y)
            elif pixels == 5:
                convolve_channels(5, a, row, run, done, y)
            elif pixels == 4:
                convolve_channels(4, a, row, run, done, y)
            elif pixels == 3:
                convolve_channels(3, a, row, run, done, y)
            elif pixels == 2:
                convolve_channels(2, a, row, run, done, y)
            else:
                convolve_channels(1, a, row, run, done, y)
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
            rows[r].tap[i] = a.tap[rows[r].tap[i]]
        convolve_row(a, rows + r)


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
        "w* bias* y* tap* YD YH YW UD UH UW VD VH VW " + INSIDE_SLOTS + "flags")),
    "repeat_channels": publish(<void*>repeat_channels, sizeof(RepeatArgs),
                               "x* y* size times block"),
    "sum_repeats": publish(<void*>sum_repeats, sizeof(RepeatArgs), "x* y* size times block"),
}
