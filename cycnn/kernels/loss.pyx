"""Softmax cross-entropy, value and gradient in one pass over the logits, rows summed in float64."""
from libc.math cimport log
from libc.stdint cimport int64_t

from cycnn.kernels.logits cimport exponentials, largest
from cycnn.kernels.simd cimport VL, publish, real, vf, vf_mul, vf_set1
from cycnn.kernels.tail cimport lanes, load, store

cdef struct SoftmaxCrossEntropyArgs:
    const real* logits          # IN   (N, K)
    const int64_t* target       # IN   (N), in [0, K)
    const double* weight        # IN   (N), of each row, or NULL for ones
    double* value               # OUT  (N), weight * loss of each row
    real* dlogits               # OUT  (N, K)
    Py_ssize_t N, K, chunk
    double total                # sum of the weights


cdef void softmax_cross_entropy(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """value[r] = weight[r] (log sum_k e^x[k] - x[target]), and its gradient over the total weight.

    dlogits[r] = weight[r] / total (softmax(x) - onehot(target)).

    The maximum is taken out first, so that no exponential overflows.
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
    "softmax_cross_entropy": publish(
        <void*>softmax_cross_entropy, sizeof(SoftmaxCrossEntropyArgs),
        "logits* target* weight* value* dlogits* N K chunk total."),
}
