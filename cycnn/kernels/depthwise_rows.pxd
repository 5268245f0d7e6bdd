# The rows of a depthwise convolution: how the outputs of a row find their taps in x.
#
# An output row is cut in runs: the columns whose windows lie inside the image, and each border
# column by itself, where taps on a zero read from a row of zeros.  With three taps a pixel apart
# and one column of zeros at most, the whole row is one run with edges.  Taps that lie side by side
# come first, in threes: they share the pixels they load.
from libc.stdint cimport int64_t
from libc.string cimport memset

from cycnn.kernels.simd cimport VL, real, vf, vf_load, vf_load_part, vf_store, vf_store_part
from cycnn.kernels.window cimport Window


cdef struct Run:
    # Neighbouring outputs of a row whose taps lie at the same distance from their windows.
    const real* x               # window of the first one
    Py_ssize_t column
    Py_ssize_t count
    int64_t* offset             # of each tap of the row
    Py_ssize_t threes           # how many taps come first, in threes that lie side by side
    Py_ssize_t edges            # a sum of LEFT and RIGHT


cdef enum:
    LEFT = 1                    # the first tap of each three is a zero for the first output
    RIGHT = 2                   # the last tap of each three is a zero for the last output


cdef struct Inside:
    # The columns of a row that make one run.
    Py_ssize_t begin, end
    Py_ssize_t shift            # the input column where the window of output 0 would begin
    Py_ssize_t edges


cdef struct Row:
    Py_ssize_t plane, oh
    Py_ssize_t taps             # those that read an input row
    int64_t* tap                # which they are
    Run* runs
    Py_ssize_t count


cdef inline void list_row(
    const Window* v, const Inside* inside, const real* zeros, Row* row,
) noexcept nogil:
    """Describe output row (plane, oh)."""
    cdef Py_ssize_t n = row.plane // v.OD, od = row.plane - n * v.OD, td, th, tw, d, h, w, ow, i
    cdef const int64_t* source_h = v.source + v.LD + row.oh * v.SH
    cdef const int64_t* source_w = v.source + v.LD + v.LH
    cdef int64_t* offset = row.tap + v.TD * v.TH * v.TW
    cdef const real* x = v.x + n * v.D * v.H * v.W * v.C
    cdef const int64_t* taps_w = v.offset + v.TD + v.TH
    cdef Py_ssize_t tripled = v.TW // 3 * 3 if taps_w[v.TW - 1] == v.TW - 1 and v.SW <= 2 else 0
    cdef Py_ssize_t part
    cdef bint within
    cdef Run* run
    row.count = 0
    ow = 0
    while ow < v.OW:
        run = row.runs + row.count
        run.x = x
        run.column = ow
        run.count = 1
        run.offset = offset
        run.edges = 0
        within = inside.begin <= ow < inside.end
        if within:
            run.count = inside.end - inside.begin
            run.edges = inside.edges
        i = 0
        run.threes = 0
        for part in range(2):
            for td in range(v.TD):
                d = v.source[od * v.SD + v.offset[td]]
                for th in range(v.TH):
                    h = source_h[v.offset[v.TD + th]]
                    if d < 0 or h < 0:
                        continue
                    for tw in range(tripled if part else 0, v.TW if part else tripled):
                        w = ow * v.SW + taps_w[tw]
                        w = w + inside.shift if within else source_w[w]
                        offset[i] = zeros - x
                        if within or w >= 0:
                            offset[i] = ((d * v.H + h) * v.W + w) * v.C
                        row.tap[i] = (td * v.TH + th) * v.TW + tw
                        i = i + 1
            if part == 0 and within:
                run.threes = i
        row.taps = i
        offset = offset + i
        row.count = row.count + 1
        ow = ow + run.count


cdef inline Row* list_rows(
    const Window* v, const Inside* inside, Py_ssize_t first, Py_ssize_t count, char* scratch,
) noexcept nogil:
    """Describe `count` output rows, counted over all planes, in scratch; zeros come first there."""
    cdef Py_ssize_t T = v.TD * v.TH * v.TW, r
    cdef Py_ssize_t runs = v.OW - max(inside.end - inside.begin - 1, <Py_ssize_t>0)
    cdef real* zeros = <real*>scratch
    cdef Row* rows = <Row*>(zeros + v.C + VL)
    cdef char* free = <char*>(rows + count)
    memset(zeros, 0, (v.C + VL) * sizeof(real))
    for r in range(count):
        rows[r].plane = (first + r) // v.OH
        rows[r].oh = (first + r) % v.OH
        rows[r].tap = <int64_t*>free
        rows[r].runs = <Run*>(rows[r].tap + T * (runs + 1))
        free = <char*>(rows[r].runs + runs)
        list_row(v, inside, zeros, rows + r)
    return rows


cdef inline Py_ssize_t rows_ahead(const Window* v, const Row* row) noexcept nogil:
    """Return the distance from a window to the last input row of the window below."""
    if row.taps == 0:
        return 0
    return row.runs[row.count // 2].offset[row.taps - (v.TW + 1) // 2] + v.SH * v.W * v.C


cdef inline vf load(const real* p, bint whole, Py_ssize_t columns) noexcept nogil:
    return vf_load(p) if whole else vf_load_part(p, columns)


cdef inline void store(real* y, vf x, bint whole, Py_ssize_t columns) noexcept nogil:
    if whole:
        vf_store(y, x)
    else:
        vf_store_part(y, x, columns)
