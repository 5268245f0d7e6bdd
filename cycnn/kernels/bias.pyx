"""A bias added to every row of a matrix, and its gradient, the sums of the columns."""
from cycnn.kernels.simd cimport VL, publish, real, vf, vf_add, vf_zero
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
    """partial[job, c] = sum of dy[r, c] over the job's rows, as four sums over every fourth row."""
    cdef const SumArgs* a = <const SumArgs*>args
    cdef Py_ssize_t first = job * a.chunk, count = min(a.chunk, a.rows - first), _r, c = 0, n
    cdef Py_ssize_t C = a.C
    cdef const real* dy
    cdef vf s0, s1, s2, s3
    while c < C:
        n = lanes(c, C)
        dy = a.dy + first * C + c
        s0 = s1 = s2 = s3 = vf_zero()
        for _r in range(count // 4):
            s0 = vf_add(s0, load(dy, n))
            s1 = vf_add(s1, load(dy + C, n))
            s2 = vf_add(s2, load(dy + 2 * C, n))
            s3 = vf_add(s3, load(dy + 3 * C, n))
            dy = dy + 4 * C
        for _r in range(count % 4):
            s0 = vf_add(s0, load(dy, n))
            dy = dy + C
        store(a.partial + job * C + c, vf_add(vf_add(s0, s1), vf_add(s2, s3)), n)
        c = c + VL


JOBS = {
    "add_bias": publish(<void*>add_bias, sizeof(BiasArgs), "bias* y* rows C chunk"),
    "column_sums": publish(<void*>column_sums, sizeof(SumArgs), "dy* partial* rows C chunk"),
}
