"""Values that change places: copies, weighted sums of neighbours, and axes in another order.

A copy reads one input for each output, a resampling the sum of a few; which ones is a table per
spatial axis.  So pads of every mode, crops and upsampling are one kernel or the other, and a
gradient is the same kernel on the transposed table: dx gathers from the outputs that read it, in
their order, and no two jobs write the same place.  Fewer than three axes are three with extents
of one.
"""
from libc.stdint cimport int64_t
from libc.string cimport memcpy

from cycnn.kernels.simd cimport VL, publish, real, vf, vf_bcast, vf_fma, vf_set1, vf_zero
from cycnn.kernels.tail cimport lanes, load, store

cdef struct GatherArgs:
    const real* x               # IN   (N, D, H, W, C)
    real* y                     # OUT  (N, OD, OH, OW, C)
    const int64_t* map_d        # IN   (OD), the d that an output copies, or -1
    const int64_t* map_h        # IN   (OH)
    const int64_t* map_w        # IN   (OW)
    Py_ssize_t D, H, W, C, OD, OH, OW
    Py_ssize_t outputs, chunk   # N OD OH OW, and how many of them are a job
    double value                # of outputs that copy nothing

cdef struct ResampleArgs:
    const real* x               # IN   (N, D, H, W, C)
    real* y                     # OUT  (N, OD, OH, OW, C)
    const int64_t* start_d      # IN   (OD + 1), entries start_d[o] to start_d[o + 1] - 1 make o
    const int64_t* source_d     # IN   the d of each entry
    const real* weight_d        # IN   what it counts
    const int64_t* start_h
    const int64_t* source_h
    const real* weight_h
    const int64_t* start_w
    const int64_t* source_w
    const real* weight_w
    Py_ssize_t D, H, W, C, OD, OH, OW
    Py_ssize_t rows, row_chunk      # N OD OH, and how many of them are a job
    Py_ssize_t columns, parts       # outputs of a row that are a job, jobs of a row
    Py_ssize_t reads                # most input rows that make one row

cdef struct PermuteArgs:
    const real* x               # IN
    real* y                     # OUT  J neighbours are a row
    Py_ssize_t A, B, E, Q, J    # extents of y, in any order but that J is the last
    Py_ssize_t xa, xb, xe, xq, xj   # how far neighbours along an axis are apart in x
    Py_ssize_t ya, yb, ye, yq       # and in y, where those along J touch
    Py_ssize_t q_chunk, j_chunk     # what a job takes of Q and J
    Py_ssize_t q_jobs, j_jobs


cdef inline void fill(real* y, Py_ssize_t count, vf value) noexcept nogil:
    """y = value, count times."""
    cdef Py_ssize_t i = 0, n
    while i < count:
        n = lanes(i, count)
        store(y + i, value, n)
        i = i + VL


