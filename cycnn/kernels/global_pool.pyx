"""Pooling of whole images, and values that go where indices say (max unpooling).

An image is P pixels of C channels; its axes do not matter here.  A job owns some channels of an
image, or some of its pixels.
"""
from libc.math cimport INFINITY
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from cycnn.kernels.simd cimport (
    VL, prefetch_far, publish, real, vf, vf_add, vf_div, vf_gt, vf_load, vf_mul, vf_select, vf_set1,
    vf_store, vf_unordered, vf_zero, vm, vm_or)
from cycnn.kernels.tail cimport lanes, load, store

cdef enum:
    SEGMENT = 1 << 20           # pixels that a float32 can number, and more than enough

cdef struct GlobalArgs:
    const real* x               # IN   (N, P, C), or dy (N, C) for backward
    real* y                     # OUT  (N, C), or dx (N, P, C)
    Py_ssize_t P, C, parts      # jobs of an image
    Py_ssize_t chunk            # channels of a job, whole vectors; backward: pixels

cdef struct MaxArgs:
    const real* x               # IN   (N, P, C)
    real* y                     # OUT  (N, C)
    int64_t* index              # OUT  (N, C), the pixel that won
    Py_ssize_t P, C, parts      # jobs of an image
    Py_ssize_t chunk            # channels of a job, whole vectors

cdef struct PlaceArgs:
    const real* x               # IN   (N, O, C), or dy (N, P, C) for backward
    const int64_t* index        # IN   (N, O, C), the pixel of each value, -1 for none
    real* y                     # OUT  (N, P, C), or dx (N, O, C) for backward
    Py_ssize_t O, P, C
    Py_ssize_t chunk, parts     # channels (backward: values) of a job, jobs of an image


cdef void global_avg_pool_forward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y[n, c] = sum over the pixels p of x[n, p, c] / P, as four sums over every fourth pixel.

    The sums lie in scratch memory, so that x is read in the order of memory.  The first addend of
    each starts it.
    """
    cdef const GlobalArgs* a = <const GlobalArgs*>args
    cdef Py_ssize_t image = job // a.parts, first = job % a.parts * a.chunk
    cdef Py_ssize_t channels = min(a.chunk, a.C - first), p, c, n
    cdef Py_ssize_t fours = a.P // 4 * 4
    cdef const real* x = a.x + image * a.P * a.C + first
    cdef real* y = a.y + image * a.C + first
    cdef real* s = <real*>scratch
    cdef real* row
    cdef vf sum, count = vf_set1(<real>a.P)
    if a.P < 4:
        memset(s, 0, 4 * a.chunk * sizeof(real))
    for p in range(a.P):
        row = s + (p % 4 if p < fours else 0) * a.chunk
        c = 0
        while c < channels:
            n = lanes(c, channels)
            prefetch_far(x + 2 * a.C + c)
            sum = vf_zero() if p < 4 <= a.P else vf_load(row + c)
            vf_store(row + c, vf_add(sum, load(x + c, n)))
            c = c + VL
        x = x + a.C
    c = 0
    while c < channels:
        n = lanes(c, channels)
        store(y + c, vf_div(vf_add(
            vf_add(vf_load(s + c), vf_load(s + a.chunk + c)),
            vf_add(vf_load(s + 2 * a.chunk + c), vf_load(s + 3 * a.chunk + c))), count), n)
        c = c + VL


cdef void global_avg_pool_backward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """dx[n, p, c] = dy[n, c] / P."""
    cdef const GlobalArgs* a = <const GlobalArgs*>args
    cdef Py_ssize_t image = job // a.parts, first = job % a.parts * a.chunk, _p, c, n
    cdef const real* dy = a.x + image * a.C
    cdef real* dx = a.y + (image * a.P + first) * a.C
    cdef vf share = vf_set1(<real>(1.0 / a.P))
    for _p in range(first, min(first + a.chunk, a.P)):
        c = 0
        while c < a.C:
            n = lanes(c, a.C)
            store(dx + c, vf_mul(load(dy + c, n), share), n)
            c = c + VL
        dx = dx + a.C


cdef void global_max_pool_forward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y[n, c] = max over the pixels p of x[n, p, c]; index[n, c] = the p of that maximum.

    Of equal values the first wins, NaN over numbers.  As the sums of a mean, what is found lies in
    scratch memory.
    """
    cdef const MaxArgs* a = <const MaxArgs*>args
    cdef Py_ssize_t image = job // a.parts, begin = job % a.parts * a.chunk
    cdef Py_ssize_t channels = min(a.chunk, a.C - begin), first = 0, p, c
    cdef const real* source = a.x + image * a.P * a.C + begin
    cdef int64_t* index = a.index + image * a.C + begin
    cdef real* best = <real*>scratch
    cdef real* winner = best + a.chunk          # counted from `first`
    cdef vf x, most
    cdef vm wins
    for c in range(channels):
        index[c] = 0
    for c in range(a.chunk):
        best[c] = <real>-INFINITY
    while first < a.P:
        for c in range(a.chunk):
            winner[c] = -1
        for p in range(first, min(first + SEGMENT, a.P)):
            c = 0
            while c < channels:
                prefetch_far(source + 2 * a.C + c)
                x = load(source + c, lanes(c, channels))
                most = vf_load(best + c)
                wins = vm_or(vf_gt(x, most), vf_unordered(x, x))
                vf_store(best + c, vf_select(wins, x, most))
                vf_store(winner + c, vf_select(
                    wins, vf_set1(<real>(p - first)), vf_load(winner + c)))
                c = c + VL
            source = source + a.C
        for c in range(channels):
            if winner[c] >= 0:
                index[c] = first + <int64_t>winner[c]
        first = first + SEGMENT
    memcpy(a.y + image * a.C + begin, best, channels * sizeof(real))


