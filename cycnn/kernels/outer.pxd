# The register tiles of a weight gradient: MR rows x NR columns, summed over pixels in registers.
#
#     dw[i, j] += sum over pixels p of x[offset[p] + i] * dy[p, j]
#
# As in tile.pxd, each accumulator is a local variable with a name, and `rows` and `wide` are
# constants at each call.  What comes next is fetched before each strip of pixels.  The sums of some
# pixels wait in an array of their own, dense and aligned, until dw gets the last.
from cycnn.kernels.ahead cimport Ahead, fetch
from cycnn.kernels.simd cimport (
    MR, NR, VL, prefetch, real, vf, vf_add, vf_bcast, vf_fma, vf_load, vf_store, vf_zero,
)
from cycnn.kernels.tile cimport ACCUMULATE, finish


cdef enum:
    STRIP = 16                  # pixels


cdef inline void put(
    bint wide, vf a, vf b, real* sums, real** dw, Py_ssize_t row, Py_ssize_t column,
    Py_ssize_t columns,
) noexcept nogil:
    """Store a row of a tile: to sums or, where there is a dw, its columns to that."""
    cdef real* y
    if dw == NULL:
        vf_store(sums, a)
        if wide:
            vf_store(sums + VL, b)
    else:
        y = dw[row] + column
        finish(y, a, vf_zero(), columns, 0)
        if wide:
            finish(y + VL, b, vf_zero(), columns - VL, 0)


