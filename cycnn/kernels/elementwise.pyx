"""Element by element: ReLU, sums, products, maxima, dropout; and copies of rows, to concatenate.

Arrays are taken flat, so the number of channels does not matter.  A job is a chunk of elements; its
last, partial vector runs the same instructions as the others, masked.
"""
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from cycnn.kernels.rectifier cimport RELU, let_through, rectified
from cycnn.kernels.simd cimport (
    VL, publish, real, vf, vf_eq, vf_fma, vf_gt, vf_load, vf_max, vf_mul, vf_select, vf_set1,
    vf_unordered, vf_zero, vm, vm_or)
from cycnn.kernels.tail cimport lanes, load, store

cdef struct ReluForwardArgs:
    const real* x           # IN   (count)
    real* y                 # OUT  (count)
    Py_ssize_t count, chunk

cdef struct ReluBackwardArgs:
    const real* dy          # IN   (count)
    const real* y           # IN   (count), what forward returned
    real* dx                # OUT  (count)
    Py_ssize_t count, chunk

cdef struct ScaleArgs:
    const real* x           # IN   (count)
    real* y                 # OUT  (count)
    Py_ssize_t count, chunk
    double factor

cdef struct AddArgs:
    const real* x0          # IN   (count)
    const real* x1          # IN   (count)
    const real* x2          # IN   (count) or NULL
    const real* x3          # IN   (count) or NULL
    real* y                 # OUT  (count), may be x0
    Py_ssize_t count, chunk
    double c0, c1, c2, c3

cdef struct PairArgs:
    const real* x0              # IN   (count)
    const real* x1              # IN   (count)
    real* y                     # OUT  (count), may be x0 or x1
    Py_ssize_t count, chunk

cdef struct MaximumBackwardArgs:
    const real* dy              # IN   (count), the gradient that no earlier input took
    const real* x               # IN   (count)
    const real* y               # IN   (count), what forward returned
    real* dx                    # OUT  (count)
    real* rest                  # OUT  (count), what is left of dy, may be dy; or NULL
    Py_ssize_t count, chunk

cdef struct DropoutArgs:
    const real* x           # IN   (count)
    const uint64_t* seed    # IN   one
    real* y                 # OUT  (count)
    Py_ssize_t count
    Py_ssize_t chunk        # a multiple of BLOCK
    Py_ssize_t threshold    # an element is dropped when its random word is below
    double factor           # of the elements kept

cdef struct CopyRowsArgs:
    const real* x           # IN   (rows, width), x_stride apart
    real* y                 # OUT  (rows, width), y_stride apart
    Py_ssize_t rows, width, x_stride, y_stride
    Py_ssize_t row_chunk, column_chunk, column_jobs


cdef void relu_forward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y = max(x, 0); NaN stays NaN."""
    cdef const ReluForwardArgs* a = <const ReluForwardArgs*>args
    cdef const real* x = a.x
    cdef real* y = a.y
    cdef Py_ssize_t i = job * a.chunk, stop = min(i + a.chunk, a.count), n
    while i < stop:
        n = lanes(i, stop)
        store(y + i, rectified(RELU, load(x + i, n), vf_zero()), n)
        i = i + VL


cdef void relu_backward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """dx = dy where y > 0 (or y is NaN), else 0."""
    cdef const ReluBackwardArgs* a = <const ReluBackwardArgs*>args
    cdef const real* dy = a.dy
    cdef const real* y = a.y
    cdef real* dx = a.dx
    cdef Py_ssize_t i = job * a.chunk, stop = min(i + a.chunk, a.count), n
    while i < stop:
        n = lanes(i, stop)
        store(dx + i, let_through(RELU, load(dy + i, n), load(y + i, n), vf_zero()), n)
        i = i + VL


cdef void scale(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y = factor x."""
    cdef const ScaleArgs* a = <const ScaleArgs*>args
    cdef const real* x = a.x
    cdef real* y = a.y
    cdef Py_ssize_t i = job * a.chunk, stop = min(i + a.chunk, a.count), n
    cdef vf factor = vf_set1(<real>a.factor)
    while i < stop:
        n = lanes(i, stop)
        store(y + i, vf_mul(factor, load(x + i, n)), n)
        i = i + VL


