# A row of logits: its largest value and its exponentials.
from libc.math cimport INFINITY

from cycnn.kernels.reduce cimport BLOCK, total
from cycnn.kernels.simd cimport (
    VL, real, vf, vf_add, vf_first, vf_max, vf_set1, vf_store, vf_sub, vf_zero)
from cycnn.kernels.tail cimport lanes, load, store
from cycnn.kernels.vmath cimport exp_of, number


cdef inline real largest(const real* x, Py_ssize_t K) noexcept nogil:
    """Return the largest of x[0 ... K - 1]; any of them if there is a NaN."""
    cdef vf top = number(-INFINITY), low = number(-INFINITY)
    cdef real[VL] lane
    cdef real result
    cdef Py_ssize_t k = 0, n
    while k < K:
        n = lanes(k, K)
        top = vf_max(top, vf_first(load(x + k, n), low, n))
        k = k + VL
    vf_store(lane, top)
    result = lane[0]
    for k in range(1, VL):
        result = max(result, lane[k])
    return result


cdef inline double exponentials(const real* x, real top, real* e, Py_ssize_t K) noexcept nogil:
    """e[k] = exp(x[k] - top), and return their sum; e may be x."""
    cdef vf v, sum, shift = vf_set1(top), low = number(-INFINITY)
    cdef double result = 0
    cdef Py_ssize_t k = 0, n, stop
    while k < K:
        stop = min(k + BLOCK, K)
        sum = vf_zero()
        while k < stop:
            n = lanes(k, stop)
            v = exp_of(vf_first(vf_sub(load(x + k, n), shift), low, n))
            store(e + k, v, n)
            sum = vf_add(sum, v)
            k = k + VL
        result = result + total(sum)
    return result
