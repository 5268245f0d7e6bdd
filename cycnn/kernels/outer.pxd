# The register tiles of a weight gradient: MR rows x NR columns, summed over pixels in registers.
#
#     dw[i, j] += sum over pixels p of x[offset[p] + i] * dy[p, j]
#
# Each accumulator has a name, as in tile.pxd: here in a local struct that nothing but these inline
# functions sees, so that the compiler keeps it in registers.  `rows` and `wide` are constants at
# each call.  What comes next is fetched before each strip of pixels; within it, a turn of the loop
# multiplies two.  The sums of some pixels wait in an array of their own, dense and aligned, until
# dw gets the last.
from cycnn.kernels.ahead cimport Ahead, fetch_in_turn
from cycnn.kernels.simd cimport (
    MR, NR, VL, real, vf, vf_add, vf_bcast, vf_fma, vf_load, vf_store, vf_zero,
)
from cycnn.kernels.tile cimport ACCUMULATE, finish


cdef enum:
    STRIP = 16                  # pixels


cdef struct Sums:
    # Of a tile: row i is a_i and, in the columns of the second vector, b_i.
    vf a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, aa, ab
    vf b0, b1, b2, b3, b4, b5, b6, b7, b8, b9, ba, bb


cdef inline Sums no_sums() noexcept nogil:
    cdef Sums s
    s.a0 = s.a1 = s.a2 = s.a3 = s.a4 = s.a5 = vf_zero()
    s.a6 = s.a7 = s.a8 = s.a9 = s.aa = s.ab = vf_zero()
    s.b0 = s.b1 = s.b2 = s.b3 = s.b4 = s.b5 = vf_zero()
    s.b6 = s.b7 = s.b8 = s.b9 = s.ba = s.bb = vf_zero()
    return s


cdef inline Sums load_sums(int rows, bint wide, const real* sums) noexcept nogil:
    """Return the sums of the pixels before, (rows, NR)."""
    cdef Sums s = no_sums()
    s.a0 = vf_load(sums)
    if wide:
        s.b0 = vf_load(sums + VL)
    if rows > 1:
        s.a1 = vf_load(sums + NR)
        if wide:
            s.b1 = vf_load(sums + NR + VL)
    if rows > 2:
        s.a2 = vf_load(sums + 2 * NR)
        if wide:
            s.b2 = vf_load(sums + 2 * NR + VL)
    if rows > 3:
        s.a3 = vf_load(sums + 3 * NR)
        if wide:
            s.b3 = vf_load(sums + 3 * NR + VL)
    if rows > 4:
        s.a4 = vf_load(sums + 4 * NR)
        if wide:
            s.b4 = vf_load(sums + 4 * NR + VL)
    if rows > 5:
        s.a5 = vf_load(sums + 5 * NR)
        if wide:
            s.b5 = vf_load(sums + 5 * NR + VL)
    if rows > 6:
        s.a6 = vf_load(sums + 6 * NR)
        if wide:
            s.b6 = vf_load(sums + 6 * NR + VL)
    if rows > 7:
        s.a7 = vf_load(sums + 7 * NR)
        if wide:
            s.b7 = vf_load(sums + 7 * NR + VL)
    if rows > 8:
        s.a8 = vf_load(sums + 8 * NR)
        if wide:
            s.b8 = vf_load(sums + 8 * NR + VL)
    if rows > 9:
        s.a9 = vf_load(sums + 9 * NR)
        if wide:
            s.b9 = vf_load(sums + 9 * NR + VL)
    if rows > 10:
        s.aa = vf_load(sums + 10 * NR)
        if wide:
            s.ba = vf_load(sums + 10 * NR + VL)
    if rows > 11:
        s.ab = vf_load(sums + 11 * NR)
        if wide:
            s.bb = vf_load(sums + 11 * NR + VL)
    return s


cdef inline void add_pixel(
    int rows, bint wide, const real* x, const real* dy, Sums* s,
) noexcept nogil:
    """s[i, j] += x[i] * dy[j]."""
    cdef vf da = vf_load(dy), db = vf_load(dy + VL) if wide else vf_zero(), f
    f = vf_bcast(x)
    s.a0 = vf_fma(f, da, s.a0)
    if wide:
        s.b0 = vf_fma(f, db, s.b0)
    if rows > 1:
        f = vf_bcast(x + 1)
        s.a1 = vf_fma(f, da, s.a1)
        if wide:
            s.b1 = vf_fma(f, db, s.b1)
    if rows > 2:
        f = vf_bcast(x + 2)
        s.a2 = vf_fma(f, da, s.a2)
        if wide:
            s.b2 = vf_fma(f, db, s.b2)
    if rows > 3:
        f = vf_bcast(x + 3)
        s.a3 = vf_fma(f, da, s.a3)
        if wide:
            s.b3 = vf_fma(f, db, s.b3)
    if rows > 4:
        f = vf_bcast(x + 4)
        s.a4 = vf_fma(f, da, s.a4)
        if wide:
            s.b4 = vf_fma(f, db, s.b4)
    if rows > 5:
        f = vf_bcast(x + 5)
        s.a5 = vf_fma(f, da, s.a5)
        if wide:
            s.b5 = vf_fma(f, db, s.b5)
    if rows > 6:
        f = vf_bcast(x + 6)
        s.a6 = vf_fma(f, da, s.a6)
        if wide:
            s.b6 = vf_fma(f, db, s.b6)
    if rows > 7:
        f = vf_bcast(x + 7)
        s.a7 = vf_fma(f, da, s.a7)
        if wide:
            s.b7 = vf_fma(f, db, s.b7)
    if rows > 8:
        f = vf_bcast(x + 8)
        s.a8 = vf_fma(f, da, s.a8)
        if wide:
            s.b8 = vf_fma(f, db, s.b8)
    if rows > 9:
        f = vf_bcast(x + 9)
        s.a9 = vf_fma(f, da, s.a9)
        if wide:
            s.b9 = vf_fma(f, db, s.b9)
    if rows > 10:
        f = vf_bcast(x + 10)
        s.aa = vf_fma(f, da, s.aa)
        if wide:
            s.ba = vf_fma(f, db, s.ba)
    if rows > 11:
        f = vf_bcast(x + 11)
        s.ab = vf_fma(f, da, s.ab)
        if wide:
            s.bb = vf_fma(f, db, s.bb)


