"""Winograd weight gradient, and the bias gradient on the way.

    dw = G^T [ sum over tiles of (A dy A^T) * (B^T x B) ] G

the gradient of the forward formula (winograd_transforms.pxd).  A job sums one chunk of the tiles
for one block of channels and some panels of NR kernels, in memory of its own: block after block of
tiles it transforms x, and panel by panel it transforms dy and adds the products of all elements to
its accumulator (panels, E, channels, NR).  In the end it transforms the accumulator back, to a
partial sum of dweight.  The number of chunks follows from the shape alone; `sum_partials` adds them
up in order.

Threads share nothing but x and dy, which are read once for each block of the other's: an
accumulator for all, with a barrier after each block of tiles, gained next to nothing from a
second thread.
"""
from cycnn.kernels.ahead cimport Ahead
from cycnn.kernels.outer cimport accumulate_outer
from cycnn.kernels.simd cimport (
    MR, NR, VL, prefetch, publish, real, vf, vf_add, vf_load, vf_load_part, vf_store, vf_store_part,
    vf_zero,
)
from cycnn.kernels.tile cimport ACCUMULATE
from cycnn.kernels.winograd_tiles cimport Part, Place, Tiles, place_of, transform_tiles
from cycnn.kernels.winograd_transforms cimport transform_output_gradient, transform_weight_gradient


cdef struct GradientArgs:
    Tiles tiles
    const real* x               # IN   (N, D, H, W, C)
    const real* dy              # IN   (N, OD, OH, OW, K)
    real* dweight               # OUT  (chunks, TD, KH * KW, C, K), partial sums
    real* dbias                 # OUT  (chunks, K) or NULL
    Py_ssize_t K
    Py_ssize_t number           # of tiles
    Py_ssize_t chunks
    Py_ssize_t block            # tiles at a time
    Py_ssize_t channel_block
    Py_ssize_t panels           # of NR kernels, in one job
    Py_ssize_t g_element        # elements from one element of a tile of dy to the next
    Py_ssize_t sum_element, sum_panel           # likewise in the accumulator
    Py_ssize_t at_dy, at_v, at_g, at_accumulator        # bytes into scratch


cdef inline void output_gradient_vector(
    int EH, int EW, const real** dy, Py_ssize_t k, Py_ssize_t left, real* g, Py_ssize_t element,
    real* dbias,
) noexcept nogil:
    """Transform kernels k to k + VL of a tile of dy, of which `left` are there; add up dbias."""
    cdef int MH = EH - 2 if EH > 1 else 1, MW = EW - 2
    cdef vf line[6]
    cdef vf half[24]
    cdef vf total = vf_zero()
    cdef Py_ssize_t i, j
    for j in range(MW):
        for i in range(MH):
            line[i] = vf_load(dy[i * MW + j] + k) if left >= VL else vf_load_part(
                dy[i * MW + j] + k, left)
            total = vf_add(total, line[i])
        transform_output_gradient(EH, line, 1, half + j, MW)
    for i in range(EH):
        transform_output_gradient(EW, half + i * MW, 1, line, 1)
        for j in range(EW):
            vf_store(g + (i * EW + j) * element, line[j])
    if dbias != NULL:
        vf_store_part(dbias + k, vf_add(vf_load_part(dbias + k, left), total), left)


cdef void list_outputs(
    const GradientArgs* a, Py_ssize_t first, Py_ssize_t count, const real** dy,
) noexcept nogil:
    """Write where the pixels of dy in each tile are, zeros for those beyond the image."""
    cdef const Tiles* v = &a.tiles
    cdef Py_ssize_t MH = v.EH - 2 if v.EH > 1 else 1, MW = v.EW - 2
    cdef Py_ssize_t t, i, j, oh, ow
    cdef const real* pixel
    cdef Place at
    for t in range(first, first + count):
        at = place_of(v, t)
        oh = at.row * MH
        ow = at.column * MW
        pixel = a.dy + ((at.plane * v.OH + oh) * v.OW + ow) * a.K
        for i in range(MH):
            for j in range(MW):
                dy[0] = v.zeros
                if oh + i < v.OH and ow + j < v.OW:
                    dy[0] = pixel + (i * v.OW + j) * a.K
                dy = dy + 1


