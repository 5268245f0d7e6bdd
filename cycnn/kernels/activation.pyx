"""Activations: a function of each element, and its slope times the gradient that arrives.

There is one forward and one backward job.  Which function it is, is decided before the loop: each
has a loop of its own, made from `value` and `slope` with the function a constant.  Both take x, so
that no slope is lost where y has rounded to a constant.
"""
from cycnn.kernels.rectifier cimport LEAKY_RELU as LEAKY
from cycnn.kernels.rectifier cimport let_through, rectified
from cycnn.kernels.simd cimport (
    VL, publish, real, vf, vf_add, vf_div, vf_fma, vf_ge, vf_gt, vf_max, vf_min, vf_mul, vf_select,
    vf_zero)
from cycnn.kernels.tail cimport lanes, load, store
from cycnn.kernels.vmath cimport (
    absolute, exp_of, expm1_of, finite, log1p_of, log_of, negative, normal_cdf_of, normal_of,
    number, sigmoid_from, sigmoid_of, sigmoid_parts, tanh_of)

cdef struct ActivationArgs:
    const real* x           # IN   (count)
    const real* dy          # IN   (count), for backward
    real* y                 # OUT  (count), or dx
    Py_ssize_t count, chunk
    Py_ssize_t function     # one of Function
    double a, b, c          # its constants

cdef enum Function:
    # cycnn/ops/activation.py counts in the same order.
    CLIP                    # a ... b
    LEAKY_RELU              # slope a below 0
    ELU                     # a x above 0, b (e^(c x) - 1) below
    GELU
    GELU_TANH
    SILU
    MISH
    SIGMOID
    TANH
    HARD_SIGMOID
    HARD_SWISH
    SOFTPLUS                # of a x, over a
    SOFTSIGN
    EXP
    LOG


cdef inline vf gelu_tanh_argument(vf x) noexcept nogil:
    """Return 2 sqrt(2 / pi) (x + 0.044715 x^3): (1 + tanh(u)) / 2 is sigmoid(2 u)."""
    cdef vf cubic = vf_fma(vf_mul(number(0.044715), vf_mul(x, x)), x, x)
    return vf_mul(number(1.5957691216057308), cubic)


cdef inline vf mish_parts(vf x, vf e, vf* rest) noexcept nogil:
    """Return w = tanh(softplus(x)) and write 1 - w, given e = e^-|x|.

    w = tanh(log(1 + e^x)) is e (e + 2) / (e (e + 2) + 2) below 0, and the same with numerator and
    denominator over e^(2 x) above.
    """
    cdef vf one = number(1), two = number(2), top, bottom
    cdef vf below = vf_mul(e, vf_add(e, two)), above = vf_fma(two, e, one)
    top = vf_select(vf_gt(vf_zero(), x), below, above)
    bottom = vf_select(vf_gt(vf_zero(), x), two, vf_mul(two, vf_mul(e, e)))
    rest[0] = vf_div(bottom, vf_add(top, bottom))
    return vf_div(top, vf_add(top, bottom))


cdef inline vf value(Function f, vf x, vf a, vf b, vf c) noexcept nogil:
    """Return f(x)."""
    cdef vf zero = vf_zero(), one = number(1), rest
    if f == CLIP:
        return vf_max(a, vf_min(b, x))
    if f == LEAKY_RELU:
        return rectified(LEAKY, x, a)
    if f == ELU:
        return vf_select(vf_gt(x, zero), vf_mul(a, x),
                         vf_mul(b, expm1_of(vf_min(zero, vf_mul(c, x)))))
    if f == GELU:
        return vf_mul(finite_below(x), normal_cdf_of(x, normal_of(x)))
    if f == GELU_TANH:
        return vf_mul(finite_below(x), sigmoid_of(gelu_tanh_argument(x)))
    if f == SILU:
        return vf_mul(finite_below(x), sigmoid_of(x))
    if f == MISH:
        return vf_mul(finite_below(x), mish_parts(x, exp_of(negative(absolute(x))), &rest))
    if f == SIGMOID:
        return sigmoid_of(x)
    if f == TANH:
        return tanh_of(x)
    if f == HARD_SIGMOID:
        return hard_sigmoid_of(x)
    if f == HARD_SWISH:
        return vf_mul(finite_below(x), hard_sigmoid_of(x))
    if f == SOFTPLUS:
        rest = log1p_of(exp_of(negative(absolute(vf_mul(a, x)))))
        return vf_add(vf_max(zero, x), vf_div(rest, a))
    if f == SOFTSIGN:
        x = finite(x)
        return vf_div(x, vf_add(one, absolute(x)))
    if f == EXP:
        return exp_of(x)
    return log_of(x)


