"""Updates of the optimizers: parameter, gradient and state are read and written once."""
from cycnn.kernels.simd cimport (
    VL, publish, real, vf, vf_add, vf_div, vf_fma, vf_fnma, vf_gt, vf_mul, vf_select, vf_set1,
    vf_sqrt, vf_zero)
from cycnn.kernels.tail cimport lanes, load, store

cdef struct SgdArgs:
    real* data              # IN OUT  (count)
    const real* grad        # IN   (count)
    real* velocity          # IN OUT  (count), or NULL without momentum
    Py_ssize_t count, chunk, nesterov
    double learning_rate, momentum, weight_decay

cdef struct AdamArgs:
    real* data              # IN OUT  (count)
    const real* grad        # IN   (count)
    real* m                 # IN OUT  (count)
    real* v                 # IN OUT  (count)
    Py_ssize_t count, chunk
    double rate             # learning_rate / (1 - beta1^step)
    double correction       # 1 / sqrt(1 - beta2^step)
    double beta1, beta2, eps, weight_decay
    double keep             # what data is multiplied by first: 1, or less for decoupled decay

cdef struct RmspropArgs:
    real* data              # IN OUT  (count)
    const real* grad        # IN   (count)
    real* v                 # IN OUT  (count)
    real* velocity          # IN OUT  (count), or NULL without momentum
    Py_ssize_t count, chunk
    double learning_rate, rho, momentum, eps, weight_decay

cdef struct AdagradArgs:
    real* data              # IN OUT  (count)
    const real* grad        # IN   (count)
    real* v                 # IN OUT  (count)
    Py_ssize_t count, chunk
    double learning_rate, eps, weight_decay

cdef struct LionArgs:
    real* data              # IN OUT  (count)
    const real* grad        # IN   (count)
    real* m                 # IN OUT  (count)
    Py_ssize_t count, chunk
    double learning_rate, beta1, beta2
    double keep             # what data is multiplied by first


