"""Batch normalisation: statistics, normalisation and both gradients, one read of memory per pass.

The array is (rows, C), all axes but the last taken together: one sample to rows.pxd, which says how
rows become jobs.  Group normalisation takes statistics per sample: its sums and its last passes are
those below, its merges are in group_norm.pyx.

Reductions: each job writes its sums per column; a second step adds them in job order, in float64.
The parameters that the last pass reads are written once per column, already combined.
"""
from libc.math cimport sqrt

from cycnn.kernels.rows cimport Part, Rows, groups_of, part_of, rounding
from cycnn.kernels.simd cimport (
    VL, publish, real, vf, vf_add, vf_div, vf_fma, vf_load, vf_set1, vf_store, vf_sub, vf_zero)
from cycnn.kernels.tail cimport lanes, load, store

cdef struct SumsArgs:
    const real* x           # IN   (rows, C)
    const real* dy          # IN   (rows, C), for backward
    const real* mean        # IN   (samples, period), for backward
    double* partial         # OUT  (jobs, 2, period): per job and column, two sums
    Rows rows

cdef struct StatisticsArgs:
    const double* partial   # IN   (parts, 2, period)
    const real* gamma       # IN   (C)
    const real* beta        # IN   (C)
    double* mean            # OUT  (C)
    double* variance        # OUT  (C), biased
    real* table             # OUT  (3, period): mean, gamma / sqrt(variance + eps), beta
    Py_ssize_t channels     # of a job
    double eps
    Rows rows

cdef struct GradientsArgs:
    const double* partial   # IN   (parts, 2, period)
    const real* gamma       # IN   (C)
    const double* mean      # IN   (C)
    const double* variance  # IN   (C)
    real* dgamma            # OUT  (C)
    real* dbeta             # OUT  (C)
    real* table             # OUT  (4, period): mean and the factors of dx
    double* sums            # scratch (2, C)
    Py_ssize_t channels
    double eps
    Rows rows

cdef struct ApplyArgs:
    const real* x           # IN   (rows, C)
    const real* dy          # IN   (rows, C), for backward
    const real* table       # IN   (samples, 3 or 4, period)
    real* y                 # OUT  (rows, C), or dx
    Rows rows


cdef inline vf apart(const real* x, vf m, Py_ssize_t n) noexcept nogil:
    return vf_sub(load(x, n), m)


cdef inline void add_rows(
        real* sum, const real* x, Py_ssize_t count, Py_ssize_t width) noexcept nogil:
    """sum[c] = sum over the rows r of x[r, c] - x[0, c], four rows at a time, along the rows."""
    cdef const real* first = x
    cdef Py_ssize_t r = 0, c = 0, n
    cdef vf m
    while c < width:
        vf_store(sum + c, vf_zero())
        c = c + VL
    while r < count:
        c = 0
        while c < width:
            n = lanes(c, width)
            m = load(first + c, n)
            if r + 4 <= count:
                vf_store(sum + c, vf_add(vf_load(sum + c), vf_add(
                    vf_add(apart(x + c, m, n), apart(x + width + c, m, n)),
                    vf_add(apart(x + 2 * width + c, m, n), apart(x + 3 * width + c, m, n)))))
            else:
                vf_store(sum + c, vf_add(vf_load(sum + c), apart(x + c, m, n)))
            c = c + VL
        x = x + (4 * width if r + 4 <= count else width)
        r = r + (4 if r + 4 <= count else 1)


