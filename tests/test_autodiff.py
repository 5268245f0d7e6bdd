"""The small reverse-mode engine: the textbook's functions, operations against slopes, traces."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from cycnn import autodiff as ad
from cycnn.autodiff import Variable, exp, max, trace  # noqa: A004


def slope(f, values, i, step=1e-6):
    """Return df/d(values[i]) by central differences, element by element."""
    gradient = np.empty(values[i].shape)
    for index in np.ndindex(values[i].shape):
        moved = []
        for sign in (1, -1):
            copy = [v.copy() for v in values]
            copy[i][index] += sign * step
            moved.append(float(f(*map(Variable, copy)).value.sum()))
        gradient[index] = (moved[0] - moved[1]) / (2 * step)
    return gradient


def test_product_of_a_sum():
    x, y, z = Variable(-2, "x"), Variable(5, "y"), Variable(-4, "z")
    f = (x + y) * z
    f.backward()
    assert float(f) == -12
    assert (float(x.grad), float(y.grad), float(z.grad)) == (-4, -4, 3)  # z, z, x + y


def test_functions_in_a_row():
    x = Variable(0.5)
    y = x**3  # y = f(x)
    z = exp(y)  # z = g(y)
    z.backward()
    assert_allclose(y.grad, math.exp(0.5**3))  # dz/dy
    assert_allclose(x.grad, math.exp(0.5**3) * 3 * 0.5**2)  # dz/dy dy/dx


def neuron(x1, x2, w, y1, y2):
    return 1 / exp(-((x1 + x2) * w + max(y1, y2)))


@pytest.mark.parametrize("y1, y2", [(1.0, 0.5), (0.5, 1.0), (0.75, 0.75)])
def test_the_textbook_function(y1, y2):
    numbers = 1.0, 2.0, -0.5, y1, y2
    variables = tuple(map(Variable, numbers))
    f = neuron(*variables)
    f.backward()
    value = math.exp((1 + 2) * -0.5 + np.maximum(y1, y2))  # 1 / exp(-s) = exp(s), so df/ds = f
    assert_allclose(f.value, value, rtol=1e-15)
    first = y1 >= y2  # a tie is the first one's
    by_hand = value * -0.5, value * -0.5, value * 3, value * first, value * (not first)
    for variable, gradient in zip(variables, by_hand, strict=True):
        assert_allclose(variable.grad, gradient, rtol=1e-14)
    if y1 != y2:
        for i, variable in enumerate(variables):
            expected = slope(neuron, [np.array(n) for n in numbers], i)
            assert_allclose(variable.grad, expected, rtol=1e-8, atol=1e-9)


def test_ties_of_a_maximum_go_to_the_first():
    a, b = Variable([1.0, 2.0, 3.0]), Variable([1.0, 3.0, 2.0])
    ad.maximum(a, b).sum().backward()
    assert a.grad.tolist() == [1, 0, 1]
    assert b.grad.tolist() == [0, 1, 0]
    c = Variable([[2.0, 5.0, 5.0], [7.0, 7.0, 1.0]])
    c.max(axis=1).sum().backward()
    assert c.grad.tolist() == [[0, 1, 0], [1, 0, 0]]
    d = Variable([1.0, 1.0])
    max(d).backward()
    assert d.grad.tolist() == [1, 0]
    x, y, z = (Variable(2.0) for _ in range(3))
    max(x, y, z).backward()
    assert [float(v.grad) for v in (x, y, z)] == [1, 0, 0]
    with pytest.raises(ValueError, match="axis must come with one argument"):
        max(x, y, axis=0)


# Positive values, no two alike: every function below is smooth there.
A, B, V = (3, 4), (4, 2), (4,)
OPERATIONS = {
    "add": (lambda a, b: a + b, A, V),
    "add constant": (lambda a: 2 + a + np.arange(4.0), A),
    "subtract": (lambda a, b: a - b, V, A),
    "constant minus": (lambda a: 1 - a, A),
    "multiply": (lambda a, b: a * b, A, (3, 1)),
    "array times": (lambda a: np.arange(4.0) * a, A),
    "divide": (lambda a, b: a / b, A, A),
    "constant over": (lambda a: 3 / a, A),
    "power": (lambda a, b: a**b, A, A),
    "square": (lambda a: a**2, A),
    "root": (lambda a: a**0.5, A),
    "power of a constant": (lambda a: 2**a, A),
    "negate": (lambda a: -a, A),
    "exp": (ad.exp, A),
    "log": (ad.log, A),
    "sqrt": (ad.sqrt, A),
    "tanh": (ad.tanh, A),
    "sigmoid": (ad.sigmoid, A),
    "relu": (lambda a: ad.relu(a - 1.05), A),
    "absolute": (lambda a: ad.absolute(a - 1.05), A),
    "maximum": (ad.maximum, A, A),
    "maximum with a constant": (lambda a: ad.maximum(1.05, a), A),
    "where": (lambda a, b: ad.where(np.arange(4) > 1, a, b), A, A),
    "matmul": (lambda a, b: a @ b, A, B),
    "matrix vector": (lambda a, b: a @ b, A, V),
    "vector matrix": (lambda a, b: a @ b, V, B),
    "dot": (lambda a, b: a @ b, V, V),
    "batched matmul": (lambda a, b: a @ b, (5, 1, 3, 4), (2, 4, 2)),
    "vector in a batch": (lambda a, b: a @ b, (2, 3, 4), V),
    "constant matmul": (lambda a: np.ones((2, 3)) @ a, A),
    "sum": (lambda a: a.sum() * a, A),
    "sum of axes": (lambda a: a.sum(axis=(0, 2))[:, None] * a.sum(1, keepdims=True), (2, 3, 4)),
    "mean": (lambda a: ad.mean(a, axis=0) * ad.mean(a) * ad.sum(a), A),
    "max": (lambda a: a.max() * a, A),
    "max of an axis": (lambda a: a.max(axis=-1, keepdims=True) * a.max(0), A),
    "reshape": (lambda a: a.reshape(2, 6) * a.reshape((2, -1)), A),
    "transpose": (lambda a: a.transpose(2, 0, 1) * a.T.reshape(4, 2, 3), (2, 3, 4)),
    "broadcast": (lambda a: a.broadcast_to((2, 3, 4)) ** 2, (3, 1)),
    "index": (lambda a: a[1] * a[:, ::-1], A),
    "index twice": (lambda a: a[[0, 0, 2]] * a[..., :1], A),
    "mask": (lambda a: a[np.eye(3, 4) > 0], A),
    "concatenate": (lambda a, b: ad.concatenate([a, b, a], axis=0) ** 2, A, (1, 4)),
    "again": (lambda a: a * a + a * a.sum(), A),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients_are_slopes(rng, name):
    operation, *shapes = OPERATIONS[name]
    values = [(1 + rng.permutation(math.prod(s)).reshape(s)) / 10 for s in shapes]
    variables = [Variable(v) for v in values]
    y = operation(*variables)
    dy = rng.standard_normal(y.shape)
    y.backward(dy)
    for i, variable in enumerate(variables):
        assert variable.grad.shape == variable.shape
        expected = slope(lambda *v: operation(*v) * dy, values, i)
        assert_allclose(variable.grad, expected, rtol=1e-7, atol=1e-8)


def test_backward_starts_anew():
    x = Variable(3.0)
    f = x * x
    f.backward()
    f.backward()
    assert float(x.grad) == 6
    (2 * x).backward()
    assert float(x.grad) == 2


def test_long_chains_need_no_stack():
    x = Variable(1.0)
    y = x
    for _ in range(5000):
        y = y + x
    y.backward()
    assert float(x.grad) == 5001


def test_dtype_is_kept(rng):
    x = Variable(rng.random((2, 3), dtype=np.float32))
    y = (2 * x + np.arange(3)) @ np.ones((3, 2)) / 0.5 - ad.exp(x)[:, :2] ** 2
    assert y.dtype == np.float32
    y.sum().backward()
    assert x.grad.dtype == np.float32
    assert Variable([1, 2]).dtype == np.float64


def test_what_is_refused():
    x = Variable([1.0, 2.0])
    with pytest.raises(ValueError, match="dy must be given"):
        x.backward()
    with pytest.raises(ValueError, match=r"shape of value, \(2,\), got \(3,\)"):
        x.backward([1, 2, 3])
    with pytest.raises(TypeError, match="real numbers"):
        Variable("x")


def test_variables_look_like_arrays():
    x = Variable([[1.0, 2.0]], "x")
    assert (x.shape, x.ndim, x.size, len(x)) == ((1, 2), 2, 2, 1)
    assert repr(x) == "Variable([[1. 2.]], name='x')"
    assert (x > 1).tolist() == [[False, True]]
    assert (x <= 1).tolist() == [[True, False]]
    assert (x < x).any() == (not (x >= x).all())


# Traces


def test_trace_lists_values_and_gradients_from_the_loss_back():
    x1, x2, w = Variable(1.0, "x1"), Variable(2.0, "x2"), Variable(-0.5, "w")
    y1, y2 = Variable(1.0, "y1"), Variable(0.5, "y2")
    f = neuron(x1, x2, w, y1, y2)
    f.name = "f"
    steps = trace(f)
    assert steps[0].name == "f"
    assert float(steps[0].gradient) == 1
    order = [step.name for step in steps]
    for step in steps:
        for source, local in step.local.items():
            assert order.index(source) > order.index(step.name)
            assert isinstance(local, np.ndarray)
    # Each gradient is the sum over its uses of gradient times local gradient.
    for step in steps[1:]:
        total = sum(s.gradient * s.local[step.name] for s in steps if step.name in s.local)
        assert_allclose(step.gradient, total, rtol=1e-15)
    assert {step.name for step in steps if not step.formula} == {"x1", "x2", "w", "y1", "y2"}
    assert steps["v3"].formula == "max(y1, y2)"
    assert len(steps) == 12
    text = str(steps)
    assert "dv3/dy1 = 1, dv3/dy2 = 0" in text
    assert "1 / v6" in text
    with pytest.raises(KeyError):
        steps["nothing"]


def test_trace_of_arrays_and_of_one_operand_twice():
    x, w = Variable(np.ones((2, 3)), "x"), Variable(np.ones((3, 1)), "w")
    y = x @ w
    steps = trace((y * y).sum())
    assert steps[1].local["v1"].tolist() == [[6], [6]]  # d(y y)/dy = 2 y
    assert steps["v1"].local == {"x": "dy @ w.T", "w": "x.T @ dy"}
    assert "(2 x 3 values)" in str(steps)
    assert_array_equal(trace(y, [[1], [2]])["w"].gradient, np.full((3, 1), 3))


def test_names_are_made_unique():
    a, b = Variable(1.0, "v1"), Variable(2.0, "v1")
    names = [step.name for step in trace((a + b) * a)]
    assert len(set(names)) == len(names) == 4


@pytest.mark.parametrize("name", ["x", "<a & b>", 'quote"', "ünicode", "]]>", "a\0b\n"])
def test_svg_is_well_formed(name):
    x, y = Variable(-2.0, name), Variable([5.0, 1.0], "y<")
    steps = trace(((x + y) * exp(x) * 2).sum())
    root = ElementTree.fromstring(steps.to_svg())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    titles = [e.text for e in root.iter("{http://www.w3.org/2000/svg}title")]
    assert len(titles) == len(steps)
    assert any(name.replace("\0", "?").replace("\n", "?") in title for title in titles)
    lines = list(root.iter("{http://www.w3.org/2000/svg}line"))
    assert len(lines) == sum(len(step.local) for step in steps)
    assert all(float(line.get("x1")) < float(line.get("x2")) for line in lines)
    assert steps._repr_svg_() == steps.to_svg()


def test_svg_of_a_single_variable():
    assert ElementTree.fromstring(trace(Variable(1.0, "x")).to_svg()) is not None