cdef inline void accumulate_outer(
    int rows, bint wide,
    const real* x,              # IN   the first row of the first pixel
    const Py_ssize_t* offset,   # IN   where each pixel begins, from the first
    Py_ssize_t pixels,
    const real* dy,             # IN   at least NR columns for each pixel
    Py_ssize_t step,            # from one pixel of dy to the next
    Ahead* ahead,               # two
    real* sums,                 # INOUT  (rows, NR), of the pixels before
    real** dw,                  # OUT  one pointer per row; NULL: not yet, but to sums
    Py_ssize_t column,
    Py_ssize_t columns,
    Py_ssize_t flags,
) noexcept nogil:
    """dw[i, j] += sum over pixels p of x[offset[p] + i] * dy[p, j]: a tile of a weight gradient."""
    cdef vf a0 = vf_zero(), a1 = vf_zero(), a2 = vf_zero(), a3 = vf_zero()
    cdef vf a4 = vf_zero(), a5 = vf_zero(), a6 = vf_zero(), a7 = vf_zero()
    cdef vf a8 = vf_zero(), a9 = vf_zero(), aa = vf_zero(), ab = vf_zero()
    cdef vf b0 = vf_zero(), b1 = vf_zero(), b2 = vf_zero(), b3 = vf_zero()
    cdef vf b4 = vf_zero(), b5 = vf_zero(), b6 = vf_zero(), b7 = vf_zero()
    cdef vf b8 = vf_zero(), b9 = vf_zero(), ba = vf_zero(), bb = vf_zero()
    cdef vf s, da, db = vf_zero()
    cdef Py_ssize_t p = 0, end = (pixels - 1) % STRIP + 1, i
    cdef const real* q
    if flags & ACCUMULATE:
        a0 = vf_load(sums)
        if wide:
            b0 = vf_load(sums + VL)
        if rows > 1:
            a1 = vf_load(sums + NR)
            if wide:
                b1 = vf_load(sums + NR + VL)
        if rows > 2:
            a2 = vf_load(sums + 2 * NR)
            if wide:
                b2 = vf_load(sums + 2 * NR + VL)
        if rows > 3:
            a3 = vf_load(sums + 3 * NR)
            if wide:
                b3 = vf_load(sums + 3 * NR + VL)
        if rows > 4:
            a4 = vf_load(sums + 4 * NR)
            if wide:
                b4 = vf_load(sums + 4 * NR + VL)
        if rows > 5:
            a5 = vf_load(sums + 5 * NR)
            if wide:
                b5 = vf_load(sums + 5 * NR + VL)
        if rows > 6:
            a6 = vf_load(sums + 6 * NR)
            if wide:
                b6 = vf_load(sums + 6 * NR + VL)
        if rows > 7:
            a7 = vf_load(sums + 7 * NR)
            if wide:
                b7 = vf_load(sums + 7 * NR + VL)
        if rows > 8:
            a8 = vf_load(sums + 8 * NR)
            if wide:
                b8 = vf_load(sums + 8 * NR + VL)
        if rows > 9:
            a9 = vf_load(sums + 9 * NR)
            if wide:
                b9 = vf_load(sums + 9 * NR + VL)
        if rows > 10:
            aa = vf_load(sums + 10 * NR)
            if wide:
                ba = vf_load(sums + 10 * NR + VL)
        if rows > 11:
            ab = vf_load(sums + 11 * NR)
            if wide:
                bb = vf_load(sums + 11 * NR + VL)
    if dw != NULL:              # far away, unlike sums
        for i in range(rows):
            prefetch(dw[i] + column)
    while p < pixels:
        fetch(ahead)
        fetch(ahead + 1)
        while p < end:
            q = x + offset[p]
            da = vf_load(dy)
            if wide:
                db = vf_load(dy + VL)
            s = vf_bcast(q)
            a0 = vf_fma(s, da, a0)
            if wide:
                b0 = vf_fma(s, db, b0)
            if rows > 1:
                s = vf_bcast(q + 1)
                a1 = vf_fma(s, da, a1)
                if wide:
                    b1 = vf_fma(s, db, b1)
            if rows > 2:
                s = vf_bcast(q + 2)
                a2 = vf_fma(s, da, a2)
                if wide:
                    b2 = vf_fma(s, db, b2)
            if rows > 3:
                s = vf_bcast(q + 3)
                a3 = vf_fma(s, da, a3)
                if wide:
                    b3 = vf_fma(s, db, b3)
            if rows > 4:
                s = vf_bcast(q + 4)
                a4 = vf_fma(s, da, a4)
                if wide:
                    b4 = vf_fma(s, db, b4)
            if rows > 5:
                s = vf_bcast(q + 5)
                a5 = vf_fma(s, da, a5)
                if wide:
                    b5 = vf_fma(s, db, b5)
            if rows > 6:
                s = vf_bcast(q + 6)
                a6 = vf_fma(s, da, a6)
                if wide:
                    b6 = vf_fma(s, db, b6)
            if rows > 7:
                s = vf_bcast(q + 7)
                a7 = vf_fma(s, da, a7)
                if wide:
                    b7 = vf_fma(s, db, b7)
            if rows > 8:
                s = vf_bcast(q + 8)
                a8 = vf_fma(s, da, a8)
                if wide:
                    b8 = vf_fma(s, db, b8)
            if rows > 9:
                s = vf_bcast(q + 9)
                a9 = vf_fma(s, da, a9)
                if wide:
                    b9 = vf_fma(s, db, b9)
            if rows > 10:
                s = vf_bcast(q + 10)
                aa = vf_fma(s, da, aa)
                if wide:
                    ba = vf_fma(s, db, ba)
            if rows > 11:
                s = vf_bcast(q + 11)
                ab = vf_fma(s, da, ab)
                if wide:
                    bb = vf_fma(s, db, bb)
            dy = dy + step
            p = p + 1
        end = end + STRIP
    put(wide, a0, b0, sums, dw, 0, column, columns)
    if rows > 1:
        put(wide, a1, b1, sums + NR, dw, 1, column, columns)
    if rows > 2:
        put(wide, a2, b2, sums + 2 * NR, dw, 2, column, columns)
    if rows > 3:
        put(wide, a3, b3, sums + 3 * NR, dw, 3, column, columns)
    if rows > 4:
        put(wide, a4, b4, sums + 4 * NR, dw, 4, column, columns)
    if rows > 5:
        put(wide, a5, b5, sums + 5 * NR, dw, 5, column, columns)
    if rows > 6:
        put(wide, a6, b6, sums + 6 * NR, dw, 6, column, columns)
    if rows > 7:
        put(wide, a7, b7, sums + 7 * NR, dw, 7, column, columns)
    if rows > 8:
        put(wide, a8, b8, sums + 8 * NR, dw, 8, column, columns)
    if rows > 9:
        put(wide, a9, b9, sums + 9 * NR, dw, 9, column, columns)
    if rows > 10:
        put(wide, aa, ba, sums + 10 * NR, dw, 10, column, columns)
    if rows > 11:
        put(wide, ab, bb, sums + 11 * NR, dw, 11, column, columns)


