"""Weight gradient of a depthwise convolution, and the bias gradient on the way.

    dw[t, c] = sum over n, o of x[n, o * S + offset[t], c] * dy[n, o, c]
    dbias[c] = sum over n, o of dy[n, o, c]

Vectors run over channels; up to nine taps stay in registers while the sum walks over the pixels of
neighbouring rows (depthwise_rows.pxd).  Where taps lie side by side in threes, a column of x is
loaded once for three of them, and rows are cut in tiles, after each of which the sums are stored:
the tile of the row below finds what both read in the first-level cache.  What the rows after those
of a tile read is fetched into the second meanwhile, in the order of memory: tiles read it in steps
that no processor foresees.
"""
from libc.stdint cimport int64_t
from libc.string cimport memcmp, memset

from cycnn.kernels.ahead cimport LINE, fetch_lines
from cycnn.kernels.depthwise_rows cimport (
    LEFT, RIGHT, Inside, Row, Run, list_rows, load, rows_ahead, store,
)
from cycnn.kernels.reduce cimport column_sum
from cycnn.kernels.simd cimport (
    VL, prefetch, prefetch_far, publish, real, vf, vf_add, vf_fma, vf_load_part, vf_store_part,
    vf_zero,
)
from cycnn.kernels.window cimport Window


cdef struct DepthwiseWeightArgs:
    Window window
    const real* dy              # IN   (N, OD, OH, OW, C)
    real* dweight               # OUT  (S, T, C), S partial sums
    real* dbias                 # OUT  (S, C) or NULL
    Inside inside
    Py_ssize_t chunks           # S
    Py_ssize_t columns          # of a tile, at most
    Py_ssize_t channels         # of a tile, at most
    Py_ssize_t rows             # of a tile, at most


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
    # Three taps side by side: their sums, and the column of x that the first of them reads.
    vf a0, a1, a2
    vf x


cdef struct Next:
    # What the next rows will read, in the order of memory.
    const real* x
    const real* dy


cdef inline void advance(int stride, Next* next, Py_ssize_t size) noexcept nogil:
    """Go on by `size` elements of dy.  Rows are taken to be as far apart as columns."""
    next.x = next.x + stride * stride * size
    next.dy = next.dy + size


