# Packing weights in panels of NR columns, the way the register tile reads them.
from cycnn.kernels.simd cimport NR, VL, real, vf_load_part, vf_store, vf_zero


cdef inline void pack_panel(
    const real* w,              # IN   element (c, k) at c * SC + k * SK
    Py_ssize_t SC, Py_ssize_t SK,
    Py_ssize_t channels,
    Py_ssize_t columns,         # how many of the NR there are
    real* packed,               # OUT  (channels, NR), columns that are not there are zero
) noexcept nogil:
    cdef Py_ssize_t c, _c, k, first, last
    if SK == 1:
        for _c in range(channels):
            vf_store(packed, vf_load_part(w, columns))
            if columns > VL:
                vf_store(packed + VL, vf_load_part(w + VL, columns - VL))
            else:
                vf_store(packed + VL, vf_zero())
            w = w + SC
            packed = packed + NR
    else:                               # transposed: read along c, which is contiguous, a line
        first = 0                       # at a time, so that what is written to stays near
        while first < channels:
            last = min(channels, first + 64 // sizeof(real))
            for k in range(NR):
                if k < columns:
                    for c in range(first, last):
                        packed[c * NR + k] = w[k * SK + c]
                else:
                    for c in range(first, last):
                        packed[c * NR + k] = 0
            first = last
