"""Batch normalisation: statistics, normalisation and both gradients, one read of memory per pass.

The array is (rows, C), all axes but the last taken together: one sample to rows.pxd, which says how
rows become jobs.  Group normalisation takes statistics per sample: its sums and its last passes are
those below, its merges are in group_norm.pyx.

Normalising adds a second array and applies a rectifier on the way, y = f(z + residual) with z the
normalised x.  Backward needs nothing more for it: where f let z through is seen in z, which is
computed again from x, or in y where there is a residual.

Reductions: each job writes its sums per column; a second step adds them in job order, in float64.
The parameters that the last pass reads are written once per column, already combined.
"""
from libc.math cimport sqrt

from cycnn.kernels.rectifier cimport (
    IDENTITY, LEAKY_RELU, RELU, Rectifier, let_through, rectified)
from cycnn.kernels.rows cimport Part, Rows, groups_of, part_of, rounding
from cycnn.kernels.simd cimport (
    VL, prefetch, publish, real, vf, vf_add, vf_div, vf_fma, vf_load, vf_mul, vf_set1, vf_store,
    vf_sub, vf_zero)
from cycnn.kernels.tail cimport lanes, load, store

cdef struct MomentsArgs:
    const real* x           # IN   (rows, C)
    double* partial         # OUT  (jobs, 2, period): per job and column, mean and M2
    Rows rows

cdef struct StatisticsArgs:
    const double* partial   # IN   (parts, 2, period)
    const real* gamma       # IN   (C)
    const real* beta        # IN   (C)
    double* mean            # OUT  (C)
    double* variance        # OUT  (C), biased
    real* table             # OUT  (3, period): mean, gamma / sqrt(variance + eps), beta
    double* running_mean    # IN, OUT  (C), or NULL
    double* running_variance        # IN, OUT  (C)
    Py_ssize_t channels     # of a job
    double eps, momentum
    Rows rows

cdef struct ApplyArgs:
    const real* x           # IN   (rows, C)
    const real* residual    # IN   (rows, C) or NULL
    const real* table       # IN   (samples, 3, period)
    real* y                 # OUT  (rows, C)
    Py_ssize_t rectifier    # one of Rectifier
    double slope            # of the leaky one
    Rows rows

cdef struct SumsArgs:
    const real* x           # IN   (rows, C)
    const real* y           # IN   (rows, C), what forward returned, if it had a residual; or NULL
    const real* dy          # IN   (rows, C)
    const real* mean        # IN   (samples, period)
    const real* table       # IN   (3, period) of forward, if it had a rectifier; or NULL
    real* g                 # OUT  (rows, C), the gradient of z + residual; or NULL
    double* partial         # OUT  (jobs, 2, period): per job and column, two sums
    Py_ssize_t rectifier
    double slope
    Rows rows

cdef struct GradientsArgs:
    const double* partial   # IN   (parts, 2, period)
    const real* gamma       # IN   (C)
    const double* mean      # IN   (C)
    const double* variance  # IN   (C)
    real* dgamma            # OUT  (C)
    real* dbeta             # OUT  (C)
    real* factors           # OUT  (4, period): mean and the factors of dx
    double* sums            # scratch (2, C)
    Py_ssize_t channels
    double eps
    Rows rows

cdef struct InputArgs:
    const real* x           # IN   (rows, C)
    const real* dy          # IN   (rows, C), or g
    const real* table       # IN   (3, period) of forward, if dy comes before a rectifier; or NULL
    const real* factors     # IN   (samples, 4, period)
    real* dx                # OUT  (rows, C)
    Py_ssize_t constant     # whether mean and variance do not depend on x
    Py_ssize_t rectifier
    double slope
    Rows rows

cdef enum:
    ROWS = 4                # rows that share one load of what a column has


cdef inline vf apart(const real* x, vf m, Py_ssize_t n) noexcept nogil:
    return vf_sub(load(x, n), m)