cdef inline void add_sums(int rows, bint wide, Sums* s, const Sums* t) noexcept nogil:
    """s += t, of at most six rows."""
    s.a0 = vf_add(s.a0, t.a0)
    if wide:
        s.b0 = vf_add(s.b0, t.b0)
    if rows > 1:
        s.a1 = vf_add(s.a1, t.a1)
        if wide:
            s.b1 = vf_add(s.b1, t.b1)
    if rows > 2:
        s.a2 = vf_add(s.a2, t.a2)
        if wide:
            s.b2 = vf_add(s.b2, t.b2)
    if rows > 3:
        s.a3 = vf_add(s.a3, t.a3)
        if wide:
            s.b3 = vf_add(s.b3, t.b3)
    if rows > 4:
        s.a4 = vf_add(s.a4, t.a4)
        if wide:
            s.b4 = vf_add(s.b4, t.b4)
    if rows > 5:
        s.a5 = vf_add(s.a5, t.a5)
        if wide:
            s.b5 = vf_add(s.b5, t.b5)


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


cdef inline void put_sums(
    int rows, bint wide, const Sums* s, real* sums, real** dw, Py_ssize_t column,
    Py_ssize_t columns,
) noexcept nogil:
    put(wide, s.a0, s.b0, sums, dw, 0, column, columns)
    if rows > 1:
        put(wide, s.a1, s.b1, sums + NR, dw, 1, column, columns)
    if rows > 2:
        put(wide, s.a2, s.b2, sums + 2 * NR, dw, 2, column, columns)
    if rows > 3:
        put(wide, s.a3, s.b3, sums + 3 * NR, dw, 3, column, columns)
    if rows > 4:
        put(wide, s.a4, s.b4, sums + 4 * NR, dw, 4, column, columns)
    if rows > 5:
        put(wide, s.a5, s.b5, sums + 5 * NR, dw, 5, column, columns)
    if rows > 6:
        put(wide, s.a6, s.b6, sums + 6 * NR, dw, 6, column, columns)
    if rows > 7:
        put(wide, s.a7, s.b7, sums + 7 * NR, dw, 7, column, columns)
    if rows > 8:
        put(wide, s.a8, s.b8, sums + 8 * NR, dw, 8, column, columns)
    if rows > 9:
        put(wide, s.a9, s.b9, sums + 9 * NR, dw, 9, column, columns)
    if rows > 10:
        put(wide, s.aa, s.ba, sums + 10 * NR, dw, 10, column, columns)
    if rows > 11:
        put(wide, s.ab, s.bb, sums + 11 * NR, dw, 11, column, columns)


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
    cdef Sums s = load_sums(rows, wide, sums) if flags & ACCUMULATE else no_sums()
    cdef const Py_ssize_t* last = offset + pixels
    cdef const Py_ssize_t* end = offset + (pixels - 1) % STRIP + 1
    fetch_in_turn(ahead)
    while offset < end:
        add_pixel(rows, wide, x + offset[0], dy, &s)
        dy = dy + step
        offset = offset + 1
    while offset < last:
        fetch_in_turn(ahead)
        end = end + STRIP
        while offset < end:
            add_pixel(rows, wide, x + offset[0], dy, &s)
            add_pixel(rows, wide, x + offset[1], dy + step, &s)
            dy = dy + 2 * step
            offset = offset + 2
    put_sums(rows, wide, &s, sums, dw, column, columns)


cdef inline void accumulate_pairs(
    int rows, bint wide,        # at most six rows
    const real* x, const Py_ssize_t* offset, Py_ssize_t pixels,
    const real* dy, Py_ssize_t step, Ahead* ahead, real* sums, real** dw, Py_ssize_t column,
    Py_ssize_t columns, Py_ssize_t flags,
) noexcept nogil:
    """The same for few sums: even pixels are summed in `s`, odd ones in `t`.

    A sum takes a product every four cycles or so, in which two units have time for eight vectors: a
    low tile with one sum of each would keep them waiting.
    """
    cdef Sums s = load_sums(rows, wide, sums) if flags & ACCUMULATE else no_sums()
    cdef Sums t = no_sums()
    cdef const Py_ssize_t* last = offset + pixels // 2 * 2
    cdef const Py_ssize_t* end = offset + (pixels // 2 - 1) % (STRIP // 2) * 2 + 2
    while offset < last:
        fetch_in_turn(ahead)
        while offset < end:
            add_pixel(rows, wide, x + offset[0], dy, &s)
            add_pixel(rows, wide, x + offset[1], dy + step, &t)
            dy = dy + 2 * step
            offset = offset + 2
        end = end + STRIP
    if pixels % 2:
        fetch_in_turn(ahead)
        add_pixel(rows, wide, x + offset[0], dy, &s)
    add_sums(rows, wide, &s, &t)
    put_sums(rows, wide, &s, sums, dw, column, columns)
