# What simd.h offers, for Cython: the scalar `real`, the vector `vf`, the mask `vm`.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "simd.h" nogil:
    ctypedef double real        # float or double: C decides, per build
    ctypedef struct vf:
        pass
    ctypedef struct vm:
        pass
    enum:
        VL                      # lanes of a vector
        MR                      # rows of a register tile of one panel
        FRACTION                # bits of a real below its exponent
        NR                      # columns of a panel, two vectors
        PANELS                  # of a tile of half the rows
    vf vf_load(const real* p)
    void vf_store(real* p, vf v)
    vf vf_load_part(const real* p, Py_ssize_t n)            # the first n lanes, the rest 0
    void vf_store_part(real* p, vf v, Py_ssize_t n)         # the first n lanes only
    vf vf_load_u8(const uint8_t* p)                         # VL bytes, as numbers
    void vf_store_u8(uint8_t* p, vf v)                      # whole numbers to 255, as VL bytes
    void prefetch(const real* p)                            # may point anywhere: it never faults
    void prefetch_far(const real* p)                        # into the second-level cache
    vf vf_set1(real s)
    vf vf_bcast(const real* p)
    vf vf_zero()
    vf vf_add(vf a, vf b)
    vf vf_sub(vf a, vf b)
    vf vf_mul(vf a, vf b)
    vf vf_div(vf a, vf b)
    vf vf_sqrt(vf a)
    vf vf_fma(vf a, vf b, vf c)                             # a * b + c
    vf vf_fnma(vf a, vf b, vf c)                            # c - a * b
    vf vf_max(vf a, vf b)                                   # a > b ? a : b, so b when unordered
    vf vf_min(vf a, vf b)                                   # a < b ? a : b, so b when unordered
    vm vf_gt(vf a, vf b)
    vm vf_ge(vf a, vf b)
    vm vf_eq(vf a, vf b)
    vm vf_unordered(vf a, vf b)                             # either is NaN
    vm vm_or(vm a, vm b)
    vf vf_select(vm m, vf a, vf b)                          # m ? a : b
    vf vf_first(vf a, vf b, Py_ssize_t n)                   # the first n lanes of a, the rest of b
    vf vf_zip_low(vf a, vf b)                               # a0, b0, a1, b1, ...
    vf vf_zip_high(vf a, vf b)                              # ... and on, from the middle of both
    vf vf_and(vf a, vf b)                                   # bit by bit
    vf vf_or(vf a, vf b)
    vf vf_shift_up(vf v)                                    # each lane's bits, up by FRACTION
    vf vf_shift_down(vf v)                                  # the same, down, zeros coming in


cdef inline tuple publish(void* job, size_t size, str slots):
    """Describe one job function: (address, bytes of its Args, its slot names in order)."""
    return <size_t>job, size, slots
