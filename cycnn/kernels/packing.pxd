# Packing weights in panels of NR columns, the way the register tile reads them.
from cycnn.kernels.ahead cimport LINE
from cycnn.kernels.simd cimport NR, VL, prefetch_far, real, vf, vf_load_part, vf_store, vf_zero
from cycnn.kernels.transpose cimport LANES, transpose


cdef enum:
    AHEAD = 2                   # lines of channels: more rows than the processor follows
    ROWS_AHEAD = 16             # of w, where the columns of one are a line: likewise


cdef inline void pack_square(
    const real* w, Py_ssize_t pitch, Py_ssize_t channels, Py_ssize_t columns, real* packed,
) noexcept nogil:
    """packed[c * NR + k] = w[k * pitch + c] for at most VL of each, 0 for columns not there."""
    cdef vf[LANES] v
    cdef Py_ssize_t i
    for i in range(VL):
        v[i] = vf_load_part(w + i * pitch, channels) if i < columns else vf_zero()
    transpose(v)
    for i in range(min(channels, <Py_ssize_t>VL)):
        vf_store(packed + i * NR, v[i])


cdef inline void pack_panel(
    const real* w,              # IN   element (c, k) at c * SC + k * SK, one of which is 1
    Py_ssize_t SC, Py_ssize_t SK,
    Py_ssize_t channels,
    Py_ssize_t columns,         # how many of the NR there are
    real* packed,               # OUT  (channels, NR), columns that are not there are zero
) noexcept nogil:
    cdef Py_ssize_t c, _c, k, first
    if SK == 1:
        for _c in range(channels):
            prefetch_far(w + ROWS_AHEAD * SC)
            vf_store(packed, vf_load_part(w, columns))
            if columns > VL:
                vf_store(packed + VL, vf_load_part(w + VL, columns - VL))
            else:
                vf_store(packed + VL, vf_zero())
            w = w + SC
            packed = packed + NR
    else:                               # transposed: a line of channels at a time
        first = 0
        while first < channels:
            for k in range(columns):
                prefetch_far(w + k * SK + first + AHEAD * LINE)
            for k in range(2):
                c = first
                while c < min(channels, first + <Py_ssize_t>LINE):
                    pack_square(w + k * VL * SK + c, SK, channels - c, columns - k * VL,
                                packed + c * NR + k * VL)
                    c = c + VL
            first = first + LINE
