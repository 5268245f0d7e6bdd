# exp, log and their kin on vectors, correct to a few units in the last place.
#
# Bounds are relative errors in units of eps (2^-23 in float32, 2^-52 in float64); the tests hold
# every build to them.  NaN stays NaN; infinities, overflow and subnormal results come out right.
#
#     exp_of           2      expm1_of         3      log_of         2      log1p_of       3
#     sigmoid_of       4      tanh_of          5      normal_cdf_of  8
from libc.math cimport INFINITY, NAN

from cycnn.kernels.simd cimport (
    FRACTION, real, vf, vf_add, vf_and, vf_bcast, vf_div, vf_eq, vf_fma, vf_fnma, vf_ge, vf_gt,
    vf_max, vf_min, vf_mul, vf_or, vf_select, vf_set1, vf_shift_down, vf_shift_up, vf_sub, vf_zero)

cdef extern from *:
    """
    #include "simd.h"
    #define TERMS(table) (sizeof(table) / sizeof(real))

    /* (e^r - 1 - r) / r^2, Taylor's series, the highest power first.  For |r| <= ln(2) / 2 it lacks
       less than r^8 / 8! < 2^-27 of e^r in float32, r^14 / 14! < 2^-57 in float64. */
    static const real EXP_SERIES[] = {
    #ifdef CYCNN_DOUBLE
        1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320,
    #endif
        (real)(1.0 / 5040), (real)(1.0 / 720), (real)(1.0 / 120), (real)(1.0 / 24),
        (real)(1.0 / 6), (real)0.5};

    /* log(1 + f) = f - f^2 / 2 + s (f^2 / 2 + R), s = f / (2 + f), R = s^2 times these in powers of
       s^2: FreeBSD's e_log.c and e_logf.c (Sun Microsystems, 1993), within 2^-58 and 2^-34. */
    static const real LOG_TERMS[] = {
    #ifdef CYCNN_DOUBLE
        1.479819860511658591e-01, 1.531383769920937332e-01, 1.818357216161805012e-01,
        2.222219843214978396e-01, 2.857142874366239149e-01, 3.999999999940941908e-01,
        6.666666666666735130e-01
    #else
        0.24279078841f, 0.28498786688f, 0.40000972152f, 0.66666662693f
    #endif
    };

    /* (1 + 2 z) e^(z^2) erfc(z) in powers of t = (z - 3) / (z + 3): the function and the kind of
       variable of Shepherd and Laframboise (1981), "Chebyshev approximation of (1 + 2x) exp(x^2)
       erfc x in 0 <= x < oo", Math. Comp. 36, interpolated at Chebyshev's points up to z = 27.8
       (10.5 in float32); within 2^-54 (2^-28). */
    static const real ERFC_TERMS[] = {
    #ifdef CYCNN_DOUBLE
        -4.199349495540886e-09, -8.474434672585319e-09, 3.289808685741965e-08,
        9.178015643735804e-08, -1.3112198345954427e-07, -6.048923211247444e-07,
        3.490285094229109e-07, 3.463911655668395e-06, -7.276263477252832e-07,
        -2.009659079628702e-05, 4.948168725726291e-06, 0.00012509813994540525,
        -0.00010515949685110643, -0.0007798320357770736, 0.0018886903132058726,
        0.002529391788025651, -0.023770514914358994, 0.06830802734581991,
        -0.11927366341552197, 0.12964515870270507, -0.047562294353446506,
        -0.13562110612458067, 1.2530080582697296
    #else
        -0.000273595999f, -0.000788120753f, 0.00200177123f, 0.00257685652f, -0.0237946645f,
        0.0682930291f, -0.119271919f, 0.129646715f, -0.0475623182f, -0.135621149f, 1.25300806f
    #endif
    };

    /* ln 2 in two parts, the first so short that its products with whole numbers are exact. */
    #define LN2_HIGH PICK(0.693359375f, 6.93145751953125e-1)
    #define LN2_LOW PICK(-2.12194440e-4f, 1.42860682030941723212e-6)
    #define LARGEST PICK(3.4028234663852886e38f, 1.7976931348623157e308)
    #define FRACTION_MASK PICK(1.1754942106924411e-38f, 2.2250738585072009e-308)
    #define TINY PICK(1.1754943508222875e-38f, 2.2250738585072014e-308)
    #define BIAS PICK(127, 1023)
    #define INTEGER PICK(8388608.0f, 4503599627370496.0)
    """
    enum:
        EXP_TERMS "TERMS(EXP_SERIES)"
        LOG_COUNT "TERMS(LOG_TERMS)"
        ERFC_COUNT "TERMS(ERFC_TERMS)"
    const real* EXP_SERIES
    const real* LOG_TERMS
    const real* ERFC_TERMS
    const real LN2_HIGH
    const real LN2_LOW
    const real LARGEST          # the largest finite number
    const real FRACTION_MASK    # the number whose bits are all those of the fraction
    const real TINY             # the least normal number
    const real BIAS             # of the exponent
    const real INTEGER          # 2^FRACTION: the last bit of numbers from here on is worth 1