cdef void gather(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y[n, o, c] = x[n, map[o], c], or value where a map says -1; runs are copied as one."""
    cdef const GatherArgs* a = <const GatherArgs*>args
    cdef Py_ssize_t o = job * a.chunk, stop = min(o + a.chunk, a.outputs), C = a.C
    cdef Py_ssize_t row, ow, end, run, source, d, h
    cdef real* y = a.y + o * C
    cdef const real* x
    cdef vf value = vf_set1(<real>a.value)
    while o < stop:
        row = o // a.OW
        ow = o % a.OW
        end = min(a.OW, ow + stop - o)
        o = o + end - ow
        d = a.map_d[row // a.OH % a.OD]
        h = a.map_h[row % a.OH]
        x = a.x + ((row // (a.OD * a.OH) * a.D + d) * a.H + h) * a.W * C
        while ow < end:
            source = a.map_w[ow] if d >= 0 and h >= 0 else -1
            run = 1
            if source < 0:
                while ow + run < end and (d < 0 or h < 0 or a.map_w[ow + run] < 0):
                    run = run + 1
                fill(y, run * C, value)
            else:
                while ow + run < end and a.map_w[ow + run] == source + run:
                    run = run + 1
                memcpy(y, x + source * C, run * C * sizeof(real))
            y = y + run * C
            ow = ow + run


cdef inline const real* mixed_row(
        const ResampleArgs* a, Py_ssize_t row, char* scratch) noexcept nogil:
    """The row (W, C) of sums over the axes D and H that output row (n, od, oh) is made from."""
    cdef Py_ssize_t oh = row % a.OH, od = row // a.OH % a.OD, n = row // (a.OH * a.OD)
    cdef Py_ssize_t i, j, r, rows = 0, count = a.W * a.C, width
    cdef const real** source = <const real**>scratch
    cdef real* weight = <real*>(source + a.reads)
    cdef real* mixed = weight + a.reads
    cdef vf sum
    for i in range(a.start_d[od], a.start_d[od + 1]):
        for j in range(a.start_h[oh], a.start_h[oh + 1]):
            source[rows] = a.x + ((n * a.D + a.source_d[i]) * a.H + a.source_h[j]) * count
            weight[rows] = a.weight_d[i] * a.weight_h[j]
            rows = rows + 1
    if rows == 1 and weight[0] == 1:
        return source[0]
    i = 0
    while i < count:
        width = lanes(i, count)
        sum = vf_zero()
        for r in range(rows):
            sum = vf_fma(vf_bcast(weight + r), load(source[r] + i, width), sum)
        store(mixed + i, sum, width)
        i = i + VL
    return mixed


cdef void resample(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y[n, o, c] = sum over entries (d, h, w) of o: weight_d weight_h weight_w x[n, d, h, w, c]."""
    cdef const ResampleArgs* a = <const ResampleArgs*>args
    cdef Py_ssize_t row = job // a.parts * a.row_chunk, end = min(row + a.row_chunk, a.rows)
    cdef Py_ssize_t first = job % a.parts * a.columns, stop = min(first + a.columns, a.OW)
    cdef Py_ssize_t ow, t, c, n, C = a.C
    cdef const real* x
    cdef real* y
    cdef vf sum
    while row < end:
        x = mixed_row(a, row, scratch)
        y = a.y + (row * a.OW + first) * C
        for ow in range(first, stop):
            c = 0
            while c < C:
                n = lanes(c, C)
                sum = vf_zero()
                for t in range(a.start_w[ow], a.start_w[ow + 1]):
                    sum = vf_fma(vf_bcast(a.weight_w + t), load(x + a.source_w[t] * C + c, n), sum)
                store(y + c, sum, n)
                c = c + VL
            y = y + C
        row = row + 1


cdef void permute(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y[a, b, e, q, j] = x[a, b, e, q, j], each along its own strides; a job is a tile (q, j)."""
    cdef const PermuteArgs* a = <const PermuteArgs*>args
    cdef Py_ssize_t j = job % a.j_jobs * a.j_chunk, j_stop = min(j + a.j_chunk, a.J)
    cdef Py_ssize_t tile = job // a.j_jobs, outer = tile // a.q_jobs
    cdef Py_ssize_t q = tile % a.q_jobs * a.q_chunk, q_stop = min(q + a.q_chunk, a.Q), i
    cdef Py_ssize_t e = outer % a.E, b = outer // a.E % a.B, first = outer // (a.E * a.B)
    cdef const real* x = a.x + first * a.xa + b * a.xb + e * a.xe
    cdef real* y = a.y + first * a.ya + b * a.yb + e * a.ye
    for q in range(q, q_stop):
        if a.xj == 1:
            memcpy(y + q * a.yq + j, x + q * a.xq + j, (j_stop - j) * sizeof(real))
        else:
            for i in range(j, j_stop):
                y[q * a.yq + i] = x[q * a.xq + i * a.xj]


JOBS = {
    "gather": publish(
        <void*>gather, sizeof(GatherArgs),
        "x* y* map_d* map_h* map_w* D H W C OD OH OW outputs chunk value."),
    "resample": publish(
        <void*>resample, sizeof(ResampleArgs),
        "x* y* start_d* source_d* weight_d* start_h* source_h* weight_h* start_w* source_w* "
        "weight_w* D H W C OD OH OW rows row_chunk columns parts reads"),
    "permute": publish(
        <void*>permute, sizeof(PermuteArgs),
        "x* y* A B E Q J xa xb xe xq xj ya yb ye yq q_chunk j_chunk q_jobs j_jobs"),
}
