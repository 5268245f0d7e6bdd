# The register tile: rows x columns of a product, summed over k in registers.
#
#     y[i, j] += sum over taps and k of x_i[tap + k] * w[k, j]
#
# This is the inner loop of every convolution and matrix product here, in BLIS's manner: the weights
# are packed in panels of NR columns (two vectors), each x is broadcast.  Rows are pointers, so a
# row may be any pixel of any image.
#
# A step of k loads a vector of w for each vector of columns and an x for each row, so a tile is as
# square as columns and registers allow.  With 32 registers it has 6 rows of two panels, 8 where
# half of the second is missing, 12 of one; with 16, 4 rows of a panel and a half, which begins with
# either half of a panel, or 6 of one.  Half a panel has twelve rows at any rate: the sums of fewer
# would wait for each other.
#
# Sums are members of local structs that nothing but these inline functions sees: they stay in
# registers.  An array of vectors indexed by a loop would live in memory (2.2 times slower).  `rows`
# and `vectors` are constants at each call: the compiler drops the rows and columns that are not
# there.
from libc.stdint cimport int64_t

from cycnn.kernels.ahead cimport LINE, Ahead, fetch, fetch_lines
from cycnn.kernels.simd cimport (
    MR, NR, PANELS, VL, real, vf, vf_add, vf_bcast, vf_fma, vf_load, vf_load_part, vf_max, vf_store,
    vf_store_part, vf_zero,
)


cdef enum:
    STEPS = 32              # of k in a row, before more memory is asked for
    # What the tile does with y beyond storing; a sum of these.
    ACCUMULATE = 1          # start from what y holds
    RELU = 2                # y = max(y, 0) after the bias
    FETCH = 4               # y may be in no cache: fetch the rows of the next whole tile


cdef struct Product:
    real** x                    # IN   one pointer per row, filled up to a multiple of MR
    real** y                    # OUT  likewise
    Py_ssize_t rows
    const int64_t* taps         # IN   (count, 2): offsets of each tap's run in x and in w
    Py_ssize_t count            # taps
    Py_ssize_t run              # consecutive k of a tap
    const real* w               # IN   packed, NR columns for each k
    Py_ssize_t panel            # from there to the next panel
    Py_ssize_t second           # from there to the second vector of three
    Py_ssize_t column           # first column in y
    Py_ssize_t columns          # how many there are, those of a tile at most
    const real* bias            # IN   (columns,) for the last sum over k, else NULL
    Py_ssize_t flags
    Ahead* ahead                # fetched meanwhile, or NULL


cdef struct Row:
    # The vectors of a tile's columns: a row's sums, the weights of one k, or the bias.
    vf a, b, c, d


cdef inline Row zeros() noexcept nogil:
    cdef Row row
    row.a = row.b = row.c = row.d = vf_zero()
    return row


cdef inline vf vector_at(const real* y, Py_ssize_t columns) noexcept nogil:
    """Return the first `columns` columns, VL at most."""
    if columns >= VL:
        return vf_load(y)
    return vf_load_part(y, columns) if columns > 0 else vf_zero()


cdef inline Row row_at(int vectors, const real* y, Py_ssize_t columns) noexcept nogil:
    """Return what y holds."""
    cdef Row row = zeros()
    row.a = vector_at(y, columns)
    if vectors > 1:
        row.b = vector_at(y + VL, columns - VL)
    if vectors > 2:
        row.c = vector_at(y + 2 * VL, columns - 2 * VL)
    if vectors > 3:
        row.d = vector_at(y + 3 * VL, columns - 3 * VL)
    return row


cdef inline Row add_product(int vectors, const real* x, const Row* w, Row row) noexcept nogil:
    """row + x * w."""
    cdef vf s = vf_bcast(x)
    row.a = vf_fma(s, w.a, row.a)
    if vectors > 1:
        row.b = vf_fma(s, w.b, row.b)
    if vectors > 2:
        row.c = vf_fma(s, w.c, row.c)
    if vectors > 3:
        row.d = vf_fma(s, w.d, row.d)
    return row