cdef inline vf number(double s) noexcept nogil:
    return vf_set1(<real>s)


cdef inline vf negative(vf x) noexcept nogil:
    return vf_sub(number(-0.0), x)


cdef inline vf absolute(vf x) noexcept nogil:
    return vf_max(x, vf_sub(vf_zero(), x))


cdef inline vf with_sign_of(vf x, vf magnitude) noexcept nogil:
    """Give a magnitude of at least 0 the sign of x."""
    return vf_or(magnitude, vf_and(x, number(-0.0)))


cdef inline vf finite(vf x) noexcept nogil:
    """Return x, infinities replaced by the largest finite numbers: inf * 0 would be NaN."""
    return vf_max(vf_set1(-LARGEST), vf_min(vf_set1(LARGEST), x))


cdef inline vf horner(const real* c, Py_ssize_t count, vf x) noexcept nogil:
    """Return c[0] x^(count - 1) + ... + c[count - 1]."""
    cdef Py_ssize_t k
    cdef vf sum = vf_bcast(c)
    for k in range(1, count):
        sum = vf_fma(sum, x, vf_bcast(c + k))
    return sum


cdef inline vf nearest(vf x) noexcept nogil:
    """Return the nearest whole number, for |x| below 2^(FRACTION - 2)."""
    cdef vf magic = vf_set1(<real>1.5 * INTEGER)
    return vf_sub(vf_add(x, magic), magic)


cdef inline vf power_of_two(vf n) noexcept nogil:
    """Return 2^n for whole n in [-126, 127], in float64 [-1022, 1023]."""
    return vf_shift_up(vf_add(n, vf_set1(<real>1.5 * INTEGER + BIAS)))


cdef inline vf times_power_of_two(vf x, vf n) noexcept nogil:
    """Return x 2^n for whole n, twice as far: in two factors, the second of which rounds once."""
    cdef vf half = nearest(vf_mul(n, number(0.5)))
    return vf_mul(vf_mul(x, power_of_two(half)), power_of_two(vf_sub(n, half)))


cdef inline vf reduced(vf x, vf rest, vf* n) noexcept nogil:
    """Return e^r - 1, where x + rest = n ln 2 + r and n is a whole number.

    Cody and Waite (1980), "Software Manual for the Elementary Functions", chapter 6.
    """
    cdef vf r
    n[0] = nearest(vf_mul(vf_add(x, rest), number(1.4426950408889634074)))
    r = vf_add(vf_fnma(n[0], vf_set1(LN2_HIGH), x), rest)
    r = vf_fnma(n[0], vf_set1(LN2_LOW), r)
    return vf_fma(vf_mul(r, r), horner(EXP_SERIES, EXP_TERMS, r), r)


cdef inline vf exp_of_sum(vf x, vf rest) noexcept nogil:
    """Return e^(x + rest) for a rest that is small against 1."""
    cdef vf n, q
    cdef vf top = number(89 if FRACTION == 23 else 710)         # e^top is inf
    cdef vf bottom = number(-105 if FRACTION == 23 else -746)   # e^bottom is 0
    q = reduced(vf_max(bottom, vf_min(top, x)), rest, &n)
    return times_power_of_two(vf_add(number(1), q), n)


cdef inline vf exp_of(vf x) noexcept nogil:
    """Return e^x."""
    return exp_of_sum(x, vf_zero())


cdef inline vf expm1_of(vf x) noexcept nogil:
    """Return e^x - 1 for x <= 0, exact in small x: 2^n (e^r - 1) + (2^n - 1)."""
    cdef vf n, q, power
    q = reduced(vf_max(number(-64), x), vf_zero(), &n)          # e^-64 is nothing beside 1
    power = power_of_two(n)
    return vf_fma(power, q, vf_sub(power, number(1)))


cdef inline vf log_parts(vf f, vf n) noexcept nogil:
    """Return n ln 2 + log(1 + f) for 1 + f in [sqrt(1/2), sqrt(2)]."""
    cdef vf half = vf_mul(vf_mul(number(0.5), f), f)
    cdef vf s = vf_div(f, vf_add(number(2), f)), z = vf_mul(s, s)
    cdef vf R = vf_mul(z, horner(LOG_TERMS, LOG_COUNT, z))
    cdef vf tail = vf_fma(n, vf_set1(LN2_LOW), vf_mul(s, vf_add(half, R)))
    return vf_fma(n, vf_set1(LN2_HIGH), vf_sub(f, vf_sub(half, tail)))


