# The tiles of a Winograd convolution: where they lie in x and y, and B^T x of a run of them.
#
# A tile is MH x MW outputs and the EH x EW inputs under it, E = EH EW; MH = EH - 2 (1 if EH is 1).
# A kernel may have any number TD of taps on the depth axis: each adds the products of a plane of
# its own, so a tile has TD * C inputs for each element.  Transformed values are kept element by
# element, so that each element is a matrix of its own:
#
#     V (E, tiles, TD * C)        rows an odd number of cache lines apart, elements too:
#     M (E, tiles, K)             streams through all elements of a tile meet in no cache set
#
# Tables as in window.pxd: depth o, tap t reads source[o * SD + offset[t]]; row r of the inputs of
# the tiles in row i of tiles is source[LD + i * MH + r]; -1 is a zero.  Rows and columns beyond the
# last output have entries too.
from libc.stdint cimport int64_t

from cycnn.kernels.ahead cimport LINE
from cycnn.kernels.simd cimport VL, prefetch, real, vf, vf_load, vf_load_part, vf_store
from cycnn.kernels.winograd_transforms cimport transform_input


cdef enum:
    MOST = 36                   # elements of a tile


cdef struct Tiles:
    const int64_t* source       # IN   (LD + LH + LW,)
    const int64_t* offset       # IN   (TD,)
    const real* zeros           # IN   (C,)
    Py_ssize_t D, H, W, C       # of x
    Py_ssize_t OD, OH, OW       # outputs
    Py_ssize_t SD, TD
    Py_ssize_t LD, LH
    Py_ssize_t rows, columns    # of tiles, in one plane of outputs
    Py_ssize_t EH, EW
    Py_ssize_t pitch            # of V: elements from one tile to the next
    Py_ssize_t element          # and from one element of a tile to the next


cdef struct Place:
    Py_ssize_t plane            # n * OD + od
    Py_ssize_t row, column      # of the tile


cdef inline Place place_of(const Tiles* v, Py_ssize_t tile) noexcept nogil:
    """Return where tile number `tile` is."""
    cdef Place at
    at.plane = tile // (v.rows * v.columns)
    tile = tile - at.plane * v.rows * v.columns
    at.row = tile // v.columns
    at.column = tile - at.row * v.columns
    return at


cdef inline void input_pointers(
    int EH, int EW, const Tiles* v, const real* x, const Place* at, Py_ssize_t td, const real** p,
) noexcept nogil:
    """p[i * EW + j] = the pixel of x under element (i, j), or zeros."""
    cdef Py_ssize_t n = at.plane // v.OD, i, j
    cdef int64_t d = v.source[(at.plane - n * v.OD) * v.SD + v.offset[td]]
    cdef const int64_t* h = v.source + v.LD + at.row * (EH - 2 if EH > 1 else 1)
    cdef const int64_t* w = v.source + v.LD + v.LH + at.column * (EW - 2)
    cdef const real* row
    for i in range(EH):
        row = x + ((n * v.D + d) * v.H + h[i]) * v.W * v.C
        if d < 0 or h[i] < 0:
            for j in range(EW):
                p[i * EW + j] = v.zeros
        else:
            for j in range(EW):
                p[i * EW + j] = row + w[j] * v.C if w[j] >= 0 else v.zeros


cdef inline void input_vector(
    int EH, int EW, const real** p, Py_ssize_t c, Py_ssize_t channels, real* v, Py_ssize_t element,
) noexcept nogil:
    """Transform channels c to c + VL of a tile, of which `channels` are there."""
    cdef vf line[6]
    cdef vf half[MOST]
    cdef Py_ssize_t i, j
    for j in range(EW):
        for i in range(EH):
            if channels >= VL:
                line[i] = vf_load(p[i * EW + j] + c)
            else:
                line[i] = vf_load_part(p[i * EW + j] + c, channels)
        transform_input(EH, line, 1, half + j, EW)
    for i in range(EH):
        transform_input(EW, half + i * EW, 1, line, 1)
        for j in range(EW):
            vf_store(v + (i * EW + j) * element, line[j])


cdef inline void fetch_next(
    int EH, int EW, const real** p, Py_ssize_t channels, Py_ssize_t c,
) noexcept nogil:
    """Fetch what is new to the next tile, the share of channels c to c + VL: it is not foreseen.

    New are the columns right of this tile; their first two rows were read for the tiles above.
    """
    cdef Py_ssize_t i, j
    for i in range(2 if EH > 1 else 0, EH):
        for j in range((EW - 2) * VL // LINE):
            prefetch(p[i * EW + EW - 1] + channels + (EW - 2) * c + j * LINE)


cdef struct Part:
    # Channels of a run of depth taps: what of V is computed.
    Py_ssize_t td, taps
    Py_ssize_t c, channels


cdef inline void input_tiles(
    int EH, int EW, const Tiles* v, const real* x, Py_ssize_t first, Py_ssize_t count,
    const Part* part, real* V,
) noexcept nogil:
    """V[e, t, td * channels + c] = (B^T x B)[e] of tile first + t, for a part of its inputs."""
    cdef const real* p[MOST]
    cdef Py_ssize_t t, td, c
    cdef Place at
    cdef real* to
    for t in range(count):
        at = place_of(v, first + t)
        for td in range(part.taps):
            input_pointers(EH, EW, v, x + part.c, &at, part.td + td, p)
            to = V + t * v.pitch + td * part.channels       # the next td overwrites a tail's zeros
            c = 0
            while c + VL <= part.channels:
                fetch_next(EH, EW, p, v.C, c)
                input_vector(EH, EW, p, c, VL, to + c, v.element)
                c = c + VL
            if c < part.channels:
                input_vector(EH, EW, p, c, part.channels - c, to + c, v.element)


cdef inline void transform_tiles(
    const Tiles* v, const real* x, Py_ssize_t first, Py_ssize_t count, const Part* part, real* V,
) noexcept nogil:
    """`input_tiles` for the size of tile at hand: F(4x4, 3x3), F(2x2, 3x3) or F(4, 3)."""
    if v.EH == 6:
        input_tiles(6, 6, v, x, first, count, part, V)
    elif v.EH == 4:
        input_tiles(4, 4, v, x, first, count, part, V)
    else:
        input_tiles(1, 6, v, x, first, count, part, V)


cdef inline Part whole(const Tiles* v) noexcept nogil:
    """Return all channels of all depth taps."""
    cdef Part part
    part.td = part.c = 0
    part.taps = v.TD
    part.channels = v.C
    return part
