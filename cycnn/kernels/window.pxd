# Sliding windows over (N, D, H, W, C): which pixels a block of outputs has, and a packed copy of
# the input under them, the slab, with the border filled in.
#
# Output o of an axis reads the positions o * S + offset[t], t = 0 ... T - 1, of the axis with its
# border; source[position] is the input index there, or -1 for a zero.  So every padding mode,
# stride, dilation and kernel, and each phase of an input gradient, is the same few tables.  No
# tables (NULL): one tap and no border, output o reads input o * S.  A matrix product is that: its
# rows are the pixels of one long axis H.
#
# A block is `block_columns` outputs of one row, or `block_rows` rows of one plane (n, od), or the
# whole of `block_planes` planes; in memory its outputs follow each other. Its slab holds, for each
# plane and tap of axis D, the rows that its windows cover, for one block of channels:
# [plane][TD][rows][pitch], pixels `channels` apart.  Rows are an odd number of cache lines apart,
# so that streams down a column do not meet in one cache set.
#
# In lanes, the slab is an image of MR channels after the other, [lane][plane][TD][rows][columns]
# [MR], zeros after the last channel: what a tile of MR channels reads of it is dense.
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from cycnn.kernels.ahead cimport LINE
from cycnn.kernels.simd cimport (
    MR, VL, real, vf_load, vf_load_part, vf_store, vf_store_part, vf_zero,
)


cdef struct Window:
    const real* x               # IN   (N, D, H, W, C)
    const int64_t* offset       # IN   (TD + TH + TW,)
    const int64_t* source       # IN   (LD + LH + LW,) or NULL
    Py_ssize_t D, H, W, C
    Py_ssize_t OD, OH, OW       # outputs
    Py_ssize_t SD, SH, SW       # steps
    Py_ssize_t TD, TH, TW       # taps
    Py_ssize_t LD, LH, LW       # lengths of the axes with their borders
    Py_ssize_t planes           # N * OD
    Py_ssize_t block_planes, block_rows, block_columns
    Py_ssize_t copy             # 0: no slab, windows read x itself


cdef struct Block:
    Py_ssize_t plane            # the first one
    Py_ssize_t planes
    Py_ssize_t row              # the first output row, of each plane
    Py_ssize_t rows
    Py_ssize_t column           # the first output of each row
    Py_ssize_t columns
    Py_ssize_t slab_rows        # input rows for each tap of axis D
    Py_ssize_t slab_columns     # and their length
    Py_ssize_t channels         # of the slab
    Py_ssize_t lane             # elements from one pixel to the next: channels, or MR
    Py_ssize_t pitch            # elements from one slab row to the next
    Py_ssize_t lane_step        # elements from one lane to the next


cdef inline Block block_at(const Window* v, Py_ssize_t index) noexcept nogil:
    """Return block number `index`, without channels yet."""
    cdef Block b
    cdef Py_ssize_t parts = (v.OW + v.block_columns - 1) // v.block_columns
    cdef Py_ssize_t bands = (v.OH + v.block_rows - 1) // v.block_rows
    b.plane = index // (bands * parts) * v.block_planes
    b.planes = min(v.block_planes, v.planes - b.plane)
    b.row = index // parts % bands * v.block_rows
    b.rows = min(v.block_rows, v.OH - b.row)
    b.column = index % parts * v.block_columns
    b.columns = min(v.block_columns, v.OW - b.column)
    b.slab_rows = v.LH - (v.OH - b.rows) * v.SH
    b.slab_columns = v.LW - (v.OW - b.columns) * v.SW
    b.channels = b.lane = b.pitch = b.lane_step = 0
    return b


