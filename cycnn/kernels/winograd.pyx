"""Winograd convolution, stride 1: F(4x4, 3x3), F(2x2, 3x3) and, along one axis, F(4, 3).

    y = A^T [ sum over c of (G w G^T) * (B^T x B) ] A + bias

for each tile of outputs (winograd_transforms.pxd): transform the weights once, the tiles of the
input; multiply element by element, which over all channels is one matrix product per element of
the tile; transform back.  Two schedules, of the same functions:

    tile blocks         a job takes a block of tiles through all three steps in its scratch memory
    weight-stationary   three steps with all tiles: transform | multiply, a job for some panels of
                        kernels, so that each weight is read once | transform back

The input gradient is the same sum over dy, with the taps turned round and w transposed.
"""
from libc.stdint cimport int64_t

from cycnn.kernels.ahead cimport LINE
from cycnn.kernels.packing cimport pack_panel
from cycnn.kernels.simd cimport (
    MR, NR, VL, prefetch, publish, real, vf, vf_add, vf_load, vf_load_part, vf_max, vf_store,
    vf_store_part, vf_zero,
)
from cycnn.kernels.tile cimport ACCUMULATE, RELU, Product, multiply_rows
from cycnn.kernels.winograd_tiles cimport Part, Place, Tiles, place_of, transform_tiles, whole
from cycnn.kernels.winograd_transforms cimport transform_output, transform_weight

cdef enum:
    CHANNELS = 16               # whose weights a job gathers at a time


cdef struct WinogradArgs:
    Tiles tiles
    const real* x               # IN   (N, D, H, W, C)
    const real* w               # IN   element (t, c, k) at t*ST + c*SC + k*SK
    const int64_t* tap          # IN   (TD * KH * KW,), which tap of w is tap t
    const real* bias            # IN   (K,) or NULL
    real* y                     # OUT  (N, OD, OH, OW, K)
    real* u                     # (E, panels, TD * C, NR), transformed weights, 0 beyond K, or NULL
    real* v                     # (E, count, TD * C), as Tiles says, or NULL
    real* m                     # (E, count, panels * NR), likewise
    Py_ssize_t ST, SC, SK
    Py_ssize_t K, flags         # of the tile, for y
    Py_ssize_t first, count     # tiles of this step
    Py_ssize_t block            # tiles of a job
    Py_ssize_t panels           # of NR kernels, in a job that multiplies
    Py_ssize_t channel_block    # of weights that a job transforms for itself
    Py_ssize_t u_element, m_pitch, m_element
    Py_ssize_t at_y, at_spare, at_gathered, at_u, at_v, at_m        # bytes into scratch


cdef inline void weight_vectors(
    int KH, int EH, int EW, const real* w, Py_ssize_t step, real* u, Py_ssize_t element,
) noexcept nogil:
    """u[e] = (G w G^T)[e] of one vector of kernels, whose KH * 3 taps are `step` apart."""
    cdef vf line[6]
    cdef vf half[18]
    cdef Py_ssize_t i, j
    for j in range(3):
        for i in range(KH):
            line[i] = vf_load(w + (i * 3 + j) * step)
        transform_weight(EH, line, 1, half + j, 3)
    for i in range(EH):
        transform_weight(EW, half + i * 3, 1, line, 1)
        for j in range(EW):
            vf_store(u + (i * EW + j) * element, line[j])


cdef void transform_weights(
    const WinogradArgs* a, Py_ssize_t panel, Py_ssize_t td, Py_ssize_t c, Py_ssize_t channels,
    real* u, Py_ssize_t element, real* gathered,
) noexcept nogil:
    """u[e, i, j] = (G w G^T)[e] of channel c + i of depth tap td, kernel panel * NR + j."""
    cdef const Tiles* v = &a.tiles
    cdef Py_ssize_t taps = 3 if v.EH == 1 else 9, columns = min(<Py_ssize_t>NR, a.K - panel * NR)
    cdef Py_ssize_t t, i, count
    while channels > 0:
        count = min(channels, <Py_ssize_t>CHANNELS)
        for t in range(taps):
            pack_panel(a.w + a.tap[td * taps + t] * a.ST + c * a.SC + panel * NR * a.SK,
                       a.SC, a.SK, count, columns, gathered + t * CHANNELS * NR)
        for i in range(2 * count):
            if v.EH == 6:
                weight_vectors(3, 6, 6, gathered + i * VL, CHANNELS * NR, u, element)
            elif v.EH == 4:
                weight_vectors(3, 4, 4, gathered + i * VL, CHANNELS * NR, u, element)
            else:
                weight_vectors(1, 1, 6, gathered + i * VL, CHANNELS * NR, u, element)
            u = u + VL
        c = c + count
        channels = channels - count


