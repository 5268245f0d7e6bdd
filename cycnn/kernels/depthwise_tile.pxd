# The tile of a depthwise convolution: neighbouring outputs of one row, or of two, one below the
# other, by a vector of channels, kept in registers while the sum walks over the taps.
#
# Taps that lie side by side in threes share the columns of x.  Two rows share rows: with 3x3 taps,
# two rows of four outputs load 24 pixels, one row of eight 30, and every row of x comes from the
# caches twice instead of three times.
from cycnn.kernels.depthwise_rows cimport LEFT, RIGHT, load, store
from cycnn.kernels.simd cimport VL, real, vf, vf_fma, vf_load, vf_max, vf_zero
from cycnn.kernels.tile cimport RELU

cdef enum:
    UPPER = 1                   # of two rows
    LOWER = 2


cdef inline void put(
    real* y, vf sum, bint whole, Py_ssize_t columns, Py_ssize_t flags,
) noexcept nogil:
    """Store activation(sum)."""
    if flags & RELU:
        sum = vf_max(vf_zero(), sum)
    store(y, sum, whole, columns)


cdef struct Reach:
    # Taps that an output row, the one below it, or both have in one row of x.
    const real* x               # where the first window of the run finds the first of them
    const real* upper           # IN   their weights, or NULL if the row does not have them
    const real* lower           # IN   the same of the row below


cdef struct Group:
    # Neighbouring outputs of a row, or of two, one below the other, and a vector of their channels.
    const Reach* reach          # IN   those of three taps side by side come first
    Py_ssize_t threes           # how many are of three taps
    Py_ssize_t ones             # how many of one
    Py_ssize_t C
    Py_ssize_t step             # from one window to the next
    Py_ssize_t across           # from the weights of one of three taps to those of the next
    const real* bias            # IN   (C,) or NULL
    Py_ssize_t y_step           # from one output to the next
    Py_ssize_t y_row            # from one row of outputs to the next
    Py_ssize_t flags            # of the tile
    Py_ssize_t ahead            # input rows to fetch for each row of outputs, if any
    Py_ssize_t x_row            # from one of them to the next
    Py_ssize_t x_rows           # from those of one row of outputs to those of the next
    const real* next_x          # IN   the last of those to fetch for the first outputs
    Py_ssize_t edges            # LEFT, RIGHT: that of these outputs is an edge of the row
    Py_ssize_t at               # from the first window of the run to that of these
    Py_ssize_t c                # the first channel
    Py_ssize_t columns          # how many channels


cdef struct Sums:
    # Of up to eight neighbouring outputs.
    vf a0, a1, a2, a3, a4, a5, a6, a7


cdef struct Three:
    # The weights of three taps side by side.
    vf w0, w1, w2


cdef inline Three load_three(const Group* g, const real* w) noexcept nogil:
    cdef Three three
    three.w0 = vf_load(w + g.c)
    three.w1 = vf_load(w + g.across + g.c)
    three.w2 = vf_load(w + 2 * g.across + g.c)
    return three


cdef inline vf product(int tap, vf x, const Three* w, vf sum) noexcept nogil:
    """Return sum + x * w of a tap, which is a constant, if it is one of the three."""
    if tap == 0:
        return vf_fma(x, w.w0, sum)
    if tap == 1:
        return vf_fma(x, w.w1, sum)
    if tap == 2:
        return vf_fma(x, w.w2, sum)
    return sum


cdef inline void spread(
    int pixels, int stride, int column, vf x, const Three* w, Sums* s,
) noexcept nogil:
    """Add a column of x to the sums of all windows of three taps that it is in."""
    s.a0 = product(column, x, w, s.a0)
    if pixels > 1:
        s.a1 = product(column - stride, x, w, s.a1)
    if pixels > 2:
        s.a2 = product(column - 2 * stride, x, w, s.a2)
    if pixels > 3:
        s.a3 = product(column - 3 * stride, x, w, s.a3)
    if pixels > 4:
        s.a4 = product(column - 4 * stride, x, w, s.a4)
    if pixels > 5:
        s.a5 = product(column - 5 * stride, x, w, s.a5)
    if pixels > 6:
        s.a6 = product(column - 6 * stride, x, w, s.a6)
    if pixels > 7:
        s.a7 = product(column - 7 * stride, x, w, s.a7)


cdef inline void add_column(
    int which, int pixels, int stride, int column, const Group* g, const real* x, const Three* u,
    const Three* w, Sums* s, Sums* t,
) noexcept nogil:
    cdef int last = (pixels - 1) * stride + 2
    cdef vf v = vf_zero()
    if column <= last:
        if not (column == 0 and g.edges & LEFT or column == last and g.edges & RIGHT):
            v = vf_load(x + column * g.C)
        if which & UPPER:
            spread(pixels, stride, column, v, u, s)
        if which & LOWER:
            spread(pixels, stride, column, v, w, t)


