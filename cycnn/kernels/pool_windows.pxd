# The windows of a pool: which pixels each of them reads, and which of them read a pixel.
#
# Which pixel a tap reads is a table per axis (ops/window.py: tap_map), -1 for none; backward, the
# table is turned round: the windows, and their taps, that read each input.
from libc.stdint cimport int64_t

from cycnn.kernels.simd cimport real


cdef struct ForwardArgs:
    const real* x               # IN   (N, D, H, W, C)
    real* y                     # OUT  (N, OD, OH, OW, C)
    void* offset                # OUT  (N, OD, OH, OW, C) of uint8, real if wide: the tap that won
    const int64_t* map_d        # IN   (OD, KD), the d that a tap reads, or -1
    const int64_t* map_h        # IN   (OH, KH)
    const int64_t* map_w        # IN   (OW, KW)
    const int64_t* count_d      # IN   (OD), how many taps an average counts
    const int64_t* count_h      # IN   (OH)
    const int64_t* count_w      # IN   (OW)
    Py_ssize_t D, H, W, C, OD, OH, OW, KD, KH, KW
    Py_ssize_t wide             # windows of more than 255 taps
    Py_ssize_t rectified        # whether offset names no tap where y <= 0
    Py_ssize_t outputs, chunk   # N OD OH OW, and how many of them are a job
    double p                    # of a p-norm


cdef struct BackwardArgs:
    const real* dy              # IN   (N, OD, OH, OW, C)
    const real* x               # IN   (N, D, H, W, C), for a p-norm
    const real* y               # IN   (N, OD, OH, OW, C), for a p-norm
    const void* offset          # IN   as forward wrote it
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
    const int64_t* count_d      # IN   (OD), how many taps an average counts
    const int64_t* count_h      # IN   (OH)
    const int64_t* count_w      # IN   (OW)
    Py_ssize_t D, H, W, C, OD, OH, OW, KH, KW
    Py_ssize_t wide
    Py_ssize_t outputs          # N OD OH OW
    Py_ssize_t inputs, chunk    # N D H W, and how many of them are a job
    Py_ssize_t rows, reads      # most (od, oh) and most windows that read one pixel
    double p                    # of a p-norm


cdef inline Py_ssize_t window_rows(
        const ForwardArgs* a, Py_ssize_t row, Py_ssize_t* base, Py_ssize_t* first) noexcept nogil:
    """List the rows of x that the windows of output row (n, od, oh) read.

    base[r] is the first element of a row of x, first[r] the number of the window's tap at kw = 0.
    """
    cdef Py_ssize_t oh = row % a.OH, od = row // a.OH % a.OD, n = row // (a.OH * a.OD)
    cdef Py_ssize_t kd, kh, d, h, count = 0
    for kd in range(a.KD):
        d = a.map_d[od * a.KD + kd]
        if d < 0:
            continue
        for kh in range(a.KH):
            h = a.map_h[oh * a.KH + kh]
            if h < 0:
                continue
            base[count] = ((n * a.D + d) * a.H + h) * a.W * a.C
            first[count] = (kd * a.KH + kh) * a.KW
            count = count + 1
    return count


cdef inline Py_ssize_t window_taps(
        const ForwardArgs* a, Py_ssize_t ow, Py_ssize_t rows, const Py_ssize_t* base,
        const Py_ssize_t* first, const real** source, real* tap) noexcept nogil:
    """List the pixels under the window at ow, in the order of its taps, and the taps' numbers."""
    cdef Py_ssize_t r, kw, w, count = 0
    for r in range(rows):
        for kw in range(a.KW):
            w = a.map_w[ow * a.KW + kw]
            if w < 0:
                continue
            source[count] = a.x + base[r] + w * a.C
            tap[count] = <real>(first[r] + kw)
            count = count + 1
    return count


cdef inline Py_ssize_t next_rows(const ForwardArgs* a) noexcept nogil:
    """How far ahead in x the windows of the next output row are, about.

    They are fetched while this row is worked on: the processor expects the rows in between.
    """
    return max(a.H // a.OH, <Py_ssize_t>1) * a.W * a.C


cdef inline Py_ssize_t reader_rows(
        const BackwardArgs* a, Py_ssize_t row, Py_ssize_t* base, Py_ssize_t* first,
        Py_ssize_t* count) noexcept nogil:
    """List the rows of outputs whose windows read input row (n, d, h).

    base[r] is the first output of a row, first[r] the number of the tap that reads at kw = 0,
    count[r] the product of the row's counts.
    """
    cdef Py_ssize_t h = row % a.H, d = row // a.H % a.D, n = row // (a.H * a.D)
    cdef Py_ssize_t i, j, od, oh, rows = 0
    for i in range(a.start_d[d], a.start_d[d + 1]):
        od = a.window_d[i]
        for j in range(a.start_h[h], a.start_h[h + 1]):
            oh = a.window_h[j]
            base[rows] = ((n * a.OD + od) * a.OH + oh) * a.OW
            first[rows] = (a.tap_d[i] * a.KH + a.tap_h[j]) * a.KW
            count[rows] = a.count_d[od] * a.count_h[oh]
            rows = rows + 1
    return rows


cdef inline Py_ssize_t one_reader(
        const BackwardArgs* a, Py_ssize_t w, Py_ssize_t most) noexcept nogil:
    """Return how many pixels from w on, of `most`, only one window reads, by taps side by side."""
    cdef Py_ssize_t s = a.start_w[w], k = 0
    while (k < most and a.start_w[w + k + 1] == s + k + 1
            and a.window_w[s + k] == a.window_w[s] and a.tap_w[s + k] == a.tap_w[s] + k):
        k = k + 1
    return k
