# A sum for few pixels: weights are read once, where they lie.
#
#     y[m, k] += sum over c of x_m[c] * w[c, k]
#
# The register tile (tile.pxd) earns its packed weights by reading them for one tile after another.
# For a tile or two, packing would be most of the work, and it takes a line of each row of w, which
# no processor foresees.  Here whole stretches of some rows are added to sums that stay in the
# first-level cache.  Products of one element are added up in the tile's order: the same bits.
from cycnn.kernels.simd cimport (
    VL, prefetch, real, vf, vf_add, vf_bcast, vf_fma, vf_load, vf_load_part, vf_max, vf_store,
    vf_store_part, vf_zero,
)
from cycnn.kernels.tile cimport RELU


cdef enum:
    FEW = 16                    # pixels at most: for more, packing w pays
    GROUP = 4                   # rows of w at a time


cdef inline vf part_of_row(bint whole, const real* w, Py_ssize_t left) noexcept nogil:
    return vf_load(w) if whole else vf_load_part(w, left)


cdef inline void add_vector(
    int rows, int pixels, bint whole, vf x0, vf x1, vf x2, vf x3, vf z0, vf z1, vf z2, vf z3,
    const real* w, Py_ssize_t step, Py_ssize_t left, real* y, real* v,
) noexcept nogil:
    """y += sum over c of x_c * w[c], a vector of each, the last `left` of a row unless `whole`."""
    cdef vf s = part_of_row(whole, w, left), b = vf_zero()
    cdef vf a = vf_fma(x0, s, vf_load(y))
    if pixels > 1:
        b = vf_fma(z0, s, vf_load(v))
    if rows > 1:
        s = part_of_row(whole, w + step, left)
        a = vf_fma(x1, s, a)
        if pixels > 1:
            b = vf_fma(z1, s, b)
        s = part_of_row(whole, w + 2 * step, left)
        a = vf_fma(x2, s, a)
        if pixels > 1:
            b = vf_fma(z2, s, b)
        s = part_of_row(whole, w + 3 * step, left)
        a = vf_fma(x3, s, a)
        if pixels > 1:
            b = vf_fma(z3, s, b)
    vf_store(y, a)
    if pixels > 1:
        vf_store(v, b)


cdef inline void add_rows(
    int rows, int pixels, bint ahead, const real* x, const real* z, const real* w, Py_ssize_t step,
    Py_ssize_t columns, real* y, real* v,
) noexcept nogil:
    """y[k] += sum over c of x[c] * w[c, k], for one or GROUP rows c; v from z likewise, if two.

    `ahead` fetches the next GROUP rows.
    """
    cdef vf x0 = vf_bcast(x), x1 = vf_zero(), x2 = vf_zero(), x3 = vf_zero()
    cdef vf z0 = vf_zero(), z1 = vf_zero(), z2 = vf_zero(), z3 = vf_zero()
    cdef Py_ssize_t k = 0
    if rows > 1:
        x1 = vf_bcast(x + 1)
        x2 = vf_bcast(x + 2)
        x3 = vf_bcast(x + 3)
    if pixels > 1:
        z0 = vf_bcast(z)
        if rows > 1:
            z1 = vf_bcast(z + 1)
            z2 = vf_bcast(z + 2)
            z3 = vf_bcast(z + 3)
    while columns - k >= VL:
        if ahead:
            prefetch(w + GROUP * step + k)
            prefetch(w + (GROUP + 1) * step + k)
            prefetch(w + (GROUP + 2) * step + k)
            prefetch(w + (GROUP + 3) * step + k)
        add_vector(rows, pixels, True, x0, x1, x2, x3, z0, z1, z2, z3, w + k, step, VL, y + k,
                   v + k)
        k = k + VL
    if k < columns:
        add_vector(rows, pixels, False, x0, x1, x2, x3, z0, z1, z2, z3, w + k, step, columns - k,
                   y + k, v + k)


cdef inline void stream(
    real** x,                   # IN   one pointer per pixel, to `channels` numbers
    real** y,                   # INOUT  likewise, to `columns` sums, whole vectors of them
    Py_ssize_t pixels,
    const real* w,              # IN   (channels, step)
    Py_ssize_t step, Py_ssize_t channels, Py_ssize_t columns,
) noexcept nogil:
    """y[m][k] += sum over c of x[m][c] * w[c, k]."""
    cdef Py_ssize_t c = 0, m
    while channels - c >= GROUP:
        m = 0
        while pixels - m >= 2:
            add_rows(GROUP, 2, m == 0, x[m] + c, x[m + 1] + c, w + c * step, step, columns, y[m],
                     y[m + 1])
            m = m + 2
        if m < pixels:
            add_rows(GROUP, 1, m == 0, x[m] + c, x[m], w + c * step, step, columns, y[m], y[m])
        c = c + GROUP
    while c < channels:
        for m in range(pixels):
            add_rows(1, 1, False, x[m] + c, x[m], w + c * step, step, columns, y[m], y[m])
        c = c + 1


cdef inline void finish_row(
    const real* sums, Py_ssize_t columns, const real* bias, Py_ssize_t flags, real* y,
) noexcept nogil:
    """y = activation(sums + bias), or activation(sums) where bias is NULL."""
    cdef Py_ssize_t k = 0
    cdef vf s
    while k < columns:
        s = vf_add(vf_load(sums + k),
                   vf_load_part(bias + k, columns - k) if bias != NULL else vf_zero())
        if flags & RELU:
            s = vf_max(vf_zero(), s)
        vf_store_part(y + k, s, columns - k)
        k = k + VL
