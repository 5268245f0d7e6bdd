"""Depthwise convolution: every channel is convolved by itself.

    y[n, o, c] = activation(bias[c] + sum over t of x[n, o * S + offset[t], c] * w[t, c])
    dw[t, c]   = sum over n, o of x[n, o * S + offset[t], c] * dy[n, o, c]

So little work per byte that x must be read where it lies.  An output row is cut in runs: the
columns whose windows lie inside the image, and each border column by itself, where taps on a zero
read from a row of zeros.  Vectors run over channels.  The sum keeps eight neighbouring pixels in
registers and walks over the taps; the weight gradient keeps nine taps in registers and walks over
the pixels.  The input gradient is the same sum over other tables.  A multiplier repeats channels
before, or adds them up after.
"""
from libc.stdint cimport int64_t
from libc.string cimport memset

from cycnn.kernels.simd cimport (
    VL, publish, real, vf, vf_add, vf_fma, vf_load, vf_load_part, vf_max, vf_store, vf_store_part, vf_zero,
)
from cycnn.kernels.tile cimport RELU
from cycnn.kernels.window cimport Window

WINDOW_SLOTS = (
    "x* offset* source* D H W C OD OH OW SD SH SW TD TH TW LD LH LW "
    "planes block_planes block_rows block_columns copy "
)


cdef struct Run:
    # Neighbouring outputs of a row whose taps lie at the same distance from their windows.
    const real* x               # window of the first one
    Py_ssize_t column
    Py_ssize_t count
    int64_t* offset             # of each tap of the row


cdef struct Row:
    Py_ssize_t taps             # those that read an input row
    int64_t* tap                # which they are
    Run* runs
    Py_ssize_t count
    const real* zeros
    real* y                     # its first output


cdef inline void open_row(
    Row* row, char* scratch, Py_ssize_t at_runs, Py_ssize_t at_zeros, Py_ssize_t C,
) noexcept nogil:
    """Give a row its memory."""
    row.tap = <int64_t*>scratch
    row.runs = <Run*>(scratch + at_runs)
    row.zeros = <real*>(scratch + at_zeros)
    memset(scratch + at_zeros, 0, (C + VL) * sizeof(real))


cdef inline void list_runs(
    const Window* v, Py_ssize_t plane, Py_ssize_t oh, Py_ssize_t inner, Py_ssize_t inner_end, Row* row,
) noexcept nogil:
    """Describe output row (plane, oh); the columns from `inner` to `inner_end` have no border."""
    cdef Py_ssize_t n = plane // v.OD, od = plane - n * v.OD, td, th, tw, d, h, w, ow, i
    cdef const int64_t* source_h = v.source + v.LD + oh * v.SH
    cdef const int64_t* source_w = v.source + v.LD + v.LH
    cdef int64_t* offset = row.tap + v.TD * v.TH * v.TW
    cdef const real* x = v.x + n * v.D * v.H * v.W * v.C
    cdef Run* run
    row.count = 0
    ow = 0
    while ow < v.OW:
        run = row.runs + row.count
        run.x = x
        run.column = ow
        run.count = 1
        run.offset = offset
        if ow == inner and inner < inner_end:
            run.count = inner_end - inner
        i = 0
        for td in range(v.TD):
            d = v.source[od * v.SD + v.offset[td]]
            for th in range(v.TH):
                h = source_h[v.offset[v.TD + th]]
                if d < 0 or h < 0:
                    continue
                for tw in range(v.TW):
                    w = source_w[ow * v.SW + v.offset[v.TD + v.TH + tw]]
                    offset[i] = ((d * v.H + h) * v.W + w) * v.C if w >= 0 else row.zeros - x
                    row.tap[i] = (td * v.TH + th) * v.TW + tw
                    i = i + 1
        row.taps = i
        offset = offset + i
        row.count = row.count + 1
        ow = ow + run.count


