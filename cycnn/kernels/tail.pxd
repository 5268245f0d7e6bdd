# Vectors at the end of a row, shared by the kernels that stream through memory.
#
#     while i < stop:
#         n = lanes(i, stop)
#         store(y + i, vf_add(load(a + i, n), load(b + i, n)), n)
#         i = i + VL
from cycnn.kernels.simd cimport VL, real, vf, vf_load, vf_load_part, vf_store, vf_store_part


cdef inline Py_ssize_t lanes(Py_ssize_t i, Py_ssize_t stop) noexcept nogil:
    """How many elements the vector at i holds: VL, or what is left before stop."""
    return min(<Py_ssize_t>VL, stop - i)


cdef inline vf load(const real* p, Py_ssize_t n) noexcept nogil:
    """The first n lanes, the rest 0."""
    return vf_load(p) if n == VL else vf_load_part(p, n)


cdef inline void store(real* p, vf v, Py_ssize_t n) noexcept nogil:
    """The first n lanes only."""
    if n == VL:
        vf_store(p, v)
    else:
        vf_store_part(p, v, n)
