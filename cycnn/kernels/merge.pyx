"""Several arrays into one, element by element: products and maxima; and a factor per channel.

Arrays are taken flat; a job is a chunk of elements, the last vector masked.
"""
from cycnn.kernels.simd cimport (
    VL, publish, real, vf, vf_eq, vf_gt, vf_max, vf_mul, vf_select, vf_unordered, vf_zero, vm,
    vm_or)
from cycnn.kernels.tail cimport lanes, load, store

cdef struct PairArgs:
    const real* x0              # IN   (count)
    const real* x1              # IN   (count)
    real* y                     # OUT  (count), may be x0 or x1
    Py_ssize_t count, chunk

cdef struct MaximumBackwardArgs:
    const real* dy              # IN   (count), the gradient that no earlier input took
    const real* x               # IN   (count)
    const real* y               # IN   (count), what forward returned
    real* dx                    # OUT  (count)
    real* rest                  # OUT  (count), what is left of dy, may be dy; or NULL
    Py_ssize_t count, chunk

cdef struct ScaleChannelsArgs:
    const real* x               # IN   (N, P, C)
    const real* factor          # IN   (N, C)
    real* y                     # OUT  (N, P, C)
    Py_ssize_t P, C
    Py_ssize_t pixels, chunk    # N P, and how many of them are a job


cdef void multiply(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y = x0 x1."""
    cdef const PairArgs* a = <const PairArgs*>args
    cdef const real* x0 = a.x0
    cdef const real* x1 = a.x1
    cdef real* y = a.y
    cdef Py_ssize_t i = job * a.chunk, stop = min(i + a.chunk, a.count), n
    while i < stop:
        n = lanes(i, stop)
        store(y + i, vf_mul(load(x0 + i, n), load(x1 + i, n)), n)
        i = i + VL


cdef void maximum(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y = max(x0, x1); NaN wins."""
    cdef const PairArgs* a = <const PairArgs*>args
    cdef real* y = a.y
    cdef Py_ssize_t i = job * a.chunk, stop = min(i + a.chunk, a.count), n
    cdef vf x0, x1
    while i < stop:
        n = lanes(i, stop)
        x0 = load(a.x0 + i, n)
        x1 = load(a.x1 + i, n)
        store(y + i, vf_select(vf_unordered(x0, x0), x0, vf_max(x0, x1)), n)
        i = i + VL


cdef void maximum_backward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """dx = dy where x is y (or both are NaN), else 0; rest = dy where it was not taken, else 0."""
    cdef const MaximumBackwardArgs* a = <const MaximumBackwardArgs*>args
    cdef Py_ssize_t i = job * a.chunk, stop = min(i + a.chunk, a.count), n
    cdef vf x, dy
    cdef vm won
    while i < stop:
        n = lanes(i, stop)
        x = load(a.x + i, n)
        dy = load(a.dy + i, n)
        won = vm_or(vf_eq(x, load(a.y + i, n)), vf_unordered(x, x))
        store(a.dx + i, vf_select(won, dy, vf_zero()), n)
        if a.rest != NULL:
            store(a.rest + i, vf_select(won, vf_zero(), dy), n)
        i = i + VL


cdef void scale_channels(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y[n, p, c] = factor[n, c] x[n, p, c]; where the factor is 0, 0 whatever x."""
    cdef const ScaleChannelsArgs* a = <const ScaleChannelsArgs*>args
    cdef Py_ssize_t p = job * a.chunk, stop = min(p + a.chunk, a.pixels), c, n, C = a.C
    cdef const real* factors
    cdef vf factor
    while p < stop:
        factors = a.factor + p // a.P * C
        c = 0
        while c < C:
            n = lanes(c, C)
            factor = load(factors + c, n)
            store(a.y + p * C + c,
                  vf_select(vf_gt(factor, vf_zero()), vf_mul(factor, load(a.x + p * C + c, n)),
                            vf_zero()), n)
            c = c + VL
        p = p + 1


JOBS = {
    "multiply": publish(<void*>multiply, sizeof(PairArgs), "x0* x1* y* count chunk"),
    "maximum": publish(<void*>maximum, sizeof(PairArgs), "x0* x1* y* count chunk"),
    "maximum_backward": publish(
        <void*>maximum_backward, sizeof(MaximumBackwardArgs), "dy* x* y* dx* rest* count chunk"),
    "scale_channels": publish(
        <void*>scale_channels, sizeof(ScaleChannelsArgs), "x* factor* y* P C pixels chunk"),
}
