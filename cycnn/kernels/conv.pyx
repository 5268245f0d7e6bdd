"""Direct convolution: forward, and input gradient as the same sum over other tables.

    y[n, o, k] = activation(bias[k] + sum over t, c of x[n, o * S + offset[t], c] * w[t, c, k])

No im2col matrix: a job copies the input under its block of output pixels into a slab with the
border (window.pxd), in blocks of channels, and multiplies windows by packed weights in register
tiles (tile.pxd).  A tile's rows are any pixels of the block, so tiles are full on small images
too.  Partial sums over channel blocks wait in y; bias and activation follow the last block.
Where there is one block of pixels, each panel of weights is met once: its job packs it, block by
block of channels, in scratch memory, and no other thread waits for it or reads it.  For few pixels
weights are not packed at all (stream.pxd).

Loop nest of a job:  channel block > panels packed together > strip of pixels > panels of NR
kernels, up to two at a time > class of pixels > tile of pixels > taps.  There is one strip, but
where all panels stay in the first-level cache and x is read where it lies: there a few pixels at a
time meet the panels of a job, so that y is written in order.

The input gradient of few channels would leave most columns of a tile empty.  There a product with
all taps as columns, z[n, o, t, c] = sum over k of dy[n, o, k] * w[t, c, k], is folded.

Where the zero border is a large part of all windows (small images), pixels are grouped in classes
that have the same taps inside the image, and only these taps are computed.
"""
from libc.stdint cimport int64_t
from libc.string cimport memset

from cycnn.kernels.ahead cimport LINE, Ahead, look_ahead
from cycnn.kernels.packing cimport pack_panel
from cycnn.kernels.simd cimport MR, NR, VL, publish, real
from cycnn.kernels.stream cimport FEW, finish_row, stream
from cycnn.kernels.tile cimport (
    ACCUMULATE, FETCH, STEPS, Product, multiply_rows, tile_columns, tile_rows,
)
from cycnn.kernels.window cimport (
    Block, Window, Windows, block_at, fill_slab, rows_merge, set_channels, tap_at, windows_in_place,
    windows_of,
)

WINDOW_SLOTS = (
    "x* offset* source* D H W C OD OH OW SD SH SW TD TH TW LD LH LW "
    "planes block_planes block_rows block_columns copy "
)


cdef struct Weights:
    # How the weights of a sum lie in w: element (t, c, k) of group g at
    # tap[t] * ST + c * SC + k * SK + g * SG.
    const int64_t* tap          # IN   (T,), which tap of w is tap t
    Py_ssize_t ST, SC, SK, SG


cdef struct ConvArgs:
    Window window
    const real* w               # IN   packed, (G, CB, KP, taps, channels, NR); or as they are
    Weights weights             # how they are
    const real* bias            # IN   (K,) or NULL
    real* y                     # OUT  (N, YD, YH, YW, K); output o is at U + o * V
    Py_ssize_t YD, YH, YW, K
    Py_ssize_t UD, UH, UW
    Py_ssize_t VD, VH, VW
    Py_ssize_t groups, channel_block
    Py_ssize_t blocks           # of pixels
    Py_ssize_t panels           # of NR kernels, in one job
    Py_ssize_t flags            # of the tile, for the last sum
    Py_ssize_t fetch            # whether to fetch rows of y before they are written
    # Classes of pixels by the taps that lie inside the image; 0 of them: all pixels, all taps.
    Py_ssize_t classes
    const int64_t* class_pixels     # IN   (OH * OW,) positions oh * OW + ow, class by class
    const int64_t* class_start      # IN   (classes + 1,) into class_pixels
    const int64_t* class_taps       # IN   (...,) taps th * TW + tw, class by class
    const int64_t* class_tap_start  # IN   (classes + 1,) into class_taps
    Py_ssize_t at_y, at_classes, at_taps, at_spare, at_slab     # bytes into scratch
    Py_ssize_t at_weights       # where panels are packed; 0 where w is packed
    Py_ssize_t together         # panels packed at a time, or all
    Py_ssize_t strip            # pixels that meet a job's panels before the next ones do
    Py_ssize_t at_sums          # where FEW pixels at most are summed, w read where it lies; or 0


