"""Pooling of whole images, and values that go where indices say (max unpooling).

An image is P pixels of C channels; its axes do not matter here.  A job owns some channels of an
image, or some of its pixels.
"""
from libc.math cimport INFINITY
from libc.stdint cimport int64_t
from libc.string cimport memset

from cycnn.kernels.simd cimport (
    VL, publish, real, vf, vf_add, vf_div, vf_gt, vf_mul, vf_select, vf_set1, vf_store,
    vf_unordered, vf_zero, vm, vm_or)
from cycnn.kernels.tail cimport lanes, load, store

cdef enum:
    SEGMENT = 1 << 20           # pixels that a float32 can number, and more than enough

cdef struct GlobalArgs:
    const real* x               # IN   (N, P, C), or dy (N, C) for backward
    real* y                     # OUT  (N, C), or dx (N, P, C)
    Py_ssize_t P, C, chunk, parts   # channels (backward: pixels) of a job, jobs of an image

cdef struct MaxArgs:
    const real* x               # IN   (N, P, C)
    real* y                     # OUT  (N, C)
    int64_t* index              # OUT  (N, C), the pixel that won
    Py_ssize_t P, C, chunk, parts   # channels of a job, jobs of an image

cdef struct PlaceArgs:
    const real* x               # IN   (N, O, C), or dy (N, P, C) for backward
    const int64_t* index        # IN   (N, O, C), the pixel of each value, -1 for none
    real* y                     # OUT  (N, P, C), or dx (N, O, C) for backward
    Py_ssize_t O, P, C
    Py_ssize_t chunk, parts     # channels (backward: values) of a job, jobs of an image


cdef void global_avg_pool_forward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y[n, c] = sum over the pixels p of x[n, p, c] / P, as four sums over every fourth pixel."""
    cdef const GlobalArgs* a = <const GlobalArgs*>args
    cdef Py_ssize_t image = job // a.parts, c = job % a.parts * a.chunk
    cdef Py_ssize_t stop = min(c + a.chunk, a.C), _p, n, C = a.C
    cdef const real* x
    cdef vf s0, s1, s2, s3, count = vf_set1(<real>a.P)
    while c < stop:
        n = lanes(c, stop)
        x = a.x + image * a.P * C + c
        s0 = vf_zero()
        s1 = vf_zero()
        s2 = vf_zero()
        s3 = vf_zero()
        for _p in range(a.P // 4):
            s0 = vf_add(s0, load(x, n))
            s1 = vf_add(s1, load(x + C, n))
            s2 = vf_add(s2, load(x + 2 * C, n))
            s3 = vf_add(s3, load(x + 3 * C, n))
            x = x + 4 * C
        for _p in range(a.P % 4):
            s0 = vf_add(s0, load(x, n))
            x = x + C
        store(a.y + image * C + c, vf_div(vf_add(vf_add(s0, s1), vf_add(s2, s3)), count), n)
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

    Of equal values the first wins, NaN over numbers.
    """
    cdef const MaxArgs* a = <const MaxArgs*>args
    cdef Py_ssize_t image = job // a.parts, c = job % a.parts * a.chunk
    cdef Py_ssize_t stop = min(c + a.chunk, a.C), first, p, n, j, C = a.C
    cdef const real* source
    cdef int64_t* index
    cdef real pixel[VL]
    cdef vf x, best, winner
    cdef vm wins
    while c < stop:
        n = lanes(c, stop)
        source = a.x + image * a.P * C + c
        index = a.index + image * C + c
        best = vf_set1(<real>-INFINITY)
        for j in range(n):
            index[j] = 0
        first = 0
        while first < a.P:
            winner = vf_set1(-1)
            for p in range(first, min(first + SEGMENT, a.P)):
                x = load(source, n)
                wins = vm_or(vf_gt(x, best), vf_unordered(x, x))
                best = vf_select(wins, x, best)
                winner = vf_select(wins, vf_set1(<real>(p - first)), winner)
                source = source + C
            vf_store(pixel, winner)
            for j in range(n):
                if pixel[j] >= 0:
                    index[j] = first + <int64_t>pixel[j]
            first = first + SEGMENT
        store(a.y + image * C + c, best, n)
        c = c + VL


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
        <void*>global_avg_pool_forward, sizeof(GlobalArgs), "x* y* P C chunk parts"),
    "global_avg_pool_backward": publish(
        <void*>global_avg_pool_backward, sizeof(GlobalArgs), "x* y* P C chunk parts"),
    "global_max_pool_forward": publish(
        <void*>global_max_pool_forward, sizeof(MaxArgs), "x* y* index* P C chunk parts"),
    "place_forward": publish(
        <void*>place_forward, sizeof(PlaceArgs), "x* index* y* O P C chunk parts"),
    "place_backward": publish(
        <void*>place_backward, sizeof(PlaceArgs), "x* index* y* O P C chunk parts"),
}
