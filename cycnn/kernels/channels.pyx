"""A number for each channel: a bias and its gradient, a factor, and the slope of a PReLU.

rows.pxd says what a job of the PReLU is; the others are a chunk of rows or pixels.
"""
from cycnn.kernels.reduce cimport column_sum
from cycnn.kernels.rows cimport Part, Rows, part_of
from cycnn.kernels.simd cimport (
    VL, publish, real, vf, vf_add, vf_gt, vf_load, vf_mul, vf_select, vf_store, vf_zero)
from cycnn.kernels.tail cimport lanes, load, store

cdef struct BiasArgs:
    const real* bias            # IN   (C)
    real* y                     # IN, OUT  (rows, C)
    Py_ssize_t rows, C
    Py_ssize_t chunk            # rows of a job

cdef struct SumArgs:
    const real* dy              # IN   (rows, C)
    real* partial               # OUT  (jobs, C), the sums of each job's rows
    Py_ssize_t rows, C
    Py_ssize_t chunk            # rows of a job

cdef struct ScaleChannelsArgs:
    const real* x               # IN   (N, P, C)
    const real* factor          # IN   (N, C)
    real* y                     # OUT  (N, P, C)
    Py_ssize_t P, C
    Py_ssize_t pixels, chunk    # N P, and how many of them are a job

cdef struct PreluForwardArgs:
    const real* x           # IN   (rows, C)
    const real* slope       # IN   (period)
    real* y                 # OUT  (rows, C)
    Rows rows

cdef struct PreluBackwardArgs:
    const real* dy          # IN   (rows, C)
    const real* x           # IN   (rows, C)
    const real* slope       # IN   (period)
    real* dx                # OUT  (rows, C), or NULL
    double* partial         # OUT  (jobs, C): the sums for dslope
    Rows rows


cdef void add_bias(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y[r, c] = y[r, c] + bias[c]."""
    cdef const BiasArgs* a = <const BiasArgs*>args
    cdef Py_ssize_t first = job * a.chunk, _r, c, n
    cdef real* y = a.y + first * a.C
    for _r in range(first, min(first + a.chunk, a.rows)):
        c = 0
        while c < a.C:
            n = lanes(c, a.C)
            store(y + c, vf_add(load(y + c, n), load(a.bias + c, n)), n)
            c = c + VL
        y = y + a.C


cdef void column_sums(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """partial[job, c] = sum of dy[r, c] over the job's rows."""
    cdef const SumArgs* a = <const SumArgs*>args
    cdef Py_ssize_t first = job * a.chunk, count = min(a.chunk, a.rows - first), c = 0, n
    while c < a.C:
        n = lanes(c, a.C)
        store(a.partial + job * a.C + c,
              column_sum(a.dy + first * a.C + c, a.C, count, n, vf_zero()), n)
        c = c + VL


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


cdef void prelu_forward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y = x where x > 0, else slope[c] x."""
    cdef const PreluForwardArgs* a = <const PreluForwardArgs*>args
    cdef Part part = part_of(&a.rows, job)
    cdef Py_ssize_t _r, c, n, width = part.width
    cdef const real* x = a.x + part.start
    cdef real* y = a.y + part.start
    cdef vf v
    for _r in range(part.count):
        c = 0
        while c < width:
            n = lanes(c, width)
            v = load(x + c, n)
            store(y + c, vf_select(vf_gt(v, vf_zero()), v, vf_mul(load(a.slope + c, n), v)), n)
            c = c + VL
        x = x + width
        y = y + width


cdef void prelu_backward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """dx = dy where x > 0, else slope[c] dy;  dslope[c] = sum of dy x where not x > 0."""
    cdef const PreluBackwardArgs* a = <const PreluBackwardArgs*>args
    cdef Part part = part_of(&a.rows, job)
    cdef Py_ssize_t _r, c, n, width = part.width, C = a.rows.C
    cdef const real* dy = a.dy + part.start
    cdef const real* x = a.x + part.start
    cdef real* dx = a.dx + part.start
    cdef real* sum = <real*>scratch
    cdef double* partial = a.partial + job * C
    cdef vf v, g
    for c in range((width + VL - 1) // VL * VL):
        sum[c] = 0
    for _r in range(part.count):
        c = 0
        while c < width:
            n = lanes(c, width)
            v = load(x + c, n)
            g = load(dy + c, n)
            if a.dx != NULL:
                store(dx + c, vf_select(vf_gt(v, vf_zero()), g, vf_mul(load(a.slope + c, n), g)), n)
            g = vf_select(vf_gt(v, vf_zero()), vf_zero(), vf_mul(g, v))
            vf_store(sum + c, vf_add(vf_load(sum + c), g))
            c = c + VL
        dy = dy + width
        x = x + width
        dx = dx + width
    for c in range(C):
        partial[c] = 0
    for c in range(width):
        partial[c % C] += sum[c]


_ROWS = " grouped loose period C chunk parts beyond"
JOBS = {
    "add_bias": publish(<void*>add_bias, sizeof(BiasArgs), "bias* y* rows C chunk"),
    "column_sums": publish(<void*>column_sums, sizeof(SumArgs), "dy* partial* rows C chunk"),
    "scale_channels": publish(
        <void*>scale_channels, sizeof(ScaleChannelsArgs), "x* factor* y* P C pixels chunk"),
    "prelu_forward": publish(
        <void*>prelu_forward, sizeof(PreluForwardArgs), "x* slope* y*" + _ROWS),
    "prelu_backward": publish(
        <void*>prelu_backward, sizeof(PreluBackwardArgs), "dy* x* slope* dx* partial*" + _ROWS),
}
