"""Local response normalisation, y = x (k + a window)^-beta, window the sum of x^2 near by.

The window is over channels (`channel_window`) or over pixels (the average pool of pool.pyx); all
the rest is element by element.
"""
from cycnn.kernels.simd cimport (
    VL, publish, real, vf, vf_add, vf_fma, vf_fnma, vf_load, vf_mul, vf_store)
from cycnn.kernels.tail cimport lanes, load, store
from cycnn.kernels.vmath cimport exp_of, log_of, number

cdef struct ChannelWindowArgs:
    const real* x           # IN   (rows, C)
    real* y                 # OUT  (rows, C)
    Py_ssize_t rows, C, chunk
    Py_ssize_t begin        # y[c] takes channels c - begin ...
    Py_ssize_t size         # and the following ones, size in all
    Py_ssize_t squared      # whether x is squared first

cdef struct LrnArgs:
    const real* x           # IN   (count)
    const real* window      # IN   (count)
    const real* dy          # IN   (count), for backward
    const real* spread      # IN   (count), for backward: the sums of `ratio` where x had a part
    real* y                 # OUT  (count), or dx, or ratio
    Py_ssize_t count, chunk
    double k, a, beta


cdef void channel_window(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y[r, c] = sum of x[r, c - begin + j] for j < size, beyond the channels 0."""
    cdef const ChannelWindowArgs* a = <const ChannelWindowArgs*>args
    cdef Py_ssize_t r, c, j, n, C = a.C
    cdef real* row = <real*>scratch     # size - 1 zeros, x, and zeros
    cdef const real* first = row + a.size - 1 - a.begin
    cdef vf v
    for c in range(C + 2 * a.size + VL):
        row[c] = 0
    for r in range(job * a.chunk, min(job * a.chunk + a.chunk, a.rows)):
        c = 0
        while c < C:
            n = lanes(c, C)
            v = load(a.x + r * C + c, n)
            vf_store(row + a.size - 1 + c, vf_mul(v, v) if a.squared else v)
            c = c + VL
        c = 0
        while c < C:
            n = lanes(c, C)
            v = vf_load(first + c)
            for j in range(1, a.size):
                v = vf_add(v, vf_load(first + c + j))
            store(a.y + r * C + c, v, n)
            c = c + VL


cdef inline vf power(vf window, vf k, vf a, vf exponent) noexcept nogil:
    """Return (k + a window)^exponent."""
    return exp_of(vf_mul(exponent, log_of(vf_fma(a, window, k))))


cdef void square(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y = x^2."""
    cdef const LrnArgs* s = <const LrnArgs*>args
    cdef Py_ssize_t i = job * s.chunk, stop = min(i + s.chunk, s.count), n
    cdef vf x
    while i < stop:
        n = lanes(i, stop)
        x = load(s.x + i, n)
        store(s.y + i, vf_mul(x, x), n)
        i = i + VL


cdef void lrn_forward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y = x (k + a window)^-beta."""
    cdef const LrnArgs* s = <const LrnArgs*>args
    cdef Py_ssize_t i = job * s.chunk, stop = min(i + s.chunk, s.count), n
    cdef vf k = number(s.k), a = number(s.a), exponent = number(-s.beta)
    while i < stop:
        n = lanes(i, stop)
        store(s.y + i, vf_mul(load(s.x + i, n), power(load(s.window + i, n), k, a, exponent)), n)
        i = i + VL


cdef void lrn_ratio(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """ratio = dy x (k + a window)^(-beta - 1)."""
    cdef const LrnArgs* s = <const LrnArgs*>args
    cdef Py_ssize_t i = job * s.chunk, stop = min(i + s.chunk, s.count), n
    cdef vf k = number(s.k), a = number(s.a), exponent = number(-s.beta - 1)
    while i < stop:
        n = lanes(i, stop)
        store(s.y + i, vf_mul(vf_mul(load(s.dy + i, n), load(s.x + i, n)),
                              power(load(s.window + i, n), k, a, exponent)), n)
        i = i + VL


cdef void lrn_backward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """dx = dy (k + a window)^-beta - 2 a beta x spread."""
    cdef const LrnArgs* s = <const LrnArgs*>args
    cdef Py_ssize_t i = job * s.chunk, stop = min(i + s.chunk, s.count), n
    cdef vf k = number(s.k), a = number(s.a), exponent = number(-s.beta)
    cdef vf factor = number(2 * s.a * s.beta)
    while i < stop:
        n = lanes(i, stop)
        store(s.y + i, vf_fnma(
            vf_mul(factor, load(s.x + i, n)), load(s.spread + i, n),
            vf_mul(load(s.dy + i, n), power(load(s.window + i, n), k, a, exponent))), n)
        i = i + VL


_SLOTS = "x* window* dy* spread* y* count chunk k. a. beta."
JOBS = {
    "channel_window": publish(
        <void*>channel_window, sizeof(ChannelWindowArgs), "x* y* rows C chunk begin size squared"),
    "square": publish(<void*>square, sizeof(LrnArgs), _SLOTS),
    "lrn_forward": publish(<void*>lrn_forward, sizeof(LrnArgs), _SLOTS),
    "lrn_ratio": publish(<void*>lrn_ratio, sizeof(LrnArgs), _SLOTS),
    "lrn_backward": publish(<void*>lrn_backward, sizeof(LrnArgs), _SLOTS),
}