cdef inline void add_three(
    int which, int pixels, int stride, const Group* g, const Reach* reach, Sums* s, Sums* t,
) noexcept nogil:
    """Add three taps: each column of x is loaded once for the windows that it is in."""
    cdef const real* x = reach.x + g.at
    cdef Three u, w
    if which & UPPER:
        u = load_three(g, reach.upper)
    if which & LOWER:
        w = load_three(g, reach.lower)
    add_column(which, pixels, stride, 0, g, x, &u, &w, s, t)
    add_column(which, pixels, stride, 1, g, x, &u, &w, s, t)
    add_column(which, pixels, stride, 2, g, x, &u, &w, s, t)
    add_column(which, pixels, stride, 3, g, x, &u, &w, s, t)
    add_column(which, pixels, stride, 4, g, x, &u, &w, s, t)
    add_column(which, pixels, stride, 5, g, x, &u, &w, s, t)
    add_column(which, pixels, stride, 6, g, x, &u, &w, s, t)
    add_column(which, pixels, stride, 7, g, x, &u, &w, s, t)
    add_column(which, pixels, stride, 8, g, x, &u, &w, s, t)
    add_column(which, pixels, stride, 9, g, x, &u, &w, s, t)
    add_column(which, pixels, stride, 10, g, x, &u, &w, s, t)
    add_column(which, pixels, stride, 11, g, x, &u, &w, s, t)
    add_column(which, pixels, stride, 12, g, x, &u, &w, s, t)
    add_column(which, pixels, stride, 13, g, x, &u, &w, s, t)
    add_column(which, pixels, stride, 14, g, x, &u, &w, s, t)
    add_column(which, pixels, stride, 15, g, x, &u, &w, s, t)
    add_column(which, pixels, stride, 16, g, x, &u, &w, s, t)


cdef inline void add_pixel(
    int which, bint there, bint whole, const Group* g, const real* x, vf u, vf w, vf* s, vf* t,
) noexcept nogil:
    cdef vf v
    if there:
        v = load(x, whole, g.columns)
        if which & UPPER:
            s[0] = vf_fma(v, u, s[0])
        if which & LOWER:
            t[0] = vf_fma(v, w, t[0])


cdef inline void add_one(
    int which, int pixels, bint whole, const Group* g, const Reach* reach, Sums* s, Sums* t,
) noexcept nogil:
    """Add one tap."""
    cdef const real* x = reach.x + g.at
    cdef vf u = vf_zero(), w = vf_zero()
    if which & UPPER:
        u = load(reach.upper + g.c, whole, g.columns)
    if which & LOWER:
        w = load(reach.lower + g.c, whole, g.columns)
    add_pixel(which, True, whole, g, x, u, w, &s.a0, &t.a0)
    add_pixel(which, pixels > 1, whole, g, x + g.step, u, w, &s.a1, &t.a1)
    add_pixel(which, pixels > 2, whole, g, x + 2 * g.step, u, w, &s.a2, &t.a2)
    add_pixel(which, pixels > 3, whole, g, x + 3 * g.step, u, w, &s.a3, &t.a3)
    add_pixel(which, pixels > 4, whole, g, x + 4 * g.step, u, w, &s.a4, &t.a4)
    add_pixel(which, pixels > 5, whole, g, x + 5 * g.step, u, w, &s.a5, &t.a5)
    add_pixel(which, pixels > 6, whole, g, x + 6 * g.step, u, w, &s.a6, &t.a6)
    add_pixel(which, pixels > 7, whole, g, x + 7 * g.step, u, w, &s.a7, &t.a7)


cdef inline void put_sums(
    int pixels, bint whole, const Group* g, const Sums* s, real* y,
) noexcept nogil:
    put(y, s.a0, whole, g.columns, g.flags)
    if pixels > 1:
        put(y + g.y_step, s.a1, whole, g.columns, g.flags)
    if pixels > 2:
        put(y + 2 * g.y_step, s.a2, whole, g.columns, g.flags)
    if pixels > 3:
        put(y + 3 * g.y_step, s.a3, whole, g.columns, g.flags)
    if pixels > 4:
        put(y + 4 * g.y_step, s.a4, whole, g.columns, g.flags)
    if pixels > 5:
        put(y + 5 * g.y_step, s.a5, whole, g.columns, g.flags)
    if pixels > 6:
        put(y + 6 * g.y_step, s.a6, whole, g.columns, g.flags)
    if pixels > 7:
        put(y + 7 * g.y_step, s.a7, whole, g.columns, g.flags)


cdef inline void convolve(
    int rows, int pixels, int stride, bint whole, const Group* g, real* y,
) noexcept nogil:
    """Write a vector of channels of the outputs, whose number is a constant."""
    cdef const Reach* reach = g.reach
    cdef const Reach* end = reach + (g.threes if whole else 0)
    cdef Sums s, t
    s.a0 = load(g.bias + g.c, whole, g.columns) if g.bias != NULL else vf_zero()
    s.a1 = s.a2 = s.a3 = s.a4 = s.a5 = s.a6 = s.a7 = s.a0
    t = s
    while reach < end:
        if rows == 2 and reach.upper != NULL and reach.lower != NULL:
            add_three(UPPER | LOWER, pixels, stride, g, reach, &s, &t)
        elif rows == 1 or reach.upper != NULL:
            add_three(UPPER, pixels, stride, g, reach, &s, &t)
        else:
            add_three(LOWER, pixels, stride, g, reach, &s, &t)
        reach = reach + 1
    end = end + g.ones
    while reach < end:
        if rows == 1 or reach.lower == NULL:
            add_one(UPPER, pixels, whole, g, reach, &s, &t)
        elif reach.upper == NULL:
            add_one(LOWER, pixels, whole, g, reach, &s, &t)
        else:
            add_one(UPPER | LOWER, pixels, whole, g, reach, &s, &t)
        reach = reach + 1
    put_sums(pixels, whole, g, &s, y)
    if rows == 2:
        put_sums(pixels, whole, g, &t, y + g.y_row)
