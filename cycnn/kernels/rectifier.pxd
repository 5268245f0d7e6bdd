# Rectifiers, shared by the kernels that end in one.
#
# Where they let a gradient through is seen as well in what comes out as in what goes in: y > 0 just
# where x > 0 (a slope is not negative).  So nothing needs to be kept for backward but y, or what x
# is computed from.
from cycnn.kernels.simd cimport real, vf, vf_ge, vf_gt, vf_max, vf_mul, vf_select, vf_set1, vf_zero

cdef enum Rectifier:
    # cycnn/ops/norm.py counts in the same order.
    IDENTITY
    RELU
    LEAKY_RELU


cdef inline vf rectified(Rectifier f, vf x, vf slope) noexcept nogil:
    """Return f(x): max(x, 0), or x above 0 and slope x below; NaN stays NaN."""
    if f == RELU:
        return vf_max(vf_zero(), x)
    if f == LEAKY_RELU:
        return vf_select(vf_gt(x, vf_zero()), x, vf_mul(slope, x))
    return x


cdef inline vf let_through(Rectifier f, vf dy, vf v, vf slope) noexcept nogil:
    """Return f'(x) dy, where v is x or f(x); at NaN, ReLU lets the gradient through."""
    if f == RELU:
        return vf_select(vf_ge(vf_zero(), v), vf_zero(), dy)
    if f == LEAKY_RELU:
        return vf_mul(dy, vf_select(vf_gt(v, vf_zero()), vf_set1(<real>1), slope))
    return dy
