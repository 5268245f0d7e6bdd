"""Winograd weight gradient, and the bias gradient on the way.

    dw = G^T [ sum over tiles of (A dy A^T) * (B^T x B) ] G

the gradient of the forward formula (winograd_transforms.pxd).  One accumulator (E, TD * C, K) is
shared by all threads.  Run after run of tiles, all threads transform x and dy; then each job owns
a part of the accumulator and adds the run's products to it, tile after tile, so that the order of
every sum follows from the shape alone; in the end, the accumulator is transformed back.
"""
from cycnn.kernels.outer cimport Ahead, accumulate_outer
from cycnn.kernels.simd cimport (
    MR, NR, VL, publish, real, vf, vf_add, vf_load, vf_load_part, vf_store, vf_store_part, vf_zero,
)
from cycnn.kernels.tile cimport ACCUMULATE
from cycnn.kernels.winograd_tiles cimport Place, Tiles, place_of, transform_tiles
from cycnn.kernels.winograd_transforms cimport transform_output_gradient, transform_weight_gradient


cdef struct GradientArgs:
    Tiles tiles
    const real* x               # IN   (N, D, H, W, C)
    const real* dy              # IN   (N, OD, OH, OW, K)
    real* v                     # (E, count, TD * C), as Tiles says
    real* g                     # (E, panels, count, NR), A dy A^T
    real* sum                   # (E, TD * C, panels * NR), the accumulator
    real* dweight               # OUT  (TD, KH * KW, C, K)
    real* dbias                 # OUT  (runs of `block` tiles, K), a partial sum each, or NULL
    Py_ssize_t K
    Py_ssize_t first, count     # tiles of this step
    Py_ssize_t block            # tiles of a job that transforms
    Py_ssize_t panels           # of NR kernels, in a job that multiplies
    Py_ssize_t channel_block    # and rows of the accumulator
    Py_ssize_t g_panel, g_element, sum_element
    Py_ssize_t at_rows, at_spare                # bytes into scratch


cdef inline void output_gradient_vector(
    int EH, int EW, const GradientArgs* a, const real** dy, Py_ssize_t k, real* g, real* dbias,
) noexcept nogil:
    """Transform kernels k to k + VL of a tile of dy; add all its pixels to dbias."""
    cdef int MH = EH - 2 if EH > 1 else 1, MW = EW - 2
    cdef vf line[6]
    cdef vf half[24]
    cdef vf total = vf_zero()
    cdef Py_ssize_t i, j, left = a.K - k
    for j in range(MW):
        for i in range(MH):
            line[i] = vf_load(dy[i * MW + j] + k) if left >= VL else vf_load_part(
                dy[i * MW + j] + k, left)
            total = vf_add(total, line[i])
        transform_output_gradient(EH, line, 1, half + j, MW)
    for i in range(EH):
        transform_output_gradient(EW, half + i * MW, 1, line, 1)
        for j in range(EW):
            vf_store(g + (i * EW + j) * a.g_element, line[j])
    if dbias != NULL:
        vf_store_part(dbias + k, vf_add(vf_load_part(dbias + k, left), total), left)


