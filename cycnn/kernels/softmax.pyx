"""Softmax along the last axis, its logarithm and its cross-entropy; a job is a chunk of rows.

Of every row the largest value is taken out first, so that no exponential overflows; sums over a row
go from one block to the next in float64.
"""
from libc.math cimport INFINITY, log
from libc.stdint cimport int64_t

from cycnn.kernels.reduce cimport BLOCK, total
from cycnn.kernels.simd cimport (
    VL, publish, real, vf, vf_add, vf_first, vf_fma, vf_fnma, vf_max, vf_mul, vf_set1, vf_store,
    vf_sub, vf_zero)
from cycnn.kernels.tail cimport lanes, load, store
from cycnn.kernels.vmath cimport exp_of, number

cdef struct SoftmaxForwardArgs:
    const real* x           # IN   (rows, K)
    real* y                 # OUT  (rows, K)
    Py_ssize_t rows, K, chunk

cdef struct SoftmaxBackwardArgs:
    const real* dy          # IN   (rows, K)
    const real* y           # IN   (rows, K), what forward returned
    real* dx                # OUT  (rows, K)
    Py_ssize_t rows, K, chunk

cdef struct SoftmaxCrossEntropyArgs:
    const real* logits          # IN   (N, K)
    const int64_t* target       # IN   (N), in [0, K)
    const double* weight        # IN   (N), of each row, or NULL for ones
    double* value               # OUT  (N), weight * loss of each row
    real* dlogits               # OUT  (N, K)
    Py_ssize_t N, K, chunk
    double total                # sum of the weights


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


cdef void softmax_forward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y[k] = e^x[k] / sum of e^x."""
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


cdef void softmax_cross_entropy(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """value[r] = weight[r] (log sum_k e^x[k] - x[target]), and its gradient over the total weight.

    dlogits[r] = weight[r] / total (softmax(x) - onehot(target)).
    """
    cdef const SoftmaxCrossEntropyArgs* a = <const SoftmaxCrossEntropyArgs*>args
    cdef const real* x
    cdef real* dx
    cdef real top
    cdef double sum, weight, share
    cdef vf factor
    cdef Py_ssize_t r, k, n, target, K = a.K
    for r in range(job * a.chunk, min(job * a.chunk + a.chunk, a.N)):
        x = a.logits + r * K
        dx = a.dlogits + r * K
        target = a.target[r]
        weight = a.weight[r] if a.weight != NULL else 1
        top = largest(x, K)
        sum = exponentials(x, top, dx, K)
        a.value[r] = weight * (log(sum) - (<double>x[target] - <double>top))
        share = weight / a.total / sum * <double>dx[target] - weight / a.total
        factor = vf_set1(<real>(weight / a.total / sum))
        k = 0
        while k < K:
            n = lanes(k, K)
            store(dx + k, vf_mul(factor, load(dx + k, n)), n)
            k = k + VL
        dx[target] = <real>share


JOBS = {
    "softmax_forward": publish(
        <void*>softmax_forward, sizeof(SoftmaxForwardArgs), "x* y* rows K chunk"),
    "log_softmax_forward": publish(
        <void*>log_softmax_forward, sizeof(SoftmaxForwardArgs), "x* y* rows K chunk"),
    "softmax_backward": publish(
        <void*>softmax_backward, sizeof(SoftmaxBackwardArgs), "dy* y* dx* rows K chunk"),
    "log_softmax_backward": publish(
        <void*>log_softmax_backward, sizeof(SoftmaxBackwardArgs), "dy* y* dx* rows K chunk"),
    "softmax_cross_entropy": publish(
        <void*>softmax_cross_entropy, sizeof(SoftmaxCrossEntropyArgs),
        "logits* target* weight* value* dlogits* N K chunk total."),
}
