# The transforms of Winograd's minimal filtering, along one axis, on vectors of channels.
#
#     y = A^T [(G w) * (B^T x)]           * : element by element
#
# computes m outputs of a correlation with 3 taps by n = m + 2 products instead of 3 m (Winograd,
# 1980; Lavin and Gray, 2016, eq. 6).  It is polynomial multiplication by evaluation and
# interpolation (Toom and Cook): row j of G and of A evaluates at the point p_j, and B^T
# interpolates.
#
#     F(2, 3), n = 4:  points 0, 1, -1, infinity
#     F(4, 3), n = 6:  points 0, a, -a, b, -b, infinity;  a = sqrt(1/2), b = sqrt(2)
#
# These points, with a b = 1, lose a fifth of the bits that 0, +-1, +-2, infinity lose.  n = 1 is an
# axis without taps: every transform is the identity.
#
# By the chain rule, the same three matrices give the gradient of the weights:
#
#     dw = G^T [(A dy) * (B^T x)]
#
# Each function reads its vectors `s` apart and writes them `t` apart.  n is a constant at each
# call.
from cycnn.kernels.simd cimport real, vf, vf_add, vf_fma, vf_fnma, vf_mul, vf_set1, vf_sub

cdef extern from *:
    """
    #define WINOGRAD_A ((real)0.70710678118654752440)
    #define WINOGRAD_B ((real)1.41421356237309504880)
    """
    real A "WINOGRAD_A"
    real B "WINOGRAD_B"


cdef inline void transform_input(
    int n, const vf* x, Py_ssize_t s, vf* v, Py_ssize_t t,
) noexcept nogil:
    """v = B^T x: n values to n."""
    cdef vf x0 = x[0], x1, x2, x3, x4, x5, even, odd
    if n == 1:
        v[0] = x0
    elif n == 4:
        x1 = x[s]
        x2 = x[2 * s]
        x3 = x[3 * s]
        v[0] = vf_sub(x0, x2)
        v[t] = vf_add(x1, x2)
        v[2 * t] = vf_sub(x2, x1)
        v[3 * t] = vf_sub(x3, x1)
    else:
        x1 = x[s]
        x2 = x[2 * s]
        x3 = x[3 * s]
        x4 = x[4 * s]
        x5 = x[5 * s]
        v[0] = vf_fnma(vf_set1(2.5), x2, vf_add(x0, x4))
        even = vf_fnma(vf_set1(2), x2, x4)
        odd = vf_mul(vf_set1(A), vf_fnma(vf_set1(2), x1, x3))
        v[t] = vf_add(even, odd)
        v[2 * t] = vf_sub(even, odd)
        even = vf_fnma(vf_set1(0.5), x2, x4)
        odd = vf_mul(vf_set1(B), vf_fnma(vf_set1(0.5), x1, x3))
        v[3 * t] = vf_add(even, odd)
        v[4 * t] = vf_sub(even, odd)
        v[5 * t] = vf_fnma(vf_set1(2.5), x3, vf_add(x1, x5))


cdef inline void transform_output(
    int n, const vf* m, Py_ssize_t s, vf* y, Py_ssize_t t,
) noexcept nogil:
    """y = A^T m: n values to n - 2."""
    cdef vf m0 = m[0], p, q, u, v
    if n == 1:
        y[0] = m0
    elif n == 4:
        p = vf_add(m[s], m[2 * s])
        q = vf_sub(m[s], m[2 * s])
        y[0] = vf_add(m0, p)
        y[t] = vf_add(q, m[3 * s])
    else:
        p = vf_add(m[s], m[2 * s])
        q = vf_mul(vf_set1(A), vf_sub(m[s], m[2 * s]))
        u = vf_add(m[3 * s], m[4 * s])
        v = vf_mul(vf_set1(B), vf_sub(m[3 * s], m[4 * s]))
        y[0] = vf_add(m0, vf_add(p, u))
        y[t] = vf_add(q, v)
        y[2 * t] = vf_fma(vf_set1(0.5), p, vf_add(u, u))
        y[3 * t] = vf_fma(vf_set1(0.5), q, vf_fma(vf_set1(2), v, m[5 * s]))