cdef struct Class:
    # Pixels whose windows have the same taps inside the image.
    real** x                    # one pointer per pixel, filled up to a multiple of MR
    real** y
    Py_ssize_t pixels
    int64_t* taps               # (offset in x, offset in w) for each run
    Py_ssize_t runs
    Py_ssize_t run              # its length


cdef inline void list_run(
    real* p, Py_ssize_t step_x, real* r, Py_ssize_t step_y, Py_ssize_t pixels, real** x, real** y,
) noexcept nogil:
    """Write the pointers of pixels at equal distances."""
    cdef Py_ssize_t i
    for i in range(pixels):
        x[i] = p
        y[i] = r
        p = p + step_x
        r = r + step_y


cdef Py_ssize_t list_pixels(
    const ConvArgs* a, const Block* b, Py_ssize_t cls, Py_ssize_t g, const Windows* at,
    real** x, real** y,
) noexcept nogil:
    """Write the pointers of a class's pixels; return how many there are."""
    cdef const Window* v = &a.window
    cdef Py_ssize_t i, j, q, n, oh, ow, count = 0
    cdef Py_ssize_t step = a.VW * a.K, row_step = a.VH * a.YW * a.K
    cdef Py_ssize_t image = a.YD * a.YH * a.YW * a.K
    cdef real* p
    cdef real* r
    cdef real* first = a.y + ((a.UD * a.YH + a.UH) * a.YW + a.UW) * a.K + g * (a.K // a.groups)
    if a.classes == 0:
        for i in range(b.planes):
            n = (b.plane + i) // v.OD
            r = first + n * image + (b.plane + i - n * v.OD) * a.VD * a.YH * a.YW * a.K
            r = r + b.row * row_step + b.column * step
            p = at.origin + i * at.plane_step
            if b.columns == 1:                      # a matrix product: one column of pixels
                list_run(p, at.row_step, r, row_step, b.rows, x + count, y + count)
            else:
                for j in range(b.rows):
                    list_run(p + j * at.row_step, at.step, r + j * row_step, step, b.columns,
                             x + count + j * b.columns, y + count + j * b.columns)
            count = count + b.rows * b.columns
    else:                                           # whole images, OD = 1
        for j in range(a.class_start[cls], a.class_start[cls + 1]):
            q = a.class_pixels[j]
            oh = q // v.OW
            ow = q - oh * v.OW
            p = at.origin + oh * at.row_step + ow * at.step
            r = first + b.plane * image + oh * row_step + ow * step
            for i in range(b.planes):
                x[count] = p + i * at.plane_step
                y[count] = r + i * image
                count = count + 1
    return count


cdef Py_ssize_t list_taps(
    const ConvArgs* a, const Block* b, Py_ssize_t cls, Py_ssize_t run, int64_t* taps,
) noexcept nogil:
    """Write (offset in x, offset in w) of each run of a class's windows; return how many."""
    cdef const Window* v = &a.window
    cdef Py_ssize_t count = 0, td, th, tw, t, step = b.channels * NR, merged = run // b.channels
    if a.classes:
        for t in range(a.class_tap_start[cls], a.class_tap_start[cls + 1]):
            th = a.class_taps[t] // v.TW
            tw = a.class_taps[t] - th * v.TW
            taps[2 * count] = tap_at(v, b, 0, th, tw)
            taps[2 * count + 1] = a.class_taps[t] * step
            count = count + 1
        return count
    for td in range(v.TD):
        for th in range(v.TH):
            tw = 0
            while tw < v.TW:
                taps[2 * count] = tap_at(v, b, td, th, tw)
                taps[2 * count + 1] = ((td * v.TH + th) * v.TW + tw) * step
                count = count + 1
                tw = tw + merged
    return count


cdef void list_classes(
    const ConvArgs* a, const Block* b, Py_ssize_t g, Py_ssize_t channel, char* scratch,
) noexcept nogil:
    """Write the class table of a block into scratch."""
    cdef Class* table = <Class*>(scratch + a.at_classes)
    cdef real** x = <real**>scratch
    cdef real** y = <real**>(scratch + a.at_y)
    cdef int64_t* taps = <int64_t*>(scratch + a.at_taps)
    cdef Windows at = windows_of(&a.window, b, channel, <real*>(scratch + a.at_slab))
    cdef Py_ssize_t cls, m, padded
    for cls in range(max(a.classes, <Py_ssize_t>1)):
        table[cls].x = x
        table[cls].y = y
        table[cls].taps = taps
        table[cls].pixels = list_pixels(a, b, cls, g, &at, x, y)
        table[cls].run = b.channels
        if a.classes == 0 and rows_merge(&a.window) and a.at_sums == 0:
            table[cls].run = b.channels * a.window.TW
        table[cls].runs = list_taps(a, b, cls, table[cls].run, taps)
        padded = (table[cls].pixels + MR - 1) // MR * MR
        for m in range(table[cls].pixels, padded):
            x[m] = x[0]
            y[m] = <real*>(scratch + a.at_spare)
        x = x + padded
        y = y + padded
        taps = taps + 2 * table[cls].runs


cdef void clear(const Class* cls, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """Write y = 0 for some kernels, where the stride of an input gradient leaves no taps."""
    cdef Py_ssize_t i
    for i in range(cls.pixels):
        memset(cls.y[i] + begin, 0, (end - begin) * sizeof(real))


cdef enum:
    TURN = 16                   # rows of w that are packed for a panel before it is the next one's


cdef void pack_panels(
    const Weights* at, const real* w, Py_ssize_t g, Py_ssize_t taps,
    Py_ssize_t channel, Py_ssize_t channels,
    Py_ssize_t K, Py_ssize_t first, Py_ssize_t last,    # panels
    real* packed,               # OUT  (panels, taps, channels, NR)
) noexcept nogil:
    """Pack some panels of a block of channels."""
    cdef Py_ssize_t t, p, c, rows = <Py_ssize_t>TURN if last - first > 1 else channels
    cdef const real* tap
    for t in range(taps):
        tap = w + g * at.SG + at.tap[t] * at.ST + channel * at.SC
        c = 0
        while c < channels:
            for p in range(first, last):
                pack_panel(tap + c * at.SC + p * NR * at.SK, at.SC, at.SK, min(rows, channels - c),
                           min(<Py_ssize_t>NR, K - p * NR),
                           packed + (((p - first) * taps + t) * channels + c) * NR)
            c = c + rows


cdef Py_ssize_t count_tiles(Py_ssize_t pixels, Py_ssize_t columns) noexcept nogil:
    """Return how many tiles so many columns of a block have."""
    cdef Py_ssize_t count = 0, at = 0, wide, rows
    while at < columns:
        wide = tile_columns(at, columns - at)
        rows = tile_rows(wide)
        count = count + (pixels + rows - 1) // rows
        at = at + wide
    return count


cdef Ahead next_block(
    const ConvArgs* a, Py_ssize_t index, Py_ssize_t channel, Py_ssize_t channels,
    Py_ssize_t times,
) noexcept nogil:
    """Return what block `index`, if there is one, reads of x where it lies.

    A tile reads its rows side by side, step by step, which no processor foresees, unless they are
    short and lie one after the other.
    """
    cdef Block b = block_at(&a.window, min(index, a.blocks - 1))
    cdef Windows at = windows_in_place(&a.window, &b, channel)
    cdef Py_ssize_t pixels = b.planes * b.rows * b.columns
    cdef Ahead ahead
    if index == a.blocks or a.window.copy or at.step <= 2 * LINE:   # a processor foresees these
        pixels = 0
    ahead = look_ahead(at.origin, at.step, channels, pixels, max(times, 1))
    ahead.columns = b.columns
    ahead.jump = at.row_step - b.columns * at.step
    return ahead


cdef void stream_taps(
    const ConvArgs* a, const Class* table, Py_ssize_t g, const Block* b, Py_ssize_t channel,
    Py_ssize_t begin, Py_ssize_t end,       # kernels
    real* sums, Py_ssize_t pitch,
) noexcept nogil:
    """Add a block of channels to some kernels of all pixels, tap by tap."""
    cdef Py_ssize_t taps = a.window.TD * a.window.TH * a.window.TW, t, cls, i, pixel, count
    cdef const real* w = a.w + g * a.weights.SG + channel * a.weights.SC + begin
    cdef const int64_t* run[FEW]        # of each class, the next one: in the order of taps
    cdef real* x[FEW]
    cdef real* y[FEW]
    for cls in range(max(a.classes, <Py_ssize_t>1)):
        run[cls] = table[cls].taps
    for t in range(taps):
        pixel = count = 0
        for cls in range(max(a.classes, <Py_ssize_t>1)):
            if (run[cls] != table[cls].taps + 2 * table[cls].runs
                    and run[cls][1] == t * b.channels * NR):        # where w would be if packed
                for i in range(table[cls].pixels):
                    x[count] = table[cls].x[i] + run[cls][0]
                    y[count] = sums + (pixel + i) * pitch
                    count = count + 1
                run[cls] = run[cls] + 2
            pixel = pixel + table[cls].pixels
        stream(x, y, count, w + a.weights.tap[t] * a.weights.ST, a.weights.SC, b.channels,
               end - begin)


cdef void stream_block(
    const ConvArgs* a, const Class* table, Py_ssize_t g, const Block* b, Py_ssize_t channel,
    Py_ssize_t begin, Py_ssize_t end,       # kernels
    real* sums,
) noexcept nogil:
    """`stream_taps`, from sums of 0 on and up to the activation.

    Sums lie side by side: rows of y, often a power of two apart, would meet in a few cache sets.
    """
    cdef Py_ssize_t pitch = a.panels * NR, cls, i
    cdef const real* bias = a.bias + g * (a.K // a.groups) + begin if a.bias != NULL else NULL
    if channel == 0:
        memset(sums, 0, b.planes * b.rows * b.columns * pitch * sizeof(real))
    stream_taps(a, table, g, b, channel, begin, end, sums, pitch)
    if channel + b.channels == a.window.C // a.groups:
        for cls in range(max(a.classes, <Py_ssize_t>1)):
            for i in range(table[cls].pixels):
                finish_row(sums, end - begin, bias, a.flags, table[cls].y[i] + begin)
                sums = sums + pitch


cdef void multiply_class(const Product* product) noexcept nogil:
    """`multiply_rows` of a copy that no other function sees: what tiles need stays in registers."""
    cdef Product own = product[0]
    multiply_rows(&own)


cdef void multiply_columns(
    const ConvArgs* a, const Class* table,
    Py_ssize_t begin, Py_ssize_t end,       # columns
    const real* w,                          # IN   their panels
    Py_ssize_t panel,                       # from one to the next
    const real* bias,                       # IN   of all columns, or NULL
    Py_ssize_t flags, Ahead* ahead,
) noexcept nogil:
    """Multiply all pixels, strip by strip, by some columns, in as wide tiles as there are."""
    cdef Py_ssize_t strip = 0, at, cls
    cdef Product product
    product.panel = panel
    product.flags = flags
    while True:
        at = 0
        while begin + at < end:
            product.column = begin + at
            product.columns = tile_columns(at, end - begin - at)
            product.w = w + at // NR * panel + at % NR
            product.second = VL if at % NR == 0 else panel - VL
            product.bias = bias + begin + at if bias != NULL else NULL
            for cls in range(max(a.classes, <Py_ssize_t>1)):
                product.x = table[cls].x + strip
                product.y = table[cls].y + strip
                product.rows = min(a.strip, table[cls].pixels - strip)
                product.taps = table[cls].taps
                product.count = table[cls].runs
                product.run = table[cls].run
                # Where nothing is left to fetch, a tile of few taps had better not ask at each.
                product.ahead = ahead if ahead.times > 0 else NULL
                multiply_class(&product)
            at = at + product.columns
        strip = strip + a.strip
        if strip >= table.pixels:
            return


cdef void conv(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """One job is one block of pixels, `panels` panels of kernels, one group."""
    cdef const ConvArgs* a = <const ConvArgs*>args
    cdef const Window* v = &a.window
    cdef Py_ssize_t taps = v.TD * v.TH * v.TW
    cdef Py_ssize_t C = v.C // a.groups, K = a.K // a.groups, panels = (K + NR - 1) // NR
    cdef Py_ssize_t splits = (panels + a.panels - 1) // a.panels
    cdef Py_ssize_t g = job // (splits * a.blocks), split = job // a.blocks % splits
    cdef Py_ssize_t first = split * a.panels, last = min(panels, first + a.panels)
    cdef Py_ssize_t begin = first * NR, end = min(K, last * NR)
    cdef Block b = block_at(v, job % a.blocks)
    cdef const Class* table = <Class*>(scratch + a.at_classes)
    cdef const real* bias
    cdef const real* w
    cdef real* packed = <real*>(scratch + a.at_weights)
    cdef Py_ssize_t c = 0, p, times, panel, flags
    cdef Ahead ahead
    while c < C:
        set_channels(v, &b, min(a.channel_block, C - c))
        if v.copy:
            fill_slab(v, &b, g * C + c, <real*>(scratch + a.at_slab))
        list_classes(a, &b, g, g * C + c, scratch)
        if taps == 0:
            clear(table, begin, end)
            return
        if a.at_sums:
            stream_block(a, table, g, &b, c, begin, end, <real*>(scratch + a.at_sums))
            c = c + b.channels
            continue
        times = (count_tiles(table.pixels, end - begin) * table.runs
                 * ((table.run + STEPS - 1) // STEPS))
        ahead = next_block(a, job % a.blocks + 1, g * C + c, b.channels, times)
        flags = (ACCUMULATE if c > 0 else 0) | (FETCH if a.fetch else 0)
        bias = NULL
        if c + b.channels == C:
            flags = flags | a.flags
            bias = a.bias + g * K if a.bias != NULL else NULL
        panel = taps * b.channels * NR
        p = first
        while p < last:
            w = a.w + (g * C + c) * taps * panels * NR + p * panel
            if a.at_weights:
                pack_panels(&a.weights, a.w, g, taps, c, b.channels, K, p,
                            min(last, p + a.together), packed)
                w = packed
            multiply_columns(a, table, p * NR, min(end, (p + a.together) * NR), w, panel, bias,
                             flags, &ahead)
            p = p + a.together
        c = c + b.channels


cdef struct PackArgs:
    const real* w               # IN
    Weights weights             # how they lie
    real* packed                # OUT  (G, CB, KP, T, channels, NR), columns beyond K are zero
    Py_ssize_t T, C, K          # of one group
    Py_ssize_t channel_block
    Py_ssize_t panels           # of one job


cdef void pack(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """Pack weights in panels of NR columns.  One job: some panels of a channel block."""
    cdef const PackArgs* a = <const PackArgs*>args
    cdef Py_ssize_t panels = (a.K + NR - 1) // NR, splits = (panels + a.panels - 1) // a.panels
    cdef Py_ssize_t blocks = (a.C + a.channel_block - 1) // a.channel_block
    cdef Py_ssize_t g = job // (splits * blocks), split = job % splits
    cdef Py_ssize_t c0 = job // splits % blocks * a.channel_block
    cdef Py_ssize_t channels = min(a.channel_block, a.C - c0), first = split * a.panels
    pack_panels(&a.weights, a.w, g, a.T, c0, channels, a.K, first, min(panels, first + a.panels),
                a.packed + ((g * a.C + c0) * panels + first * channels) * a.T * NR)


cdef struct FoldArgs:
    const real* z               # IN   (N, OD, OH, OW, TD, TH, TW, C)
    real* dx                    # OUT  (N, D, H, W, C)
    Py_ssize_t N, D, H, W, C, OD, OH, OW, TD, TH, TW
    Py_ssize_t SD, SH, SW, ED, EH, EW       # strides and dilations
    Py_ssize_t PD, PH, PW       # zeros before the first plane, row and column
    Py_ssize_t rows             # of dx, in one job


cdef inline void fold_row(
    const FoldArgs* a, Py_ssize_t C, const real* z, Py_ssize_t tw, real* dx,
) noexcept nogil:
    """Add what column tw of the taps gives to a row of dx."""
    cdef Py_ssize_t shift = tw * a.EW - a.PW, step = a.TD * a.TH * a.TW * C, ow, c
    cdef Py_ssize_t first = (a.SW - 1 - shift) // a.SW if shift < 0 else 0
    cdef Py_ssize_t end = min(a.OW, (a.W - 1 - shift) // a.SW + 1 if shift < a.W else 0)
    for ow in range(first, end):
        for c in range(C):
            dx[(ow * a.SW + shift) * C + c] += z[ow * step + c]


cdef inline Py_ssize_t output_of(
    Py_ssize_t i, Py_ssize_t stride, Py_ssize_t out,
) noexcept nogil:
    """Return which output has its window begin at i, or -1."""
    return i // stride if i >= 0 and i % stride == 0 and i // stride < out else -1


cdef void fold(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """dx[n, i, c] = sum over the taps t and outputs o with o * S + t * E - P = i of z[n, o, t, c].

    One job is `rows` rows of dx, counted over all planes.
    """
    cdef const FoldArgs* a = <const FoldArgs*>args
    cdef Py_ssize_t row, plane, n, td, th, tw, od, oh, C = a.C, taps = a.TD * a.TH * a.TW
    cdef const real* z
    cdef real* dx
    for row in range(job * a.rows, min(a.N * a.D * a.H, (job + 1) * a.rows)):
        plane = row // a.H
        n = plane // a.D
        dx = a.dx + row * a.W * C
        memset(dx, 0, a.W * C * sizeof(real))
        for td in range(a.TD):
            od = output_of(plane - n * a.D + a.PD - td * a.ED, a.SD, a.OD)
            for th in range(a.TH):
                oh = output_of(row - plane * a.H + a.PH - th * a.EH, a.SH, a.OH)
                if od < 0 or oh < 0:
                    continue
                z = a.z + (((n * a.OD + od) * a.OH + oh) * a.OW * taps
                           + (td * a.TH + th) * a.TW) * C
                for tw in range(a.TW):
                    if C == 1:
                        fold_row(a, 1, z + tw, tw, dx)
                    elif C == 3:
                        fold_row(a, 3, z + tw * 3, tw, dx)
                    else:
                        fold_row(a, C, z + tw * C, tw, dx)


JOBS = {
    "conv": publish(<void*>conv, sizeof(ConvArgs), WINDOW_SLOTS + (
        "w* tap* ST SC SK SG bias* y* YD YH YW K UD UH UW VD VH VW "
        "groups channel_block blocks panels flags fetch classes "
        "class_pixels* class_start* class_taps* class_tap_start* "
        "at_y at_classes at_taps at_spare at_slab at_weights together strip at_sums")),
    "fold": publish(<void*>fold, sizeof(FoldArgs), (
        "z* dx* N D H W C OD OH OW TD TH TW SD SH SW ED EH EW PD PH PW rows")),
    "pack": publish(<void*>pack, sizeof(PackArgs),
                    "w* tap* ST SC SK SG packed* T C K channel_block panels"),
}