cdef inline void output_gradient_panel(
    int EH, int EW, const real** dy, Py_ssize_t count, Py_ssize_t k, Py_ssize_t K, real* g,
    Py_ssize_t element, real* dbias,
) noexcept nogil:
    """g[e, t, j] = (A dy A^T)[e] of tile t, kernel k + j."""
    cdef Py_ssize_t outputs = (EH - 2 if EH > 1 else 1) * (EW - 2), t, i
    cdef const real** ahead
    for t in range(count):
        # A line of each pixel of the tile after next: strides of K are not foreseen.
        ahead = dy + min(t + 2, count - 1) * outputs
        for i in range(outputs):
            prefetch(ahead[i] + k)
        output_gradient_vector(EH, EW, dy + t * outputs, k, K - k, g + t * NR, element, dbias)
        if K - k > VL:
            output_gradient_vector(EH, EW, dy + t * outputs, k + VL, K - k - VL,
                                   g + t * NR + VL, element, dbias)


cdef void transform_panel(
    const GradientArgs* a, const real** dy, Py_ssize_t count, Py_ssize_t k, real* g, real* dbias,
) noexcept nogil:
    """`output_gradient_panel` for the size of tile at hand."""
    if a.tiles.EH == 6:
        output_gradient_panel(6, 6, dy, count, k, a.K, g, a.g_element, dbias)
    elif a.tiles.EH == 4:
        output_gradient_panel(4, 4, dy, count, k, a.K, g, a.g_element, dbias)
    else:
        output_gradient_panel(1, 6, dy, count, k, a.K, g, a.g_element, dbias)


cdef inline void accumulate_rows(
    int rows, bint wide, const real* x, const Py_ssize_t* offset, Py_ssize_t count, const real* g,
    real* sum, Py_ssize_t flags,
) noexcept nogil:
    cdef Ahead[2] none          # x and g are in the cache
    none[0].times = none[1].times = 0
    accumulate_outer(rows, wide, x, offset, count, g, NR, none, sum, NULL, 0, 0, flags)