cdef void add(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y = c0 x0 + c1 x1 + c2 x2 + c3 x3, added in this order."""
    cdef const AddArgs* a = <const AddArgs*>args
    cdef const real* x0 = a.x0
    cdef const real* x1 = a.x1
    cdef const real* x2 = a.x2
    cdef const real* x3 = a.x3
    cdef real* y = a.y
    cdef vf c0 = vf_set1(<real>a.c0), c1 = vf_set1(<real>a.c1)
    cdef vf c2 = vf_set1(<real>a.c2), c3 = vf_set1(<real>a.c3), sum
    cdef Py_ssize_t i = job * a.chunk, stop = min(i + a.chunk, a.count), n
    while i < stop:
        n = lanes(i, stop)
        sum = vf_fma(c1, load(x1 + i, n), vf_mul(c0, load(x0 + i, n)))
        if x2 != NULL:
            sum = vf_fma(c2, load(x2 + i, n), sum)
        if x3 != NULL:
            sum = vf_fma(c3, load(x3 + i, n), sum)
        store(y + i, sum, n)
        i = i + VL


cdef void multiply(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y = x0 x1."""
    cdef const PairArgs* a = <const PairArgs*>args
    cdef const real* x0 = a.x0
    cdef const real* x1 = a.x1
    cdef real* y = a.y
    cdef Py_ssize_t i = job * a.chunk, stop = min(i + a.chunk, a.count), n
    while i < stop:
        n = lanes(i, stop)
        store(y + i, vf_mul(load(x0 + i, n), load(x1 + i, n)), n)
        i = i + VL


cdef void maximum(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y = max(x0, x1); NaN wins."""
    cdef const PairArgs* a = <const PairArgs*>args
    cdef real* y = a.y
    cdef Py_ssize_t i = job * a.chunk, stop = min(i + a.chunk, a.count), n
    cdef vf x0, x1
    while i < stop:
        n = lanes(i, stop)
        x0 = load(a.x0 + i, n)
        x1 = load(a.x1 + i, n)
        store(y + i, vf_select(vf_unordered(x0, x0), x0, vf_max(x0, x1)), n)
        i = i + VL


cdef void maximum_backward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """dx = dy where x is y (or both are NaN), else 0; rest = dy where it was not taken, else 0."""
    cdef const MaximumBackwardArgs* a = <const MaximumBackwardArgs*>args
    cdef Py_ssize_t i = job * a.chunk, stop = min(i + a.chunk, a.count), n
    cdef vf x, dy
    cdef vm won
    while i < stop:
        n = lanes(i, stop)
        x = load(a.x + i, n)
        dy = load(a.dy + i, n)
        won = vm_or(vf_eq(x, load(a.y + i, n)), vf_unordered(x, x))
        store(a.dx + i, vf_select(won, dy, vf_zero()), n)
        if a.rest != NULL:
            store(a.rest + i, vf_select(won, vf_zero(), dy), n)
        i = i + VL


cdef enum:
    COUNTERS = 64           # Philox counters that are advanced side by side
    BLOCK = 4 * COUNTERS    # random words they give


cdef inline void philox(uint64_t first, uint32_t key0, uint32_t key1, uint32_t* words,
                        uint32_t* state) noexcept nogil:
    """words[4 i + j] = word j of Philox 4x32-10 at counter first + i, for i < COUNTERS.

    Salmon et al. (2011), "Parallel random numbers: as easy as 1, 2, 3".
    """
    cdef uint32_t* c0 = state
    cdef uint32_t* c1 = state + COUNTERS
    cdef uint32_t* c2 = state + 2 * COUNTERS
    cdef uint32_t* c3 = state + 3 * COUNTERS
    cdef uint64_t even, odd
    cdef Py_ssize_t i
    cdef int _turn
    for i in range(COUNTERS):
        c0[i] = <uint32_t>(first + <uint64_t>i)
        c1[i] = <uint32_t>((first + <uint64_t>i) >> 32)
        c2[i] = 0
        c3[i] = 0
    for _turn in range(10):
        for i in range(COUNTERS):
            even = <uint64_t>c0[i] * <uint32_t>0xD2511F53
            odd = <uint64_t>c2[i] * <uint32_t>0xCD9E8D57
            c0[i] = <uint32_t>(odd >> 32) ^ c1[i] ^ key0
            c1[i] = <uint32_t>odd
            c2[i] = <uint32_t>(even >> 32) ^ c3[i] ^ key1
            c3[i] = <uint32_t>even
        key0 = key0 + <uint32_t>0x9E3779B9
        key1 = key1 + <uint32_t>0xBB67AE85
    for i in range(COUNTERS):
        words[4 * i] = c0[i]
        words[4 * i + 1] = c1[i]
        words[4 * i + 2] = c2[i]
        words[4 * i + 3] = c3[i]


cdef void dropout(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y[i] = factor x[i] if the random word of element i is at least threshold, else 0.

    The word of element i is word i % 4 of Philox counter i / 4: it depends on nothing but the seed
    and i, so backward makes the same mask again instead of reading a stored one.
    """
    cdef const DropoutArgs* a = <const DropoutArgs*>args
    cdef Py_ssize_t start = job * a.chunk, stop = min(start + a.chunk, a.count), block, end, i, n
    cdef uint32_t* words = <uint32_t*>scratch
    cdef real* kept = <real*>(scratch + 2 * BLOCK * sizeof(uint32_t))
    cdef uint32_t threshold = <uint32_t>a.threshold
    cdef vf factor = vf_set1(<real>a.factor)
    block = start
    while block < stop:
        end = min(block + BLOCK, stop)
        philox(<uint64_t>block // 4, <uint32_t>a.seed[0], <uint32_t>(a.seed[0] >> 32), words,
               words + BLOCK)
        for i in range(BLOCK):
            kept[i] = <real>1 if words[i] >= threshold else <real>0
        i = block
        while i < end:
            n = lanes(i, end)
            store(a.y + i, vf_select(vf_gt(vf_load(kept + i - block), vf_zero()),
                                     vf_mul(factor, load(a.x + i, n)), vf_zero()), n)
            i = i + VL
        block = end


cdef void copy_rows(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y[r, i] = x[r, i] for all rows; a job is a block of rows and columns."""
    cdef const CopyRowsArgs* a = <const CopyRowsArgs*>args
    cdef Py_ssize_t row = job // a.column_jobs * a.row_chunk
    cdef Py_ssize_t column = job % a.column_jobs * a.column_chunk
    cdef Py_ssize_t bytes = min(a.column_chunk, a.width - column) * <Py_ssize_t>sizeof(real), r
    for r in range(row, min(row + a.row_chunk, a.rows)):
        memcpy(a.y + r * a.y_stride + column, a.x + r * a.x_stride + column, bytes)


JOBS = {
    "relu_forward": publish(<void*>relu_forward, sizeof(ReluForwardArgs), "x* y* count chunk"),
    "relu_backward": publish(
        <void*>relu_backward, sizeof(ReluBackwardArgs), "dy* y* dx* count chunk"),
    "scale": publish(<void*>scale, sizeof(ScaleArgs), "x* y* count chunk factor."),
    "add": publish(<void*>add, sizeof(AddArgs), "x0* x1* x2* x3* y* count chunk c0. c1. c2. c3."),
    "multiply": publish(<void*>multiply, sizeof(PairArgs), "x0* x1* y* count chunk"),
    "maximum": publish(<void*>maximum, sizeof(PairArgs), "x0* x1* y* count chunk"),
    "maximum_backward": publish(
        <void*>maximum_backward, sizeof(MaximumBackwardArgs), "dy* x* y* dx* rest* count chunk"),
    "dropout": publish(
        <void*>dropout, sizeof(DropoutArgs), "x* seed* y* count chunk threshold factor."),
    "copy_rows": publish(
        <void*>copy_rows, sizeof(CopyRowsArgs),
        "x* y* rows width x_stride y_stride row_chunk column_chunk column_jobs"),
}