cdef void place_forward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y[n, p, c] = sum of x[n, o, c] over the o, in order, with index[n, o, c] = p."""
    cdef const PlaceArgs* a = <const PlaceArgs*>args
    cdef Py_ssize_t image = job // a.parts, first = job % a.parts * a.chunk, p, _o, c
    cdef Py_ssize_t count = min(a.chunk, a.C - first)
    cdef real* y = a.y + image * a.P * a.C + first
    cdef const real* x = a.x + image * a.O * a.C + first
    cdef const int64_t* index = a.index + image * a.O * a.C + first
    for p in range(a.P):
        memset(y + p * a.C, 0, count * sizeof(real))
    for _o in range(a.O):
        for c in range(count):
            if index[c] >= 0:
                y[index[c] * a.C + c] += x[c]
        x = x + a.C
        index = index + a.C


cdef void place_backward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """dx[n, o, c] = dy[n, index[n, o, c], c]; 0 where the index is -1."""
    cdef const PlaceArgs* a = <const PlaceArgs*>args
    cdef Py_ssize_t image = job // a.parts, first = job % a.parts * a.chunk, _o, c
    cdef const real* dy = a.x + image * a.P * a.C
    cdef const int64_t* index = a.index + (image * a.O + first) * a.C
    cdef real* dx = a.y + (image * a.O + first) * a.C
    for _o in range(min(a.chunk, a.O - first)):
        for c in range(a.C):
            dx[c] = dy[index[c] * a.C + c] if index[c] >= 0 else <real>0
        index = index + a.C
        dx = dx + a.C


JOBS = {
    "global_avg_pool_forward": publish(
        <void*>global_avg_pool_forward, sizeof(GlobalArgs), "x* y* P C parts chunk"),
    "global_avg_pool_backward": publish(
        <void*>global_avg_pool_backward, sizeof(GlobalArgs), "x* y* P C parts chunk"),
    "global_max_pool_forward": publish(
        <void*>global_max_pool_forward, sizeof(MaxArgs), "x* y* index* P C parts chunk"),
    "place_forward": publish(
        <void*>place_forward, sizeof(PlaceArgs), "x* index* y* O P C chunk parts"),
    "place_backward": publish(
        <void*>place_backward, sizeof(PlaceArgs), "x* index* y* O P C chunk parts"),
}