cdef inline vf log_of(vf x) noexcept nogil:
    """Return log(x)."""
    cdef vf one = number(1), bits = vf_set1(INTEGER), tiny = vf_set1(TINY), m, n, result
    cdef vf bias = vf_set1(INTEGER + BIAS)
    m = vf_select(vf_gt(tiny, x), vf_mul(x, bits), x)           # normal, and FRACTION to take off
    n = vf_sub(vf_or(vf_shift_down(m), bits), bias)
    n = vf_select(vf_gt(tiny, x), vf_sub(n, number(FRACTION)), n)
    m = vf_or(vf_and(m, vf_set1(FRACTION_MASK)), one)           # in [1, 2)
    n = vf_select(vf_gt(m, number(1.4142135623730951)), vf_add(n, one), n)
    m = vf_select(vf_gt(m, number(1.4142135623730951)), vf_mul(number(0.5), m), m)
    result = log_parts(vf_sub(m, one), n)
    result = vf_select(vf_gt(x, vf_set1(LARGEST)), x, result)
    return vf_select(vf_gt(x, vf_zero()), result,
                     vf_select(vf_eq(x, vf_zero()), number(-INFINITY), number(NAN)))


cdef inline vf log1p_of(vf x) noexcept nogil:
    """Return log(1 + x) for x in [0, 1]."""
    cdef vf f = vf_select(vf_gt(x, number(0.41421356237309503)),
                          vf_mul(number(0.5), vf_sub(x, number(1))), x)
    cdef vf n = vf_select(vf_gt(x, number(0.41421356237309503)), number(1), vf_zero())
    return log_parts(f, n)


cdef inline vf sigmoid_from(vf x, vf e, vf* rest) noexcept nogil:
    """Return s = 1 / (1 + e^-x) and write 1 - s, given e = e^-|x|: no digit cancels."""
    cdef vf large = vf_div(number(1), vf_add(number(1), e)), small = vf_mul(e, large)
    rest[0] = vf_select(vf_gt(vf_zero(), x), large, small)
    return vf_select(vf_gt(vf_zero(), x), small, large)


cdef inline vf sigmoid_parts(vf x, vf* rest) noexcept nogil:
    """Return s = 1 / (1 + e^-x) and write 1 - s; nothing overflows."""
    return sigmoid_from(x, exp_of(vf_sub(vf_zero(), absolute(x))), rest)


cdef inline vf sigmoid_of(vf x) noexcept nogil:
    """Return 1 / (1 + e^-x)."""
    cdef vf rest
    return sigmoid_parts(x, &rest)


cdef inline vf tanh_of(vf x) noexcept nogil:
    """Return tanh(x) = -t / (t + 2) for t = e^(-2 |x|) - 1, with the sign of x."""
    cdef vf t = expm1_of(vf_mul(number(-2), absolute(x)))
    return with_sign_of(x, vf_div(vf_sub(vf_zero(), t), vf_add(t, number(2))))


cdef inline vf normal_of(vf x) noexcept nogil:
    """Return e^(-x^2 / 2); x^2 is taken in two parts, as its rounding would be all of the error."""
    # High is x to 2^-7 (2^-20 in float64), so that its square is exact.
    cdef vf a = vf_min(number(15 if FRACTION == 23 else 39), absolute(x))
    cdef vf magic = vf_set1(<real>1.5 * INTEGER / <real>(128 if FRACTION == 23 else 1048576))
    cdef vf high = vf_sub(vf_add(a, magic), magic)
    cdef vf rest = vf_mul(number(-0.5), vf_mul(vf_sub(a, high), vf_add(a, high)))
    return exp_of_sum(vf_mul(number(-0.5), vf_mul(high, high)), rest)


cdef inline vf normal_cdf_of(vf x, vf density) noexcept nogil:
    """Return (1 + erf(x / sqrt 2)) / 2, given density = e^(-x^2 / 2)."""
    cdef vf z = vf_mul(vf_min(number(15 if FRACTION == 23 else 39), absolute(x)),
                       number(0.70710678118654752440))
    cdef vf t = vf_div(vf_sub(z, number(3)), vf_add(z, number(3)))
    cdef vf tail = vf_div(vf_mul(vf_mul(number(0.5), density), horner(ERFC_TERMS, ERFC_COUNT, t)),
                          vf_fma(number(2), z, number(1)))
    return vf_select(vf_ge(vf_zero(), x), tail, vf_sub(number(1), tail))
