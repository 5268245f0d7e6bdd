"""Weight gradient of a convolution or dense layer, and the bias gradient on the way.

    dweight[t, c, k] = sum over n, o of x[n, o * S + offset[t], c] * dy[n, o, k]
    dbias[k]         = sum over n, o of dy[n, o, k]

A job sums one chunk of pixel blocks for one block of channels and some panels of kernels: it copies
the input under a block into a slab (window.pxd), often in lanes of MR channels, and dy into panels
of NR columns, unless they can be read where they are, and adds their product to its sums in
register tiles, the pixels running inside.  The last block writes what has been summed to dweight;
until then the sums are the job's own, panel by panel.  (In dweight, parts of other threads lie
between its rows, a cache line or two away, and whoever fetches ahead fetches those.)

Where dweight has too few parts for all threads, the pixels are cut in S chunks (a number that never
follows from how many threads there are), each with a partial sum of its own, added up in order by
`sum_partials`.  Of a 1x1 kernel, x and dy may change places; the partial sums are then transposed.

Loop nest of a job:  block of pixels > panel of NR kernels > lane > run of taps > tile of MR rows >
pixels.
"""
from libc.stdint cimport int64_t

from cycnn.kernels.ahead cimport LINE, Ahead, look_ahead, one_by_one
from cycnn.kernels.outer cimport STRIP, accumulate_outer, accumulate_pairs
from cycnn.kernels.reduce cimport column_sum
from cycnn.kernels.simd cimport (
    MR, NR, VL, prefetch, publish, real, vf, vf_add, vf_load, vf_load_part, vf_store,
    vf_store_part, vf_zero,
)
from cycnn.kernels.tail cimport load, store
from cycnn.kernels.tile cimport ACCUMULATE
from cycnn.kernels.transpose cimport LANES, transpose
from cycnn.kernels.window cimport (
    Block, Window, Windows, block_at, fill_slab, rows_merge, set_channels, set_lanes, tap_at,
    windows_in_place, windows_of,
)


cdef struct WeightGradientArgs:
    Window window
    const real* dy              # IN   (N, OD, OH, OW, K)
    real* dweight               # OUT  (S, T, C, K), S partial sums
    real* dbias                 # OUT  (S, K) or NULL
    Py_ssize_t K, groups, channel_block
    Py_ssize_t blocks           # of pixels
    Py_ssize_t chunks           # S
    Py_ssize_t panels           # of NR kernels, in one job
    Py_ssize_t in_place         # 1: full panels of dy are read where they are
    Py_ssize_t swapped          # 1: x and dy have changed places, for a matrix product
    Py_ssize_t lanes            # 1: the slab is in lanes
    Py_ssize_t at_taps, at_rows, at_dy, at_spare, at_slab, at_sums  # bytes into scratch


cdef void list_pixels(const Block* b, const Windows* at, Py_ssize_t* offset) noexcept nogil:
    """Write where the window of each pixel of the block begins, from that of the first."""
    cdef Py_ssize_t i, oh, ow, count = 0
    for i in range(b.planes):
        for oh in range(b.rows):
            for ow in range(b.columns):
                offset[count] = i * at.plane_step + oh * at.row_step + ow * at.step
                count = count + 1


cdef void pack_dy(
    const real* dy, Py_ssize_t pixels, Py_ssize_t K, Py_ssize_t columns, real* packed,
) noexcept nogil:
    """packed[p, j] = dy[p, j] for j < columns, 0 up to NR."""
    cdef Py_ssize_t _p
    if columns >= NR:
        for _p in range(pixels):
            vf_store(packed, vf_load(dy))
            vf_store(packed + VL, vf_load(dy + VL))
            dy = dy + K
            packed = packed + NR
    else:
        for _p in range(pixels):
            vf_store(packed, vf_load_part(dy, columns))
            vf_store(packed + VL,
                     vf_load_part(dy + VL, columns - VL) if columns > VL else vf_zero())
            dy = dy + K
            packed = packed + NR


cdef void sum_columns(
    const real* dy, Py_ssize_t step, Py_ssize_t pixels, Py_ssize_t columns, bint first, real* dbias,
) noexcept nogil:
    """dbias[j] (+)= sum over p of dy[p * step + j]."""
    cdef Py_ssize_t j = 0, n
    while j < columns:
        n = min(columns - j, <Py_ssize_t>VL)
        store(dbias + j, column_sum(dy + j, step, pixels, n,
                                    vf_zero() if first else load(dbias + j, n)), n)
        j = j + VL


