"""Normalisation of each row by itself: layer normalisation, and RMS normalisation without the mean.

The array is (rows, M); gamma and beta are one value per column.  A row is summed along its
elements, in float64 from one block to the next; sums over rows are partial per chunk, added up in
order.
"""
from libc.math cimport sqrt

from cycnn.kernels.reduce cimport BLOCK, total
from cycnn.kernels.simd cimport (
    VL, publish, real, vf, vf_add, vf_first, vf_fma, vf_load, vf_mul, vf_set1, vf_store, vf_sub,
    vf_zero)
from cycnn.kernels.tail cimport lanes, load, store

cdef struct RowNormArgs:
    const real* x           # IN   (rows, M)
    const real* gamma       # IN   (M), or NULL for ones
    const real* beta        # IN   (M), or NULL for zeros
    double* mean            # OUT  (rows), 0 if not centred
    double* inverse         # OUT  (rows): 1 / sqrt(mean of (x - mean)^2 + eps)
    real* y                 # OUT  (rows, M)
    Py_ssize_t rows, M, chunk
    Py_ssize_t centred      # whether the mean is taken out
    double eps

cdef struct RowNormBackwardArgs:
    const real* dy          # IN   (rows, M)
    const real* x           # IN   (rows, M)
    const real* gamma       # IN   (M), or NULL for ones
    const double* mean      # IN   (rows)
    const double* inverse   # IN   (rows)
    real* dx                # OUT  (rows, M)
    Py_ssize_t rows, M, chunk, centred

cdef struct RowNormSumsArgs:
    const real* dy          # IN   (rows, M)
    const real* x           # IN   (rows, M)
    const double* mean      # IN   (rows)
    const double* inverse   # IN   (rows)
    double* partial         # OUT  (parts, 2, M): each part's dgamma and dbeta
    Py_ssize_t rows, M, chunk
    Py_ssize_t columns      # of a job
    Py_ssize_t blocks       # of columns

cdef struct AddUpArgs:
    const double* partial   # IN   (parts, size)
    real* total             # OUT  (size)
    Py_ssize_t parts, size, chunk


cdef inline vf normalised(vf x, vf mean, vf inverse, vf offset) noexcept nogil:
    """Return (x - mean) inverse, the offset being what the mean lost when it was rounded."""
    return vf_fma(vf_sub(x, mean), inverse, offset)


cdef inline vf offset_of(double mean, double inverse) noexcept nogil:
    return vf_set1(<real>((<double><real>mean - mean) * inverse))


cdef inline double sum_apart(const real* x, real origin, Py_ssize_t M) noexcept nogil:
    """Return the sum of x[i] - origin."""
    cdef double result = 0
    cdef Py_ssize_t i = 0, n, stop
    cdef vf sum, m = vf_set1(origin)
    while i < M:
        stop = min(i + BLOCK, M)
        sum = vf_zero()
        while i < stop:
            n = lanes(i, stop)
            sum = vf_add(sum, vf_first(vf_sub(load(x + i, n), m), vf_zero(), n))
            i = i + VL
        result = result + total(sum)
    return result


cdef inline double squares_apart(const real* x, real mean, Py_ssize_t M) noexcept nogil:
    """Return the sum of (x[i] - mean)^2."""
    cdef double result = 0
    cdef Py_ssize_t i = 0, n, stop
    cdef vf sum, d, m = vf_set1(mean)
    while i < M:
        stop = min(i + BLOCK, M)
        sum = vf_zero()
        while i < stop:
            n = lanes(i, stop)
            d = vf_first(vf_sub(load(x + i, n), m), vf_zero(), n)
            sum = vf_fma(d, d, sum)
            i = i + VL
        result = result + total(sum)
    return result