cdef inline void finish(
    real* y, vf sum, vf bias, Py_ssize_t columns, Py_ssize_t flags,
) noexcept nogil:
    """Store y = activation(sum + bias) to the first `columns` columns, VL at most."""
    sum = vf_add(sum, bias)
    if flags & RELU:
        sum = vf_max(vf_zero(), sum)
    if columns >= VL:
        vf_store(y, sum)
    elif columns > 0:
        vf_store_part(y, sum, columns)


cdef inline void finish_row(
    int vectors, real* y, Row row, const Row* bias, Py_ssize_t columns, Py_ssize_t flags,
) noexcept nogil:
    """`finish` each vector of a row."""
    finish(y, row.a, bias.a, columns, flags)
    if vectors > 1:
        finish(y + VL, row.b, bias.b, columns - VL, flags)
    if vectors > 2:
        finish(y + 2 * VL, row.c, bias.c, columns - 2 * VL, flags)
    if vectors > 3:
        finish(y + 3 * VL, row.d, bias.d, columns - 3 * VL, flags)


cdef inline Py_ssize_t multiply(
    int rows, int vectors, const Product* p, Py_ssize_t m,
) noexcept nogil:
    """Write the tile whose first row is m; return where the next one begins."""
    cdef real** x = p.x + m
    cdef real** y = p.y + m
    cdef Ahead* ahead = p.ahead
    cdef Py_ssize_t t, i, panel = p.panel, second = p.second if vectors == 3 else VL
    cdef Py_ssize_t column = p.column, columns = p.columns, flags = p.flags
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
    cdef Row r0 = zeros(), r1 = zeros(), r2 = zeros(), r3 = zeros()
    cdef Row r4 = zeros(), r5 = zeros(), r6 = zeros(), r7 = zeros()
    cdef Row r8 = zeros(), r9 = zeros(), ra = zeros(), rb = zeros(), w = zeros()
    cdef const real* q
    cdef const real* v
    cdef const real* end
    cdef const real* stop
    if flags & FETCH and p.rows - m >= 2 * rows:
        for i in range(rows, 2 * rows):
            fetch_lines(y[i] + column, (vectors * VL + LINE - 1) // LINE)
    if flags & ACCUMULATE:
        r0 = row_at(vectors, y[0] + column, columns)
        if rows > 1:
            r1 = row_at(vectors, y[1] + column, columns)
        if rows > 2:
            r2 = row_at(vectors, y[2] + column, columns)
        if rows > 3:
            r3 = row_at(vectors, y[3] + column, columns)
        if rows > 4:
            r4 = row_at(vectors, y[4] + column, columns)
        if rows > 5:
            r5 = row_at(vectors, y[5] + column, columns)
        if rows > 6:
            r6 = row_at(vectors, y[6] + column, columns)
        if rows > 7:
            r7 = row_at(vectors, y[7] + column, columns)
        if rows > 8:
            r8 = row_at(vectors, y[8] + column, columns)
        if rows > 9:
            r9 = row_at(vectors, y[9] + column, columns)
        if rows > 10:
            ra = row_at(vectors, y[10] + column, columns)
        if rows > 11:
            rb = row_at(vectors, y[11] + column, columns)
    for t in range(p.count):
        q = x[0] + p.taps[2 * t]
        end = q + p.run
        v = p.w + p.taps[2 * t + 1]
        stop = end
        while True:
            if ahead != NULL:
                fetch(ahead)
                stop = q + STEPS if end - q > STEPS else end
            while q != stop:
                w.a = vf_load(v)
                if vectors > 1:
                    w.b = vf_load(v + second)
                if vectors > 2:
                    w.c = vf_load(v + panel)
                if vectors > 3:
                    w.d = vf_load(v + panel + VL)
                v = v + NR
                r0 = add_product(vectors, q, &w, r0)
                if rows > 1:
                    r1 = add_product(vectors, q + d1, &w, r1)
                if rows > 2:
                    r2 = add_product(vectors, q + d2, &w, r2)
                if rows > 3:
                    r3 = add_product(vectors, q + d3, &w, r3)
                if rows > 4:
                    r4 = add_product(vectors, q + d4, &w, r4)
                if rows > 5:
                    r5 = add_product(vectors, q + d5, &w, r5)
                if rows > 6:
                    r6 = add_product(vectors, q + d6, &w, r6)
                if rows > 7:
                    r7 = add_product(vectors, q + d7, &w, r7)
                if rows > 8:
                    r8 = add_product(vectors, q + d8, &w, r8)
                if rows > 9:
                    r9 = add_product(vectors, q + d9, &w, r9)
                if rows > 10:
                    ra = add_product(vectors, q + da, &w, ra)
                if rows > 11:
                    rb = add_product(vectors, q + db, &w, rb)
                q = q + 1
            if q == end:
                break
    w = zeros()
    if p.bias != NULL:
        w = row_at(vectors, p.bias, columns)
    finish_row(vectors, y[0] + column, r0, &w, columns, flags)
    if rows > 1:
        finish_row(vectors, y[1] + column, r1, &w, columns, flags)
    if rows > 2:
        finish_row(vectors, y[2] + column, r2, &w, columns, flags)
    if rows > 3:
        finish_row(vectors, y[3] + column, r3, &w, columns, flags)
    if rows > 4:
        finish_row(vectors, y[4] + column, r4, &w, columns, flags)
    if rows > 5:
        finish_row(vectors, y[5] + column, r5, &w, columns, flags)
    if rows > 6:
        finish_row(vectors, y[6] + column, r6, &w, columns, flags)
    if rows > 7:
        finish_row(vectors, y[7] + column, r7, &w, columns, flags)
    if rows > 8:
        finish_row(vectors, y[8] + column, r8, &w, columns, flags)
    if rows > 9:
        finish_row(vectors, y[9] + column, r9, &w, columns, flags)
    if rows > 10:
        finish_row(vectors, y[10] + column, ra, &w, columns, flags)
    if rows > 11:
        finish_row(vectors, y[11] + column, rb, &w, columns, flags)
    return m + rows


cdef inline Py_ssize_t tile_columns(Py_ssize_t at, Py_ssize_t left) noexcept nogil:
    """Return how many of the columns that are left, from `at` on, go into a tile.

    A panel and a half goes in pairs, the second of which begins with half a panel, or by itself.
    """
    cdef Py_ssize_t vectors = (left + VL - 1) // VL
    if PANELS > 1:
        return min(left, <Py_ssize_t>(PANELS * NR))
    if at % NR or vectors == 3 or vectors > 5:
        return min(left, <Py_ssize_t>(NR + VL))
    return min(left, <Py_ssize_t>NR)


cdef inline Py_ssize_t tile_rows(Py_ssize_t columns) noexcept nogil:
    """Return how many rows a whole tile of so many columns has."""
    if columns > NR + VL:
        return 6
    if columns > NR:
        return 8 if PANELS > 1 else 4
    return MR if columns > VL else 12


cdef inline Py_ssize_t multiply_panel(
    int vectors, const Product* p, Py_ssize_t m, Py_ssize_t left,
) noexcept nogil:
    """`multiply` for a panel or half of it, in the lowest tile for the rows that are left."""
    if left > 2 * (MR // 3):
        return multiply(MR, vectors, p, m)
    if left > MR // 3:
        return multiply(2 * (MR // 3), vectors, p, m)
    return multiply(MR // 3, vectors, p, m)


cdef inline void multiply_rows(const Product* p) noexcept nogil:
    """Write all rows of a product, in tiles of as many as are left."""
    cdef Py_ssize_t m = 0, left
    while m < p.rows:
        left = p.rows - m
        if PANELS > 1 and p.columns > NR + VL:
            if left > 4:
                m = multiply(6, 4, p, m)
            elif left > 2:
                m = multiply(4, 4, p, m)
            else:
                m = multiply(2, 4, p, m)
        elif PANELS > 1 and p.columns > NR:
            if left > 4:
                m = multiply(8, 3, p, m)
            else:
                m = multiply(4, 3, p, m)
        elif p.columns > NR:
            if left > 2:
                m = multiply(4, 3, p, m)
            else:
                m = multiply(2, 3, p, m)
        elif p.columns > VL:
            m = multiply_panel(2, p, m, left)
        elif MR < 12 and left > MR:
            m = multiply(12, 1, p, m)
        else:
            m = multiply_panel(1, p, m, left)
