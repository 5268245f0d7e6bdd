"""Losses element by element, hinge losses, and cross-entropy with targets that are not one class.

Value and gradient are taken in one pass over the outputs.
Everything is computed in float64 inside. A job is a run of whole rows; the sum over a row is taken
in order, so no bit depends on the number of threads.
"""
from libc.math cimport exp, fabs, log, log1p
from libc.stdint cimport int64_t

from cycnn.kernels.simd cimport publish, real

cdef struct ElementLossArgs:
    const real* y               # IN   (N, M)
    const real* target          # IN   (N, M)
    const double* weight        # IN   (N), of each row, or NULL for ones
    double* value               # OUT  (N), weight * loss of each row
    real* dy                    # OUT  (N, M)
    Py_ssize_t N, M, chunk
    double total                # sum of the weights
    double delta                # of Huber's loss

cdef struct HingeArgs:
    const real* y               # IN   (N, K)
    const int64_t* target       # IN   (N), in [0, K)
    const double* weight        # IN   (N), of each row, or NULL for ones
    double* value               # OUT  (N), weight * loss of each row
    real* dy                    # OUT  (N, K)
    Py_ssize_t N, K, chunk
    double total                # sum of the weights
    double margin

cdef struct SoftCrossEntropyArgs:
    const real* logits          # IN   (N, K)
    const int64_t* target       # IN   (N), in [0, K), or NULL where `share` says more
    const real* share           # IN   (N, K), how much of each row is of class k, or NULL
    const double* weight        # IN   (N), of each row, or NULL for ones
    double* value               # OUT  (N), weight * loss of each row
    real* dlogits               # OUT  (N, K)
    Py_ssize_t N, K, chunk
    double total                # sum of the weights
    double smoothing            # how much of each target goes to all classes alike

ctypedef double (*element_loss)(double y, double t, double delta, double* slope) noexcept nogil


cdef inline double squared(double y, double t, double delta, double* slope) noexcept nogil:
    """(y - t)^2."""
    slope[0] = 2 * (y - t)
    return (y - t) * (y - t)


cdef inline double absolute(double y, double t, double delta, double* slope) noexcept nogil:
    """|y - t|; the slope at 0 is 0."""
    cdef double d = y - t
    slope[0] = 1 if d > 0 else -1 if d < 0 else d       # d is 0 or NaN
    return fabs(d)


cdef inline double huber(double y, double t, double delta, double* slope) noexcept nogil:
    """(y - t)^2 / 2 up to a distance of delta, then delta (|y - t| - delta / 2)."""
    cdef double d = y - t
    if fabs(d) > delta:
        slope[0] = delta if d > 0 else -delta
        return delta * (fabs(d) - 0.5 * delta)
    slope[0] = d
    return 0.5 * d * d


cdef inline double logistic(double y, double t, double delta, double* slope) noexcept nogil:
    """-t log s(y) - (1 - t) log(1 - s(y)), s(y) = 1 / (1 + e^-y); no exponent is above 0."""
    cdef double e = exp(-fabs(y))
    slope[0] = (1 / (1 + e) if y >= 0 else e / (1 + e)) - t
    return (y if y > 0 else 0) - y * t + log1p(e)


cdef inline double hinge(double y, double t, double delta, double* slope) noexcept nogil:
    """max(0, 1 - t y); the slope at the corner is 0."""
    cdef double short_of = 1 - t * y
    if short_of <= 0:
        slope[0] = 0
        return 0
    slope[0] = -t
    return short_of


cdef inline void each_row(const void* args, Py_ssize_t job, element_loss loss) noexcept nogil:
    """value[n] = weight[n] mean_m loss(y[n, m], target[n, m]), and dy; `loss` is inlined."""
    cdef const ElementLossArgs* a = <const ElementLossArgs*>args
    cdef Py_ssize_t n, m, M = a.M
    cdef const real* y
    cdef const real* target
    cdef real* dy
    cdef double weight, sum, slope
    for n in range(job * a.chunk, min(job * a.chunk + a.chunk, a.N)):
        y = a.y + n * M
        target = a.target + n * M
        dy = a.dy + n * M
        weight = a.weight[n] if a.weight != NULL else 1
        sum = 0
        for m in range(M):
            sum += loss(y[m], target[m], a.delta, &slope)
            dy[m] = <real>(weight / a.total * slope / M)
        a.value[n] = weight * sum / M


