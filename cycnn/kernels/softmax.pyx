"""Softmax and its logarithm along the last axis; a job is a chunk of rows."""
from libc.math cimport log

from cycnn.kernels.reduce cimport BLOCK, total
from cycnn.kernels.simd cimport (
    VL, publish, real, vf, vf_add, vf_fma, vf_fnma, vf_mul, vf_set1, vf_sub, vf_zero)
from cycnn.kernels.logits cimport exponentials, largest
from cycnn.kernels.tail cimport lanes, load, store
from cycnn.kernels.vmath cimport exp_of

cdef struct SoftmaxForwardArgs:
    const real* x           # IN   (rows, K)
    real* y                 # OUT  (rows, K)
    Py_ssize_t rows, K, chunk

cdef struct SoftmaxBackwardArgs:
    const real* dy          # IN   (rows, K)
    const real* y           # IN   (rows, K), what forward returned
    real* dx                # OUT  (rows, K)
    Py_ssize_t rows, K, chunk


cdef void softmax_forward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y[k] = e^x[k] / sum of e^x; the largest x is taken out first, so that nothing overflows."""
    cdef const SoftmaxForwardArgs* a = <const SoftmaxForwardArgs*>args
    cdef Py_ssize_t r, k, n, K = a.K
    cdef const real* x
    cdef real* y
    cdef vf share
    for r in range(job * a.chunk, min(job * a.chunk + a.chunk, a.rows)):
        x = a.x + r * K
        y = a.y + r * K
        share = vf_set1(<real>(1 / exponentials(x, largest(x, K), y, K)))
        k = 0
        while k < K:
            n = lanes(k, K)
            store(y + k, vf_mul(share, load(y + k, n)), n)
            k = k + VL


cdef void log_softmax_forward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y[k] = x[k] - log(sum of e^x)."""
    cdef const SoftmaxForwardArgs* a = <const SoftmaxForwardArgs*>args
    cdef Py_ssize_t r, k, n, K = a.K
    cdef const real* x
    cdef real* y
    cdef real top
    cdef vf shift, rest
    for r in range(job * a.chunk, min(job * a.chunk + a.chunk, a.rows)):
        x = a.x + r * K
        y = a.y + r * K
        top = largest(x, K)
        shift = vf_set1(top)
        rest = vf_set1(<real>log(exponentials(x, top, y, K)))
        k = 0
        while k < K:
            n = lanes(k, K)
            store(y + k, vf_sub(vf_sub(load(x + k, n), shift), rest), n)
            k = k + VL


cdef inline void gradient(
    bint logarithm, const SoftmaxBackwardArgs* a, Py_ssize_t job,
) noexcept nogil:
    """dx = y (dy - sum of dy y), or, of the logarithm, dx = dy - e^y times the sum of dy."""
    cdef Py_ssize_t r, k, n, stop, K = a.K
    cdef const real* dy
    cdef const real* y
    cdef real* dx
    cdef double result
    cdef vf sum
    for r in range(job * a.chunk, min(job * a.chunk + a.chunk, a.rows)):
        dy = a.dy + r * K
        y = a.y + r * K
        dx = a.dx + r * K
        result = 0
        k = 0
        while k < K:
            stop = min(k + BLOCK, K)
            sum = vf_zero()
            while k < stop:
                n = lanes(k, stop)
                if logarithm:
                    sum = vf_add(load(dy + k, n), sum)
                else:
                    sum = vf_fma(load(dy + k, n), load(y + k, n), sum)
                k = k + VL
            result = result + total(sum)
        sum = vf_set1(<real>result)
        k = 0
        while k < K:
            n = lanes(k, K)
            if logarithm:
                store(dx + k, vf_fnma(exp_of(load(y + k, n)), sum, load(dy + k, n)), n)
            else:
                store(dx + k, vf_mul(load(y + k, n), vf_sub(load(dy + k, n), sum)), n)
            k = k + VL


cdef void softmax_backward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    gradient(False, <const SoftmaxBackwardArgs*>args, job)


cdef void log_softmax_backward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    gradient(True, <const SoftmaxBackwardArgs*>args, job)


JOBS = {
    "softmax_forward": publish(
        <void*>softmax_forward, sizeof(SoftmaxForwardArgs), "x* y* rows K chunk"),
    "log_softmax_forward": publish(
        <void*>log_softmax_forward, sizeof(SoftmaxForwardArgs), "x* y* rows K chunk"),
    "softmax_backward": publish(
        <void*>softmax_backward, sizeof(SoftmaxBackwardArgs), "dy* y* dx* rows K chunk"),
    "log_softmax_backward": publish(
        <void*>log_softmax_backward, sizeof(SoftmaxBackwardArgs), "dy* y* dx* rows K chunk"),
}