cdef void sgd_update(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """velocity = momentum velocity + g;  data -= learning_rate velocity.

    g = grad + weight_decay data.  Nesterov's form moves by g + momentum velocity instead, and
    without momentum the step is g.  Sutskever et al. (2013), "On the importance of initialization
    and momentum in deep learning", in the form of PyTorch.
    """
    cdef const SgdArgs* a = <const SgdArgs*>args
    cdef Py_ssize_t i = job * a.chunk, stop = min(i + a.chunk, a.count), n
    cdef vf rate = vf_set1(<real>a.learning_rate), momentum = vf_set1(<real>a.momentum)
    cdef vf decay = vf_set1(<real>a.weight_decay), data, step, velocity
    while i < stop:
        n = lanes(i, stop)
        data = load(a.data + i, n)
        step = vf_fma(decay, data, load(a.grad + i, n))
        if a.velocity != NULL:
            velocity = vf_fma(momentum, load(a.velocity + i, n), step)
            store(a.velocity + i, velocity, n)
            step = vf_fma(momentum, velocity, step) if a.nesterov else velocity
        store(a.data + i, vf_fnma(rate, step, data), n)
        i = i + VL


cdef void adam_update(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """m, v = moving means of g and g^2;  data = keep data - rate m / (correction sqrt(v) + eps).

    Kingma and Ba (2015), algorithm 1, with g = grad + weight_decay data; a keep below 1 makes it
    AdamW, Loshchilov and Hutter (2019), algorithm 2.
    """
    cdef const AdamArgs* a = <const AdamArgs*>args
    cdef Py_ssize_t i = job * a.chunk, stop = min(i + a.chunk, a.count), n
    cdef vf beta1 = vf_set1(<real>a.beta1), rest1 = vf_set1(<real>(1 - a.beta1))
    cdef vf beta2 = vf_set1(<real>a.beta2), rest2 = vf_set1(<real>(1 - a.beta2))
    cdef vf rate = vf_set1(<real>a.rate), correction = vf_set1(<real>a.correction)
    cdef vf eps = vf_set1(<real>a.eps), decay = vf_set1(<real>a.weight_decay), data, g, m, v
    cdef vf keep = vf_set1(<real>a.keep)
    while i < stop:
        n = lanes(i, stop)
        data = load(a.data + i, n)
        g = vf_fma(decay, data, load(a.grad + i, n))
        m = vf_fma(beta1, load(a.m + i, n), vf_mul(rest1, g))
        v = vf_fma(beta2, load(a.v + i, n), vf_mul(rest2, vf_mul(g, g)))
        store(a.m + i, m, n)
        store(a.v + i, v, n)
        data = vf_mul(keep, data)
        store(a.data + i, vf_fnma(rate, vf_div(m, vf_fma(correction, vf_sqrt(v), eps)), data), n)
        i = i + VL


cdef void rmsprop_update(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """v = moving mean of g^2;  velocity = momentum velocity + g / (sqrt(v) + eps).

    data -= learning_rate velocity, with g = grad + weight_decay data.  Tieleman and Hinton (2012),
    lecture 6.5, with momentum in the form of PyTorch.
    """
    cdef const RmspropArgs* a = <const RmspropArgs*>args
    cdef Py_ssize_t i = job * a.chunk, stop = min(i + a.chunk, a.count), n
    cdef vf rho = vf_set1(<real>a.rho), rest = vf_set1(<real>(1 - a.rho))
    cdef vf rate = vf_set1(<real>a.learning_rate), momentum = vf_set1(<real>a.momentum)
    cdef vf eps = vf_set1(<real>a.eps), decay = vf_set1(<real>a.weight_decay), data, g, v, step
    while i < stop:
        n = lanes(i, stop)
        data = load(a.data + i, n)
        g = vf_fma(decay, data, load(a.grad + i, n))
        v = vf_fma(rho, load(a.v + i, n), vf_mul(rest, vf_mul(g, g)))
        store(a.v + i, v, n)
        step = vf_div(g, vf_add(vf_sqrt(v), eps))
        if a.velocity != NULL:
            step = vf_fma(momentum, load(a.velocity + i, n), step)
            store(a.velocity + i, step, n)
        store(a.data + i, vf_fnma(rate, step, data), n)
        i = i + VL


cdef void adagrad_update(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """v += g^2;  data -= learning_rate g / (sqrt(v) + eps).

    Duchi, Hazan and Singer (2011), figure 1, with g = grad + weight_decay data.
    """
    cdef const AdagradArgs* a = <const AdagradArgs*>args
    cdef Py_ssize_t i = job * a.chunk, stop = min(i + a.chunk, a.count), n
    cdef vf rate = vf_set1(<real>a.learning_rate), eps = vf_set1(<real>a.eps)
    cdef vf decay = vf_set1(<real>a.weight_decay), data, g, v
    while i < stop:
        n = lanes(i, stop)
        data = load(a.data + i, n)
        g = vf_fma(decay, data, load(a.grad + i, n))
        v = vf_fma(g, g, load(a.v + i, n))
        store(a.v + i, v, n)
        store(a.data + i, vf_fnma(rate, vf_div(g, vf_add(vf_sqrt(v), eps)), data), n)
        i = i + VL


cdef void lion_update(const void* args, Py_ssize_t job, char* scratch) noexcept nogil:
    """data = keep data - learning_rate sign(beta1 m + (1 - beta1) g);  m = moving mean of g.

    Chen et al. (2023), algorithm 2: the mean forgets by beta2; keep = 1 - learning_rate decay.
    """
    cdef const LionArgs* a = <const LionArgs*>args
    cdef Py_ssize_t i = job * a.chunk, stop = min(i + a.chunk, a.count), n
    cdef vf beta1 = vf_set1(<real>a.beta1), rest1 = vf_set1(<real>(1 - a.beta1))
    cdef vf beta2 = vf_set1(<real>a.beta2), rest2 = vf_set1(<real>(1 - a.beta2))
    cdef vf rate = vf_set1(<real>a.learning_rate), keep = vf_set1(<real>a.keep)
    cdef vf plus = vf_set1(1), minus = vf_set1(-1), zero = vf_zero(), data, g, m, step
    while i < stop:
        n = lanes(i, stop)
        data = vf_mul(keep, load(a.data + i, n))
        g = load(a.grad + i, n)
        m = load(a.m + i, n)
        step = vf_fma(beta1, m, vf_mul(rest1, g))
        # What is neither above nor below 0 is its own sign: 0, or NaN.
        step = vf_select(vf_gt(step, zero), plus, vf_select(vf_gt(zero, step), minus, step))
        store(a.m + i, vf_fma(beta2, m, vf_mul(rest2, g)), n)
        store(a.data + i, vf_fnma(rate, step, data), n)
        i = i + VL


JOBS = {
    "sgd_update": publish(
        <void*>sgd_update, sizeof(SgdArgs),
        "data* grad* velocity* count chunk nesterov learning_rate. momentum. weight_decay."),
    "adam_update": publish(
        <void*>adam_update, sizeof(AdamArgs),
        "data* grad* m* v* count chunk rate. correction. beta1. beta2. eps. weight_decay. "
        "keep."),
    "rmsprop_update": publish(
        <void*>rmsprop_update, sizeof(RmspropArgs),
        "data* grad* v* velocity* count chunk learning_rate. rho. momentum. eps. "
        "weight_decay."),
    "adagrad_update": publish(
        <void*>adagrad_update, sizeof(AdagradArgs),
        "data* grad* v* count chunk learning_rate. eps. weight_decay."),
    "lion_update": publish(
        <void*>lion_update, sizeof(LionArgs),
        "data* grad* m* count chunk learning_rate. beta1. beta2. keep."),
}
