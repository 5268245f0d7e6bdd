# The register tile: MR rows x NR columns of a product, summed over k in registers.
#
#     y[i, j] += sum over taps and k of x_i[tap + k] * w[k, j]
#
# This is the inner loop of every convolution and matrix product here, in BLIS's manner: the weights
# are packed NR wide, each x is broadcast.  Rows are pointers, so a row may be any pixel of any
# image.
#
# Each accumulator is a local variable with a name: a_i is columns [0, VL) of row i, b_i is [VL,
# NR). An array of vectors indexed by a loop would live in memory (2.2 times slower).  `rows` (MR,
# or two or one third of it, for what is left over) and `wide` (two vectors or one) are constants at
# each call: the compiler drops the rows and columns that are not there.
from libc.stdint cimport int64_t

from cycnn.kernels.ahead cimport LINE, Ahead, fetch, fetch_lines
from cycnn.kernels.simd cimport (
    MR, NR, VL, real, vf, vf_add, vf_bcast, vf_fma, vf_load, vf_load_part, vf_max, vf_store,
    vf_store_part, vf_zero,
)


cdef enum:
    STEPS = 32              # of k in a row, before more memory is asked for
    # What the tile does with y beyond storing; a sum of these.
    ACCUMULATE = 1          # start from what y holds
    RELU = 2                # y = max(y, 0) after the bias
    FETCH = 4               # y may be in no cache: fetch the rows of the next tile


cdef inline vf start(const real* y, Py_ssize_t columns, Py_ssize_t flags) noexcept nogil:
    """Return what a row's sum starts from."""
    if flags & ACCUMULATE:
        if columns >= VL:
            return vf_load(y)
        if columns > 0:
            return vf_load_part(y, columns)
    return vf_zero()


cdef inline void finish(
    real* y, vf sum, vf bias, Py_ssize_t columns, Py_ssize_t flags,
) noexcept nogil:
    """Store y = activation(sum + bias) to the first `columns` columns."""
    sum = vf_add(sum, bias)
    if flags & RELU:
        sum = vf_max(vf_zero(), sum)
    if columns >= VL:
        vf_store(y, sum)
    elif columns > 0:
        vf_store_part(y, sum, columns)


