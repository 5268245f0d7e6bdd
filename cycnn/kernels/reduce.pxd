# Sums along contiguous elements, shared by the kernels whose rows are short or long.
from cycnn.kernels.simd cimport VL, real, vf, vf_store

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
