# Sums along contiguous elements and down columns, shared by the kernels that take either.
from cycnn.kernels.simd cimport VL, real, vf, vf_add, vf_store, vf_zero
from cycnn.kernels.tail cimport load

cdef enum:
    BLOCK = 64 * VL             # elements added up in vectors before they are added in float64


cdef inline double total(vf v) noexcept nogil:
    """Return the sum of the lanes, halves added to each other."""
    cdef real[VL] lane
    cdef Py_ssize_t i, width = VL // 2
    vf_store(lane, v)
    while width > 0:
        for i in range(width):
            lane[i] = lane[i] + lane[i + width]
        width = width // 2
    return lane[0]


cdef inline vf column_sum(
    const real* x, Py_ssize_t step, Py_ssize_t rows, Py_ssize_t n, vf first,
) noexcept nogil:
    """Return first + the sum over r of x[r * step], n lanes, as four sums over every fourth row."""
    cdef vf s0 = first, s1 = vf_zero(), s2 = vf_zero(), s3 = vf_zero()
    cdef Py_ssize_t _r
    for _r in range(rows // 4):
        s0 = vf_add(s0, load(x, n))
        s1 = vf_add(s1, load(x + step, n))
        s2 = vf_add(s2, load(x + 2 * step, n))
        s3 = vf_add(s3, load(x + 3 * step, n))
        x = x + 4 * step
    for _r in range(rows % 4):
        s0 = vf_add(s0, load(x, n))
        x = x + step
    return vf_add(vf_add(s0, s1), vf_add(s2, s3))