cdef inline void set_channels(const Window* v, Block* b, Py_ssize_t channels) noexcept nogil:
    """Lay the slab out for `channels` channels."""
    b.channels = b.lane = channels
    b.pitch = ((b.slab_columns * channels + LINE - 1) // LINE | 1) * LINE


cdef inline void set_lanes(const Window* v, Block* b, Py_ssize_t channels) noexcept nogil:
    """Lay the slab out for `channels` channels in lanes, an odd number of cache lines apart.

    There is room for the rest of the last vector.
    """
    b.channels = channels
    b.lane = MR
    b.pitch = b.slab_columns * MR
    b.lane_step = ((b.planes * v.TD * b.slab_rows * b.pitch + VL + LINE - 1) // LINE | 1) * LINE


cdef inline void copy_channels(const real* x, Py_ssize_t channels, real* y) noexcept nogil:
    """y[:channels] = x[:channels]: shorter than a call of memcpy."""
    cdef Py_ssize_t c = 0
    while c + VL <= channels:
        vf_store(y + c, vf_load(x + c))
        c = c + VL
    if c < channels:
        vf_store_part(y + c, vf_load_part(x + c, channels - c), channels - c)


cdef inline void copy_to_lanes(
    const real* x, Py_ssize_t channels, Py_ssize_t lane_step, real* y,
) noexcept nogil:
    """y[l * lane_step + i] = x[l * MR + i] for i < MR, 0 after the last channel.

    Whole vectors are written: what lies beyond belongs to the next pixel, whose turn comes.
    """
    cdef Py_ssize_t c = 0, i
    while c < channels:
        i = 0
        while i < MR:
            if c + i + VL <= channels:
                vf_store(y + i, vf_load(x + c + i))
            elif c + i < channels:
                vf_store(y + i, vf_load_part(x + c + i, channels - c - i))
            else:
                vf_store(y + i, vf_zero())
            i = i + VL
        y = y + lane_step
        c = c + MR


cdef inline void clear_lanes(const Block* b, real* y) noexcept nogil:
    """Write zeros to a pixel of each lane."""
    cdef Py_ssize_t c = 0
    while c < b.channels:
        memset(y, 0, MR * sizeof(real))
        y = y + b.lane_step
        c = c + MR


cdef inline void copy_row_to_lanes(
    const Window* v, const Block* b, const real* x, const int64_t* source, real* y,
) noexcept nogil:
    """Copy the pixels of a slab row, or zeros where x is NULL or source[i] < 0."""
    cdef Py_ssize_t i
    for i in range(b.slab_columns):
        if x == NULL or source[i] < 0:
            clear_lanes(b, y + i * MR)
        else:
            copy_to_lanes(x + source[i] * v.C, b.channels, b.lane_step, y + i * MR)


cdef inline Py_ssize_t run_at(const int64_t* source, Py_ssize_t count) noexcept nogil:
    """Return how many pixels from the first one on lie side by side in x, or are all zeros."""
    cdef Py_ssize_t run = 1, step = 0 if source[0] < 0 else 1
    while run < count and source[run] == source[0] + run * step:
        run = run + 1
    return run


cdef inline void copy_run(
    const real* x, const int64_t* source, Py_ssize_t count, Py_ssize_t C, Py_ssize_t channels,
    real* y,
) noexcept nogil:
    """`copy_row` of one run."""
    cdef Py_ssize_t i
    cdef const real* p = x + source[0] * C
    if source[0] < 0:
        memset(y, 0, count * channels * sizeof(real))
    elif channels == C:
        memcpy(y, p, count * C * sizeof(real))
    else:
        for i in range(count):
            copy_channels(p, channels, y + i * channels)
            p = p + C


cdef inline void copy_row(
    const real* x, const int64_t* source, Py_ssize_t count, Py_ssize_t C, Py_ssize_t channels,
    real* y,
) noexcept nogil:
    """y[i, :channels] = x[source[i], :channels], or 0 where source[i] < 0."""
    cdef Py_ssize_t run
    while count > 0:
        run = run_at(source, count)
        copy_run(x, source, run, C, channels, y)
        source = source + run
        count = count - run
        y = y + run * channels


cdef inline void fill_slab(
    const Window* v, const Block* b, Py_ssize_t channel, real* slab,
) noexcept nogil:
    """Copy the channels from `channel` on of all inputs under the block, with their border."""
    cdef Py_ssize_t i, t, r, n, od, d, h, begin = 0, end = 0
    cdef const int64_t* source_h = v.source + v.LD
    cdef const int64_t* source_w = source_h + v.LH + b.column * v.SW
    cdef const real* x
    if v.source == NULL:
        for r in range(b.row, b.row + b.rows):
            if b.lane_step:
                copy_to_lanes(v.x + r * v.C + channel, b.channels, b.lane_step, slab)
            else:
                copy_channels(v.x + r * v.C + channel, b.channels, slab)
            slab = slab + b.pitch
        return
    while not b.lane_step and end <= b.slab_columns // 2:       # the run in the middle of each row
        begin = end
        end = begin + run_at(source_w + begin, b.slab_columns - begin)
    for i in range(b.plane, b.plane + b.planes):
        n = i // v.OD
        od = i - n * v.OD
        for t in range(v.TD):
            d = v.source[od * v.SD + v.offset[t]]
            for r in range(b.slab_rows):
                h = source_h[b.row * v.SH + r]
                x = NULL
                if d >= 0 and h >= 0:
                    x = v.x + ((n * v.D + d) * v.H + h) * v.W * v.C + channel
                if b.lane_step:
                    copy_row_to_lanes(v, b, x, source_w, slab)
                elif x == NULL:
                    memset(slab, 0, b.slab_columns * b.channels * sizeof(real))
                else:
                    copy_row(x, source_w, begin, v.C, b.channels, slab)
                    copy_run(x, source_w + begin, end - begin, v.C, b.channels,
                             slab + begin * b.channels)
                    copy_row(x, source_w + end, b.slab_columns - end, v.C, b.channels,
                             slab + end * b.channels)
                slab = slab + b.pitch


cdef struct Windows:
    # The windows of a block are at origin + plane * plane_step + row * row_step + column * step.
    real* origin
    Py_ssize_t plane_step, row_step, step


cdef inline Windows windows_in_place(
    const Window* v, const Block* b, Py_ssize_t channel,
) noexcept nogil:
    """Locate the windows of a block in x, from `channel` on."""
    cdef Windows at
    at.plane_step = (v.D if v.OD == 1 else v.SD) * v.H * v.W * v.C
    at.row_step = v.SH * v.W * v.C
    at.step = v.SW * v.C
    at.origin = (<real*>v.x + b.plane * at.plane_step + b.row * at.row_step + b.column * at.step
                 + channel)
    return at


cdef inline Windows windows_of(
    const Window* v, const Block* b, Py_ssize_t channel, real* slab,
) noexcept nogil:
    """Locate the windows of a block, in the slab or, without one, in x from `channel` on."""
    cdef Windows at
    if v.copy:
        at.origin = slab
        at.plane_step = v.TD * b.slab_rows * b.pitch
        at.row_step = v.SH * b.pitch
        at.step = v.SW * b.lane
    else:
        at = windows_in_place(v, b, channel)
    return at


cdef inline Py_ssize_t tap_at(
    const Window* v, const Block* b, Py_ssize_t td, Py_ssize_t th, Py_ssize_t tw,
) noexcept nogil:
    """Return how far a tap lies from the beginning of its window in the slab."""
    if not v.copy:
        return 0
    return ((td * b.slab_rows + v.offset[v.TD + th]) * b.pitch
            + v.offset[v.TD + v.TH + tw] * b.lane)


cdef inline bint rows_merge(const Window* v) noexcept nogil:
    """Whether the taps of axis W are neighbours, so that a row of a window is one run of memory."""
    return v.TW == 1 or (v.copy and v.offset[v.TD + v.TH + v.TW - 1] == v.TW - 1)