cdef inline void add_rows(
        real* sum, const real* x, Py_ssize_t count, Py_ssize_t width) noexcept nogil:
    """sum[c] = sum over the rows r of x[r, c] - x[0, c], four rows at a time, along the rows."""
    cdef const real* first = x
    cdef Py_ssize_t r = 0, c = 0, n, ahead = max(8 * width, 1024)
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
                prefetch(x + ahead + c)
                prefetch(x + ahead + width + c)
                prefetch(x + ahead + 2 * width + c)
                prefetch(x + ahead + 3 * width + c)
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
    cdef const MomentsArgs* a = <const MomentsArgs*>args
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
    """mean and variance of each channel from the partial ones, and what normalising reads.

    Running statistics follow: momentum running + (1 - momentum) batch, with the unbiased variance.
    """
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
        if a.running_mean != NULL:
            a.running_mean[c] = a.momentum * a.running_mean[c] + (1 - a.momentum) * a.mean[c]
            a.running_variance[c] = (a.momentum * a.running_variance[c]
                                     + (1 - a.momentum) * a.variance[c] * total / (total - 1))
    for g in range(a.rows.period // a.rows.C):
        for c in range(begin, end):
            p = g * a.rows.C + c
            scale = a.gamma[c] / sqrt(a.variance[c] + a.eps)
            a.table[p] = <real>a.mean[c]
            a.table[a.rows.period + p] = <real>scale
            a.table[2 * a.rows.period + p] = <real>(a.beta[c] + rounding(a.mean[c]) * scale)


cdef inline void apply_vector(
        Rectifier f, const ApplyArgs* a, const real* table, Py_ssize_t at, vf slope,
        Py_ssize_t n) noexcept nogil:
    cdef vf z = vf_fma(vf_sub(load(a.x + at, n), load(table, n)), load(table + a.rows.period, n),
                       load(table + 2 * a.rows.period, n))
    if a.residual != NULL:
        z = vf_add(z, load(a.residual + at, n))
    store(a.y + at, rectified(f, z, slope), n)


cdef inline void apply_part(Rectifier f, const ApplyArgs* args, Py_ssize_t job) noexcept nogil:
    cdef ApplyArgs a = args[0]      # a copy, which no store can change: pointers stay in registers
    cdef Part part = part_of(&a.rows, job)
    cdef const real* table = a.table + part.sample * 3 * a.rows.period
    cdef Py_ssize_t at = part.start, _r, c
    cdef vf slope = vf_set1(<real>a.slope)
    for _r in range(part.count):
        c = 0
        while c + VL <= part.width:
            apply_vector(f, &a, table + c, at + c, slope, VL)
            c = c + VL
        if c < part.width:
            apply_vector(f, &a, table + c, at + c, slope, part.width - c)
        at = at + part.width


cdef void batch_norm_apply(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y = f(z + residual), z = (x - mean) scale + shift, the three rows of table."""
    cdef const ApplyArgs* a = <const ApplyArgs*>args
    if a.rectifier == RELU:
        apply_part(RELU, a, job)
    elif a.rectifier == LEAKY_RELU:
        apply_part(LEAKY_RELU, a, job)
    else:
        apply_part(IDENTITY, a, job)


cdef inline void sum_vector(
        Rectifier f, int rows, const SumsArgs* a, const real* mean, real* sum, real* product,
        Py_ssize_t at, Py_ssize_t width, Py_ssize_t c, vf slope, Py_ssize_t n) noexcept nogil:
    """Add `rows` rows, `width` apart, of the columns c ... c + n - 1 to their sums."""
    cdef Py_ssize_t ahead = max(8 * width, 1024), period = a.rows.period
    cdef vf d, g, m = load(mean + c, n), s = vf_load(sum + c), p = vf_load(product + c)
    cdef int _r
    for _r in range(rows):
        if rows > 1:                # the processor expects one row after the other
            prefetch(a.x + at + ahead)
            prefetch(a.dy + at + ahead)
        d = vf_sub(load(a.x + at, n), m)
        g = load(a.dy + at, n)
        if f != IDENTITY:
            if a.y != NULL:
                g = let_through(f, g, load(a.y + at, n), slope)
                store(a.g + at, g, n)
            else:
                g = let_through(f, g, vf_fma(d, load(a.table + period + c, n),
                                             load(a.table + 2 * period + c, n)), slope)
        s = vf_add(s, g)
        p = vf_fma(g, d, p)
        at = at + width
    vf_store(sum + c, s)
    vf_store(product + c, p)


cdef inline void sum_rows(
        Rectifier f, int rows, const SumsArgs* a, const real* mean, real* sum, real* product,
        Py_ssize_t at, Py_ssize_t width) noexcept nogil:
    cdef Py_ssize_t c = 0
    cdef vf slope = vf_set1(<real>a.slope)
    while c + VL <= width:
        sum_vector(f, rows, a, mean, sum, product, at + c, width, c, slope, VL)
        c = c + VL
    if c < width:
        sum_vector(f, rows, a, mean, sum, product, at + c, width, c, slope, width - c)


cdef inline void sum_part(
        Rectifier f, const SumsArgs* args, Py_ssize_t job, char* scratch) noexcept nogil:
    cdef SumsArgs a = args[0]
    cdef Part part = part_of(&a.rows, job)
    cdef Py_ssize_t width = part.width, padded = (width + VL - 1) // VL * VL, at = part.start, c
    cdef const real* mean = a.mean + part.sample * a.rows.period
    cdef real* sum = <real*>scratch
    cdef real* product = sum + padded
    cdef double* partial = a.partial + job * 2 * a.rows.period
    for c in range(padded):
        sum[c] = 0
        product[c] = 0
    while a.y == NULL and part.count >= ROWS:       # rows that are written too go one by one
        sum_rows(f, ROWS, &a, mean, sum, product, at, width)
        at = at + ROWS * width
        part.count -= ROWS
    while part.count > 0:
        sum_rows(f, 1, &a, mean, sum, product, at, width)
        at = at + width
        part.count -= 1
    for c in range(width):
        partial[c] = sum[c]
        partial[a.rows.period + c] = product[c]


cdef void batch_norm_backward_sums(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """g = f'(z + residual) dy; partial[job] = per column, the job's sums of g and of g (x - mean).
    """
    cdef const SumsArgs* a = <const SumsArgs*>args
    if a.rectifier == RELU:
        sum_part(RELU, a, job, scratch)
    elif a.rectifier == LEAKY_RELU:
        sum_part(LEAKY_RELU, a, job, scratch)
    else:
        sum_part(IDENTITY, a, job, scratch)


cdef void batch_norm_backward_merge(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """dbeta = sum of g, dgamma = sum of g (x - mean) / sigma, and the factors of dx."""
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
            a.factors[p] = <real>a.mean[c]
            a.factors[period + p] = <real>scale
            a.factors[2 * period + p] = <real>slope
            a.factors[3 * period + p] = <real>(slope * rounding(a.mean[c]) - scale * sum[c] / total)


cdef inline void input_vector(
        Rectifier f, const InputArgs* a, const real* factors, Py_ssize_t at, Py_ssize_t c, vf slope,
        Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t period = a.rows.period
    cdef vf g = load(a.dy + at, n), d = vf_zero()
    if f != IDENTITY or not a.constant:
        d = vf_sub(load(a.x + at, n), load(factors, n))
    if f != IDENTITY:
        g = let_through(f, g, vf_fma(d, load(a.table + period + c, n),
                                     load(a.table + 2 * period + c, n)), slope)
    if a.constant:
        g = vf_mul(g, load(factors + period, n))
    else:
        g = vf_fma(g, load(factors + period, n), vf_fma(
            d, load(factors + 2 * period, n), load(factors + 3 * period, n)))
    store(a.dx + at, g, n)


cdef inline void input_part(Rectifier f, const InputArgs* args, Py_ssize_t job) noexcept nogil:
    cdef InputArgs a = args[0]
    cdef Part part = part_of(&a.rows, job)
    cdef const real* factors = a.factors + part.sample * 4 * a.rows.period
    cdef Py_ssize_t at = part.start, _r, c
    cdef vf slope = vf_set1(<real>a.slope)
    for _r in range(part.count):
        c = 0
        while c + VL <= part.width:
            input_vector(f, &a, factors + c, at + c, c, slope, VL)
            c = c + VL
        if c < part.width:
            input_vector(f, &a, factors + c, at + c, c, slope, part.width - c)
        at = at + part.width


cdef void batch_norm_backward_input(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """dx = gamma / sigma (g - dbeta / rows - (x - mean) / sigma dgamma / rows).

    Ioffe and Szegedy (2015), section 3, with the three lines for dx put together; the factor of g,
    that of x - mean and the constant are rows 1, 2 and 3 of factors.  Of constant statistics, only
    the first is left.
    """
    cdef const InputArgs* a = <const InputArgs*>args
    if a.rectifier == RELU:
        input_part(RELU, a, job)
    elif a.rectifier == LEAKY_RELU:
        input_part(LEAKY_RELU, a, job)
    else:
        input_part(IDENTITY, a, job)


_ROWS = " grouped loose period C chunk parts"
JOBS = {
    "batch_norm_statistics": publish(
        <void*>batch_norm_statistics, sizeof(MomentsArgs), "x* partial*" + _ROWS),
    "batch_norm_merge": publish(
        <void*>batch_norm_merge, sizeof(StatisticsArgs),
        "partial* gamma* beta* mean* variance* table* running_mean* running_variance* "
        "channels eps. momentum." + _ROWS),
    "batch_norm_apply": publish(
        <void*>batch_norm_apply, sizeof(ApplyArgs),
        "x* residual* table* y* rectifier slope." + _ROWS),
    "batch_norm_backward_sums": publish(
        <void*>batch_norm_backward_sums, sizeof(SumsArgs),
        "x* y* dy* mean* table* g* partial* rectifier slope." + _ROWS),
    "batch_norm_backward_merge": publish(
        <void*>batch_norm_backward_merge, sizeof(GradientsArgs),
        "partial* gamma* mean* variance* dgamma* dbeta* factors* sums* channels eps." + _ROWS),
    "batch_norm_backward_input": publish(
        <void*>batch_norm_backward_input, sizeof(InputArgs),
        "x* dy* table* factors* dx* constant rectifier slope." + _ROWS),
}