cdef inline void accumulate_panel(
    bint wide, const real* x, const Py_ssize_t* offset, Py_ssize_t count, Py_ssize_t rows,
    const real* g, real* sum, Py_ssize_t flags,
) noexcept nogil:
    """sum[i, j] (+)= sum over t of x[offset[t] + i] * g[t, j], for `rows` rows i."""
    cdef Py_ssize_t i = 0
    while i < rows:
        if rows - i > 2 * (MR // 3):
            accumulate_rows(MR, wide, x + i, offset, count, g, sum + i * NR, flags)
        elif rows - i > MR // 3:
            accumulate_rows(2 * (MR // 3), wide, x + i, offset, count, g, sum + i * NR, flags)
        else:
            accumulate_rows(MR // 3, wide, x + i, offset, count, g, sum + i * NR, flags)
        i = i + MR


cdef inline void weight_gradient_vector(
    int KH, int EH, int EW, const real* sum, Py_ssize_t element, real* dweight, Py_ssize_t tap,
    Py_ssize_t left,
) noexcept nogil:
    """Transform one vector of kernels of the accumulator back, to KH * 3 taps."""
    cdef vf line[6]
    cdef vf half[18]
    cdef Py_ssize_t i, j
    for j in range(EW):
        for i in range(EH):
            line[i] = vf_load(sum + (i * EW + j) * element)
        transform_weight_gradient(EH, line, 1, half + j, EW)
    for i in range(KH):
        transform_weight_gradient(EW, half + i * EW, 1, line, 1)
        for j in range(3):
            vf_store_part(dweight + (i * 3 + j) * tap, line[j], left)


cdef void transform_back(
    const GradientArgs* a, const real* accumulator, Py_ssize_t channels, Py_ssize_t first,
    Py_ssize_t end, real* dweight,
) noexcept nogil:
    """dweight[tap, c, k] = (G^T accumulator G)[tap], c from 0 on, k from `first` up to `end`."""
    cdef Py_ssize_t c, k, tap = a.tiles.C * a.K
    cdef const real* sum
    for c in range(channels):
        k = first
        while k < end:
            sum = accumulator + (k - first) // NR * a.sum_panel + c * NR + k % NR
            if a.tiles.EH == 6:
                weight_gradient_vector(3, 6, 6, sum, a.sum_element, dweight + k, tap, a.K - k)
            elif a.tiles.EH == 4:
                weight_gradient_vector(3, 4, 4, sum, a.sum_element, dweight + k, tap, a.K - k)
            else:
                weight_gradient_vector(1, 1, 6, sum, a.sum_element, dweight + k, tap, a.K - k)
            k = k + VL
        dweight = dweight + a.K


cdef void winograd_gradient(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """One job is one chunk of the tiles, one depth tap, one block of channels and `panels` panels.
    """
    cdef const GradientArgs* a = <const GradientArgs*>args
    cdef const Tiles* v = &a.tiles
    cdef Py_ssize_t blocks = (v.C + a.channel_block - 1) // a.channel_block
    cdef Py_ssize_t splits = ((a.K + NR - 1) // NR + a.panels - 1) // a.panels
    cdef Py_ssize_t first = job % splits * a.panels * NR, last = min(first + a.panels * NR, a.K)
    cdef Py_ssize_t rest = job // splits, chunk = rest // (v.TD * blocks)
    cdef Py_ssize_t taps = 3 if v.EH == 1 else 9
    cdef Py_ssize_t t = chunk * a.number // a.chunks, end = (chunk + 1) * a.number // a.chunks
    cdef Py_ssize_t i, k, e, count, flags = 0
    cdef Py_ssize_t* offset = <Py_ssize_t*>scratch      # of each tile in V
    cdef const real** dy = <const real**>(scratch + a.at_dy)
    cdef real* V = <real*>(scratch + a.at_v)
    cdef real* g = <real*>(scratch + a.at_g)
    cdef real* accumulator = <real*>(scratch + a.at_accumulator)
    cdef real* sum
    cdef real* dbias = NULL
    cdef Part part
    part.td = rest // blocks % v.TD
    part.taps = 1
    part.c = rest % blocks * a.channel_block
    part.channels = min(a.channel_block, v.C - part.c)
    if a.dbias != NULL and part.td == 0 and part.c == 0:
        dbias = a.dbias + chunk * a.K
        for k in range(first, last):
            dbias[k] = 0
    for i in range(a.block):
        offset[i] = i * v.pitch
    while t < end:
        count = min(a.block, end - t)
        transform_tiles(v, a.x, t, count, &part, V)
        list_outputs(a, t, count, dy)
        k = first
        while k < last:
            transform_panel(a, dy, count, k, g, dbias)
            for e in range(v.EH * v.EW):
                sum = accumulator + (k - first) // NR * a.sum_panel + e * a.sum_element
                if a.K - k > VL:
                    accumulate_panel(True, V + e * v.element, offset, count, part.channels,
                                     g + e * a.g_element, sum, flags)
                else:
                    accumulate_panel(False, V + e * v.element, offset, count, part.channels,
                                     g + e * a.g_element, sum, flags)
            k = k + NR
        flags = ACCUMULATE
        t = t + count
    transform_back(a, accumulator, part.channels, first, last, a.dweight
                   + ((chunk * v.TD + part.td) * taps * v.C + part.c) * a.K)


JOBS = {
    "winograd_gradient": publish(<void*>winograd_gradient, sizeof(GradientArgs), (
        "source* offset* zeros* D H W C OD OH OW SD TD LD LH rows columns EH EW pitch element "
        "x* dy* dweight* dbias* K number chunks block channel_block panels "
        "g_element sum_element sum_panel at_dy at_v at_g at_accumulator")),
}