cdef inline void fetch_next(int stride, Next* next) noexcept nogil:
    """Fetch a vector of dy, and what it meets of x, and go on."""
    cdef const real* x = next.x
    if stride == 1 and 2 * VL == LINE:          # half a line of each: in turns, a line of one
        prefetch_far(x)
        next.x = next.dy
        next.dy = x + LINE
    else:
        fetch_lines(x, (stride * stride * VL + LINE - 1) // LINE)
        prefetch_far(next.dy)
        advance(stride, next, VL)


cdef struct Part:
    # Neighbouring outputs of a row, and up to three threes of its taps.
    const real* dy              # IN   (count, C)
    const real* x[3]            # IN   where the first output finds each three
    real* dweight[3]            # OUT  (3, C) each, added to
    Py_ssize_t C
    Py_ssize_t count
    bint left, right            # does the first lack its first tap, the last one its last
    Next next                   # to be fetched meanwhile


cdef inline Three begin_three(
    const Part* part, int i, bint whole, Py_ssize_t c,
) noexcept nogil:
    """Load the sums, and the first column of x unless it is a zero."""
    cdef Py_ssize_t C = part.C
    cdef Three s
    s.a0 = load(part.dweight[i] + c, whole, C - c)
    s.a1 = load(part.dweight[i] + C + c, whole, C - c)
    s.a2 = load(part.dweight[i] + 2 * C + c, whole, C - c)
    s.x = vf_zero() if part.left else load(part.x[i] + c, whole, C - c)
    return s


cdef inline void add_two(Three* s, vf d, vf second) noexcept nogil:
    """Add an output for the first two taps."""
    s.a0 = vf_fma(s.x, d, s.a0)
    s.a1 = vf_fma(second, d, s.a1)


cdef inline void add_output(int stride, Three* s, vf d, vf second, vf third) noexcept nogil:
    """Add an output; one of its columns is the first one of the next."""
    add_two(s, d, second)
    s.a2 = vf_fma(third, d, s.a2)
    s.x = second if stride == 1 else third


cdef inline void end_three(
    const Three* s, const Part* part, int i, bint whole, Py_ssize_t c,
) noexcept nogil:
    """Store the sums."""
    cdef Py_ssize_t C = part.C
    store(part.dweight[i] + c, s.a0, whole, C - c)
    store(part.dweight[i] + C + c, s.a1, whole, C - c)
    store(part.dweight[i] + 2 * C + c, s.a2, whole, C - c)


cdef inline void correlate_threes(
    int threes,                 # one to three
    int stride,                 # one or two
    bint whole,
    const Part* part,
    Py_ssize_t c,
) noexcept nogil:
    """Add x * dy over the outputs of a part, for the vector of channels at c."""
    cdef Py_ssize_t C = part.C, columns = C - c, step = stride * C, _j
    cdef Three s0 = begin_three(part, 0, whole, c), s1, s2
    cdef Next next = part.next
    cdef vf d
    cdef const real* p0 = part.x[0] + c
    cdef const real* p1 = NULL
    cdef const real* p2 = NULL
    cdef const real* q = part.dy + c
    if threes > 1:
        s1 = begin_three(part, 1, whole, c)
        p1 = part.x[1] + c
    if threes > 2:
        s2 = begin_three(part, 2, whole, c)
        p2 = part.x[2] + c
    for _j in range(part.count - part.right):
        fetch_next(stride, &next)   # a little at a time: a read would wait for many at once
        d = load(q, whole, columns)
        q = q + C
        add_output(stride, &s0, d, load(p0 + C, whole, columns), load(p0 + 2 * C, whole, columns))
        p0 = p0 + step
        if threes > 1:
            add_output(
                stride, &s1, d, load(p1 + C, whole, columns), load(p1 + 2 * C, whole, columns))
            p1 = p1 + step
        if threes > 2:
            add_output(
                stride, &s2, d, load(p2 + C, whole, columns), load(p2 + 2 * C, whole, columns))
            p2 = p2 + step
    if part.right:
        d = load(q, whole, columns)
        add_two(&s0, d, load(p0 + C, whole, columns))
        if threes > 1:
            add_two(&s1, d, load(p1 + C, whole, columns))
        if threes > 2:
            add_two(&s2, d, load(p2 + C, whole, columns))
    end_three(&s0, part, 0, whole, c)
    if threes > 1:
        end_three(&s1, part, 1, whole, c)
    if threes > 2:
        end_three(&s2, part, 2, whole, c)


cdef inline void correlate_part(
    int stride, Part* part, Py_ssize_t threes, Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    """Do so for some channels; what a vector in part costs counts for little beside many others."""
    cdef Py_ssize_t c = begin
    cdef Part rest
    while c + VL <= end:
        if threes == 3:
            correlate_threes(3, stride, True, part, c)
        elif threes == 2:
            correlate_threes(2, stride, True, part, c)
        else:
            correlate_threes(1, stride, True, part, c)
        advance(stride, &part.next, part.count * VL)
        c = c + VL
    if c < end:
        rest = part[0]
        while threes > 0:
            threes = threes - 1
            rest.x[0] = part.x[threes]
            rest.dweight[0] = part.dweight[threes]
            correlate_threes(1, stride, False, &rest, c)


cdef inline void correlate_row(
    int stride, const DepthwiseWeightArgs* a, const Row* row, Py_ssize_t begin, Py_ssize_t end,
    Py_ssize_t first_channel, Py_ssize_t end_channel, real* dweight, Next* next,
) noexcept nogil:
    """Do so for all taps, all of which come in threes."""
    cdef const Window* v = &a.window
    cdef const Run* run = row.runs
    cdef Py_ssize_t t = 0, threes, i
    cdef Part part
    part.dy = a.dy + ((row.plane * v.OH + row.oh) * v.OW + begin) * v.C
    part.C = v.C
    part.count = end - begin
    part.left = begin == 0 and (run.edges & LEFT) != 0
    part.right = end == v.OW and (run.edges & RIGHT) != 0
    while t < row.taps:
        threes = min((row.taps - t) // 3, <Py_ssize_t>3)
        for i in range(threes):
            part.x[i] = run.x + run.offset[t + 3 * i] + begin * stride * v.C
            part.dweight[i] = dweight + row.tap[t + 3 * i] * v.C
        part.next = next[0]
        correlate_part(stride, &part, threes, first_channel, end_channel)
        t = t + 3 * threes
    advance(stride, next, part.count * (end_channel - first_channel))


cdef inline Next rows_after(const DepthwiseWeightArgs* a, const Row* row) noexcept nogil:
    """Return what the rows after this one read that no row before them does."""
    cdef const Window* v = &a.window
    cdef Next next
    next.x = row.runs.x + v.W * v.C
    if row.taps > 0:
        next.x = next.x + row.runs.offset[row.taps - 3]
    next.dy = a.dy + (row.plane * v.OH + row.oh + 1) * v.OW * v.C
    return next


cdef inline void correlate_tiles(
    int stride, const DepthwiseWeightArgs* a, const Row* rows, Py_ssize_t count, real* dweight,
) noexcept nogil:
    """Add the part of some rows to dweight."""
    cdef Py_ssize_t OW = a.window.OW, C = a.window.C, r, i, c = 0
    cdef Py_ssize_t parts = (OW + a.columns - 1) // a.columns
    cdef Next next = rows_after(a, rows + count - 1)
    while c < C:
        for i in range(parts):
            for r in range(count):
                correlate_row(stride, a, rows + r, i * OW // parts, (i + 1) * OW // parts,
                              c, min(c + a.channels, C), dweight, &next)
        c = c + a.channels


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


cdef inline void sum_pixels(
    const real* dy, Py_ssize_t pixels, Py_ssize_t C, real* dbias,
) noexcept nogil:
    """Add the sum of some pixels of dy to dbias."""
    cdef Py_ssize_t c = 0, n
    cdef vf sum
    while c < C:
        n = min(<Py_ssize_t>VL, C - c)
        sum = column_sum(dy + c, C, pixels, n, load(dbias + c, n == VL, n))
        store(dbias + c, sum, n == VL, n)
        c = c + n


cdef inline bint same_taps(const Row* row, const Row* other) noexcept nogil:
    """Whether two rows read the same taps."""
    return row.taps == other.taps and memcmp(row.tap, other.tap, row.taps * sizeof(int64_t)) == 0


cdef inline bint in_threes(const Window* v, const Row* row) noexcept nogil:
    """Whether a row is one run all of whose taps lie side by side in threes."""
    return v.SW <= 2 and row.count == 1 and row.runs.threes == row.taps


cdef void depthwise_weight(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """One job is one chunk of all output rows.

    Neighbouring rows whose taps lie in threes are cut in tiles.  Without threes, each vector of
    channels is summed over all neighbouring rows with the same taps before it is stored.
    """
    cdef const DepthwiseWeightArgs* a = <const DepthwiseWeightArgs*>args
    cdef const Window* v = &a.window
    cdef Py_ssize_t T = v.TD * v.TH * v.TW, all_rows = v.planes * v.OH, r = 0, same, c
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
        threes = in_threes(v, rows + r)
        same = 1
        while (r + same < count and in_threes(v, rows + r + same) == threes
               and (same < a.rows if threes else same_taps(rows + r, rows + r + same))):
            same = same + 1
        if threes and v.SW == 1:
            correlate_tiles(1, a, rows + r, same, dweight)
        elif threes:
            correlate_tiles(2, a, rows + r, same, dweight)
        else:
            c = 0
            while c + VL <= v.C:
                correlate_rows(True, a, rows + r, same, c, dweight)
                c = c + VL
            if c < v.C:
                correlate_rows(False, a, rows + r, same, c, dweight)
        if a.dbias != NULL:
            sum_pixels(a.dy + (first + r) * v.OW * v.C, same * v.OW, v.C, dbias)
        r = r + same


JOBS = {
    "depthwise_weight": publish(<void*>depthwise_weight, sizeof(DepthwiseWeightArgs), (
        "x* offset* source* D H W C OD OH OW SD SH SW TD TH TW LD LH LW "
        "planes block_planes block_rows block_columns copy "
        "dy* dweight* dbias* begin end shift edges chunks columns channels rows")),
}