cdef inline void transform_weight(
    int n, const vf* w, Py_ssize_t s, vf* u, Py_ssize_t t,
) noexcept nogil:
    """u = G w: 3 values to n."""
    cdef vf w0 = w[0], w1, w2, even, odd
    if n == 1:
        u[0] = w0
    elif n == 4:
        w1 = w[s]
        w2 = w[2 * s]
        even = vf_mul(vf_set1(0.5), vf_add(w0, w2))
        odd = vf_mul(vf_set1(0.5), w1)
        u[0] = w0
        u[t] = vf_add(even, odd)
        u[2 * t] = vf_sub(even, odd)
        u[3 * t] = w2
    else:
        w1 = w[s]
        w2 = w[2 * s]
        even = vf_mul(vf_set1(-2 / <real>3), vf_fma(vf_set1(0.5), w2, w0))
        odd = vf_mul(vf_set1(-2 / <real>3 * A), w1)
        u[0] = w0
        u[t] = vf_add(even, odd)
        u[2 * t] = vf_sub(even, odd)
        even = vf_mul(vf_set1(1 / <real>6), vf_fma(vf_set1(2), w2, w0))
        odd = vf_mul(vf_set1(B / 6), w1)
        u[3 * t] = vf_add(even, odd)
        u[4 * t] = vf_sub(even, odd)
        u[5 * t] = w2


cdef inline void transform_output_gradient(
    int n, const vf* dy, Py_ssize_t s, vf* e, Py_ssize_t t,
) noexcept nogil:
    """e = A dy: n - 2 values to n."""
    cdef vf y0 = dy[0], y1, y2, y3, even, odd
    if n == 1:
        e[0] = y0
    elif n == 4:
        y1 = dy[s]
        e[0] = y0
        e[t] = vf_add(y0, y1)
        e[2 * t] = vf_sub(y0, y1)
        e[3 * t] = y1
    else:
        y1 = dy[s]
        y2 = dy[2 * s]
        y3 = dy[3 * s]
        even = vf_fma(vf_set1(0.5), y2, y0)
        odd = vf_mul(vf_set1(A), vf_fma(vf_set1(0.5), y3, y1))
        e[0] = y0
        e[t] = vf_add(even, odd)
        e[2 * t] = vf_sub(even, odd)
        even = vf_fma(vf_set1(2), y2, y0)
        odd = vf_mul(vf_set1(B), vf_fma(vf_set1(2), y3, y1))
        e[3 * t] = vf_add(even, odd)
        e[4 * t] = vf_sub(even, odd)
        e[5 * t] = y3


cdef inline void transform_weight_gradient(
    int n, const vf* m, Py_ssize_t s, vf* dw, Py_ssize_t t,
) noexcept nogil:
    """dw = G^T m: n values to 3."""
    cdef vf m0 = m[0], p, q, u, v
    if n == 1:
        dw[0] = m0
    elif n == 4:
        p = vf_mul(vf_set1(0.5), vf_add(m[s], m[2 * s]))
        dw[0] = vf_add(m0, p)
        dw[t] = vf_mul(vf_set1(0.5), vf_sub(m[s], m[2 * s]))
        dw[2 * t] = vf_add(p, m[3 * s])
    else:
        p = vf_mul(vf_set1(-2 / <real>3), vf_add(m[s], m[2 * s]))
        q = vf_mul(vf_set1(-2 / <real>3 * A), vf_sub(m[s], m[2 * s]))
        u = vf_mul(vf_set1(1 / <real>6), vf_add(m[3 * s], m[4 * s]))
        v = vf_mul(vf_set1(B / 6), vf_sub(m[3 * s], m[4 * s]))
        dw[0] = vf_add(m0, vf_add(p, u))
        dw[t] = vf_add(q, v)
        dw[2 * t] = vf_fma(vf_set1(0.5), p, vf_fma(vf_set1(2), u, m[5 * s]))