cdef inline vf slope(Function f, vf x, vf a, vf b, vf c) noexcept nogil:
    """Return f'(x)."""
    cdef vf zero = vf_zero(), one = number(1), s, t, rest
    if f == CLIP:       # 0 on both edges, as ReLU has at 0
        return vf_select(vf_ge(a, x), zero, vf_select(vf_ge(x, b), zero, one))
    if f == LEAKY_RELU:
        return let_through(LEAKY, one, x, a)
    if f == ELU:
        return vf_select(vf_gt(x, zero), a, vf_mul(vf_mul(b, c), exp_of(vf_mul(c, x))))
    if f == GELU:
        s = normal_of(x)
        return vf_fma(vf_mul(finite(x), number(0.39894228040143267794)), s, normal_cdf_of(x, s))
    if f == GELU_TANH:
        s = sigmoid_parts(gelu_tanh_argument(x), &t)
        x = vf_max(number(-1e3), vf_min(number(1e3), x))    # where s t is 0 but x^3 finite
        rest = vf_fma(number(3 * 0.044715), vf_mul(x, x), one)
        rest = vf_mul(number(1.5957691216057308), rest)
        return vf_fma(vf_mul(x, rest), vf_mul(s, t), s)
    if f == SILU:
        s = sigmoid_parts(x, &t)
        return vf_fma(vf_mul(finite(x), s), t, s)
    if f == MISH:
        t = exp_of(negative(absolute(x)))
        s = mish_parts(x, t, &rest)
        rest = vf_mul(rest, vf_add(one, s))                 # 1 - w^2
        return vf_fma(vf_mul(finite(x), sigmoid_from(x, t, &t)), rest, s)
    if f == SIGMOID:
        s = sigmoid_parts(x, &t)
        return vf_mul(s, t)
    if f == TANH:       # 4 s(2 x) s(-2 x), which has no 1 - y^2 to cancel
        s = sigmoid_parts(vf_mul(number(2), x), &t)
        return vf_mul(number(4), vf_mul(s, t))
    if f == HARD_SIGMOID:
        return vf_select(vf_ge(number(-3), x), zero,
                         vf_select(vf_ge(x, number(3)), zero, number(1.0 / 6)))
    if f == HARD_SWISH:
        s = vf_fma(x, number(1.0 / 3), number(0.5))
        return vf_select(vf_ge(number(-3), x), zero, vf_select(vf_ge(x, number(3)), one, s))
    if f == SOFTPLUS:
        return sigmoid_of(vf_mul(a, x))
    if f == SOFTSIGN:
        s = vf_div(one, vf_add(one, absolute(x)))
        return vf_mul(s, s)
    if f == EXP:
        return exp_of(x)
    return vf_div(one, x)


cdef inline vf finite_below(vf x) noexcept nogil:
    """Return x, -inf replaced by the lowest finite number: times 0 it is 0, the limit."""
    return vf_select(vf_gt(x, vf_zero()), x, finite(x))


cdef inline vf hard_sigmoid_of(vf x) noexcept nogil:
    """Return min(max(x + 3, 0), 6) / 6."""
    return vf_div(vf_max(vf_zero(), vf_min(number(6), vf_add(x, number(3)))), number(6))


