"""Softmax cross-entropy, value and gradient in one pass over the logits, in float64 inside."""
from libc.math cimport exp, log
from libc.stdint cimport int64_t

from cycnn.kernels.simd cimport publish, real

cdef struct SoftmaxCrossEntropyArgs:
    const real* logits          # IN   (N, K)
    const int64_t* target       # IN   (N), in [0, K)
    const double* weight        # IN   (N), of each row, or NULL for ones
    double* value               # OUT  (N), weight * loss of each row
    real* dlogits               # OUT  (N, K)
    Py_ssize_t N, K, chunk
    double total                # sum of the weights


cdef void softmax_cross_entropy(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """value[n] = weight[n] (log sum_k e^x[k] - x[target]), and its gradient over the total weight.

    dlogits[n] = weight[n] / total (softmax(x) - onehot(target)).

    The maximum is taken out first, so that no exponential overflows.
    """
    cdef const SoftmaxCrossEntropyArgs* a = <const SoftmaxCrossEntropyArgs*>args
    cdef double* e = <double*>scratch
    cdef const real* x
    cdef real* dx
    cdef double top, sum, weight, share
    cdef Py_ssize_t n, k, K = a.K
    for n in range(job * a.chunk, min(job * a.chunk + a.chunk, a.N)):
        x = a.logits + n * K
        dx = a.dlogits + n * K
        weight = a.weight[n] if a.weight != NULL else 1
        top = x[0]
        for k in range(1, K):
            top = max(top, <double>x[k])
        sum = 0
        for k in range(K):
            e[k] = exp(x[k] - top)
            sum += e[k]
        a.value[n] = weight * (log(sum) - (x[a.target[n]] - top))
        share = weight / a.total / sum
        for k in range(K):
            dx[k] = <real>(share * e[k])
        dx[a.target[n]] = <real>(share * e[a.target[n]] - weight / a.total)


JOBS = {
    "softmax_cross_entropy": publish(
        <void*>softmax_cross_entropy, sizeof(SoftmaxCrossEntropyArgs),
        "logits* target* weight* value* dlogits* N K chunk total."),
}
