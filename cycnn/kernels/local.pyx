"""Locally connected layers: a convolution whose every output pixel has a kernel of its own.

Which pixel a tap of a window reads is a table per axis, as in pool.pyx.  Samples are taken four at
a time, so that each weight that is loaded serves four; a row of such a tile that hangs over the
batch repeats its last sample and is not stored.  A sample's sums run over taps, then channels (or
outputs), whatever its place in the batch.  With groups, kernel k sees channels g C / groups to
(g + 1) C / groups of x, where g = k // (K / groups), and a panel of kernels lies in one group.
"""
from libc.stdint cimport int64_t

from cycnn.kernels.simd cimport (
    NR, VL, publish, real, vf, vf_add, vf_bcast, vf_fma, vf_store, vf_zero)
from cycnn.kernels.tail cimport lanes, load, store

cdef struct LocalArgs:
    const real* x               # IN   (N, D, H, W, C)
    const real* weight          # IN   (OD, OH, OW, KD, KH, KW, C / groups, K)
    const real* bias            # IN   (OD, OH, OW, K) or NULL
    real* y                     # OUT  (N, OD, OH, OW, K)
    const int64_t* map_d        # IN   (OD, KD), the d that a tap reads, or -1
    const int64_t* map_h        # IN   (OH, KH)
    const int64_t* map_w        # IN   (OW, KW)
    Py_ssize_t N, D, H, W, C, OD, OH, OW, KD, KH, KW, K
    Py_ssize_t depth, width     # C / groups, K / groups
    Py_ssize_t parts            # jobs of an output pixel: groups * panels of a group

cdef struct InputArgs:
    const real* dy              # IN   (N, OD, OH, OW, K)
    const real* weight          # IN   (OD, OH, OW, KD, KH, KW, C / groups, K)
    real* dx                    # OUT  (N, D, H, W, C)
    const int64_t* start_d      # IN   (D + 1), entries start_d[d] to start_d[d + 1] - 1 read d
    const int64_t* window_d     # IN   the od of each entry
    const int64_t* tap_d        # IN   the kd of each entry
    const int64_t* start_h
    const int64_t* window_h
    const int64_t* tap_h
    const int64_t* start_w
    const int64_t* window_w
    const int64_t* tap_w
    Py_ssize_t N, D, H, W, C, OD, OH, OW, KD, KH, KW, K
    Py_ssize_t depth, width     # C / groups, K / groups
    Py_ssize_t reads            # most windows that read one pixel
    Py_ssize_t chunk            # channels of a job
    Py_ssize_t chunks, parts    # jobs of a group, of a pixel

cdef struct WeightArgs:
    const real* dy              # IN   (N, OD, OH, OW, K)
    const real* x               # IN   (N, D, H, W, C)
    real* dweight               # OUT  (OD, OH, OW, KD, KH, KW, C / groups, K)
    real* dbias                 # OUT  (OD, OH, OW, K) or NULL
    const int64_t* map_d        # IN   as in LocalArgs
    const int64_t* map_h
    const int64_t* map_w
    Py_ssize_t N, D, H, W, C, OD, OH, OW, KD, KH, KW, K
    Py_ssize_t depth, width     # C / groups, K / groups
    Py_ssize_t parts            # jobs of an output pixel: groups * panels of a group


cdef inline Py_ssize_t second(Py_ssize_t k, Py_ssize_t stop) noexcept nogil:
    """How many lanes the second vector of the panel at k holds."""
    return max(<Py_ssize_t>0, lanes(k + VL, stop))


