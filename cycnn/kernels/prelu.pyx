"""PReLU: a rectifier whose slope below 0 is learnt, one for each channel.

rows.pxd says what a job is.
"""
from cycnn.kernels.rows cimport Part, Rows, part_of
from cycnn.kernels.simd cimport (
    VL, publish, real, vf, vf_add, vf_gt, vf_load, vf_mul, vf_select, vf_store, vf_zero)
from cycnn.kernels.tail cimport lanes, load, store

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


_ROWS = " grouped loose period C chunk parts"
JOBS = {
    "prelu_forward": publish(
        <void*>prelu_forward, sizeof(PreluForwardArgs), "x* slope* y*" + _ROWS),
    "prelu_backward": publish(
        <void*>prelu_backward, sizeof(PreluBackwardArgs), "dy* x* slope* dx* partial*" + _ROWS),
}
