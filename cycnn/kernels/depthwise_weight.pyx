"""Weight gradient of a depthwise convolution, and the bias gradient on the way.

    dw[t, c] = sum over n, o of x[n, o * S + offset[t], c] * dy[n, o, c]
    dbias[c] = sum over n, o of dy[n, o, c]

Vectors run over channels; up to nine taps stay in registers while the sum walks over the pixels of
neighbouring rows (depthwise_rows.pxd).
"""
from libc.stdint cimport int64_t
from libc.string cimport memcmp, memset

from cycnn.kernels.depthwise_rows cimport (
    LEFT, RIGHT, Inside, Row, Run, list_rows, load, rows_ahead,
)
from cycnn.kernels.simd cimport (
    VL, prefetch, publish, real, vf, vf_add, vf_fma, vf_load_part, vf_store_part, vf_zero,
)
from cycnn.kernels.window cimport Window


cdef struct DepthwiseWeightArgs:
    Window window
    const real* dy              # IN   (N, OD, OH, OW, C)
    real* dweight               # OUT  (S, T, C), S partial sums
    real* dbias                 # OUT  (S, C) or NULL
    Inside inside
    Py_ssize_t chunks           # S


cdef inline void add_to(real* y, vf sum, Py_ssize_t columns) noexcept nogil:
    """y[:columns] += sum."""
    vf_store_part(y, vf_add(sum, vf_load_part(y, columns)), columns)


cdef inline void correlate(
    int taps, bint whole,
    const DepthwiseWeightArgs* a,
    const Row* rows,            # IN   with the same taps
    Py_ssize_t count,
    Py_ssize_t first,           # of the rows' taps
    Py_ssize_t c,
    real* dweight,              # OUT  (T, C), added to
) noexcept nogil:
    """Sum x * dy over some rows for `taps` (a constant) taps and the vector of channels at c."""
    cdef Py_ssize_t C = a.window.C, step = a.window.SW * C, columns = C - c, r, i, _j, ahead
    cdef Py_ssize_t begin, end
    cdef Py_ssize_t next_row = a.window.OW * C
    cdef Py_ssize_t o0 = 0, o1 = 0, o2 = 0, o3 = 0, o4 = 0, o5 = 0, o6 = 0, o7 = 0, o8 = 0
    cdef vf a0 = vf_zero(), a1 = vf_zero(), a2 = vf_zero(), a3 = vf_zero(), a4 = vf_zero()
    cdef vf a5 = vf_zero(), a6 = vf_zero(), a7 = vf_zero(), a8 = vf_zero(), d
    cdef const Run* run
    cdef const int64_t* tap = rows.tap + first
    cdef const real* p
    cdef const real* q
    for r in range(count):
        q = a.dy + (rows[r].plane * a.window.OH + rows[r].oh) * next_row + c
        ahead = rows_ahead(&a.window, rows + r)
        for i in range(rows[r].count):
            run = rows[r].runs + i
            p = run.x + c
            o0 = run.offset[first]
            if taps > 1:
                o1 = run.offset[first + 1]
            if taps > 2:
                o2 = run.offset[first + 2]
            if taps > 3:
                o3 = run.offset[first + 3]
            if taps > 4:
                o4 = run.offset[first + 4]
            if taps > 5:
                o5 = run.offset[first + 5]
            if taps > 6:
                o6 = run.offset[first + 6]
            if taps > 7:
                o7 = run.offset[first + 7]
            if taps > 8:
                o8 = run.offset[first + 8]
            begin = 0
            end = run.count
            if run.edges & LEFT:            # without the first tap of each three
                d = load(q, whole, columns)
                if taps > 1:
                    a1 = vf_fma(load(p + o1, whole, columns), d, a1)
                if taps > 2:
                    a2 = vf_fma(load(p + o2, whole, columns), d, a2)
                if taps > 4:
                    a4 = vf_fma(load(p + o4, whole, columns), d, a4)
                if taps > 5:
                    a5 = vf_fma(load(p + o5, whole, columns), d, a5)
                if taps > 7:
                    a7 = vf_fma(load(p + o7, whole, columns), d, a7)
                if taps > 8:
                    a8 = vf_fma(load(p + o8, whole, columns), d, a8)
                begin = 1
            if run.edges & RIGHT:           # without the last tap of each three
                end = end - 1
                d = load(q + end * C, whole, columns)
                a0 = vf_fma(load(p + o0 + end * step, whole, columns), d, a0)
                if taps > 1:
                    a1 = vf_fma(load(p + o1 + end * step, whole, columns), d, a1)
                if taps > 3:
                    a3 = vf_fma(load(p + o3 + end * step, whole, columns), d, a3)
                if taps > 4:
                    a4 = vf_fma(load(p + o4 + end * step, whole, columns), d, a4)
                if taps > 6:
                    a6 = vf_fma(load(p + o6 + end * step, whole, columns), d, a6)
                if taps > 7:
                    a7 = vf_fma(load(p + o7 + end * step, whole, columns), d, a7)
            p = p + begin * step
            q = q + begin * C
            for _j in range(begin, end):
                d = load(q, whole, columns)
                prefetch(p + ahead)
                prefetch(q + next_row)
                a0 = vf_fma(load(p + o0, whole, columns), d, a0)
                if taps > 1:
                    a1 = vf_fma(load(p + o1, whole, columns), d, a1)
                if taps > 2:
                    a2 = vf_fma(load(p + o2, whole, columns), d, a2)
                if taps > 3:
                    a3 = vf_fma(load(p + o3, whole, columns), d, a3)
                if taps > 4:
                    a4 = vf_fma(load(p + o4, whole, columns), d, a4)
                if taps > 5:
                    a5 = vf_fma(load(p + o5, whole, columns), d, a5)
                if taps > 6:
                    a6 = vf_fma(load(p + o6, whole, columns), d, a6)
                if taps > 7:
                    a7 = vf_fma(load(p + o7, whole, columns), d, a7)
                if taps > 8:
                    a8 = vf_fma(load(p + o8, whole, columns), d, a8)
                p = p + step
                q = q + C
            q = q + (run.count - end) * C
    add_to(dweight + tap[0] * C + c, a0, columns)
    if taps > 1:
        add_to(dweight + tap[1] * C + c, a1, columns)
    if taps > 2:
        add_to(dweight + tap[2] * C + c, a2, columns)
    if taps > 3:
        add_to(dweight + tap[3] * C + c, a3, columns)
    if taps > 4:
        add_to(dweight + tap[4] * C + c, a4, columns)
    if taps > 5:
        add_to(dweight + tap[5] * C + c, a5, columns)
    if taps > 6:
        add_to(dweight + tap[6] * C + c, a6, columns)
    if taps > 7:
        add_to(dweight + tap[7] * C + c, a7, columns)
    if taps > 8:
        add_to(dweight + tap[8] * C + c, a8, columns)


