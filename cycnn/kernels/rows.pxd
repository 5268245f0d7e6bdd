# How passes over an array (N, P, C) with something per channel divide it into jobs.
#
# Where C is small, a group of pixels is taken as one row of `period` columns, a multiple of C, so
# that vectors are full for any C; column g * C + c is then channel c.  A job is `chunk` such rows
# of one sample; pixels that fill no group are a last job of rows of C columns.  What all N samples
# have in common (batch normalisation, a slope per channel) is one sample of N * P pixels.
from cycnn.kernels.simd cimport real

cdef struct Rows:
    # Which rows the jobs of a pass own; the last slots of the Args.
    Py_ssize_t grouped      # rows of period columns, in a sample
    Py_ssize_t loose        # rows of C columns after them, less than a group
    Py_ssize_t period, C, chunk
    Py_ssize_t parts        # jobs of a sample
    Py_ssize_t beyond       # the last level of cache too small, 2 or 3, or 0: engine.beyond

cdef struct Part:
    # The rows of one job.
    Py_ssize_t start        # their first element
    Py_ssize_t count        # how many
    Py_ssize_t width        # columns of each
    Py_ssize_t sample       # which sample they are of


cdef inline Part part_of(const Rows* rows, Py_ssize_t job) noexcept nogil:
    cdef Part part
    part.sample = job // rows.parts
    part.start = part.sample * (rows.grouped * rows.period + rows.loose * rows.C)
    job = job % rows.parts
    if job * rows.chunk < rows.grouped:
        part.start += job * rows.chunk * rows.period
        part.count = min(rows.chunk, rows.grouped - job * rows.chunk)
        part.width = rows.period
    else:
        part.start += rows.grouped * rows.period
        part.count = rows.loose
        part.width = rows.C
    return part


cdef inline Py_ssize_t groups_of(const Rows* rows, const Part* part) noexcept nogil:
    return part.width // rows.C


cdef inline double rounding(double mean) noexcept nogil:
    """Return how far the mean moves where it is rounded to real, which x - mean then lacks."""
    return <double><real>mean - mean


cdef inline void write_column(
        const Rows* rows, Py_ssize_t c, double mean, double scale, double shift, real* table,
) noexcept nogil:
    """Write what normalising reads for channel c, in each of its columns: table is (3, period)."""
    cdef Py_ssize_t p = c
    while p < rows.period:
        table[p] = <real>mean
        table[rows.period + p] = <real>scale
        table[2 * rows.period + p] = <real>(shift + rounding(mean) * scale)
        p = p + rows.C
