# Fetching memory ahead of its use, a little at a time: asked for all at once, it keeps the tile
# waiting that is being computed.
from cycnn.kernels.simd cimport prefetch, prefetch_far, real

cdef enum:
    LINE = 64 // sizeof(real)   # elements of a cache line


cdef inline const real* fetch_lines(const real* p, Py_ssize_t lines) noexcept nogil:
    """Fetch cache lines from p on into the second-level cache; return where to go on."""
    cdef Py_ssize_t i
    for i in range(lines):
        prefetch_far(p + i * LINE)
    return p + lines * LINE


cdef struct Ahead:
    # Lines of pixels that will be read next, to be brought into the cache.
    const real* pixel           # of the next line
    Py_ssize_t step             # from one pixel to the next
    Py_ssize_t width            # elements of a pixel
    Py_ssize_t columns          # pixels of a row
    Py_ssize_t jump             # from the end of a row to the next
    Py_ssize_t column           # of the next line
    Py_ssize_t at               # where the next line begins among them
    Py_ssize_t share            # lines to be fetched at a time
    Py_ssize_t times            # still to come


cdef inline Ahead look_ahead(
    const real* pixel, Py_ssize_t step, Py_ssize_t width, Py_ssize_t pixels, Py_ssize_t times,
) noexcept nogil:
    """Return the lines of `pixels` pixels in a row, to be fetched in `times` equal shares."""
    cdef Ahead ahead
    cdef Py_ssize_t lines = (width * sizeof(real) + 63) // 64 * pixels
    ahead.pixel = pixel
    ahead.step = step
    ahead.width = width
    ahead.columns = pixels
    ahead.jump = 0
    ahead.column = 0
    ahead.at = 0
    ahead.share = (lines + times - 1) // times
    ahead.times = (lines + ahead.share - 1) // ahead.share if lines > 0 else 0
    return ahead


cdef inline void fetch(Ahead* ahead) noexcept nogil:
    """Fetch one share.  (No min here: it would put these integers into vector registers.)"""
    cdef const real* pixel = ahead.pixel
    cdef Py_ssize_t at = ahead.at, column = ahead.column, _line
    if ahead.times > 0:
        for _line in range(ahead.share):
            prefetch(pixel + at)
            at = at + LINE
            if at >= ahead.width:
                at = 0
                pixel = pixel + ahead.step
                column = column + 1
                if column == ahead.columns:
                    column = 0
                    pixel = pixel + ahead.jump
        ahead.pixel = pixel
        ahead.at = at
        ahead.column = column
        ahead.times = ahead.times - 1


cdef inline void one_by_one(Ahead* ahead) noexcept nogil:
    """Have two, so far fetched side by side, be fetched one after the other in as many shares."""
    cdef Py_ssize_t share = ahead[0].share + ahead[1].share, i
    if ahead[0].times > 0 and ahead[1].times > 0:
        for i in range(2):
            ahead[i].times = (ahead[i].share * ahead[i].times + share - 1) // share
            ahead[i].share = share


cdef inline void fetch_in_turn(Ahead* ahead) noexcept nogil:
    """Fetch one share of the first of two or, after all of them, of the second."""
    if ahead.times == 0 and ahead[1].times > 0:
        ahead[0] = ahead[1]
        ahead[1].times = 0
    fetch(ahead)