cdef void squared_loss(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """Mean squared error."""
    each_row(args, job, squared)


cdef void absolute_loss(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """Mean absolute error."""
    each_row(args, job, absolute)


cdef void huber_loss(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """Huber (1964): squared near 0, absolute beyond delta."""
    each_row(args, job, huber)


cdef void logistic_loss(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """Binary cross-entropy of the sigmoid."""
    each_row(args, job, logistic)


cdef void binary_hinge_loss(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """Hinge loss of targets -1 and 1."""
    each_row(args, job, hinge)


cdef void hinge_loss(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """value[n] = weight[n] / K sum_{k != target} max(0, margin + y[k] - y[target]), and dy."""
    cdef const HingeArgs* a = <const HingeArgs*>args
    cdef Py_ssize_t n, k, K = a.K, t, above
    cdef const real* y
    cdef real* dy
    cdef double weight, sum, share, d
    for n in range(job * a.chunk, min(job * a.chunk + a.chunk, a.N)):
        y = a.y + n * K
        dy = a.dy + n * K
        t = a.target[n]
        weight = a.weight[n] if a.weight != NULL else 1
        share = weight / a.total / K
        sum = 0
        above = 0
        for k in range(K):
            d = a.margin + y[k] - <double>y[t]
            if d <= 0 or k == t:
                dy[k] = 0
            else:                                       # NaN too: it stays in the sum
                sum += d
                above += 1
                dy[k] = <real>share
        dy[t] = <real>(-share * above)
        a.value[n] = weight * sum / K


cdef void soft_cross_entropy(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """value[n] = -weight[n] sum_k q[k] log p[k], and dlogits[n] = weight[n] / total (p - q).

    p = softmax(logits[n]); q = (1 - smoothing) share[n] + smoothing / K, where a row with a target
    is all of that class. The shares of a row sum to 1.
    """
    cdef const SoftCrossEntropyArgs* a = <const SoftCrossEntropyArgs*>args
    cdef double* e = <double*>scratch
    cdef const real* x
    cdef real* dx
    cdef double top, sum, loss, q, weight, even = a.smoothing / a.K, rest = 1 - a.smoothing
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
        loss = log(sum)
        for k in range(K):
            if a.share != NULL:
                q = rest * a.share[n * K + k] + even
            else:
                q = rest + even if k == a.target[n] else even
            if q != 0:                                  # a logit of -inf may have no share at all
                loss -= q * (x[k] - top)
            dx[k] = <real>(weight / a.total * (e[k] / sum - q))
        a.value[n] = weight * loss


cdef str _ELEMENT = "y* target* weight* value* dy* N M chunk total. delta."
JOBS = {
    "squared_loss": publish(<void*>squared_loss, sizeof(ElementLossArgs), _ELEMENT),
    "absolute_loss": publish(<void*>absolute_loss, sizeof(ElementLossArgs), _ELEMENT),
    "huber_loss": publish(<void*>huber_loss, sizeof(ElementLossArgs), _ELEMENT),
    "logistic_loss": publish(<void*>logistic_loss, sizeof(ElementLossArgs), _ELEMENT),
    "binary_hinge_loss": publish(<void*>binary_hinge_loss, sizeof(ElementLossArgs), _ELEMENT),
    "hinge_loss": publish(
        <void*>hinge_loss, sizeof(HingeArgs),
        "y* target* weight* value* dy* N K chunk total. margin."),
    "soft_cross_entropy": publish(
        <void*>soft_cross_entropy, sizeof(SoftCrossEntropyArgs),
        "logits* target* share* weight* value* dlogits* N K chunk total. smoothing."),
}