cdef inline void accumulate_pairs(
    int rows, bint wide,        # at most MR // 2 rows
    const real* x, const Py_ssize_t* offset, Py_ssize_t pixels,
    const real* dy,             # IN   after an odd number of pixels, NR zeros
    Py_ssize_t step, Ahead* ahead, real* sums, real** dw, Py_ssize_t column,
    Py_ssize_t columns, Py_ssize_t flags,
) noexcept nogil:
    """The same for few rows: even pixels are summed in a_i and b_i, odd ones in c_i and d_i.

    A sum takes a product every four cycles or so, in which two units have time for eight vectors: a
    low tile with one sum of each would keep them waiting.
    """
    cdef vf a0 = vf_zero(), a1 = vf_zero(), a2 = vf_zero()
    cdef vf a3 = vf_zero(), a4 = vf_zero(), a5 = vf_zero()
    cdef vf b0 = vf_zero(), b1 = vf_zero(), b2 = vf_zero()
    cdef vf b3 = vf_zero(), b4 = vf_zero(), b5 = vf_zero()
    cdef vf c0 = vf_zero(), c1 = vf_zero(), c2 = vf_zero()
    cdef vf c3 = vf_zero(), c4 = vf_zero(), c5 = vf_zero()
    cdef vf d0 = vf_zero(), d1 = vf_zero(), d2 = vf_zero()
    cdef vf d3 = vf_zero(), d4 = vf_zero(), d5 = vf_zero()
    cdef vf s, da, db = vf_zero()
    cdef Py_ssize_t i
    cdef const Py_ssize_t* last = offset + pixels
    cdef const Py_ssize_t* end = offset + (pixels - 1) % STRIP + 1
    cdef const real* q
    if flags & ACCUMULATE:
        a0 = vf_load(sums)
        if wide:
            b0 = vf_load(sums + VL)
        if rows > 1:
            a1 = vf_load(sums + NR)
            if wide:
                b1 = vf_load(sums + NR + VL)
        if rows > 2:
            a2 = vf_load(sums + 2 * NR)
            if wide:
                b2 = vf_load(sums + 2 * NR + VL)
        if rows > 3:
            a3 = vf_load(sums + 3 * NR)
            if wide:
                b3 = vf_load(sums + 3 * NR + VL)
        if rows > 4:
            a4 = vf_load(sums + 4 * NR)
            if wide:
                b4 = vf_load(sums + 4 * NR + VL)
        if rows > 5:
            a5 = vf_load(sums + 5 * NR)
            if wide:
                b5 = vf_load(sums + 5 * NR + VL)
    if dw != NULL:              # far away, unlike sums
        for i in range(rows):
            prefetch(dw[i] + column)
    while offset < last:
        fetch(ahead)
        fetch(ahead + 1)
        while offset < end:
            q = x + offset[0]
            da = vf_load(dy)
            if wide:
                db = vf_load(dy + VL)
            s = vf_bcast(q)
            a0 = vf_fma(s, da, a0)
            if wide:
                b0 = vf_fma(s, db, b0)
            if rows > 1:
                s = vf_bcast(q + 1)
                a1 = vf_fma(s, da, a1)
                if wide:
                    b1 = vf_fma(s, db, b1)
            if rows > 2:
                s = vf_bcast(q + 2)
                a2 = vf_fma(s, da, a2)
                if wide:
                    b2 = vf_fma(s, db, b2)
            if rows > 3:
                s = vf_bcast(q + 3)
                a3 = vf_fma(s, da, a3)
                if wide:
                    b3 = vf_fma(s, db, b3)
            if rows > 4:
                s = vf_bcast(q + 4)
                a4 = vf_fma(s, da, a4)
                if wide:
                    b4 = vf_fma(s, db, b4)
            if rows > 5:
                s = vf_bcast(q + 5)
                a5 = vf_fma(s, da, a5)
                if wide:
                    b5 = vf_fma(s, db, b5)
            dy = dy + step
            q = dy                          # the zeros, where the last pixel is alone
            if offset + 1 < last:
                q = x + offset[1]
            da = vf_load(dy)
            if wide:
                db = vf_load(dy + VL)
            s = vf_bcast(q)
            c0 = vf_fma(s, da, c0)
            if wide:
                d0 = vf_fma(s, db, d0)
            if rows > 1:
                s = vf_bcast(q + 1)
                c1 = vf_fma(s, da, c1)
                if wide:
                    d1 = vf_fma(s, db, d1)
            if rows > 2:
                s = vf_bcast(q + 2)
                c2 = vf_fma(s, da, c2)
                if wide:
                    d2 = vf_fma(s, db, d2)
            if rows > 3:
                s = vf_bcast(q + 3)
                c3 = vf_fma(s, da, c3)
                if wide:
                    d3 = vf_fma(s, db, d3)
            if rows > 4:
                s = vf_bcast(q + 4)
                c4 = vf_fma(s, da, c4)
                if wide:
                    d4 = vf_fma(s, db, d4)
            if rows > 5:
                s = vf_bcast(q + 5)
                c5 = vf_fma(s, da, c5)
                if wide:
                    d5 = vf_fma(s, db, d5)
            dy = dy + step
            offset = offset + 2
        end = end + STRIP
    put(wide, vf_add(a0, c0), vf_add(b0, d0), sums, dw, 0, column, columns)
    if rows > 1:
        put(wide, vf_add(a1, c1), vf_add(b1, d1), sums + NR, dw, 1, column, columns)
    if rows > 2:
        put(wide, vf_add(a2, c2), vf_add(b2, d2), sums + 2 * NR, dw, 2, column, columns)
    if rows > 3:
        put(wide, vf_add(a3, c3), vf_add(b3, d3), sums + 3 * NR, dw, 3, column, columns)
    if rows > 4:
        put(wide, vf_add(a4, c4), vf_add(b4, d4), sums + 4 * NR, dw, 4, column, columns)
    if rows > 5:
        put(wide, vf_add(a5, c5), vf_add(b5, d5), sums + 5 * NR, dw, 5, column, columns)