cdef void row_norm_forward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y = (x - mean) inverse gamma + beta.

    The mean is that of differences to the row's first element, so that a constant row becomes beta.
    """
    cdef const RowNormArgs* a = <const RowNormArgs*>args
    cdef Py_ssize_t r, i, n, M = a.M
    cdef const real* x
    cdef real* y
    cdef double mean, square, lost
    cdef vf m, s, offset, v
    for r in range(job * a.chunk, min(job * a.chunk + a.chunk, a.rows)):
        x = a.x + r * M
        y = a.y + r * M
        mean = <double>x[0] + sum_apart(x, x[0], M) / <double>M if a.centred else 0
        lost = <double><real>mean - mean
        square = squares_apart(x, <real>mean, M) / <double>M - lost * lost
        a.mean[r] = mean
        a.inverse[r] = 1 / sqrt(max(square, 0.0) + a.eps)
        m = vf_set1(<real>mean)
        s = vf_set1(<real>a.inverse[r])
        offset = offset_of(mean, a.inverse[r])
        i = 0
        while i < M:
            n = lanes(i, M)
            v = normalised(load(x + i, n), m, s, offset)
            if a.gamma != NULL:
                v = vf_mul(v, load(a.gamma + i, n))
            if a.beta != NULL:
                v = vf_add(v, load(a.beta + i, n))
            store(y + i, v, n)
            i = i + VL


cdef inline vf scaled(const real* dy, const real* gamma, Py_ssize_t i, Py_ssize_t n) noexcept nogil:
    """Return dy gamma at i."""
    return vf_mul(load(dy + i, n), load(gamma + i, n)) if gamma != NULL else load(dy + i, n)


cdef void row_norm_backward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """dx = inverse (g - mean of g - xhat mean of g xhat), g = dy gamma, xhat = (x - mean) inverse.

    The mean of g is left out where the mean of x is.
    """
    cdef const RowNormBackwardArgs* a = <const RowNormBackwardArgs*>args
    cdef Py_ssize_t r, i, n, stop, M = a.M
    cdef const real* dy
    cdef const real* x
    cdef real* dx
    cdef double sum, product
    cdef vf m, s, offset, g, sums, products
    for r in range(job * a.chunk, min(job * a.chunk + a.chunk, a.rows)):
        dy = a.dy + r * M
        x = a.x + r * M
        dx = a.dx + r * M
        m = vf_set1(<real>a.mean[r])
        s = vf_set1(<real>a.inverse[r])
        offset = offset_of(a.mean[r], a.inverse[r])
        sum = product = 0
        i = 0
        while i < M:
            stop = min(i + BLOCK, M)
            sums = products = vf_zero()
            while i < stop:
                n = lanes(i, stop)
                g = scaled(dy, a.gamma, i, n)
                sums = vf_add(sums, g)
                products = vf_fma(g, normalised(load(x + i, n), m, s, offset), products)
                i = i + VL
            sum = sum + total(sums)
            product = product + total(products)
        sums = vf_set1(<real>(-sum / <double>M if a.centred else 0))
        products = vf_set1(<real>(-product / <double>M))
        i = 0
        while i < M:
            n = lanes(i, M)
            g = vf_add(scaled(dy, a.gamma, i, n), sums)
            g = vf_fma(normalised(load(x + i, n), m, s, offset), products, g)
            store(dx + i, vf_mul(g, s), n)
            i = i + VL


cdef void row_norm_backward_sums(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """partial = the sums of dy xhat and of dy over a part of the rows, for some columns."""
    cdef const RowNormSumsArgs* a = <const RowNormSumsArgs*>args
    cdef Py_ssize_t part = job // a.blocks, begin = job % a.blocks * a.columns, r, i, n
    cdef Py_ssize_t width = min(a.columns, a.M - begin)
    cdef const real* dy
    cdef const real* x
    cdef real* product = <real*>scratch
    cdef real* sum = product + a.columns
    cdef double* partial = a.partial + part * 2 * a.M + begin
    cdef vf m, s, offset, g
    for i in range(a.columns):
        product[i] = 0
        sum[i] = 0
    for r in range(part * a.chunk, min(part * a.chunk + a.chunk, a.rows)):
        dy = a.dy + r * a.M + begin
        x = a.x + r * a.M + begin
        m = vf_set1(<real>a.mean[r])
        s = vf_set1(<real>a.inverse[r])
        offset = offset_of(a.mean[r], a.inverse[r])
        i = 0
        while i < width:
            n = lanes(i, width)
            g = load(dy + i, n)
            vf_store(sum + i, vf_add(vf_load(sum + i), g))
            vf_store(product + i, vf_fma(g, normalised(load(x + i, n), m, s, offset),
                                         vf_load(product + i)))
            i = i + VL
    for i in range(width):
        partial[i] = product[i]
        partial[a.M + i] = sum[i]


cdef void add_up(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """total[i] = sum of partial[p, i] over p, in order."""
    cdef const AddUpArgs* a = <const AddUpArgs*>args
    cdef Py_ssize_t i, p
    cdef double sum
    for i in range(job * a.chunk, min(job * a.chunk + a.chunk, a.size)):
        sum = 0
        for p in range(a.parts):
            sum += a.partial[p * a.size + i]
        a.total[i] = <real>sum


JOBS = {
    "row_norm_forward": publish(
        <void*>row_norm_forward, sizeof(RowNormArgs),
        "x* gamma* beta* mean* inverse* y* rows M chunk centred eps."),
    "row_norm_backward": publish(
        <void*>row_norm_backward, sizeof(RowNormBackwardArgs),
        "dy* x* gamma* mean* inverse* dx* rows M chunk centred"),
    "row_norm_backward_sums": publish(
        <void*>row_norm_backward_sums, sizeof(RowNormSumsArgs),
        "dy* x* mean* inverse* partial* rows M chunk columns blocks"),
    "add_up": publish(<void*>add_up, sizeof(AddUpArgs), "partial* total* parts size chunk"),
}