cdef inline void output_gradient_tiles(
    int EH, int EW, const GradientArgs* a, Py_ssize_t t, Py_ssize_t end, real* dbias,
) noexcept nogil:
    """g[e, p, t, j] = (A dy A^T)[e] of kernel p * NR + j, for tiles t to end of this step."""
    cdef int MH = EH - 2 if EH > 1 else 1, MW = EW - 2
    cdef const real* dy[16]
    cdef const Tiles* v = &a.tiles
    cdef Py_ssize_t i, j, k, oh, ow
    cdef const real* first
    cdef Place at
    while t < end:
        at = place_of(v, a.first + t)
        oh = at.row * MH
        ow = at.column * MW
        first = a.dy + ((at.plane * v.OH + oh) * v.OW + ow) * a.K
        for i in range(MH):
            for j in range(MW):
                dy[i * MW + j] = v.zeros
                if oh + i < v.OH and ow + j < v.OW:
                    dy[i * MW + j] = first + (i * v.OW + j) * a.K
        for i in range((a.K + VL - 1) // VL):
            k = i * VL
            output_gradient_vector(EH, EW, a, dy, k,
                                   a.g + k // NR * a.g_panel + t * NR + k % NR, dbias)
        t = t + 1


cdef void winograd_gradient_input(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """One job is a block of tiles, from x to V."""
    cdef const GradientArgs* a = <const GradientArgs*>args
    cdef Py_ssize_t t = job * a.block
    transform_tiles(&a.tiles, a.x, a.first + t, min(a.block, a.count - t), a.v + t * a.tiles.pitch)


cdef void winograd_gradient_output(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """One job is a block of tiles, from dy to g, and their part of the bias gradient."""
    cdef const GradientArgs* a = <const GradientArgs*>args
    cdef Py_ssize_t t = job * a.block, end = min(a.count, t + a.block), k
    cdef real* dbias = NULL
    if a.dbias != NULL:
        dbias = a.dbias + (a.first + t) // a.block * a.K
        for k in range(a.K):
            dbias[k] = 0
    if a.tiles.EH == 6:
        output_gradient_tiles(6, 6, a, t, end, dbias)
    elif a.tiles.EH == 4:
        output_gradient_tiles(4, 4, a, t, end, dbias)
    else:
        output_gradient_tiles(1, 6, a, t, end, dbias)


cdef inline void accumulate_panel(
    real** x, Py_ssize_t count, Py_ssize_t rows, const real* g, real** sum, Py_ssize_t column,
    bint wide, Py_ssize_t flags,
) noexcept nogil:
    """sum[i][column + j] += sum over t of x[t][i] * g[t, j], for `rows` rows i."""
    cdef Py_ssize_t i = 0, left, columns = NR if wide else VL
    cdef Ahead[2] none          # V and g are in the cache
    none[0].times = none[1].times = 0
    while i < rows:
        left = rows - i
        if left > 2 * (MR // 3):
            if wide:
                accumulate_outer(MR, True, x, count, i, g, none, sum + i, column, columns, flags)
            else:
                accumulate_outer(MR, False, x, count, i, g, none, sum + i, column, columns, flags)
        elif left > MR // 3:
            if wide:
                accumulate_outer(2 * (MR // 3), True, x, count, i, g, none, sum + i, column,
                                 columns, flags)
            else:
                accumulate_outer(2 * (MR // 3), False, x, count, i, g, none, sum + i, column,
                                 columns, flags)
        elif wide:
            accumulate_outer(MR // 3, True, x, count, i, g, none, sum + i, column, columns, flags)
        else:
            accumulate_outer(MR // 3, False, x, count, i, g, none, sum + i, column, columns, flags)
        i = i + MR


cdef void winograd_accumulate(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """One job is one element, a block of channels and `panels` panels of the accumulator."""
    cdef const GradientArgs* a = <const GradientArgs*>args
    cdef Py_ssize_t all_panels = (a.K + NR - 1) // NR, C = a.tiles.TD * a.tiles.C
    cdef Py_ssize_t splits = (all_panels + a.panels - 1) // a.panels
    cdef Py_ssize_t blocks = (C + a.channel_block - 1) // a.channel_block
    cdef Py_ssize_t e = job // (splits * blocks), c = job // splits % blocks * a.channel_block
    cdef Py_ssize_t first = job % splits * a.panels, last = min(all_panels, first + a.panels)
    cdef Py_ssize_t rows = min(a.channel_block, C - c), t, p
    cdef real** x = <real**>scratch
    cdef real** sum = <real**>(scratch + a.at_rows)
    for t in range(a.count):
        x[t] = a.v + e * a.tiles.element + t * a.tiles.pitch + c
    for t in range(rows):
        sum[t] = a.sum + e * a.sum_element + (c + t) * all_panels * NR
    for t in range(rows, (rows + MR - 1) // MR * MR):
        sum[t] = <real*>(scratch + a.at_spare)
    for p in range(first, last):
        accumulate_panel(x, a.count, rows, a.g + e * a.g_element + p * a.g_panel, sum, p * NR,
                         a.K - p * NR > VL, 0 if a.first == 0 else ACCUMULATE)


cdef inline void weight_gradient_vector(
    int KH, int EH, int EW, const GradientArgs* a, const real* sum, real* dweight, Py_ssize_t left,
) noexcept nogil:
    """Transform one vector of kernels of the accumulator back, to KH * 3 taps."""
    cdef vf line[6]
    cdef vf half[18]
    cdef Py_ssize_t i, j, tap = a.tiles.C * a.K
    for j in range(EW):
        for i in range(EH):
            line[i] = vf_load(sum + (i * EW + j) * a.sum_element)
        transform_weight_gradient(EH, line, 1, half + j, EW)
    for i in range(KH):
        transform_weight_gradient(EW, half + i * EW, 1, line, 1)
        for j in range(3):
            vf_store_part(dweight + (i * 3 + j) * tap, line[j], left)


cdef void winograd_gradient_weight(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """One job is one row of the accumulator: a channel of one depth tap, all kernels."""
    cdef const GradientArgs* a = <const GradientArgs*>args
    cdef Py_ssize_t td = job // a.tiles.C, c = job % a.tiles.C, p, k
    cdef Py_ssize_t taps = 3 if a.tiles.EH == 1 else 9
    cdef const real* sum = a.sum + job * ((a.K + NR - 1) // NR) * NR
    cdef real* dweight = a.dweight + (td * taps * a.tiles.C + c) * a.K
    for p in range((a.K + VL - 1) // VL):
        k = p * VL
        if a.tiles.EH == 6:
            weight_gradient_vector(3, 6, 6, a, sum + k, dweight + k, a.K - k)
        elif a.tiles.EH == 4:
            weight_gradient_vector(3, 4, 4, a, sum + k, dweight + k, a.K - k)
        else:
            weight_gradient_vector(1, 1, 6, a, sum + k, dweight + k, a.K - k)


SLOTS = (
    "source* offset* zeros* D H W C OD OH OW SD TD LD LH rows columns EH EW pitch element "
    "x* dy* v* g* sum* dweight* dbias* K first count block panels channel_block "
    "g_panel g_element sum_element at_rows at_spare"
)
JOBS = {
    "winograd_gradient_input": publish(
        <void*>winograd_gradient_input, sizeof(GradientArgs), SLOTS),
    "winograd_gradient_output": publish(
        <void*>winograd_gradient_output, sizeof(GradientArgs), SLOTS),
    "winograd_accumulate": publish(<void*>winograd_accumulate, sizeof(GradientArgs), SLOTS),
    "winograd_gradient_weight": publish(
        <void*>winograd_gradient_weight, sizeof(GradientArgs), SLOTS),
}