cdef inline vf load(const real* p, bint whole, Py_ssize_t columns) noexcept nogil:
    return vf_load(p) if whole else vf_load_part(p, columns)


cdef struct DepthwiseArgs:
    Window window
    const real* w               # IN   (T of the kernel, C)
    const real* bias            # IN   (C,) or NULL
    real* y                     # OUT  (N, YD, YH, YW, C); output o is at U + o * V
    const int64_t* tap          # IN   (TD * TH * TW,), which tap of w is tap t
    Py_ssize_t YD, YH, YW
    Py_ssize_t UD, UH, UW
    Py_ssize_t VD, VH, VW
    Py_ssize_t inner, inner_end     # columns without border
    Py_ssize_t bands            # of block_rows rows, in a plane
    Py_ssize_t flags            # of the tile
    Py_ssize_t at_runs, at_zeros    # bytes into scratch


cdef inline void put(real* y, vf sum, bint whole, Py_ssize_t columns, Py_ssize_t flags) noexcept nogil:
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
) noexcept nogil:
    """Sum over the taps for `pixels` (a constant) neighbours and one vector of channels."""
    cdef vf wv = load(bias, whole, columns) if bias != NULL else vf_zero()
    cdef const real* p
    cdef Py_ssize_t t
    cdef vf a0 = wv, a1 = wv, a2 = wv, a3 = wv, a4 = wv, a5 = wv, a6 = wv, a7 = wv
    for t in range(taps):
        wv = load(w + tap[t] * C, whole, columns)
        p = x + offset[t]
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
    int pixels, const DepthwiseArgs* a, const Row* row, const Run* run, Py_ssize_t done,
) noexcept nogil:
    """Write all channels of `pixels` (a constant) outputs of a run, `done` outputs into it."""
    cdef Py_ssize_t C = a.window.C, step = a.window.SW * C, y_step = a.VW * C, c = 0
    cdef const real* x = run.x + done * step
    cdef const real* bias = NULL
    cdef real* y = row.y + (run.column + done) * y_step
    while c < C:
        if a.bias != NULL:
            bias = a.bias + c
        if C - c >= VL:
            convolve(pixels, True, x + c, step, run.offset, row.tap, row.taps, a.w + c, C, bias, y + c,
                     y_step, VL, a.flags)
        else:
            convolve(pixels, False, x + c, step, run.offset, row.tap, row.taps, a.w + c, C, bias, y + c,
                     y_step, C - c, a.flags)
        c = c + VL


