"""Maximum, average and p-norm over windows, on one to three spatial axes, vectors over channels.

Which pixel a tap of a window reads is a table per axis (pool_windows.pxd), so padding modes,
dilation and windows that hang over the end are no cases of their own.  Fewer than three axes are
three with extents of one.

Forward, a job is a run of outputs and reads its windows.  Backward, a job is a run of *inputs* and
gathers from the windows that read them, in the order of the windows: dx is written once, windows
may overlap, and no two jobs write the same place.
"""
from libc.math cimport INFINITY, NAN, pow
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy, memset

from cycnn.kernels.pool_windows cimport (
    BackwardArgs, ForwardArgs, next_rows, one_reader, reader_rows, window_rows, window_taps)
from cycnn.kernels.simd cimport (
    VL, prefetch_far, publish, real, vf, vf_add, vf_bcast, vf_div, vf_eq, vf_fma, vf_ge, vf_gt,
    vf_load, vf_load_u8, vf_max, vf_mul, vf_select, vf_set1, vf_sqrt, vf_store, vf_store_u8, vf_sub,
    vf_unordered, vf_zero, vm)
from cycnn.kernels.tail cimport lanes, load, store

cdef struct IndexArgs:
    const void* offset          # IN   (N, OD, OH, OW, C), as max_pool_forward wrote it
    int64_t* index              # OUT  (N, OD, OH, OW, C), the pixel that won, or -1
    const int64_t* map_d        # IN   as in ForwardArgs
    const int64_t* map_h
    const int64_t* map_w
    Py_ssize_t H, W, C, OD, OH, OW, KD, KH, KW
    Py_ssize_t wide
    Py_ssize_t outputs, chunk

cdef inline void store_taps(
        void* offset, Py_ssize_t i, vf tap, Py_ssize_t n, bint wide) noexcept nogil:
    """Store the first n lanes, which are whole numbers, at element i of offset."""
    cdef uint8_t narrow[VL]
    cdef Py_ssize_t j
    if wide:
        store(<real*>offset + i, tap, n)
    elif n == VL:
        vf_store_u8(<uint8_t*>offset + i, tap)
    else:
        vf_store_u8(narrow, tap)
        for j in range(n):
            (<uint8_t*>offset)[i + j] = narrow[j]


cdef inline vf load_taps(
        const void* offset, Py_ssize_t i, Py_ssize_t n, Py_ssize_t size, bint wide) noexcept nogil:
    """What store_taps stored at element i of size; after the first n lanes, anything."""
    cdef uint8_t narrow[VL]
    if wide:
        return load(<const real*>offset + i, n)
    if n == VL or i + VL <= size:
        return vf_load_u8(<const uint8_t*>offset + i)
    memset(narrow, 0, VL)
    memcpy(narrow, <const uint8_t*>offset + i, n)
    return vf_load_u8(narrow)


cdef inline void max_of_taps(
        const real** source, const real* tap, Py_ssize_t taps, Py_ssize_t c, Py_ssize_t ahead,
        real* y, void* offset, Py_ssize_t at, bint wide, bint rectified,
        Py_ssize_t n) noexcept nogil:
    cdef vf x, number, best = vf_set1(<real>-INFINITY), unordered = vf_set1(-1)
    cdef vf winner = vf_bcast(tap) if taps else vf_zero()
    cdef vf none = vf_set1(<real>(-1 if wide else 255))
    cdef vm nan
    cdef Py_ssize_t t
    for t in range(taps):
        prefetch_far(source[t] + c + ahead)
        x = load(source[t] + c, n)
        number = vf_bcast(tap + t)
        winner = vf_select(vf_gt(x, best), number, winner)
        best = vf_max(x, best)
        unordered = vf_select(vf_unordered(x, x), number, unordered)
    if rectified:
        winner = vf_select(vf_gt(best, vf_zero()), winner, none)
    nan = vf_ge(unordered, vf_zero())
    store(y + c, vf_select(nan, vf_set1(<real>NAN), best), n)
    store_taps(offset, at + c, vf_select(nan, unordered, winner), n, wide)


