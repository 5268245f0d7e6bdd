# A square of VL x VL numbers, turned in registers.
from cycnn.kernels.simd cimport VL, vf, vf_zip_high, vf_zip_low


cdef enum:
    LANES = 16                  # VL at most


cdef inline void transpose(vf* v) noexcept nogil:
    """Turn VL vectors: what was lane j of vector i is lane i of vector j.

    A vector is zipped with the one that lies half of them away, log2(VL) times, as a deck of cards
    is shuffled: each time, the bits of i move up by one and make room for the highest bit of j.
    """
    cdef vf[LANES] w
    cdef int i, width = 1
    while width < VL:
        for i in range(VL // 2):
            w[2 * i] = vf_zip_low(v[i], v[i + VL // 2])
            w[2 * i + 1] = vf_zip_high(v[i], v[i + VL // 2])
        for i in range(VL):
            v[i] = w[i]
        width = 2 * width
