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

from cycnn.kernels.ahead cimport LINE, fetch_lines
from cycnn.kernels.rectifier cimport (
    IDENTITY, LEAKY_RELU, RELU, Rectifier, let_through, rectified)
from cycnn.kernels.rows cimport Part, Rows, groups_of, part_of, rounding, write_column
from cycnn.kernels.simd cimport (
    VL, prefetch_far, publish, real, vf, vf_add, vf_fma, vf_load, vf_max, vf_min, vf_mul, vf_set1,
    vf_store, vf_sub, vf_zero)
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

cdef struct TableArgs:
    const real* gamma       # IN   (C), or NULL for ones
    const real* beta        # IN   (C), or NULL for zeros
    const double* mean      # IN   (C)
    const double* variance  # IN   (C), or NULL where std is given
    const double* std       # IN   (C), or NULL
    real* table             # OUT  (3, period), as above
    Py_ssize_t channels     # of a job
    double eps
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
    AHEAD = 4096            # elements from a row to what is fetched meanwhile
    PIECE = 4 * LINE        # of a row, fetched at a time: more would keep waiting what is read now


cdef inline void fetch_piece(const real* x) noexcept nogil:
    """Fetch the piece of a row AHEAD elements further on, into the second-level cache."""
    fetch_lines(x + AHEAD, PIECE // LINE)


cdef inline vf apart(const real* x, vf m, Py_ssize_t n) noexcept nogil:
    return vf_sub(load(x, n), m)


cdef inline void start_row(
        const real* x, Py_ssize_t count, Py_ssize_t width, real* shift, real* sum, real* square
) noexcept nogil:
    """shift[c] = the median of x[r, c] over the first, the middle and the last row; the sums are 0.
    """
    cdef const real* middle = x + count // 2 * width
    cdef const real* last = x + (count - 1) * width
    cdef Py_ssize_t c = 0, n
    cdef vf u, v
    while c < width:
        n = lanes(c, width)
        u = load(x + c, n)
        v = load(middle + c, n)
        vf_store(shift + c, vf_max(vf_min(u, v), vf_min(vf_max(u, v), load(last + c, n))))
        vf_store(sum + c, vf_zero())
        vf_store(square + c, vf_zero())
        c = c + VL


cdef inline void add_rows(
        int rows, const real* x, Py_ssize_t width, const real* shift, real* sum, real* square
) noexcept nogil:
    """sum[c] += d and square[c] += d^2, d = x[r, c] - shift[c], over the rows r: four, or one."""
    cdef Py_ssize_t c = 0, n
    cdef vf m, d0, d1, d2, d3
    while c < width:
        n = lanes(c, width)
        m = vf_load(shift + c)
        d0 = apart(x + c, m, n)
        if rows == 4:
            d1 = apart(x + width + c, m, n)
            d2 = apart(x + 2 * width + c, m, n)
            d3 = apart(x + 3 * width + c, m, n)
            prefetch_far(x + AHEAD + c)
            prefetch_far(x + AHEAD + width + c)
            prefetch_far(x + AHEAD + 2 * width + c)
            prefetch_far(x + AHEAD + 3 * width + c)
            vf_store(sum + c, vf_add(vf_load(sum + c), vf_add(vf_add(d0, d1), vf_add(d2, d3))))
            vf_store(square + c, vf_add(vf_load(square + c), vf_add(
                vf_fma(d0, d0, vf_mul(d1, d1)), vf_fma(d2, d2, vf_mul(d3, d3)))))
        else:
            vf_store(sum + c, vf_add(vf_load(sum + c), d0))
            vf_store(square + c, vf_fma(d0, d0, vf_load(square + c)))
        c = c + VL


cdef void batch_norm_statistics(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """partial[job] = per column, the mean of the job's rows and M2 = sum (x - mean)^2.

    One pass, of d = x - shift: mean = shift + sum d / n and M2 = sum d^2 - (sum d)^2 / n.  Rounding
    counts 1 + n (mean - shift)^2 / M2 times in M2: Chan, Golub and LeVeque (1983), "Algorithms for
    computing the sample variance".  As the shift is the median of three of the n rows, that is 1.45
    in the mean of normal columns and never above 1 + n / 2; a constant column has M2 = 0.
    """
    cdef const MomentsArgs* a = <const MomentsArgs*>args
    cdef Part part = part_of(&a.rows, job)
    cdef Py_ssize_t width = part.width, padded = (width + VL - 1) // VL * VL, r = 0, c
    cdef const real* x = a.x + part.start
    cdef real* shift = <real*>scratch
    cdef real* sum = shift + padded
    cdef real* square = sum + padded
    cdef double* partial = a.partial + job * 2 * a.rows.period
    cdef double d
    start_row(x, part.count, width, shift, sum, square)
    while r + 4 <= part.count:
        add_rows(4, x + r * width, width, shift, sum, square)
        r = r + 4
    while r < part.count:
        add_rows(1, x + r * width, width, shift, sum, square)
        r = r + 1
    for c in range(width):
        d = <double>sum[c] / <double>part.count
        partial[c] = <double>shift[c] + d
        partial[a.rows.period + c] = <double>square[c] - d * <double>sum[c]


cdef void batch_norm_table(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """Write what normalising by given statistics reads.  One job is `channels` of them."""
    cdef const TableArgs* a = <const TableArgs*>args
    cdef Py_ssize_t begin = job * a.channels, end = min(begin + a.channels, a.rows.C), c
    cdef double gamma, std
    for c in range(begin, end):
        gamma = a.gamma[c] if a.gamma != NULL else 1
        std = a.std[c] if a.std != NULL else sqrt(a.variance[c] + a.eps)
        write_column(&a.rows, c, a.mean[c], gamma / std, a.beta[c] if a.beta != NULL else 0,
                     a.table)


cdef void batch_norm_merge(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """mean and variance of each channel from the partial ones, and what normalising reads.

    Running statistics follow: momentum running + (1 - momentum) batch, with the unbiased variance.
    """
    cdef const StatisticsArgs* a = <const StatisticsArgs*>args
    cdef Py_ssize_t begin = job * a.channels, end = min(begin + a.channels, a.rows.C), p, g, c
    cdef double total = <double>(a.rows.grouped * (a.rows.period // a.rows.C) + a.rows.loose)
    cdef double delta
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
        write_column(&a.rows, c, a.mean[c], a.gamma[c] / sqrt(a.variance[c] + a.eps), a.beta[c],
                     a.table)


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
            if a.rows.beyond >= 2 and c % PIECE == 0:   # x was written a short while ago
                fetch_piece(a.y + at + c)
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
        Rectifier f, const SumsArgs* a, const real* mean, real* sum, real* product,
        Py_ssize_t at, Py_ssize_t c, vf slope, Py_ssize_t n) noexcept nogil:
    """Add the columns c ... c + n - 1 of the row at `at` to their sums."""
    cdef Py_ssize_t period = a.rows.period
    cdef vf d = vf_sub(load(a.x + at + c, n), load(mean + c, n)), g = load(a.dy + at + c, n)
    if f != IDENTITY:
        if a.y != NULL:
            g = let_through(f, g, load(a.y + at + c, n), slope)
            store(a.g + at + c, g, n)
        else:
            g = let_through(f, g, vf_fma(d, load(a.table + period + c, n),
                                         load(a.table + 2 * period + c, n)), slope)
    vf_store(sum + c, vf_add(vf_load(sum + c), g))
    vf_store(product + c, vf_fma(g, d, vf_load(product + c)))


cdef inline void sum_part(
        Rectifier f, const SumsArgs* args, Py_ssize_t job, char* scratch) noexcept nogil:
    cdef SumsArgs a = args[0]
    cdef Part part = part_of(&a.rows, job)
    cdef Py_ssize_t width = part.width, padded = (width + VL - 1) // VL * VL, at = part.start, _r, c
    cdef const real* mean = a.mean + part.sample * a.rows.period
    cdef real* sum = <real*>scratch
    cdef real* product = sum + padded
    cdef double* partial = a.partial + job * 2 * a.rows.period
    cdef vf slope = vf_set1(<real>a.slope)
    for c in range(padded):
        sum[c] = 0
        product[c] = 0
    for _r in range(part.count):    # one by one: two arrays are read from memory best in order
        c = 0
        while c + VL <= width:
            if a.rows.beyond >= 2 and c % PIECE == 0:
                fetch_piece(a.x + at + c)
                fetch_piece(a.dy + at + c)
            sum_vector(f, &a, mean, sum, product, at, c, slope, VL)
            c = c + VL
        if c < width:
            sum_vector(f, &a, mean, sum, product, at, c, slope, width - c)
        at = at + width
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
            if a.rows.beyond >= 3 and c % PIECE == 0:   # the sums have just read x and dy
                fetch_piece(a.x + at + c)
                fetch_piece(a.dy + at + c)
                fetch_piece(a.dx + at + c)
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


_ROWS = " grouped loose period C chunk parts beyond"
JOBS = {
    "batch_norm_statistics": publish(
        <void*>batch_norm_statistics, sizeof(MomentsArgs), "x* partial*" + _ROWS),
    "batch_norm_merge": publish(
        <void*>batch_norm_merge, sizeof(StatisticsArgs),
        "partial* gamma* beta* mean* variance* table* running_mean* running_variance* "
        "channels eps. momentum." + _ROWS),
    "batch_norm_table": publish(
        <void*>batch_norm_table, sizeof(TableArgs),
        "gamma* beta* mean* variance* std* table* channels eps." + _ROWS),
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