cdef void depthwise(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """One job is a band of output rows of one plane.

    Pixels in groups of eight outside, channels inside: so memory is read along its lines.
    """
    cdef const DepthwiseArgs* a = <const DepthwiseArgs*>args
    cdef const Window* v = &a.window
    cdef Py_ssize_t plane = job // a.bands, band = job % a.bands, n = plane // v.OD
    cdef Py_ssize_t od = plane - n * v.OD, i, oh, done, count
    cdef Row row
    cdef const Run* run
    open_row(&row, scratch, a.at_runs, a.at_zeros, v.C)
    for oh in range(band * v.block_rows, min(v.OH, (band + 1) * v.block_rows)):
        list_runs(v, plane, oh, a.inner, a.inner_end, &row)
        for i in range(row.taps):
            row.tap[i] = a.tap[row.tap[i]]
        row.y = a.y + (((n * a.YD + a.UD + od * a.VD) * a.YH + a.UH + oh * a.VH) * a.YW + a.UW) * v.C
        for i in range(row.count):
            run = row.runs + i
            count = run.count
            done = 0
            while done < count:
                if count - done >= 8:
                    convolve_channels(8, a, &row, run, done)
                    done = done + 8
                elif count - done >= 4:
                    convolve_channels(4, a, &row, run, done)
                    done = done + 4
                elif count - done >= 2:
                    convolve_channels(2, a, &row, run, done)
                    done = done + 2
                else:
                    convolve_channels(1, a, &row, run, done)
                    done = done + 1


cdef struct DepthwiseWeightArgs:
    Window window
    const real* dy              # IN   (N, OD, OH, OW, C)
    real* dweight               # OUT  (S, T, C), S partial sums
    real* dbias                 # OUT  (S, C) or NULL
    Py_ssize_t inner, inner_end     # columns without border
    Py_ssize_t chunks           # S
    Py_ssize_t at_runs, at_zeros    # bytes into scratch


cdef inline void add_to(real* y, vf sum, Py_ssize_t columns) noexcept nogil:
    """y[:columns] += sum."""
    vf_store_part(y, vf_add(sum, vf_load_part(y, columns)), columns)


cdef inline void correlate(
    int taps, bint whole,
    const Row* row,
    Py_ssize_t column,          # the first pixel
    Py_ssize_t column_end,
    Py_ssize_t first,           # of the row's taps
    const real* dy,             # IN   one vector of channels of the row's first pixel
    Py_ssize_t c,
    Py_ssize_t C,
    Py_ssize_t step,            # from one window to the next
    Py_ssize_t columns,
    real* dweight,              # OUT  (T, C), added to
) noexcept nogil:
    """Sum x * dy over some pixels of a row for `taps` (a constant) taps and one vector of channels."""
    cdef Py_ssize_t i, j
    cdef Py_ssize_t o0 = 0, o1 = 0, o2 = 0, o3 = 0, o4 = 0, o5 = 0, o6 = 0, o7 = 0, o8 = 0
    cdef vf a0 = vf_zero(), a1 = vf_zero(), a2 = vf_zero(), a3 = vf_zero(), a4 = vf_zero()
    cdef vf a5 = vf_zero(), a6 = vf_zero(), a7 = vf_zero(), a8 = vf_zero(), d
    cdef const Run* run
    cdef const real* p
    cdef const real* q
    for i in range(row.count):
        run = row.runs + i
        j = max(column, run.column)
        p = run.x + (j - run.column) * step + c
        q = dy + j * C
        o0 = run.offset[first]
        if taps > 1:
            o1 = run.offset[first + 1]
        if taps > 2:
            o2 = run.offset[first + 2]
        if taps > 3:
            o3 = run.offset[first + 3]
        if taps > 4:
            o4 = run.offset[first + 4]
        if taps > 5:
            o5 = run.offset[first + 5]
        if taps > 6:
            o6 = run.offset[first + 6]
        if taps > 7:
            o7 = run.offset[first + 7]
        if taps > 8:
            o8 = run.offset[first + 8]
        while j < min(column_end, run.column + run.count):
            d = load(q, whole, columns)
            a0 = vf_fma(load(p + o0, whole, columns), d, a0)
            if taps > 1:
                a1 = vf_fma(load(p + o1, whole, columns), d, a1)
            if taps > 2:
                a2 = vf_fma(load(p + o2, whole, columns), d, a2)
            if taps > 3:
                a3 = vf_fma(load(p + o3, whole, columns), d, a3)
            if taps > 4:
                a4 = vf_fma(load(p + o4, whole, columns), d, a4)
            if taps > 5:
                a5 = vf_fma(load(p + o5, whole, columns), d, a5)
            if taps > 6:
                a6 = vf_fma(load(p + o6, whole, columns), d, a6)
            if taps > 7:
                a7 = vf_fma(load(p + o7, whole, columns), d, a7)
            if taps > 8:
                a8 = vf_fma(load(p + o8, whole, columns), d, a8)
            p = p + step
            q = q + C
            j = j + 1
    add_to(dweight + row.tap[first] * C, a0, columns)
    if taps > 1:
        add_to(dweight + row.tap[first + 1] * C, a1, columns)
    if taps > 2:
        add_to(dweight + row.tap[first + 2] * C, a2, columns)
    if taps > 3:
        add_to(dweight + row.tap[first + 3] * C, a3, columns)
    if taps > 4:
        add_to(dweight + row.tap[first + 4] * C, a4, columns)
    if taps > 5:
        add_to(dweight + row.tap[first + 5] * C, a5, columns)
    if taps > 6:
        add_to(dweight + row.tap[first + 6] * C, a6, columns)
    if taps > 7:
        add_to(dweight + row.tap[first + 7] * C, a7, columns)
    if taps > 8:
        add_to(dweight + row.tap[first + 8] * C, a8, columns)


cdef inline void correlate_taps(
    bint whole, const Row* row, Py_ssize_t column, Py_ssize_t column_end, const real* dy, Py_ssize_t c,
    Py_ssize_t C, Py_ssize_t step, Py_ssize_t columns, real* dweight, real* dbias,
) noexcept nogil:
    """Add the part of some pixels of a row to dweight and dbias, for one vector of channels."""
    cdef Py_ssize_t t = 0, i
    cdef vf sum = vf_zero()
    while t < row.taps:
        if row.taps - t >= 9:
            correlate(9, whole, row, column, column_end, t, dy, c, C, step, columns, dweight)
            t = t + 9
        elif row.taps - t >= 6:
            correlate(6, whole, row, column, column_end, t, dy, c, C, step, columns, dweight)
            t = t + 6
        elif row.taps - t >= 3:
            correlate(3, whole, row, column, column_end, t, dy, c, C, step, columns, dweight)
            t = t + 3
        else:
            correlate(1, whole, row, column, column_end, t, dy, c, C, step, columns, dweight)
            t = t + 1
    if dbias != NULL:
        for i in range(column, column_end):
            sum = vf_add(sum, load(dy + i * C, whole, columns))
        add_to(dbias + c, sum, columns)


cdef void depthwise_weight(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """One job is one chunk of all output rows; pixels in groups of sixteen outside, channels inside."""
    cdef const DepthwiseWeightArgs* a = <const DepthwiseWeightArgs*>args
    cdef const Window* v = &a.window
    cdef Py_ssize_t C = v.C, T = v.TD * v.TH * v.TW, rows = v.planes * v.OH, step = v.SW * C
    cdef Py_ssize_t r, c, column, end
    cdef real* dweight = a.dweight + job * T * C
    cdef real* dbias = NULL
    cdef const real* dy
    cdef Row row
    open_row(&row, scratch, a.at_runs, a.at_zeros, C)
    memset(dweight, 0, T * C * sizeof(real))
    if a.dbias != NULL:
        dbias = a.dbias + job * C
        memset(dbias, 0, C * sizeof(real))
    for r in range(job * rows // a.chunks, (job + 1) * rows // a.chunks):
        list_runs(v, r // v.OH, r % v.OH, a.inner, a.inner_end, &row)
        dy = a.dy + r * v.OW * C
        column = 0
        while column < v.OW:
            end = min(column + 16, v.OW)
            c = 0
            while c + VL <= C:
                correlate_taps(True, &row, column, end, dy + c, c, C, step, VL, dweight + c, dbias)
                c = c + VL
            if c < C:
                correlate_taps(False, &row, column, end, dy + c, c, C, step, C - c, dweight + c, dbias)
            column = end


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
        "w* bias* y* tap* YD YH YW UD UH UW VD VH VW inner inner_end bands flags "
        "at_runs at_zeros")),
    "depthwise_weight": publish(<void*>depthwise_weight, sizeof(DepthwiseWeightArgs), WINDOW_SLOTS + (
        "dy* dweight* dbias* inner inner_end chunks at_runs at_zeros")),
    "repeat_channels": publish(<void*>repeat_channels, sizeof(RepeatArgs), "x* y* size times block"),
    "sum_repeats": publish(<void*>sum_repeats, sizeof(RepeatArgs), "x* y* size times block"),
}