cdef void batch_norm_statistics(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """partial[job] = per column, the mean of the job's rows and M2 = sum (x - mean)^2.

    Two passes over rows that stay in the cache: the first along the rows, as they come from memory,
    the second down the columns.  The first sums differences to a row, so that a constant column has
    its own value as mean, and the second corrects its rounding: Chan, Golub and LeVeque (1983),
    "Algorithms for computing the sample variance", eq. 1.7.
    """
    cdef const SumsArgs* a = <const SumsArgs*>args
    cdef Part part = part_of(&a.rows, job)
    cdef Py_ssize_t width = part.width, padded = (width + VL - 1) // VL * VL, _r, c = 0, n
    cdef real* mean = <real*>scratch
    cdef real* sum = mean + padded
    cdef real* square = sum + padded
    cdef const real* x
    cdef double* partial = a.partial + job * 2 * a.rows.period
    cdef double residual
    cdef vf m, d0, d1, d2, d3, s0, s1, s2, s3, q0, q1, q2, q3, count = vf_set1(<real>part.count)
    add_rows(mean, a.x + part.start, part.count, width)
    while c < width:
        n = lanes(c, width)
        x = a.x + part.start + c
        m = vf_add(load(x, n), vf_div(vf_load(mean + c), count))
        vf_store(mean + c, m)
        s0 = s1 = s2 = s3 = q0 = q1 = q2 = q3 = vf_zero()
        for _r in range(part.count // 4):
            d0 = apart(x, m, n)
            d1 = apart(x + width, m, n)
            d2 = apart(x + 2 * width, m, n)
            d3 = apart(x + 3 * width, m, n)
            s0 = vf_add(s0, d0)
            s1 = vf_add(s1, d1)
            s2 = vf_add(s2, d2)
            s3 = vf_add(s3, d3)
            q0 = vf_fma(d0, d0, q0)
            q1 = vf_fma(d1, d1, q1)
            q2 = vf_fma(d2, d2, q2)
            q3 = vf_fma(d3, d3, q3)
            x = x + 4 * width
        for _r in range(part.count % 4):
            d0 = apart(x, m, n)
            s0 = vf_add(s0, d0)
            q0 = vf_fma(d0, d0, q0)
            x = x + width
        vf_store(sum + c, vf_add(vf_add(s0, s1), vf_add(s2, s3)))
        vf_store(square + c, vf_add(vf_add(q0, q1), vf_add(q2, q3)))
        c = c + VL
    for c in range(width):
        residual = <double>sum[c] / <double>part.count
        partial[c] = <double>mean[c] + residual
        partial[a.rows.period + c] = <double>square[c] - residual * <double>sum[c]


cdef void batch_norm_merge(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """mean and variance of each channel from the partial ones, and what normalising reads."""
    cdef const StatisticsArgs* a = <const StatisticsArgs*>args
    cdef Py_ssize_t begin = job * a.channels, end = min(begin + a.channels, a.rows.C), p, g, c
    cdef double total = <double>(a.rows.grouped * (a.rows.period // a.rows.C) + a.rows.loose)
    cdef double delta, scale
    cdef const double* mean
    cdef const double* square
    cdef Part part
    for c in range(begin, end):
        a.mean[c] = 0
        a.variance[c] = 0
    for p in range(a.rows.parts):
        part = part_of(&a.rows, p)
        for g in range(groups_of(&a.rows, &part)):
            mean = a.partial + p * 2 * a.rows.period + g * a.rows.C
            for c in range(begin, end):
                a.mean[c] += part.count / total * mean[c]
    for p in range(a.rows.parts):
        part = part_of(&a.rows, p)
        for g in range(groups_of(&a.rows, &part)):
            mean = a.partial + p * 2 * a.rows.period + g * a.rows.C
            square = mean + a.rows.period
            for c in range(begin, end):
                delta = mean[c] - a.mean[c]
                a.variance[c] += square[c] + part.count * delta * delta
    for c in range(begin, end):
        a.variance[c] /= total
    for g in range(a.rows.period // a.rows.C):
        for c in range(begin, end):
            p = g * a.rows.C + c
            scale = a.gamma[c] / sqrt(a.variance[c] + a.eps)
            a.table[p] = <real>a.mean[c]
            a.table[a.rows.period + p] = <real>scale
            a.table[2 * a.rows.period + p] = <real>(a.beta[c] + rounding(a.mean[c]) * scale)


cdef void batch_norm_apply(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y = (x - mean) scale + shift, the three rows of table."""
    cdef const ApplyArgs* a = <const ApplyArgs*>args
    cdef Part part = part_of(&a.rows, job)
    cdef Py_ssize_t _r, c, n, width = part.width
    cdef const real* x = a.x + part.start
    cdef const real* mean = a.table + part.sample * 3 * a.rows.period
    cdef const real* scale = mean + a.rows.period
    cdef const real* shift = scale + a.rows.period
    cdef real* y = a.y + part.start
    for _r in range(part.count):
        c = 0
        while c < width:
            n = lanes(c, width)
            store(y + c, vf_fma(vf_sub(load(x + c, n), load(mean + c, n)), load(scale + c, n),
                                load(shift + c, n)), n)
            c = c + VL
        x = x + width
        y = y + width


cdef void batch_norm_backward_sums(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """partial[job] = per column, the sums of dy and of dy (x - mean) over the job's rows."""
    cdef const SumsArgs* a = <const SumsArgs*>args
    cdef Part part = part_of(&a.rows, job)
    cdef Py_ssize_t width = part.width, _r, c, n
    cdef Py_ssize_t padded = (width + VL - 1) // VL * VL
    cdef real* sum = <real*>scratch
    cdef real* product = sum + padded
    cdef const real* x = a.x + part.start
    cdef const real* dy = a.dy + part.start
    cdef const real* mean = a.mean + part.sample * a.rows.period
    cdef double* partial = a.partial + job * 2 * a.rows.period
    cdef vf g
    for c in range(padded):
        sum[c] = 0
        product[c] = 0
    for _r in range(part.count):
        c = 0
        while c < width:
            n = lanes(c, width)
            g = load(dy + c, n)
            vf_store(sum + c, vf_add(vf_load(sum + c), g))
            vf_store(product + c, vf_fma(g, vf_sub(load(x + c, n), load(mean + c, n)),
                                         vf_load(product + c)))
            c = c + VL
        x = x + width
        dy = dy + width
    for c in range(width):
        partial[c] = sum[c]
        partial[a.rows.period + c] = product[c]


cdef void batch_norm_backward_merge(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """dbeta = sum of dy, dgamma = sum of dy (x - mean) / sigma, and the factors of dx."""
    cdef const GradientsArgs* a = <const GradientsArgs*>args
    cdef Py_ssize_t begin = job * a.channels, end = min(begin + a.channels, a.rows.C), p, g, c
    cdef Py_ssize_t period = a.rows.period, C = a.rows.C
    cdef double total = <double>(a.rows.grouped * (period // C) + a.rows.loose)
    cdef double inverse, scale, slope
    cdef double* sum = a.sums
    cdef double* product = a.sums + C
    cdef const double* partial
    cdef Part part
    for c in range(begin, end):
        sum[c] = 0
        product[c] = 0
    for p in range(a.rows.parts):
        part = part_of(&a.rows, p)
        for g in range(groups_of(&a.rows, &part)):
            partial = a.partial + p * 2 * period + g * C
            for c in range(begin, end):
                sum[c] += partial[c]
                product[c] += partial[period + c]
    for c in range(begin, end):
        inverse = 1 / sqrt(a.variance[c] + a.eps)
        scale = a.gamma[c] * inverse
        product[c] += rounding(a.mean[c]) * sum[c]
        slope = -scale * inverse * inverse * product[c] / total
        a.dbeta[c] = <real>sum[c]
        a.dgamma[c] = <real>(product[c] * inverse)
        for g in range(period // C):
            p = g * C + c
            a.table[p] = <real>a.mean[c]
            a.table[period + p] = <real>scale
            a.table[2 * period + p] = <real>slope
            a.table[3 * period + p] = <real>(slope * rounding(a.mean[c]) - scale * sum[c] / total)


cdef void batch_norm_backward_input(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """dx = gamma / sigma (dy - dbeta / rows - (x - mean) / sigma dgamma / rows).

    Ioffe and Szegedy (2015), section 3, with the three lines for dx put together; the factor of dy,
    that of x - mean and the constant are rows 1, 2 and 3 of table.
    """
    cdef const ApplyArgs* a = <const ApplyArgs*>args
    cdef Part part = part_of(&a.rows, job)
    cdef Py_ssize_t _r, c, n, width = part.width
    cdef const real* x = a.x + part.start
    cdef const real* dy = a.dy + part.start
    cdef const real* mean = a.table + part.sample * 4 * a.rows.period
    cdef const real* scale = mean + a.rows.period
    cdef const real* slope = scale + a.rows.period
    cdef const real* constant = slope + a.rows.period
    cdef real* dx = a.y + part.start
    for _r in range(part.count):
        c = 0
        while c < width:
            n = lanes(c, width)
            store(dx + c, vf_fma(load(dy + c, n), load(scale + c, n), vf_fma(
                vf_sub(load(x + c, n), load(mean + c, n)), load(slope + c, n),
                load(constant + c, n))), n)
            c = c + VL
        x = x + width
        dy = dy + width
        dx = dx + width


_ROWS = " grouped loose period C chunk parts"
JOBS = {
    "batch_norm_statistics": publish(
        <void*>batch_norm_statistics, sizeof(SumsArgs), "x* dy* mean* partial*" + _ROWS),
    "batch_norm_merge": publish(
        <void*>batch_norm_merge, sizeof(StatisticsArgs),
        "partial* gamma* beta* mean* variance* table* channels eps." + _ROWS),
    "batch_norm_apply": publish(
        <void*>batch_norm_apply, sizeof(ApplyArgs), "x* dy* table* y*" + _ROWS),
    "batch_norm_backward_sums": publish(
        <void*>batch_norm_backward_sums, sizeof(SumsArgs), "x* dy* mean* partial*" + _ROWS),
    "batch_norm_backward_merge": publish(
        <void*>batch_norm_backward_merge, sizeof(GradientsArgs),
        "partial* gamma* mean* variance* dgamma* dbeta* table* sums* channels eps." + _ROWS),
    "batch_norm_backward_input": publish(
        <void*>batch_norm_backward_input, sizeof(ApplyArgs), "x* dy* table* y*" + _ROWS),
}