cdef inline void correlate_rows(
    bint whole, const DepthwiseWeightArgs* a, const Row* rows, Py_ssize_t count, Py_ssize_t c,
    real* dweight, real* dbias,
) noexcept nogil:
    """Add the part of rows with the same taps to dweight and dbias, for one vector of channels."""
    cdef Py_ssize_t C = a.window.C, t = 0, taps = rows.taps, r, i
    cdef vf sum = vf_zero()
    cdef const real* dy
    while t < taps:
        if taps - t >= 9:
            correlate(9, whole, a, rows, count, t, c, dweight)
            t = t + 9
        elif taps - t >= 6:
            correlate(6, whole, a, rows, count, t, c, dweight)
            t = t + 6
        elif taps - t >= 3:
            correlate(3, whole, a, rows, count, t, c, dweight)
            t = t + 3
        else:
            correlate(1, whole, a, rows, count, t, c, dweight)
            t = t + 1
    if dbias != NULL:
        for r in range(count):
            dy = a.dy + (rows[r].plane * a.window.OH + rows[r].oh) * a.window.OW * C + c
            for i in range(a.window.OW):
                sum = vf_add(sum, load(dy + i * C, whole, C - c))
        add_to(dbias + c, sum, C - c)


cdef inline bint same_taps(const Row* row, const Row* other) noexcept nogil:
    """Whether two rows read the same taps."""
    return row.taps == other.taps and memcmp(row.tap, other.tap, row.taps * sizeof(int64_t)) == 0


cdef void depthwise_weight(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """One job is one chunk of all output rows.

    Each vector of channels is summed over all neighbouring rows with the same taps before it is
    stored; what the next row will read is fetched meanwhile.
    """
    cdef const DepthwiseWeightArgs* a = <const DepthwiseWeightArgs*>args
    cdef const Window* v = &a.window
    cdef Py_ssize_t T = v.TD * v.TH * v.TW, all_rows = v.planes * v.OH, r = 0, same, c
    cdef Py_ssize_t first = job * all_rows // a.chunks
    cdef Py_ssize_t count = (job + 1) * all_rows // a.chunks - first
    cdef Row* rows = list_rows(v, &a.inside, first, count, scratch)
    cdef real* dweight = a.dweight + job * T * v.C
    cdef real* dbias = NULL
    memset(dweight, 0, T * v.C * sizeof(real))
    if a.dbias != NULL:
        dbias = a.dbias + job * v.C
        memset(dbias, 0, v.C * sizeof(real))
    while r < count:
        same = 1
        while r + same < count and same_taps(rows + r, rows + r + same):
            same = same + 1
        c = 0
        while c + VL <= v.C:
            correlate_rows(True, a, rows + r, same, c, dweight, dbias)
            c = c + VL
        if c < v.C:
            correlate_rows(False, a, rows + r, same, c, dweight, dbias)
        r = r + same


JOBS = {
    "depthwise_weight": publish(<void*>depthwise_weight, sizeof(DepthwiseWeightArgs), (
        "x* offset* source* D H W C OD OH OW SD SH SW TD TH TW LD LH LW "
        "planes block_planes block_rows block_columns copy "
        "dy* dweight* dbias* begin end shift edges chunks")),
}