cdef void local_forward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y[n, o, k] = bias[o, k] + sum over (t, c) of x[n, o, t, c] weight[o, t, c, k].

    One job is NR kernels of one group of one output pixel, for all samples.
    """
    cdef const LocalArgs* a = <const LocalArgs*>args
    cdef Py_ssize_t C = a.C, K = a.K, depth = a.depth, width = a.width, o = job // a.parts
    cdef Py_ssize_t part = job % a.parts, panels = (width + NR - 1) // NR, g = part // panels
    cdef Py_ssize_t k = g * width + part % panels * NR, stop = (g + 1) * width
    cdef Py_ssize_t n1 = lanes(k, stop), n2 = second(k, stop)
    cdef Py_ssize_t oh = o // a.OW % a.OH, od = o // (a.OW * a.OH), ow = o % a.OW
    cdef Py_ssize_t image = a.D * a.H * a.W * C, plane = a.OD * a.OH * a.OW * K
    cdef Py_ssize_t kd, kh, kw, d, h, w, t, c, n, last, taps = 0
    cdef Py_ssize_t* source = <Py_ssize_t*>scratch
    cdef Py_ssize_t* own = source + a.KD * a.KH * a.KW
    cdef const real* weight = a.weight + o * a.KD * a.KH * a.KW * depth * K + k
    cdef const real* kernel
    cdef const real* x0
    cdef const real* x1
    cdef const real* x2
    cdef const real* x3
    cdef real* y
    cdef vf w1, w2, b1, b2, s01, s02, s11, s12, s21, s22, s31, s32, xn
    for kd in range(a.KD):
        d = a.map_d[od * a.KD + kd]
        for kh in range(a.KH):
            h = a.map_h[oh * a.KH + kh]
            for kw in range(a.KW):
                w = a.map_w[ow * a.KW + kw]
                if d >= 0 and h >= 0 and w >= 0:
                    source[taps] = ((d * a.H + h) * a.W + w) * C + g * depth
                    own[taps] = ((kd * a.KH + kh) * a.KW + kw) * depth * K
                    taps = taps + 1
    b1 = b2 = vf_zero()
    if a.bias != NULL:
        b1 = load(a.bias + o * K + k, n1)
        b2 = load(a.bias + o * K + k + VL, n2)
    last = a.N - 1
    for n in range(0, a.N, 4):
        s01 = s11 = s21 = s31 = b1
        s02 = s12 = s22 = s32 = b2
        for t in range(taps):
            kernel = weight + own[t]
            x0 = a.x + n * image + source[t]
            x1 = a.x + min(n + 1, last) * image + source[t]
            x2 = a.x + min(n + 2, last) * image + source[t]
            x3 = a.x + min(n + 3, last) * image + source[t]
            for c in range(depth):
                w1 = load(kernel, n1)
                w2 = load(kernel + VL, n2)
                kernel = kernel + K
                xn = vf_bcast(x0 + c)
                s01 = vf_fma(xn, w1, s01)
                s02 = vf_fma(xn, w2, s02)
                xn = vf_bcast(x1 + c)
                s11 = vf_fma(xn, w1, s11)
                s12 = vf_fma(xn, w2, s12)
                xn = vf_bcast(x2 + c)
                s21 = vf_fma(xn, w1, s21)
                s22 = vf_fma(xn, w2, s22)
                xn = vf_bcast(x3 + c)
                s31 = vf_fma(xn, w1, s31)
                s32 = vf_fma(xn, w2, s32)
        y = a.y + n * plane + o * K + k
        store(y, s01, n1)
        store(y + VL, s02, n2)
        if n + 1 <= last:
            store(y + plane, s11, n1)
            store(y + plane + VL, s12, n2)
        if n + 2 <= last:
            store(y + 2 * plane, s21, n1)
            store(y + 2 * plane + VL, s22, n2)
        if n + 3 <= last:
            store(y + 3 * plane, s31, n1)
            store(y + 3 * plane + VL, s32, n2)


cdef inline real total(vf v) noexcept nogil:
    """The sum of all lanes, in pairs."""
    cdef real lane[VL]
    cdef Py_ssize_t half = VL // 2, j
    vf_store(lane, v)
    while half:
        for j in range(half):
            lane[j] = lane[j] + lane[j + half]
        half = half // 2
    return lane[0]


cdef void local_backward_input(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """dx[n, i, c] = sum of dy[n, o, k] weight[o, t, c, k] over (o, t) that read pixel i, and k.

    One job is some channels of one group of one input pixel, for all samples.
    """
    cdef const InputArgs* a = <const InputArgs*>args
    cdef Py_ssize_t C = a.C, K = a.K, depth = a.depth, width = a.width, pixel = job // a.parts
    cdef Py_ssize_t part = job % a.parts, g = part // a.chunks, first = part % a.chunks * a.chunk
    cdef Py_ssize_t w = pixel % a.W, h = pixel // a.W % a.H, d = pixel // (a.W * a.H)
    cdef Py_ssize_t image = a.D * a.H * a.W * C, plane = a.OD * a.OH * a.OW * K
    cdef Py_ssize_t i, j, e, o, t, r, c, k, n, m, last = a.N - 1, reads = 0
    cdef Py_ssize_t* source = <Py_ssize_t*>scratch
    cdef Py_ssize_t* own = source + a.reads
    cdef const real* kernel
    cdef const real* dy0
    cdef const real* dy1
    cdef const real* dy2
    cdef const real* dy3
    cdef real* dx
    cdef vf s0, s1, s2, s3, v
    for i in range(a.start_d[d], a.start_d[d + 1]):
        for j in range(a.start_h[h], a.start_h[h + 1]):
            for e in range(a.start_w[w], a.start_w[w + 1]):
                o = (a.window_d[i] * a.OH + a.window_h[j]) * a.OW + a.window_w[e]
                t = (a.tap_d[i] * a.KH + a.tap_h[j]) * a.KW + a.tap_w[e]
                source[reads] = o * K + g * width
                own[reads] = (o * a.KD * a.KH * a.KW + t) * depth * K + g * width
                reads = reads + 1
    for n in range(0, a.N, 4):
        for c in range(first, min(first + a.chunk, depth)):
            s0 = s1 = s2 = s3 = vf_zero()
            for r in range(reads):
                kernel = a.weight + own[r] + c * K
                dy0 = a.dy + n * plane + source[r]
                dy1 = a.dy + min(n + 1, last) * plane + source[r]
                dy2 = a.dy + min(n + 2, last) * plane + source[r]
                dy3 = a.dy + min(n + 3, last) * plane + source[r]
                k = 0
                while k < width:
                    m = lanes(k, width)
                    v = load(kernel + k, m)
                    s0 = vf_fma(load(dy0 + k, m), v, s0)
                    s1 = vf_fma(load(dy1 + k, m), v, s1)
                    s2 = vf_fma(load(dy2 + k, m), v, s2)
                    s3 = vf_fma(load(dy3 + k, m), v, s3)
                    k = k + VL
            dx = a.dx + n * image + pixel * C + g * depth + c
            dx[0] = total(s0)
            if n + 1 <= last:
                dx[image] = total(s1)
            if n + 2 <= last:
                dx[2 * image] = total(s2)
            if n + 3 <= last:
                dx[3 * image] = total(s3)


cdef void local_backward_weight(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """dweight[o, t, c, k] = sum over n of x[n, o, t, c] dy[n, o, k]; dbias[o, k] = that of dy.

    One job is NR kernels of one group of one output pixel.  A tap that reads nothing has gradient
    zero.
    """
    cdef const WeightArgs* a = <const WeightArgs*>args
    cdef Py_ssize_t C = a.C, K = a.K, depth = a.depth, width = a.width, o = job // a.parts
    cdef Py_ssize_t part = job % a.parts, panels = (width + NR - 1) // NR, g = part // panels
    cdef Py_ssize_t k = g * width + part % panels * NR, stop = (g + 1) * width
    cdef Py_ssize_t n1 = lanes(k, stop), n2 = second(k, stop)
    cdef Py_ssize_t oh = o // a.OW % a.OH, od = o // (a.OW * a.OH), ow = o % a.OW
    cdef Py_ssize_t image = a.D * a.H * a.W * C, plane = a.OD * a.OH * a.OW * K
    cdef Py_ssize_t kd, kh, kw, d, h, w, c, n, _n, samples, source
    cdef Py_ssize_t last = depth - 1
    cdef const real* dy
    cdef const real* x
    cdef real* dweight = a.dweight + o * a.KD * a.KH * a.KW * depth * K + k
    cdef vf d1, d2, xc, s01, s02, s11, s12, s21, s22, s31, s32
    if a.dbias != NULL:
        s01 = s02 = vf_zero()
        dy = a.dy + o * K + k
        for _n in range(a.N):
            s01 = vf_add(s01, load(dy, n1))
            s02 = vf_add(s02, load(dy + VL, n2))
            dy = dy + plane
        store(a.dbias + o * K + k, s01, n1)
        store(a.dbias + o * K + k + VL, s02, n2)
    for kd in range(a.KD):
        d = a.map_d[od * a.KD + kd]
        for kh in range(a.KH):
            h = a.map_h[oh * a.KH + kh]
            for kw in range(a.KW):
                w = a.map_w[ow * a.KW + kw]
                samples = a.N if d >= 0 and h >= 0 and w >= 0 else 0
                source = ((d * a.H + h) * a.W + w) * C + g * depth
                for c in range(0, depth, 4):
                    s01 = s02 = s11 = s12 = s21 = s22 = s31 = s32 = vf_zero()
                    for n in range(samples):
                        dy = a.dy + n * plane + o * K + k
                        x = a.x + n * image + source
                        d1 = load(dy, n1)
                        d2 = load(dy + VL, n2)
                        xc = vf_bcast(x + c)
                        s01 = vf_fma(xc, d1, s01)
                        s02 = vf_fma(xc, d2, s02)
                        xc = vf_bcast(x + min(c + 1, last))
                        s11 = vf_fma(xc, d1, s11)
                        s12 = vf_fma(xc, d2, s12)
                        xc = vf_bcast(x + min(c + 2, last))
                        s21 = vf_fma(xc, d1, s21)
                        s22 = vf_fma(xc, d2, s22)
                        xc = vf_bcast(x + min(c + 3, last))
                        s31 = vf_fma(xc, d1, s31)
                        s32 = vf_fma(xc, d2, s32)
                    store(dweight, s01, n1)
                    store(dweight + VL, s02, n2)
                    if c + 1 <= last:
                        store(dweight + K, s11, n1)
                        store(dweight + K + VL, s12, n2)
                    if c + 2 <= last:
                        store(dweight + 2 * K, s21, n1)
                        store(dweight + 2 * K + VL, s22, n2)
                    if c + 3 <= last:
                        store(dweight + 3 * K, s31, n1)
                        store(dweight + 3 * K + VL, s32, n2)
                    dweight = dweight + min(depth - c, <Py_ssize_t>4) * K


_LOCAL = "x* weight* bias* y* map_d* map_h* map_w* N D H W C OD OH OW KD KH KW K depth width parts"
_INPUT = (
    "dy* weight* dx* start_d* window_d* tap_d* start_h* window_h* tap_h* start_w* window_w* tap_w* "
    "N D H W C OD OH OW KD KH KW K depth width reads chunk chunks parts")
_WEIGHT = (
    "dy* x* dweight* dbias* map_d* map_h* map_w* N D H W C OD OH OW KD KH KW K depth width parts")
JOBS = {
    "local_forward": publish(<void*>local_forward, sizeof(LocalArgs), _LOCAL),
    "local_backward_input": publish(<void*>local_backward_input, sizeof(InputArgs), _INPUT),
    "local_backward_weight": publish(<void*>local_backward_weight, sizeof(WeightArgs), _WEIGHT),
}