cdef inline void tile(
    bint wide, const real* x, const Py_ssize_t* offset, Py_ssize_t pixels, Py_ssize_t rows,
    const real* dy, Py_ssize_t step, Ahead* ahead,
    real* sums, real** dw, Py_ssize_t column, Py_ssize_t columns, Py_ssize_t flags,
) noexcept nogil:
    """Add the products of at most MR rows, in the lowest tile that holds them.

    Half a panel of six rows is few sums: with sixteen registers, it goes in pairs in any tile.
    """
    if not wide and MR < 12 and rows > 2 * (MR // 3):
        accumulate_pairs(
            MR, wide, x, offset, pixels, dy, step, ahead, sums, dw, column, columns, flags)
    elif not wide and MR < 12 and rows > MR // 2:
        accumulate_pairs(
            2 * (MR // 3), wide, x, offset, pixels, dy, step, ahead, sums, dw, column, columns,
            flags)
    elif rows > MR - MR // 4:
        accumulate_outer(
            MR, wide, x, offset, pixels, dy, step, ahead, sums, dw, column, columns, flags)
    elif rows > 2 * (MR // 3):
        accumulate_outer(
            MR - MR // 4, wide, x, offset, pixels, dy, step, ahead, sums, dw, column, columns,
            flags)
    elif rows > MR // 2:
        accumulate_outer(
            2 * (MR // 3), wide, x, offset, pixels, dy, step, ahead, sums, dw, column, columns,
            flags)
    elif rows > MR // 3:
        accumulate_pairs(
            MR // 2, wide, x, offset, pixels, dy, step, ahead, sums, dw, column, columns, flags)
    else:
        accumulate_pairs(
            MR // 3, wide, x, offset, pixels, dy, step, ahead, sums, dw, column, columns, flags)


cdef inline void fetch_rows(real** dw, Py_ssize_t column, Py_ssize_t columns) noexcept nogil:
    """Ask for the rows of a tile: dw lies far away, unlike sums."""
    cdef Py_ssize_t i
    for i in range(MR):
        prefetch(dw[i] + column)
        if columns > LINE and NR > LINE:
            prefetch(dw[i] + column + LINE)


cdef void tiles(
    const real* x, const Py_ssize_t* offset, Py_ssize_t pixels, Py_ssize_t rows,
    const real* dy, Py_ssize_t step, Ahead* ahead,
    real* sums, real** dw, Py_ssize_t column, Py_ssize_t columns, Py_ssize_t flags,
) noexcept nogil:
    """Add the products of `rows` consecutive inputs of each window with one panel of dy."""
    cdef Py_ssize_t i = 0
    if dw != NULL:
        fetch_rows(dw, column, columns)
    while i < rows:
        if dw != NULL and i + MR < rows:        # few pixels are done before their rows are here
            fetch_rows(dw + i + MR, column, columns)
        if columns > VL:
            tile(True, x + i, offset, pixels, rows - i, dy, step, ahead,
                 sums + i * NR, NULL if dw == NULL else dw + i, column, columns, flags)
        else:
            tile(False, x + i, offset, pixels, rows - i, dy, step, ahead,
                 sums + i * NR, NULL if dw == NULL else dw + i, column, columns, flags)
        i = i + MR


cdef Py_ssize_t list_rows(
    const WeightGradientArgs* a, Py_ssize_t merged, Py_ssize_t channel, Py_ssize_t channels,
    real* dweight, real* spare, real** rows,
) noexcept nogil:
    """Write where each row (tap, channel) is in dweight, in the order of the loops.

    The rows of a run of taps are filled up to a multiple of MR.  Return how many there are.
    """
    cdef const Window* v = &a.window
    cdef Py_ssize_t lane = MR if a.lanes else channels, C = v.C // a.groups, first = 0, t, u, c, i
    cdef Py_ssize_t count = 0
    while first < channels:
        for t in range(v.TD * v.TH * v.TW // merged):
            i = 0
            for u in range(t * merged, (t + 1) * merged):
                for c in range(first, min(first + lane, channels)):
                    rows[count + i] = dweight + (u * C + channel + c) * a.K
                    i = i + 1
            while i % MR:
                rows[count + i] = spare
                i = i + 1
            count = count + i
        first = first + lane
    return count


cdef void list_taps(
    const Window* v, const Block* b, Py_ssize_t merged, Py_ssize_t* taps,
) noexcept nogil:
    """Write how far each run of taps lies from the beginning of its window."""
    cdef Py_ssize_t td, th, tw, count = 0
    for td in range(v.TD):
        for th in range(v.TH):
            for tw in range(v.TW // merged):
                taps[count] = tap_at(v, b, td, th, tw * merged)
                count = count + 1


cdef Ahead next_pixels(
    const Window* v, Py_ssize_t index, Py_ssize_t end, Py_ssize_t channel, Py_ssize_t channels,
    Py_ssize_t pixels, Py_ssize_t times,
) noexcept nogil:
    """Return what block `index`, if there is one, will read of x: its first plane, with one tap.

    The windows of larger kernels overlap; most of what they read is in the cache.
    """
    cdef Block b = block_at(v, min(index, end - 1))
    cdef const int64_t* source_h = v.source + v.LD + b.row * v.SH
    cdef const int64_t* source_w = v.source + v.LD + v.LH + b.column * v.SW
    cdef Py_ssize_t n = b.plane // v.OD, d, step
    cdef Ahead ahead
    cdef Windows at
    if v.source == NULL:
        at = windows_in_place(v, &b, channel)
        ahead = look_ahead(at.origin, at.step, channels, pixels, times)
        ahead.columns = b.columns
        ahead.jump = at.row_step - b.columns * at.step
        return ahead
    d = v.source[(b.plane - n * v.OD) * v.SD]
    if index == end or v.TD * v.TH * v.TW > 1 or d < 0 or source_h[0] < 0 or source_w[0] < 0:
        return look_ahead(v.x, 0, 0, 0, times)
    step = source_w[1] - source_w[0] if b.columns > 1 else 0
    ahead = look_ahead(
        v.x + (((n * v.D + d) * v.H + source_h[0]) * v.W + source_w[0]) * v.C + channel,
        step * v.C, channels, b.rows * b.columns, times)
    ahead.columns = b.columns
    if b.rows > 1:
        ahead.jump = ((source_h[1] - source_h[0]) * v.W - b.columns * step) * v.C
    return ahead


cdef void weight_gradient(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """One job is one chunk of pixel blocks, one channel block and `panels` panels of one group."""
    cdef const WeightGradientArgs* a = <const WeightGradientArgs*>args
    cdef const Window* v = &a.window
    cdef Py_ssize_t T = v.TD * v.TH * v.TW, C = v.C // a.groups, K = a.K // a.groups
    cdef Py_ssize_t all_panels = (K + NR - 1) // NR
    cdef Py_ssize_t splits = (all_panels + a.panels - 1) // a.panels
    cdef Py_ssize_t channel_blocks = (C + a.channel_block - 1) // a.channel_block
    cdef Py_ssize_t split = job % splits, cb = job // splits % channel_blocks
    cdef Py_ssize_t g = job // (splits * channel_blocks) % a.groups
    cdef Py_ssize_t chunk = job // (splits * channel_blocks * a.groups)
    cdef Py_ssize_t index = chunk * a.blocks // a.chunks, end = (chunk + 1) * a.blocks // a.chunks
    cdef Py_ssize_t c = cb * a.channel_block, channels = min(a.channel_block, C - c)
    cdef Py_ssize_t merged = v.TW if rows_merge(v) and not a.lanes else 1, runs = T // merged
    cdef Py_ssize_t lane = MR if a.lanes else channels, lanes = (channels + lane - 1) // lane
    cdef Py_ssize_t first = split * a.panels, last = min(all_panels, first + a.panels)
    cdef Py_ssize_t i, t, p, pixels, columns, flags, strips, width, count, row
    cdef Ahead[2] ahead         # of the next block, dy and x
    cdef const real* dy
    cdef const real* panel
    cdef Py_ssize_t step
    cdef Py_ssize_t* offset = <Py_ssize_t*>scratch
    cdef Py_ssize_t* taps = <Py_ssize_t*>(scratch + a.at_taps)
    cdef real** rows = <real**>(scratch + a.at_rows)
    cdef real* sums = <real*>(scratch + a.at_sums)
    cdef real* packed = <real*>(scratch + a.at_dy)
    cdef real* slab = <real*>(scratch + a.at_slab)
    cdef Block b, listed
    cdef Windows at
    listed.planes = listed.rows = listed.columns = 0
    count = list_rows(a, merged, c, channels, a.dweight + chunk * T * C * a.K + g * K,
                      <real*>(scratch + a.at_spare), rows)
    flags = 0
    while index < end:
        b = block_at(v, index)
        if a.lanes:
            set_lanes(v, &b, channels)
        else:
            set_channels(v, &b, channels)
        if v.copy:
            fill_slab(v, &b, g * C + c, slab)
        at = windows_of(v, &b, g * C + c, slab)
        # Windows lie alike in blocks of one shape.
        if b.planes != listed.planes or b.rows != listed.rows or b.columns != listed.columns:
            list_pixels(&b, &at, offset)
            list_taps(v, &b, merged, taps)
            listed = b
        pixels = b.planes * b.rows * b.columns
        if a.dbias != NULL and a.swapped and split == 0:
            for i in range(lanes):
                sum_columns(at.origin + i * b.lane_step, at.row_step, pixels,
                            min(lane, channels - i * lane), flags == 0,
                            a.dbias + chunk * v.C + g * C + c + i * lane)
        dy = a.dy + ((b.plane * v.OH + b.row) * v.OW + b.column) * a.K + g * K + first * NR
        strips = (lanes * runs * ((merged * lane + MR - 1) // MR)
                  * ((pixels + STRIP - 1) // STRIP))
        # All panels of dy at once: memory is read in order.
        ahead[0] = look_ahead(dy + pixels * a.K, a.K, min(last * NR, K) - first * NR, pixels,
                              strips * (last - first))
        ahead[1] = next_pixels(v, index + 1, end, g * C + c, channels, pixels,
                               strips * (last - first))
        one_by_one(ahead)
        for p in range(first, last):
            columns = min(<Py_ssize_t>NR, K - p * NR)
            panel = dy + (p - first) * NR
            step = a.K
            if columns < NR or not a.in_place:
                pack_dy(panel, pixels, a.K, columns, packed)
                panel = packed
                step = NR
            if a.dbias != NULL and not a.swapped and cb == 0:
                sum_columns(panel, step, pixels, columns, flags == 0,
                            a.dbias + chunk * a.K + g * K + p * NR)
            row = 0
            for i in range(lanes):
                width = merged * min(lane, channels - i * lane)
                for t in range(runs):
                    tiles(at.origin + i * b.lane_step + taps[t], offset, pixels, width, panel,
                          step, ahead, sums + ((p - first) * count + row) * NR,
                          rows + row if index + 1 == end else NULL, p * NR, columns, flags)
                    row = row + (width + MR - 1) // MR * MR
        flags = ACCUMULATE
        index = index + 1


cdef struct SumPartialsArgs:
    const real* partial         # IN   (count, size)
    real* total                 # OUT  (size,)
    Py_ssize_t count, size
    Py_ssize_t block            # elements of one job


cdef void sum_partials(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """total[i] = sum over s of partial[s, i], s in order.  One job is `block` elements."""
    cdef const SumPartialsArgs* a = <const SumPartialsArgs*>args
    cdef Py_ssize_t i = job * a.block, end = min(a.size, i + a.block), s
    cdef vf sum
    while i < end:
        sum = vf_load_part(a.partial + i, end - i)
        for s in range(1, a.count):
            sum = vf_add(sum, vf_load_part(a.partial + s * a.size + i, end - i))
        vf_store_part(a.total + i, sum, end - i)
        i = i + VL


cdef enum:
    TURNED = 16                 # rows of total in one job, as in ops/partials.py


cdef struct SumTransposedArgs:
    const real* partial         # IN   (count, columns, rows)
    real* total                 # OUT  (rows, columns)
    Py_ssize_t count, rows, columns


cdef void sum_transposed(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """total[i, j] = sum over s of partial[s, j, i], s in order.  One job: TURNED rows of total."""
    cdef const SumTransposedArgs* a = <const SumTransposedArgs*>args
    cdef Py_ssize_t first = job * TURNED, last = min(a.rows, first + TURNED), i, j, k, _s, at = 0
    cdef const real* p
    cdef vf[LANES] sum
    while at < a.columns:
        i = first
        while i < last:
            for j in range(min(<Py_ssize_t>VL, a.columns - at)):
                p = a.partial + (at + j) * a.rows + i
                sum[j] = vf_load_part(p, last - i)
                for _s in range(1, a.count):
                    p = p + a.rows * a.columns
                    sum[j] = vf_add(sum[j], vf_load_part(p, last - i))
            for j in range(a.columns - at, VL):
                sum[j] = vf_zero()
            transpose(sum)
            for k in range(min(<Py_ssize_t>VL, last - i)):
                vf_store_part(a.total + (i + k) * a.columns + at, sum[k], a.columns - at)
            i = i + VL
        at = at + VL


JOBS = {
    "weight_gradient": publish(<void*>weight_gradient, sizeof(WeightGradientArgs), (
        "x* offset* source* D H W C OD OH OW SD SH SW TD TH TW LD LH LW "
        "planes block_planes block_rows block_columns copy "
        "dy* dweight* dbias* K groups channel_block blocks chunks panels in_place swapped "
        "lanes at_taps at_rows at_dy at_spare at_slab at_sums")),
    "sum_partials": publish(<void*>sum_partials, sizeof(SumPartialsArgs),
                            "partial* total* count size block"),
    "sum_transposed": publish(<void*>sum_transposed, sizeof(SumTransposedArgs),
                              "partial* total* count rows columns"),
}