cdef void max_pool_forward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y[o, c] = max over the window's taps t of x[o, t, c]; offset[o, c] = the t of that maximum.

    Of equal values the first wins.  NaN wins over numbers, as in PyTorch; it is looked for apart,
    so that from tap to tap only a maximum waits for the one before.  Of a rectified x, offset names
    no tap where y <= 0, so that backward gives the gradient from before the rectifier.
    """
    cdef const ForwardArgs* a = <const ForwardArgs*>args
    cdef Py_ssize_t rows = 0, taps, o = job * a.chunk, stop = min(o + a.chunk, a.outputs), c
    cdef Py_ssize_t end = o
    cdef Py_ssize_t* base = <Py_ssize_t*>scratch
    cdef Py_ssize_t* first = base + a.KD * a.KH
    cdef const real** source = <const real**>(first + a.KD * a.KH)
    cdef real* tap = <real*>(source + a.KD * a.KH * a.KW)
    cdef real* y = a.y + o * a.C
    cdef Py_ssize_t C = a.C, ahead = next_rows(a)
    cdef bint wide = a.wide, rectified = a.rectified
    while o < stop:
        if o >= end:
            rows = window_rows(a, o // a.OW, base, first)
            end = o // a.OW * a.OW + a.OW
        taps = window_taps(a, o % a.OW, rows, base, first, source, tap)
        c = 0
        while c + VL <= C:
            max_of_taps(source, tap, taps, c, ahead, y, a.offset, o * C, wide, rectified, VL)
            c = c + VL
        if c < C:
            max_of_taps(source, tap, taps, c, ahead, y, a.offset, o * C, wide, rectified, C - c)
        y = y + C
        o = o + 1


cdef void avg_pool_forward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y[o, c] = sum over the window's taps t of x[o, t, c] / count[o]."""
    cdef const ForwardArgs* a = <const ForwardArgs*>args
    cdef Py_ssize_t rows = 0, taps, o = job * a.chunk, stop = min(o + a.chunk, a.outputs), c, n, t
    cdef Py_ssize_t end = o, row, row_count = 0
    cdef Py_ssize_t* base = <Py_ssize_t*>scratch
    cdef Py_ssize_t* first = base + a.KD * a.KH
    cdef const real** source = <const real**>(first + a.KD * a.KH)
    cdef real* tap = <real*>(source + a.KD * a.KH * a.KW)
    cdef real* y = a.y + o * a.C
    cdef Py_ssize_t C = a.C, ahead = next_rows(a)
    cdef vf sum, count
    while o < stop:
        if o >= end:
            row = o // a.OW
            rows = window_rows(a, row, base, first)
            row_count = a.count_d[row // a.OH % a.OD] * a.count_h[row % a.OH]
            end = row * a.OW + a.OW
        taps = window_taps(a, o % a.OW, rows, base, first, source, tap)
        count = vf_set1(<real>max(row_count * a.count_w[o % a.OW], <Py_ssize_t>1))
        c = 0
        while c < C:
            n = lanes(c, C)
            sum = vf_zero()
            for t in range(taps):
                prefetch_far(source[t] + c + ahead)
                sum = vf_add(sum, load(source[t] + c, n))
            store(y + c, vf_div(sum, count), n)
            c = c + VL
        y = y + C
        o = o + 1


cdef inline vf power(vf base, double exponent) noexcept nogil:
    """base ** exponent for numbers of at least 0: multiplied out if whole, else lane by lane."""
    cdef real lane[VL]
    cdef vf product = vf_set1(1)
    cdef Py_ssize_t whole = <Py_ssize_t>min(exponent, 16.0), _i, j
    if whole == exponent:
        for _i in range(whole):
            product = vf_mul(product, base)
        return product
    vf_store(lane, base)
    for j in range(VL):
        lane[j] = <real>pow(<double>lane[j], exponent)
    return vf_load(lane)


cdef inline vf magnitude(vf x) noexcept nogil:
    """|x|, NaN for NaN."""
    return vf_max(x, vf_sub(vf_zero(), x))


cdef void lp_pool_forward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y[o, c] = (sum over the window's taps t of |x[o, t, c]|^p)^(1 / p)."""
    cdef const ForwardArgs* a = <const ForwardArgs*>args
    cdef Py_ssize_t rows = 0, taps, o = job * a.chunk, stop = min(o + a.chunk, a.outputs), c, n, t
    cdef Py_ssize_t end = o
    cdef Py_ssize_t* base = <Py_ssize_t*>scratch
    cdef Py_ssize_t* first = base + a.KD * a.KH
    cdef const real** source = <const real**>(first + a.KD * a.KH)
    cdef real* tap = <real*>(source + a.KD * a.KH * a.KW)
    cdef real* y = a.y + o * a.C
    cdef Py_ssize_t C = a.C
    cdef vf sum
    while o < stop:
        if o >= end:
            rows = window_rows(a, o // a.OW, base, first)
            end = o // a.OW * a.OW + a.OW
        taps = window_taps(a, o % a.OW, rows, base, first, source, tap)
        c = 0
        while c < C:
            n = lanes(c, C)
            sum = vf_zero()
            for t in range(taps):
                sum = vf_add(sum, power(magnitude(load(source[t] + c, n)), a.p))
            store(y + c, vf_sqrt(sum) if a.p == 2 else power(sum, 1 / a.p), n)
            c = c + VL
        y = y + C
        o = o + 1


cdef inline void give_to_winner(
        const BackwardArgs* a, Py_ssize_t source, const real* tap, Py_ssize_t pixels, Py_ssize_t c,
        real* dx, Py_ssize_t n) noexcept nogil:
    """Write the pixels that one window reads, by the taps from tap[0] on: sum_of_won of each."""
    cdef vf winner = load_taps(a.offset, source + c, n, a.outputs * a.C, a.wide)
    cdef vf g = load(a.dy + source + c, n), number = vf_bcast(tap)
    cdef Py_ssize_t _pixel
    dx = dx + c
    for _pixel in range(pixels):
        store(dx, vf_add(vf_zero(), vf_select(vf_eq(winner, number), g, vf_zero())), n)
        number = vf_add(number, vf_set1(1))
        dx = dx + a.C


cdef inline void sum_of_won(
        const BackwardArgs* a, const Py_ssize_t* source, const real* tap, Py_ssize_t reads,
        Py_ssize_t c, real* dx, Py_ssize_t n) noexcept nogil:
    cdef vf sum = vf_zero(), winner
    cdef Py_ssize_t j
    for j in range(reads):
        winner = load_taps(a.offset, source[j] + c, n, a.outputs * a.C, a.wide)
        sum = vf_add(sum, vf_select(
            vf_eq(winner, vf_bcast(tap + j)), load(a.dy + source[j] + c, n), vf_zero()))
    store(dx + c, sum, n)


cdef void max_pool_backward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """dx[i, c] = sum of dy[o, c] over the windows o that read pixel i by a tap t = offset[o, c]."""
    cdef BackwardArgs a = (<const BackwardArgs*>args)[0]    # a copy, which no store can change
    cdef Py_ssize_t i = job * a.chunk, stop = min(i + a.chunk, a.inputs), row = i // a.W
    cdef Py_ssize_t w = i - row * a.W, rows = 0, reads, pixels, r, j, c, C = a.C
    cdef Py_ssize_t* base = <Py_ssize_t*>scratch
    cdef Py_ssize_t* first = base + a.rows
    cdef Py_ssize_t* count = first + a.rows
    cdef Py_ssize_t* source = count + a.rows
    cdef real* tap = <real*>(source + a.reads)
    cdef real* dx = a.dx + i * C
    rows = reader_rows(&a, row, base, first, count)
    while i < stop:
        if w == a.W:
            w = 0
            row = row + 1
            rows = reader_rows(&a, row, base, first, count)
        reads = 0
        for r in range(rows):
            for j in range(a.start_w[w], a.start_w[w + 1]):
                source[reads] = (base[r] + a.window_w[j]) * C
                tap[reads] = <real>(first[r] + a.tap_w[j])
                reads = reads + 1
        pixels = one_reader(&a, w, min(stop - i, a.W - w)) if rows == 1 else 0
        c = 0
        if pixels > 0:
            while c + VL <= C:
                give_to_winner(&a, source[0], tap, pixels, c, dx, VL)
                c = c + VL
            if c < C:
                give_to_winner(&a, source[0], tap, pixels, c, dx, C - c)
        else:
            pixels = 1
            while c + VL <= C:
                sum_of_won(&a, source, tap, reads, c, dx, VL)
                c = c + VL
            if c < C:
                sum_of_won(&a, source, tap, reads, c, dx, C - c)
        dx = dx + pixels * C
        i = i + pixels
        w = w + pixels


cdef inline void sum_of_shares(
        const BackwardArgs* a, const Py_ssize_t* source, const real* share, Py_ssize_t reads,
        Py_ssize_t pixels, Py_ssize_t c, real* dx, Py_ssize_t n) noexcept nogil:
    """Write the same sum to some pixels."""
    cdef vf sum = vf_zero()
    cdef Py_ssize_t j, _pixel
    for j in range(reads):
        sum = vf_fma(load(a.dy + source[j] + c, n), vf_bcast(share + j), sum)
    dx = dx + c
    for _pixel in range(pixels):
        store(dx, sum, n)
        dx = dx + a.C


cdef void avg_pool_backward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """dx[i, c] = sum of dy[o, c] / count[o] over the windows o that read pixel i."""
    cdef BackwardArgs a = (<const BackwardArgs*>args)[0]
    cdef Py_ssize_t i = job * a.chunk, stop = min(i + a.chunk, a.inputs), row = i // a.W
    cdef Py_ssize_t w = i - row * a.W, rows = 0, reads, pixels, r, j, c, C = a.C
    cdef Py_ssize_t* base = <Py_ssize_t*>scratch
    cdef Py_ssize_t* first = base + a.rows
    cdef Py_ssize_t* count = first + a.rows
    cdef Py_ssize_t* source = count + a.rows
    cdef real* share = <real*>(source + a.reads)
    cdef real* dx = a.dx + i * C
    rows = reader_rows(&a, row, base, first, count)
    while i < stop:
        if w == a.W:
            w = 0
            row = row + 1
            rows = reader_rows(&a, row, base, first, count)
        reads = 0
        for r in range(rows):
            for j in range(a.start_w[w], a.start_w[w + 1]):
                source[reads] = (base[r] + a.window_w[j]) * C
                share[reads] = <real>1 / <real>(count[r] * a.count_w[a.window_w[j]])
                reads = reads + 1
        pixels = max(<Py_ssize_t>1, one_reader(&a, w, min(stop - i, a.W - w)) if rows == 1 else 0)
        c = 0
        while c + VL <= C:
            sum_of_shares(&a, source, share, reads, pixels, c, dx, VL)
            c = c + VL
        if c < C:
            sum_of_shares(&a, source, share, reads, pixels, c, dx, C - c)
        dx = dx + pixels * C
        i = i + pixels
        w = w + pixels


cdef void lp_pool_backward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """dx[i, c] = sign(x[i, c]) * sum of dy[o, c] (|x[i, c]| / y[o, c])^(p - 1) over windows o.

    The windows are those that read pixel i; one with y[o, c] = 0, a corner, gives 0.  The quotient
    is at most 1, so that its power cannot overflow.
    """
    cdef const BackwardArgs* a = <const BackwardArgs*>args
    cdef Py_ssize_t i = job * a.chunk, stop = min(i + a.chunk, a.inputs), end = i
    cdef Py_ssize_t rows = 0, reads, r, w, j, c, n
    cdef Py_ssize_t* base = <Py_ssize_t*>scratch
    cdef Py_ssize_t* first = base + a.rows
    cdef Py_ssize_t* count = first + a.rows
    cdef Py_ssize_t* source = count + a.rows
    cdef const real* dy = a.dy
    cdef const real* x = a.x + i * a.C
    cdef real* dx = a.dx + i * a.C
    cdef Py_ssize_t C = a.C
    cdef vf sum, value, size, norm, share
    while i < stop:
        if i >= end:
            rows = reader_rows(a, i // a.W, base, first, count)
            end = i // a.W * a.W + a.W
        w = i % a.W
        reads = 0
        for r in range(rows):
            for j in range(a.start_w[w], a.start_w[w + 1]):
                source[reads] = (base[r] + a.window_w[j]) * a.C
                reads = reads + 1
        c = 0
        while c < C:
            n = lanes(c, C)
            value = load(x + c, n)
            size = magnitude(value)
            sum = vf_zero()
            for j in range(reads):
                norm = load(a.y + source[j] + c, n)
                share = vf_mul(power(vf_div(size, norm), a.p - 1), load(dy + source[j] + c, n))
                sum = vf_add(sum, vf_select(vf_eq(norm, vf_zero()), vf_zero(), share))
            sum = vf_select(vf_gt(vf_zero(), value), vf_sub(vf_zero(), sum), sum)
            store(dx + c, vf_select(vf_eq(value, vf_zero()), vf_zero(), sum), n)
            c = c + VL
        x = x + C
        dx = dx + C
        i = i + 1


cdef void max_pool_index(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """index[o, c] = the pixel (d H + h) W + w that tap offset[o, c] of window o reads."""
    cdef const IndexArgs* a = <const IndexArgs*>args
    cdef Py_ssize_t o = job * a.chunk, stop = min(o + a.chunk, a.outputs), c, i, row
    cdef Py_ssize_t kd, kh, kw, d, h, w, t
    cdef int64_t* pixel = <int64_t*>scratch
    while o < stop:
        row = o // a.OW
        t = 0
        for kd in range(a.KD):
            d = a.map_d[row // a.OH % a.OD * a.KD + kd]
            for kh in range(a.KH):
                h = a.map_h[row % a.OH * a.KH + kh]
                for kw in range(a.KW):
                    w = a.map_w[o % a.OW * a.KW + kw]
                    pixel[t] = (d * a.H + h) * a.W + w if d >= 0 and h >= 0 and w >= 0 else -1
                    t = t + 1
        for c in range(a.C):
            i = o * a.C + c
            if a.wide:
                a.index[i] = pixel[<Py_ssize_t>(<const real*>a.offset)[i]]
            else:
                a.index[i] = pixel[(<const uint8_t*>a.offset)[i]]
        o = o + 1


_FORWARD = (
    "x* y* offset* map_d* map_h* map_w* count_d* count_h* count_w* "
    "D H W C OD OH OW KD KH KW wide rectified outputs chunk p.")
_BACKWARD = (
    "dy* x* y* offset* dx* start_d* window_d* tap_d* start_h* window_h* tap_h* start_w* window_w* "
    "tap_w* count_d* count_h* count_w* D H W C OD OH OW KH KW wide outputs inputs chunk rows reads "
    "p.")
_INDEX = "offset* index* map_d* map_h* map_w* H W C OD OH OW KD KH KW wide outputs chunk"
JOBS = {
    "max_pool_forward": publish(<void*>max_pool_forward, sizeof(ForwardArgs), _FORWARD),
    "max_pool_backward": publish(<void*>max_pool_backward, sizeof(BackwardArgs), _BACKWARD),
    "max_pool_index": publish(<void*>max_pool_index, sizeof(IndexArgs), _INDEX),
    "avg_pool_forward": publish(<void*>avg_pool_forward, sizeof(ForwardArgs), _FORWARD),
    "avg_pool_backward": publish(<void*>avg_pool_backward, sizeof(BackwardArgs), _BACKWARD),
    "lp_pool_forward": publish(<void*>lp_pool_forward, sizeof(ForwardArgs), _FORWARD),
    "lp_pool_backward": publish(<void*>lp_pool_backward, sizeof(BackwardArgs), _BACKWARD),
}