cdef void winograd_weight(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """One job is CHANNELS channels of one panel and depth tap, from w to u."""
    cdef const WinogradArgs* a = <const WinogradArgs*>args
    cdef const Tiles* v = &a.tiles
    cdef Py_ssize_t parts = (v.C + CHANNELS - 1) // CHANNELS
    cdef Py_ssize_t c = job % parts * CHANNELS, td = job // parts % v.TD, p = job // (parts * v.TD)
    transform_weights(a, p, td, c, min(<Py_ssize_t>CHANNELS, v.C - c),
                      a.u + ((p * v.TD + td) * v.C + c) * NR, a.u_element, <real*>scratch)


cdef void multiply_panel(
    real** x, real** y, Py_ssize_t count, Py_ssize_t channels, const real* u, Py_ssize_t column,
    Py_ssize_t columns, Py_ssize_t flags,
) noexcept nogil:
    """y[t][column + j] (+)= sum over c of x[t][c] * u[c, j]."""
    cdef int64_t[2] tap
    cdef Product product
    tap[0] = tap[1] = 0
    product.x = x
    product.y = y
    product.rows = count
    product.taps = tap
    product.count = 1
    product.run = channels
    product.w = u
    product.panel = product.second = 0          # one panel at most
    product.column = column
    product.columns = NR if columns > VL else VL
    product.bias = NULL
    product.flags = flags
    product.ahead = NULL
    multiply_rows(&product)


cdef void list_tiles(
    const WinogradArgs* a, Py_ssize_t count, const real* V, real* M, char* scratch,
) noexcept nogil:
    """Write where each tile of one element is, in V and in M, up to a multiple of MR."""
    cdef real** x = <real**>scratch
    cdef real** y = <real**>(scratch + a.at_y)
    cdef Py_ssize_t t
    for t in range(count):
        x[t] = <real*>V + t * a.tiles.pitch
        y[t] = M + t * a.m_pitch
    for t in range(count, (count + MR - 1) // MR * MR):
        x[t] = x[0]
        y[t] = <real*>(scratch + a.at_spare)


cdef void fetch_tiles(
    const WinogradArgs* a, const real* V, Py_ssize_t channels, const real* M, Py_ssize_t columns,
) noexcept nogil:
    """Fetch some channels of V, and columns of M, of all tiles of one element into the cache."""
    cdef Py_ssize_t t, c
    for t in range(a.count):
        for c in range(channels // LINE + 1):
            prefetch(V + t * a.tiles.pitch + c * LINE)
        for c in range(columns // LINE):
            prefetch(M + t * a.m_pitch + c * LINE)


cdef void multiply_tiles(
    const WinogradArgs* a, Py_ssize_t e, Py_ssize_t count, const real* V, real* M,
    Py_ssize_t panel, Py_ssize_t panels, char* scratch,
) noexcept nogil:
    """M[t, k] = sum over c of V[t, c] * u[e, c, k], for some panels of k."""
    cdef Py_ssize_t p, channels = a.tiles.TD * a.tiles.C
    list_tiles(a, count, V + e * a.tiles.element, M + e * a.m_element, scratch)
    for p in range(panel, panel + panels):
        multiply_panel(<real**>scratch, <real**>(scratch + a.at_y), count, channels,
                       a.u + e * a.u_element + p * channels * NR, p * NR, a.K - p * NR, 0)


cdef inline void output_pointers(
    int MH, int MW, const WinogradArgs* a, const Place* at, real* spare, real** y,
) noexcept nogil:
    """y[i * MW + j] = where output (i, j) of a tile goes, `spare` if there is no such output."""
    cdef const Tiles* v = &a.tiles
    cdef Py_ssize_t i, j, oh = at.row * MH, ow = at.column * MW
    cdef real* first = a.y + ((at.plane * v.OH + oh) * v.OW + ow) * a.K
    for i in range(MH):
        for j in range(MW):
            y[i * MW + j] = spare
            if oh + i < v.OH and ow + j < v.OW:
                y[i * MW + j] = first + (i * v.OW + j) * a.K


cdef inline void fetch_outputs(
    int MH, int MW, const WinogradArgs* a, Py_ssize_t k, real** y,
) noexcept nogil:
    """Fetch the cache lines that kernel k of the next tile will be written to."""
    cdef Py_ssize_t i
    for i in range(MH * MW):
        prefetch(y[i] + MW * a.K + k)


cdef inline void output_vector(
    int EH, int EW, const WinogradArgs* a, const real* m, Py_ssize_t k, real** y,
) noexcept nogil:
    """Transform kernels k to k + VL of a tile back and finish them."""
    cdef int MH = EH - 2 if EH > 1 else 1, MW = EW - 2
    cdef vf line[6]
    cdef vf half[24]
    cdef vf bias = vf_zero()
    cdef Py_ssize_t i, j, left = a.K - k
    if a.bias != NULL:
        bias = vf_load_part(a.bias + k, left)
    for j in range(EW):
        for i in range(EH):
            line[i] = vf_load(m + (i * EW + j) * a.m_element + k)
        transform_output(EH, line, 1, half + j, EW)
    for i in range(MH):
        transform_output(EW, half + i * EW, 1, line, 1)
        for j in range(MW):
            line[j] = vf_add(line[j], bias)
            if a.flags & RELU:
                line[j] = vf_max(vf_zero(), line[j])
            if left >= VL:
                vf_store(y[i * MW + j] + k, line[j])
            else:
                vf_store_part(y[i * MW + j] + k, line[j], left)


cdef inline void output_tiles(
    int EH, int EW, const WinogradArgs* a, Py_ssize_t first, Py_ssize_t count, const real* M,
    char* scratch,
) noexcept nogil:
    """y = activation(A^T M A + bias) of tiles first to first + count."""
    cdef real* y[16]
    cdef Py_ssize_t t, k
    cdef Place at
    for t in range(count):
        at = place_of(&a.tiles, first + t)
        output_pointers(EH - 2 if EH > 1 else 1, EW - 2, a, &at, <real*>(scratch + a.at_spare), y)
        for k in range((a.K + VL - 1) // VL):
            if k * VL * sizeof(real) % 64 == 0:
                fetch_outputs(EH - 2 if EH > 1 else 1, EW - 2, a, k * VL, y)
            output_vector(EH, EW, a, M + t * a.m_pitch, k * VL, y)


cdef void transform_back(
    const WinogradArgs* a, Py_ssize_t first, Py_ssize_t count, const real* M, char* scratch,
) noexcept nogil:
    """`output_tiles` for the size of tile at hand."""
    if a.tiles.EH == 6:
        output_tiles(6, 6, a, first, count, M, scratch)
    elif a.tiles.EH == 4:
        output_tiles(4, 4, a, first, count, M, scratch)
    else:
        output_tiles(1, 6, a, first, count, M, scratch)


cdef void transform(
    const WinogradArgs* a, Py_ssize_t first, Py_ssize_t count, real* V,
) noexcept nogil:
    """V = B^T x B of tiles first to first + count."""
    cdef Part part = whole(&a.tiles)
    transform_tiles(&a.tiles, a.x, first, count, &part, V)


cdef void winograd(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """One job is a block of tiles, from x to y."""
    cdef const WinogradArgs* a = <const WinogradArgs*>args
    cdef Py_ssize_t e, first = a.first + job * a.block
    cdef Py_ssize_t count = min(a.block, a.first + a.count - first)
    cdef real* V = <real*>(scratch + a.at_v)
    cdef real* M = <real*>(scratch + a.at_m)
    transform(a, first, count, V)
    for e in range(a.tiles.EH * a.tiles.EW):
        multiply_tiles(a, e, count, V, M, 0, (a.K + NR - 1) // NR, scratch)
    transform_back(a, first, count, M, scratch)


cdef void winograd_input(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """One job is a block of tiles, from x to V."""
    cdef const WinogradArgs* a = <const WinogradArgs*>args
    cdef Py_ssize_t t = job * a.block
    transform(a, a.first + t, min(a.block, a.count - t), a.v + t * a.tiles.pitch)


cdef void winograd_multiply(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """One job is one element of all tiles and `panels` panels of kernels, from V to M."""
    cdef const WinogradArgs* a = <const WinogradArgs*>args
    cdef Py_ssize_t all_panels = (a.K + NR - 1) // NR
    cdef Py_ssize_t splits = (all_panels + a.panels - 1) // a.panels
    cdef Py_ssize_t p = job % splits * a.panels
    multiply_tiles(a, job // splits, a.count, a.v, a.m, p, min(a.panels, all_panels - p), scratch)


cdef void winograd_panels(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """One job is all elements of all tiles and `panels` panels, whose weights it transforms.

    They pass through the cache in blocks of channels, and never through memory.
    """
    cdef const WinogradArgs* a = <const WinogradArgs*>args
    cdef const Tiles* v = &a.tiles
    cdef real* u = <real*>(scratch + a.at_u)
    cdef Py_ssize_t td, c, e, p, channels, flags = 0
    cdef Py_ssize_t first = job * a.panels, last = min((a.K + NR - 1) // NR, first + a.panels)
    for td in range(v.TD):
        c = 0
        while c < v.C:
            channels = min(a.channel_block, v.C - c)
            for p in range(first, last):
                transform_weights(a, p, td, c, channels, u + (p - first) * channels * NR,
                                  a.u_element, <real*>(scratch + a.at_gathered))
            for e in range(v.EH * v.EW):
                list_tiles(a, a.count, a.v + e * v.element + td * v.C + c, a.m + e * a.m_element,
                           scratch)
                fetch_tiles(a, a.v + (e + 1) * v.element + td * v.C + c, channels,
                            a.m + (e + 1) * a.m_element + first * NR, (last - first) * NR)
                for p in range(first, last):
                    multiply_panel(<real**>scratch, <real**>(scratch + a.at_y), a.count, channels,
                                   u + e * a.u_element + (p - first) * channels * NR, p * NR,
                                   a.K - p * NR, flags)
            flags = ACCUMULATE
            c = c + channels


cdef void winograd_output(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """One job is a block of tiles, from M to y."""
    cdef const WinogradArgs* a = <const WinogradArgs*>args
    cdef Py_ssize_t t = job * a.block
    transform_back(a, a.first + t, min(a.block, a.count - t), a.m + t * a.m_pitch, scratch)


SLOTS = (
    "source* offset* zeros* D H W C OD OH OW SD TD LD LH rows columns EH EW pitch element "
    "x* w* tap* bias* y* u* v* m* ST SC SK K flags first count block panels channel_block "
    "u_element m_pitch m_element at_y at_spare at_gathered at_u at_v at_m"
)
JOBS = {
    "winograd": publish(<void*>winograd, sizeof(WinogradArgs), SLOTS),
    "winograd_weight": publish(<void*>winograd_weight, sizeof(WinogradArgs), SLOTS),
    "winograd_input": publish(<void*>winograd_input, sizeof(WinogradArgs), SLOTS),
    "winograd_multiply": publish(<void*>winograd_multiply, sizeof(WinogradArgs), SLOTS),
    "winograd_panels": publish(<void*>winograd_panels, sizeof(WinogradArgs), SLOTS),
    "winograd_output": publish(<void*>winograd_output, sizeof(WinogradArgs), SLOTS),
}
