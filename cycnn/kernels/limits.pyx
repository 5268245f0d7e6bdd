"""The limits of this build: its vectors and register tile, and what one core can do at most.

Benchmarks measure other kernels against `fma_peak` and `clock_cycles`; no layer runs them.
"""
from libc.stdint cimport uint64_t

from cycnn.kernels.simd cimport (
    MR, NR, VL, publish, real, vf, vf_add, vf_fma, vf_set1, vf_store)
from cycnn.kernels.stream cimport FEW


cdef struct FmaPeakArgs:
    real* y                 # OUT  (jobs, VL), the sums: without them the loop would be no work
    Py_ssize_t iterations
    double a                # known at run time only, so that nothing can be computed ahead
    double b


cdef void fma_peak(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """Apply y = y * a + b over and over to 12 accumulators; y[job] is their sum.

    Twelve independent chains keep two or three units busy at a latency of four cycles.  The
    accumulator is multiplied, not added to: without FMA instructions a * b could be computed once,
    ahead of the loop.  An iteration is 2 * 12 * VL operations.
    """
    cdef const FmaPeakArgs* p = <const FmaPeakArgs*>args
    cdef vf a = vf_set1(<real>p.a), b = vf_set1(<real>p.b)
    # Different starts, or the compiler would see one chain twelve times.
    cdef vf y0 = vf_set1(0), y1 = vf_set1(1), y2 = vf_set1(2), y3 = vf_set1(3)
    cdef vf y4 = vf_set1(4), y5 = vf_set1(5), y6 = vf_set1(6), y7 = vf_set1(7)
    cdef vf y8 = vf_set1(8), y9 = vf_set1(9), y10 = vf_set1(10), y11 = vf_set1(11)
    cdef Py_ssize_t _i
    for _i in range(p.iterations):
        y0 = vf_fma(y0, a, b)
        y1 = vf_fma(y1, a, b)
        y2 = vf_fma(y2, a, b)
        y3 = vf_fma(y3, a, b)
        y4 = vf_fma(y4, a, b)
        y5 = vf_fma(y5, a, b)
        y6 = vf_fma(y6, a, b)
        y7 = vf_fma(y7, a, b)
        y8 = vf_fma(y8, a, b)
        y9 = vf_fma(y9, a, b)
        y10 = vf_fma(y10, a, b)
        y11 = vf_fma(y11, a, b)
    y0 = vf_add(vf_add(vf_add(y0, y1), vf_add(y2, y3)), vf_add(vf_add(y4, y5), vf_add(y6, y7)))
    y0 = vf_add(y0, vf_add(vf_add(y8, y9), vf_add(y10, y11)))
    vf_store(p.y + job * VL, y0)


cdef struct ClockCyclesArgs:
    uint64_t* h             # INOUT  (jobs,)
    Py_ssize_t iterations
    Py_ssize_t a
    Py_ssize_t b


cdef void clock_cycles(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """Apply h = (h ^ a) + b over and over: two clock cycles an iteration, none overlapping."""
    cdef const ClockCyclesArgs* p = <const ClockCyclesArgs*>args
    cdef uint64_t h = p.h[job], a = p.a, b = p.b
    cdef Py_ssize_t _i
    for _i in range(p.iterations):
        h = (h ^ a) + b
    p.h[job] = h


# FEW is how many pixels are few.
CONSTANTS = {"VL": VL, "MR": MR, "NR": NR, "FEW": FEW, "itemsize": sizeof(real)}
JOBS = {
    "fma_peak": publish(<void*>fma_peak, sizeof(FmaPeakArgs), "y* iterations a. b."),
    "clock_cycles": publish(<void*>clock_cycles, sizeof(ClockCyclesArgs), "h* iterations a b"),
}
