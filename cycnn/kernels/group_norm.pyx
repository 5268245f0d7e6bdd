"""Group normalisation: the merges between the passes of norm.pyx, for each sample by itself.

The array is (N, P, C); the channels are `groups` runs of C / groups, and the statistics of a group
are over the pixels and its channels.  A job is one sample.
"""
from libc.math cimport sqrt

from cycnn.kernels.rows cimport Part, Rows, groups_of, part_of, rounding, write_column
from cycnn.kernels.simd cimport publish, real

cdef struct StatisticsArgs:
    const double* partial   # IN   (N, parts, 2, period), as batch_norm_statistics writes it
    const real* gamma       # IN   (C), or NULL for ones
    const real* beta        # IN   (C), or NULL for zeros
    double* mean            # OUT  (N, groups)
    double* variance        # OUT  (N, groups), biased
    real* table             # OUT  (N, 3, period): mean, gamma / sqrt(variance + eps), beta
    Py_ssize_t groups
    double eps
    Rows rows

cdef struct MeansArgs:
    const double* mean      # IN   (N, groups)
    real* columns           # OUT  (N, period)
    Py_ssize_t groups
    Rows rows

cdef struct GradientsArgs:
    const double* partial   # IN   (N, parts, 2, period), as batch_norm_backward_sums writes it
    const real* gamma       # IN   (C), or NULL for ones
    const double* mean      # IN   (N, groups)
    const double* variance  # IN   (N, groups)
    double* sums            # OUT  (N, 2, C): each sample's part of dgamma and dbeta
    real* table             # OUT  (N, 4, period): mean and the factors of dx
    Py_ssize_t groups
    double eps
    Rows rows


cdef void group_norm_merge(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """mean and variance of each group from those of its columns, and what normalising reads."""
    cdef const StatisticsArgs* a = <const StatisticsArgs*>args
    cdef Py_ssize_t period = a.rows.period, C = a.rows.C, wide = C // a.groups, p, r, g, c
    cdef double total = <double>((a.rows.grouped * (period // C) + a.rows.loose) * wide)
    cdef const double* partial = a.partial + job * a.rows.parts * 2 * period
    cdef const double* column
    cdef real* table = a.table + job * 3 * period
    cdef double mean, variance, scale, delta
    cdef Part part
    for g in range(a.groups):
        mean = 0
        for p in range(a.rows.parts):
            part = part_of(&a.rows, p)
            for r in range(groups_of(&a.rows, &part)):
                column = partial + p * 2 * period + r * C
                for c in range(g * wide, g * wide + wide):
                    mean += part.count / total * column[c]
        variance = 0
        for p in range(a.rows.parts):
            part = part_of(&a.rows, p)
            for r in range(groups_of(&a.rows, &part)):
                column = partial + p * 2 * period + r * C
                for c in range(g * wide, g * wide + wide):
                    delta = column[c] - mean
                    variance += column[period + c] + part.count * delta * delta
        variance /= total
        a.mean[job * a.groups + g] = mean
        a.variance[job * a.groups + g] = variance
        for c in range(g * wide, g * wide + wide):
            scale = (a.gamma[c] if a.gamma != NULL else 1) / sqrt(variance + a.eps)
            write_column(&a.rows, c, mean, scale, a.beta[c] if a.beta != NULL else 0, table)


cdef void group_norm_means(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """columns[n, p] = mean of the group of column p: what batch_norm_backward_sums reads."""
    cdef const MeansArgs* a = <const MeansArgs*>args
    cdef real* columns = a.columns + job * a.rows.period
    cdef Py_ssize_t wide = a.rows.C // a.groups, c, p
    for c in range(a.rows.C):
        p = c
        while p < a.rows.period:
            columns[p] = <real>a.mean[job * a.groups + c // wide]
            p = p + a.rows.C


cdef void group_norm_backward_merge(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """The sample's part of dgamma and dbeta, and the factors of dx.

    With s = 1 / sqrt(variance + eps), M values in a group and sums over them,
    dx = s gamma dy - s / M sum(gamma dy) - (x - mean) s^3 / M sum(gamma dy (x - mean)).
    """
    cdef const GradientsArgs* a = <const GradientsArgs*>args
    cdef Py_ssize_t period = a.rows.period, C = a.rows.C, wide = C // a.groups, p, r, g, c
    cdef double total = <double>((a.rows.grouped * (period // C) + a.rows.loose) * wide)
    cdef const double* partial = a.partial + job * a.rows.parts * 2 * period
    cdef double* product = a.sums + job * 2 * C     # of dy and x - mean
    cdef double* sum = product + C                  # of dy
    cdef real* table = a.table + job * 4 * period
    cdef double mean, inverse, gamma, all_sum, all_product, slope
    cdef Part part
    for c in range(C):
        sum[c] = 0
        product[c] = 0
    for p in range(a.rows.parts):
        part = part_of(&a.rows, p)
        for r in range(groups_of(&a.rows, &part)):
            for c in range(C):
                sum[c] += partial[p * 2 * period + r * C + c]
                product[c] += partial[(p * 2 + 1) * period + r * C + c]
    for g in range(a.groups):
        mean = a.mean[job * a.groups + g]
        inverse = 1 / sqrt(a.variance[job * a.groups + g] + a.eps)
        all_sum = all_product = 0
        for c in range(g * wide, g * wide + wide):
            gamma = a.gamma[c] if a.gamma != NULL else 1
            product[c] += rounding(mean) * sum[c]
            all_sum += gamma * sum[c]
            all_product += gamma * product[c]
            product[c] *= inverse
        slope = -inverse * inverse * inverse * all_product / total
        for c in range(g * wide, g * wide + wide):
            gamma = a.gamma[c] if a.gamma != NULL else 1
            for r in range(period // C):
                p = r * C + c
                table[p] = <real>mean
                table[period + p] = <real>(inverse * gamma)
                table[2 * period + p] = <real>slope
                table[3 * period + p] = <real>(slope * rounding(mean) - inverse * all_sum / total)


_ROWS = " grouped loose period C chunk parts beyond"
JOBS = {
    "group_norm_merge": publish(
        <void*>group_norm_merge, sizeof(StatisticsArgs),
        "partial* gamma* beta* mean* variance* table* groups eps." + _ROWS),
    "group_norm_means": publish(
        <void*>group_norm_means, sizeof(MeansArgs), "mean* columns* groups" + _ROWS),
    "group_norm_backward_merge": publish(
        <void*>group_norm_backward_merge, sizeof(GradientsArgs),
        "partial* gamma* mean* variance* sums* table* groups eps." + _ROWS),
}