cdef inline void run_forward(Function f, const ActivationArgs* args, Py_ssize_t job) noexcept nogil:
    cdef Py_ssize_t i = job * args.chunk, stop = min(i + args.chunk, args.count), n
    cdef vf a = number(args.a), b = number(args.b), c = number(args.c)
    while i < stop:
        n = lanes(i, stop)
        store(args.y + i, value(f, load(args.x + i, n), a, b, c), n)
        i = i + VL


cdef inline void run_backward(
        Function f, const ActivationArgs* args, Py_ssize_t job) noexcept nogil:
    cdef Py_ssize_t i = job * args.chunk, stop = min(i + args.chunk, args.count), n
    cdef vf a = number(args.a), b = number(args.b), c = number(args.c)
    while i < stop:
        n = lanes(i, stop)
        store(args.y + i, vf_mul(load(args.dy + i, n), slope(f, load(args.x + i, n), a, b, c)), n)
        i = i + VL


cdef void activation_forward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """y = f(x)."""
    cdef const ActivationArgs* a = <const ActivationArgs*>args
    if a.function == CLIP:
        run_forward(CLIP, a, job)
    elif a.function == LEAKY_RELU:
        run_forward(LEAKY_RELU, a, job)
    elif a.function == ELU:
        run_forward(ELU, a, job)
    elif a.function == GELU:
        run_forward(GELU, a, job)
    elif a.function == GELU_TANH:
        run_forward(GELU_TANH, a, job)
    elif a.function == SILU:
        run_forward(SILU, a, job)
    elif a.function == MISH:
        run_forward(MISH, a, job)
    elif a.function == SIGMOID:
        run_forward(SIGMOID, a, job)
    elif a.function == TANH:
        run_forward(TANH, a, job)
    elif a.function == HARD_SIGMOID:
        run_forward(HARD_SIGMOID, a, job)
    elif a.function == HARD_SWISH:
        run_forward(HARD_SWISH, a, job)
    elif a.function == SOFTPLUS:
        run_forward(SOFTPLUS, a, job)
    elif a.function == SOFTSIGN:
        run_forward(SOFTSIGN, a, job)
    elif a.function == EXP:
        run_forward(EXP, a, job)
    else:
        run_forward(LOG, a, job)


cdef void activation_backward(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """dx = dy f'(x)."""
    cdef const ActivationArgs* a = <const ActivationArgs*>args
    if a.function == CLIP:
        run_backward(CLIP, a, job)
    elif a.function == LEAKY_RELU:
        run_backward(LEAKY_RELU, a, job)
    elif a.function == ELU:
        run_backward(ELU, a, job)
    elif a.function == GELU:
        run_backward(GELU, a, job)
    elif a.function == GELU_TANH:
        run_backward(GELU_TANH, a, job)
    elif a.function == SILU:
        run_backward(SILU, a, job)
    elif a.function == MISH:
        run_backward(MISH, a, job)
    elif a.function == SIGMOID:
        run_backward(SIGMOID, a, job)
    elif a.function == TANH:
        run_backward(TANH, a, job)
    elif a.function == HARD_SIGMOID:
        run_backward(HARD_SIGMOID, a, job)
    elif a.function == HARD_SWISH:
        run_backward(HARD_SWISH, a, job)
    elif a.function == SOFTPLUS:
        run_backward(SOFTPLUS, a, job)
    elif a.function == SOFTSIGN:
        run_backward(SOFTSIGN, a, job)
    elif a.function == EXP:
        run_backward(EXP, a, job)
    else:
        run_backward(LOG, a, job)


_SLOTS = "x* dy* y* count chunk function a. b. c."
JOBS = {
    "activation_forward": publish(<void*>activation_forward, sizeof(ActivationArgs), _SLOTS),
    "activation_backward": publish(<void*>activation_backward, sizeof(ActivationArgs), _SLOTS),
}