cdef inline void multiply(
    int rows, bint wide,
    real** x,                   # IN   one pointer per row
    const int64_t* taps,        # IN   (count, 2): offsets of each tap's run in x and in w
    Py_ssize_t count,           # taps
    Py_ssize_t run,             # consecutive k of a tap
    const real* w,              # IN   packed, NR columns for each k
    real** y,                   # OUT  one pointer per row
    Py_ssize_t column,          # first column of this tile in y
    Py_ssize_t columns,         # how many of the NR there are
    const real* bias,           # IN   (NR,) for the last sum over k, else NULL
    Py_ssize_t flags,
    Ahead* ahead,               # fetched meanwhile, or NULL
) noexcept nogil:
    # Rows are reached from the first one, which moves: a pointer each and a counter would not fit
    # the sixteen integer registers.
    cdef Py_ssize_t d1 = x[1] - x[0] if rows > 1 else 0
    cdef Py_ssize_t d2 = x[2] - x[0] if rows > 2 else 0
    cdef Py_ssize_t d3 = x[3] - x[0] if rows > 3 else 0
    cdef Py_ssize_t d4 = x[4] - x[0] if rows > 4 else 0
    cdef Py_ssize_t d5 = x[5] - x[0] if rows > 5 else 0
    cdef Py_ssize_t d6 = x[6] - x[0] if rows > 6 else 0
    cdef Py_ssize_t d7 = x[7] - x[0] if rows > 7 else 0
    cdef Py_ssize_t d8 = x[8] - x[0] if rows > 8 else 0
    cdef Py_ssize_t d9 = x[9] - x[0] if rows > 9 else 0
    cdef Py_ssize_t da = x[10] - x[0] if rows > 10 else 0
    cdef Py_ssize_t db = x[11] - x[0] if rows > 11 else 0
    cdef vf a0 = vf_zero(), a1 = vf_zero(), a2 = vf_zero(), a3 = vf_zero()
    cdef vf a4 = vf_zero(), a5 = vf_zero(), a6 = vf_zero(), a7 = vf_zero()
    cdef vf a8 = vf_zero(), a9 = vf_zero(), aa = vf_zero(), ab = vf_zero()
    cdef vf b0 = vf_zero(), b1 = vf_zero(), b2 = vf_zero(), b3 = vf_zero()
    cdef vf b4 = vf_zero(), b5 = vf_zero(), b6 = vf_zero(), b7 = vf_zero()
    cdef vf b8 = vf_zero(), b9 = vf_zero(), ba = vf_zero(), bb = vf_zero()
    cdef vf s, wa, wb = vf_zero()
    cdef Py_ssize_t t
    cdef const real* p
    cdef const real* q
    cdef const real* end
    cdef const real* stop
    if flags & ACCUMULATE:
        a0 = start(y[0] + column, columns, flags)
        if wide:
            b0 = start(y[0] + column + VL, columns - VL, flags)
        if rows > 1:
            a1 = start(y[1] + column, columns, flags)
            if wide:
                b1 = start(y[1] + column + VL, columns - VL, flags)
        if rows > 2:
            a2 = start(y[2] + column, columns, flags)
            if wide:
                b2 = start(y[2] + column + VL, columns - VL, flags)
        if rows > 3:
            a3 = start(y[3] + column, columns, flags)
            if wide:
                b3 = start(y[3] + column + VL, columns - VL, flags)
        if rows > 4:
            a4 = start(y[4] + column, columns, flags)
            if wide:
                b4 = start(y[4] + column + VL, columns - VL, flags)
        if rows > 5:
            a5 = start(y[5] + column, columns, flags)
            if wide:
                b5 = start(y[5] + column + VL, columns - VL, flags)
        if rows > 6:
            a6 = start(y[6] + column, columns, flags)
            if wide:
                b6 = start(y[6] + column + VL, columns - VL, flags)
        if rows > 7:
            a7 = start(y[7] + column, columns, flags)
            if wide:
                b7 = start(y[7] + column + VL, columns - VL, flags)
        if rows > 8:
            a8 = start(y[8] + column, columns, flags)
            if wide:
                b8 = start(y[8] + column + VL, columns - VL, flags)
        if rows > 9:
            a9 = start(y[9] + column, columns, flags)
            if wide:
                b9 = start(y[9] + column + VL, columns - VL, flags)
        if rows > 10:
            aa = start(y[10] + column, columns, flags)
            if wide:
                ba = start(y[10] + column + VL, columns - VL, flags)
        if rows > 11:
            ab = start(y[11] + column, columns, flags)
            if wide:
                bb = start(y[11] + column + VL, columns - VL, flags)
    for t in range(count):
        q = x[0] + taps[2 * t]
        end = q + run
        p = w + taps[2 * t + 1]
        stop = end
        while True:
            if ahead != NULL:
                fetch(ahead)
                stop = q + STEPS if end - q > STEPS else end
            while q != stop:
                wa = vf_load(p)
                if wide:
                    wb = vf_load(p + VL)
                p = p + NR
                s = vf_bcast(q)
                a0 = vf_fma(s, wa, a0)
                if wide:
                    b0 = vf_fma(s, wb, b0)
                if rows > 1:
                    s = vf_bcast(q + d1)
                    a1 = vf_fma(s, wa, a1)
                    if wide:
                        b1 = vf_fma(s, wb, b1)
                if rows > 2:
                    s = vf_bcast(q + d2)
                    a2 = vf_fma(s, wa, a2)
                    if wide:
                        b2 = vf_fma(s, wb, b2)
                if rows > 3:
                    s = vf_bcast(q + d3)
                    a3 = vf_fma(s, wa, a3)
                    if wide:
                        b3 = vf_fma(s, wb, b3)
                if rows > 4:
                    s = vf_bcast(q + d4)
                    a4 = vf_fma(s, wa, a4)
                    if wide:
                        b4 = vf_fma(s, wb, b4)
                if rows > 5:
                    s = vf_bcast(q + d5)
                    a5 = vf_fma(s, wa, a5)
                    if wide:
                        b5 = vf_fma(s, wb, b5)
                if rows > 6:
                    s = vf_bcast(q + d6)
                    a6 = vf_fma(s, wa, a6)
                    if wide:
                        b6 = vf_fma(s, wb, b6)
                if rows > 7:
                    s = vf_bcast(q + d7)
                    a7 = vf_fma(s, wa, a7)
                    if wide:
                        b7 = vf_fma(s, wb, b7)
                if rows > 8:
                    s = vf_bcast(q + d8)
                    a8 = vf_fma(s, wa, a8)
                    if wide:
                        b8 = vf_fma(s, wb, b8)
                if rows > 9:
                    s = vf_bcast(q + d9)
                    a9 = vf_fma(s, wa, a9)
                    if wide:
                        b9 = vf_fma(s, wb, b9)
                if rows > 10:
                    s = vf_bcast(q + da)
                    aa = vf_fma(s, wa, aa)
                    if wide:
                        ba = vf_fma(s, wb, ba)
                if rows > 11:
                    s = vf_bcast(q + db)
                    ab = vf_fma(s, wa, ab)
                    if wide:
                        bb = vf_fma(s, wb, bb)
                q = q + 1
            if q == end:
                break
    wa = vf_zero()
    wb = vf_zero()
    if bias != NULL:
        wa = vf_load(bias)
        wb = vf_load(bias + VL)
    finish(y[0] + column, a0, wa, columns, flags)
    if wide:
        finish(y[0] + column + VL, b0, wb, columns - VL, flags)
    if rows > 1:
        finish(y[1] + column, a1, wa, columns, flags)
        if wide:
            finish(y[1] + column + VL, b1, wb, columns - VL, flags)
    if rows > 2:
        finish(y[2] + column, a2, wa, columns, flags)
        if wide:
            finish(y[2] + column + VL, b2, wb, columns - VL, flags)
    if rows > 3:
        finish(y[3] + column, a3, wa, columns, flags)
        if wide:
            finish(y[3] + column + VL, b3, wb, columns - VL, flags)
    if rows > 4:
        finish(y[4] + column, a4, wa, columns, flags)
        if wide:
            finish(y[4] + column + VL, b4, wb, columns - VL, flags)
    if rows > 5:
        finish(y[5] + column, a5, wa, columns, flags)
        if wide:
            finish(y[5] + column + VL, b5, wb, columns - VL, flags)
    if rows > 6:
        finish(y[6] + column, a6, wa, columns, flags)
        if wide:
            finish(y[6] + column + VL, b6, wb, columns - VL, flags)
    if rows > 7:
        finish(y[7] + column, a7, wa, columns, flags)
        if wide:
            finish(y[7] + column + VL, b7, wb, columns - VL, flags)
    if rows > 8:
        finish(y[8] + column, a8, wa, columns, flags)
        if wide:
            finish(y[8] + column + VL, b8, wb, columns - VL, flags)
    if rows > 9:
        finish(y[9] + column, a9, wa, columns, flags)
        if wide:
            finish(y[9] + column + VL, b9, wb, columns - VL, flags)
    if rows > 10:
        finish(y[10] + column, aa, wa, columns, flags)
        if wide:
            finish(y[10] + column + VL, ba, wb, columns - VL, flags)
    if rows > 11:
        finish(y[11] + column, ab, wa, columns, flags)
        if wide:
            finish(y[11] + column + VL, bb, wb, columns - VL, flags)


