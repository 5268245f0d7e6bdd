"""Weight gradient of a depthwise convolution, and the bias gradient on the way.

    dw[t, c] = sum over n, o of x[n, o * S + offset[t], c] * dy[n, o, c]
    dbias[c] = sum over n, o of dy[n, o, c]

Vectors run over channels; up to nine taps stay in registers while the sum walks over the pixels of
neighbouring rows (depthwise_rows.pxd).  Where taps lie side by side in threes, a column of x is
loaded once for three of them, and rows are cut in blocks that stay in the first-level cache while
one vector of channels after the other walks over them: a cache line holds several.
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


cdef enum:
    PIXELS = 64                 # of which what three taps read fits the first-level cache


cdef struct DepthwiseWeightArgs:
    Window window
    const real* dy              # IN   (N, OD, OH, OW, C)
    real* dweight               # OUT  (S, T, C), S partial sums
    real* dbias                 # OUT  (S, C) or NULL
    Inside inside
    Py_ssize_t chunks           # S


cdef struct Next:
    # What will be read next, in the order of memory.
    const real* x
    const real* dy


cdef inline void add_to(real* y, vf sum, Py_ssize_t columns) noexcept nogil:
    """y[:columns] += sum."""
    vf_store_part(y, vf_add(sum, vf_load_part(y, columns)), columns)


cdef inline void correlate(
    int taps, bint whole,
    const DepthwiseWeightArgs* a,
    const Row* rows,            # IN   with the same taps, without edges
    Py_ssize_t count,
    Py_ssize_t first,           # of the rows' taps
    Py_ssize_t c,
    real* dweight,              # OUT  (T, C), added to
) noexcept nogil:
    """Sum x * dy over some rows for `taps` (a constant) taps and the vector of channels at c."""
    cdef Py_ssize_t C = a.window.C, step = a.window.SW * C, columns = C - c, r, i, _j, ahead
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
            for _j in range(run.count):
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


cdef struct Three:
    # Three taps side by side: their sums, and the last two columns of x that were read.
    vf a0, a1, a2
    vf x, y


cdef inline void begin_three(
    Three* s, bint left, bint whole, const real* p, Py_ssize_t C, Py_ssize_t columns,
) noexcept nogil:
    """Read the first two columns of a row; the first may be a zero."""
    s.x = vf_zero() if left else load(p, whole, columns)
    s.y = load(p + C, whole, columns)


cdef inline void add_two(bint odd, Three* s, vf d) noexcept nogil:
    """Add a pixel of dy whose first two taps are x and y; in turns they have changed places."""
    s.a0 = vf_fma(s.y if odd else s.x, d, s.a0)
    s.a1 = vf_fma(s.x if odd else s.y, d, s.a1)


cdef inline void add_pixel(bint odd, Three* s, vf d, vf third) noexcept nogil:
    """Do so with the third tap, which takes the place of the first."""
    add_two(odd, s, d)
    s.a2 = vf_fma(third, d, s.a2)
    if odd:
        s.y = third
    else:
        s.x = third


cdef inline void add_three(
    Three* s, const int64_t* tap, Py_ssize_t C, real* dweight, Py_ssize_t columns,
) noexcept nogil:
    """Add the sums to dweight."""
    add_to(dweight + tap[0] * C, s.a0, columns)
    add_to(dweight + tap[1] * C, s.a1, columns)
    add_to(dweight + tap[2] * C, s.a2, columns)


cdef inline void correlate_threes(
    int threes,                 # one to three
    int stride,                 # one or two
    bint whole,
    const DepthwiseWeightArgs* a,
    const Row* rows,            # IN   one run each
    Py_ssize_t count,
    Py_ssize_t begin,           # of the pixels of each row
    Py_ssize_t end,
    Py_ssize_t first,           # of the rows' taps
    Py_ssize_t c,
    Next* next,
    real* dweight,              # OUT  (T, C), added to
) noexcept nogil:
    """Sum x * dy over some rows for taps in threes, which share each column of x they load."""
    cdef Py_ssize_t C = a.window.C, columns = C - c, r, j, full
    cdef bint left, right, swapped
    cdef const real* next_x = next.x
    cdef const real* next_dy = next.dy
    cdef bint ahead = first == 0 and c % (64 // <Py_ssize_t>sizeof(real)) == 0
    cdef Three s0, s1, s2
    cdef vf d
    cdef const Run* run
    cdef const real* p0
    cdef const real* p1 = NULL
    cdef const real* p2 = NULL
    cdef const real* q
    s0.a0 = s0.a1 = s0.a2 = s1.a0 = s1.a1 = s1.a2 = s2.a0 = s2.a1 = s2.a2 = vf_zero()
    for r in range(count):
        run = rows[r].runs
        left = begin == 0 and run.edges & LEFT
        right = end == run.count and run.edges & RIGHT
        q = a.dy + ((rows[r].plane * a.window.OH + rows[r].oh) * a.window.OW + begin) * C + c
        p0 = run.x + c + run.offset[first] + begin * stride * C
        begin_three(&s0, left, whole, p0, C, columns)
        if threes > 1:
            p1 = run.x + c + run.offset[first + 3] + begin * stride * C
            begin_three(&s1, left, whole, p1, C, columns)
        if threes > 2:
            p2 = run.x + c + run.offset[first + 6] + begin * stride * C
            begin_three(&s2, left, whole, p2, C, columns)
        full = end - 1 if right else end
        j = begin
        while j < full:
            if ahead:
                prefetch(next_dy)
                next_dy = next_dy + 64 // sizeof(real)
                prefetch(next_x)
                next_x = next_x + 64 // sizeof(real)
                if stride > 1:
                    prefetch(next_x)
                    prefetch(next_x + 64 // sizeof(real))
                    prefetch(next_x + 128 // sizeof(real))
                    next_x = next_x + 192 // sizeof(real)
            d = load(q, whole, columns)
            q = q + C
            p0 = p0 + 2 * C
            add_pixel(False, &s0, d, load(p0, whole, columns))
            if threes > 1:
                p1 = p1 + 2 * C
                add_pixel(False, &s1, d, load(p1, whole, columns))
            if threes > 2:
                p2 = p2 + 2 * C
                add_pixel(False, &s2, d, load(p2, whole, columns))
            j = j + 1
            if stride > 1:
                if j < end:
                    s0.y = load(p0 + C, whole, columns)
                    if threes > 1:
                        s1.y = load(p1 + C, whole, columns)
                    if threes > 2:
                        s2.y = load(p2 + C, whole, columns)
                continue
            if j == full:
                break
            if ahead:
                prefetch(next_dy)
                next_dy = next_dy + 64 // sizeof(real)
                prefetch(next_x)
                next_x = next_x + 64 // sizeof(real)
            d = load(q, whole, columns)
            q = q + C
            add_pixel(True, &s0, d, load(p0 + C, whole, columns))
            if threes > 1:
                add_pixel(True, &s1, d, load(p1 + C, whole, columns))
            if threes > 2:
                add_pixel(True, &s2, d, load(p2 + C, whole, columns))
            j = j + 1
        if right:                           # without the last tap of each three
            d = load(q, whole, columns)
            swapped = stride == 1 and (full - begin) % 2
            add_two(swapped, &s0, d)
            if threes > 1:
                add_two(swapped, &s1, d)
            if threes > 2:
                add_two(swapped, &s2, d)
    next.x = next_x
    next.dy = next_dy
    add_three(&s0, rows.tap + first, C, dweight + c, columns)
    if threes > 1:
        add_three(&s1, rows.tap + first + 3, C, dweight + c, columns)
    if threes > 2:
        add_three(&s2, rows.tap + first + 6, C, dweight + c, columns)


cdef inline void correlate_channels(
    int stride, bint whole, const DepthwiseWeightArgs* a, const Row* rows, Py_ssize_t count,
    Py_ssize_t begin, Py_ssize_t end, Py_ssize_t c, Next* next, real* dweight,
) noexcept nogil:
    """Do so for all taps of one vector of channels; a vector in part is rare and needs no speed."""
    cdef Py_ssize_t t = 0, taps = rows.taps
    while t < taps:
        if whole and taps - t >= 9:
            correlate_threes(3, stride, whole, a, rows, count, begin, end, t, c, next, dweight)
            t = t + 9
        elif whole and taps - t >= 6:
            correlate_threes(2, stride, whole, a, rows, count, begin, end, t, c, next, dweight)
            t = t + 6
        else:
            correlate_threes(1, stride, whole, a, rows, count, begin, end, t, c, next, dweight)
            t = t + 3


cdef inline void correlate_group(
    int stride, const DepthwiseWeightArgs* a, const Row* rows, Py_ssize_t count, Py_ssize_t begin,
    Py_ssize_t end, real* dweight,
) noexcept nogil:
    """Do so for all channels."""
    cdef const Window* v = &a.window
    cdef const Row* last = rows + count - 1
    cdef Next next
    cdef Py_ssize_t c = 0
    next.x = last.runs.x + begin * stride * v.C
    if last.taps > 0:
        next.x = next.x + last.runs.offset[last.taps - 3] + v.W * v.C
    next.dy = a.dy + ((last.plane * v.OH + last.oh + 1) * v.OW + begin) * v.C
    while c + VL <= v.C:
        correlate_channels(stride, True, a, rows, count, begin, end, c, &next, dweight)
        c = c + VL
    if c < v.C:
        correlate_channels(stride, False, a, rows, count, begin, end, c, &next, dweight)


cdef inline void correlate_blocks(
    int stride, const DepthwiseWeightArgs* a, const Row* rows, Py_ssize_t count, real* dweight,
) noexcept nogil:
    """Add the part of rows with the same taps to dweight, in blocks that stay in the cache."""
    cdef Py_ssize_t OW = a.window.OW, most = PIXELS // stride, r = 0, j
    cdef Py_ssize_t some = max(most // OW, <Py_ssize_t>1), parts = (OW + most - 1) // most
    while r < count:
        for j in range(parts):
            correlate_group(stride, a, rows + r, min(some, count - r), j * OW // parts,
                            (j + 1) * OW // parts, dweight)
        r = r + some


cdef inline void correlate_rows(
    bint whole, const DepthwiseWeightArgs* a, const Row* rows, Py_ssize_t count, Py_ssize_t c,
    real* dweight,
) noexcept nogil:
    """Add the part of rows with the same taps to dweight, for one vector of channels."""
    cdef Py_ssize_t t = 0, taps = rows.taps
    while t < taps:
        if taps - t >= 9:
            correlate(9, whole, a, rows, count, t, c, dweight)
            t = t + 9
        elif taps - t >= 3:
            correlate(3, whole, a, rows, count, t, c, dweight)
            t = t + 3
        else:
            correlate(1, whole, a, rows, count, t, c, dweight)
            t = t + 1


cdef inline void sum_rows(
    bint whole, const DepthwiseWeightArgs* a, const Row* rows, Py_ssize_t count, Py_ssize_t c,
    real* dbias,
) noexcept nogil:
    """Add the sum of dy over some rows to dbias, for one vector of channels."""
    cdef Py_ssize_t C = a.window.C, r, i
    cdef vf sum = vf_zero()
    cdef const real* dy
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
    cdef Py_ssize_t T = v.TD * v.TH * v.TW, all_rows = v.planes * v.OH, r = 0, same, c, i
    cdef bint threes
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
        threes = v.SW <= 2
        for i in range(r, r + same):
            threes = threes and rows[i].count == 1 and rows[i].runs.threes == rows[i].taps
        if threes:
            if v.SW == 1:
                correlate_blocks(1, a, rows + r, same, dweight)
            else:
                correlate_blocks(2, a, rows + r, same, dweight)
        else:
            c = 0
            while c + VL <= v.C:
                correlate_rows(True, a, rows + r, same, c, dweight)
                c = c + VL
            if c < v.C:
                correlate_rows(False, a, rows + r, same, c, dweight)
        c = 0
        while a.dbias != NULL and c < v.C:
            if c + VL <= v.C:
                sum_rows(True, a, rows + r, same, c, dbias)
            else:
                sum_rows(False, a, rows + r, same, c, dbias)
            c = c + VL
        r = r + same


JOBS = {
    "depthwise_weight": publish(<void*>depthwise_weight, sizeof(DepthwiseWeightArgs), (
        "x* offset* source* D H W C OD OH OW SD SH SW TD TH TW LD LH LW "
        "planes block_planes block_rows block_columns copy "
        "dy* dweight* dbias* begin end shift edges chunks")),
}