cdef inline void multiply_rows(
    real** x,                   # IN   one pointer per row, filled up to a multiple of MR
    real** y,                   # OUT  likewise
    Py_ssize_t rows,
    const int64_t* taps, Py_ssize_t count, Py_ssize_t run,
    const real* w, Py_ssize_t column, Py_ssize_t columns, const real* bias, Py_ssize_t flags,
    Ahead* ahead,
) noexcept nogil:
    """`multiply` for any number of rows."""
    cdef Py_ssize_t m = 0, left, i
    cdef bint wide = columns > VL
    while m < rows:
        left = rows - m
        if flags & FETCH and left > MR:
            for i in range(MR):
                fetch_lines(y[m + MR + i] + column, (NR + LINE - 1) // LINE if wide else 1)
        if left > 2 * (MR // 3):
            if wide:
                multiply(MR, True, x + m, taps, count, run, w, y + m, column, columns, bias, flags,
                         ahead)
            else:
                multiply(MR, False, x + m, taps, count, run, w, y + m, column, columns, bias, flags,
                         ahead)
        elif left > MR // 3:
            if wide:
                multiply(2 * (MR // 3), True, x + m, taps, count, run, w, y + m, column, columns,
                         bias, flags, ahead)
            else:
                multiply(2 * (MR // 3), False, x + m, taps, count, run, w, y + m, column, columns,
                         bias, flags, ahead)
        elif wide:
            multiply(MR // 3, True, x + m, taps, count, run, w, y + m, column, columns, bias, flags,
                     ahead)
        else:
            multiply(MR // 3, False, x + m, taps, count, run, w, y + m, column, columns, bias,
                     flags, ahead)
        m = m + MR
