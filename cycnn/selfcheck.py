"""Whether the layers of a model compute, on this machine, what their formulas say.

Every layer of a model is run by itself, with its own weights, on values made for it, in three ways:

slopes
    The gradients of the float64 kernels against finite differences of their own outputs, along
    random directions: (L(u + h v) - L(u - h v)) / 2h = <dL/du, v> for each input and parameter u,
    with L = sum of y * dy for a random dy. One wrong element among millions shows.
float64, float32
    y, dx and the gradients of the parameters against the layer's formula (`cycnn._reference`),
    which shares no code with the kernels. The error that rounding may make of n terms is taken as
    8 sqrt(n) u times the largest value, u the unit roundoff: Higham and Mary (2019), "A new
    approach to probabilistic rounding error analysis", theorem 2.4, with n the size of the largest
    array; where values cancel, also what the plain formula loses in float32.

A layer without a formula, such as one's own, is measured in float32 against float64. That still
finds a kernel that is wrong in one of the two, and the slopes find a backward that does not belong
to its forward; only a wrong function with its right gradients, in both precisions, is not seen.

Values are all different, and none within h of another or of a whole number: where a maximum has a
tie, or a rectifier its kink, there is no slope to compare with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from cycnn._check import Array
from cycnn._reference import FORMULAS, Call
from cycnn.autodiff import Variable
from cycnn.autodiff.tracing import table
from cycnn.graph import Model, Node
from cycnn.graph.program import pack, unpack
from cycnn.layers import REGISTRY, Layer, Source, Weight
from cycnn.layers.building import each

_TESTS = "slopes", "float64", "float32"
_ROWS = 3  # with two, a normalised value is 1 or -1 and has no gradient
_STEP = 1e-5
_DIRECTIONS = 3
_SLOPE = 1e-6  # relative: of the step's third derivative, and to spare
_LONGEST = 120  # letters of a problem, in a table
_LOW, _HIGH = -4, 8  # of the values: the kinks of all activations lie between

Results = dict[str, Array]
"""Outputs and gradients of one call, by name: "y", "dx", "dweight"."""


class Row(NamedTuple):
    """What was found for one layer; each error as a multiple of the largest allowed, 1.

    Attributes
    ----------
    name, kind : str
        The layer's name in the model, and its class.
    against : {"formula", "float64"}
        What its numbers were compared with.
    slopes, float64, float32 : float
    problem : str
        What is wrong; "" if nothing.
    """

    name: str
    kind: str
    against: str
    slopes: float
    float64: float
    float32: float
    problem: str


class Report(NamedTuple):
    """The rows of a check; printing it gives a table."""

    rows: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        """Whether every layer is right."""
        return not any(row.problem for row in self.rows)

    def __str__(self) -> str:
        lines: list[tuple[str, ...]] = [
            ("layer", "kind", "against", "slopes", "float64", "float32", "")
        ]
        for row in self.rows:
            errors = (f"{error:.2g}" for error in (row.slopes, row.float64, row.float32))
            verdict = f"FAILED: {row.problem}" if row.problem else "ok"
            lines.append((row.name, row.kind, row.against, *errors, verdict))
        text = table(lines)
        rule = "-" * max(map(len, text))
        wrong = sum(bool(row.problem) for row in self.rows)
        end = f"{wrong} of {len(self.rows)} layers FAILED" if wrong else "all layers are right"
        return "\n".join((text[0], rule, *text[1:], rule, f"errors as shares of 1, allowed; {end}"))


def check(model: Model, *, rng: int | np.random.Generator = 0) -> Report:
    """Check the gradients and the kernels of every layer of a model, on this machine.

    Takes a few passes over each layer, at its full size, for a batch of three. The model stays as
    it is.

    Parameters
    ----------
    model : Model
        Built.
    rng : int or numpy.random.Generator
        Draws the values.

    Returns
    -------
    Report
        `report.ok` says whether all is right; printing it gives a table.

    Raises
    ------
    NotBuiltError
        If the model has no input shape yet.

    Examples
    --------
    >>> from cycnn.graph import Sequential
    >>> from cycnn.layers import Conv, ReLU
    >>> check(Sequential([Conv(4, 3), ReLU()], input_shape=(6, 6, 2), rng=0)).ok
    True
    """
    if not isinstance(model, Model):
        raise TypeError(f"check: model must be a Model, got {model!r}")
    generator = np.random.default_rng(rng)
    return Report(tuple(_check_node(node, generator) for node in model.program.nodes))


def _check_node(node: Node, rng: np.random.Generator) -> Row:
    kind = type(node.layer).__name__
    known = kind in FORMULAS and REGISTRY.get(kind) is type(node.layer)
    findings: dict[str, tuple[float, str]] = {}
    try:
        case = _Case(node, rng, FORMULAS[kind] if known else None)
        findings = case.findings(training=False)
        if case.training_differs():
            findings = _worse(findings, case.findings(training=True))
        wrong = [f"{test} of {where}" for test, (error, where) in findings.items() if error > 1]
        problem = ", ".join(wrong)
    except Exception as error:  # whatever a broken layer raises is what is wrong with it
        problem = f"{type(error).__name__}: {error}"[:_LONGEST]
    errors = {test: findings[test][0] if findings else math.nan for test in _TESTS}
    against = "formula" if known else "float64"
    return Row(node.name, kind, against, problem=problem, **errors)


def _worse(a: dict[str, tuple[float, str]], b: dict[str, tuple[float, str]]) -> Any:
    return {test: max(a[test], b[test]) for test in a}


class _Given(Source):
    """Builds a twin of a layer from arrays that are at hand."""

    def __init__(self, arrays: Mapping[str, Array], dtype: str) -> None:
        super().__init__(0, dtype)  # so that every twin draws the same dropout masks
        self.arrays = arrays

    def array(self, name: str, weight: Weight) -> Array:
        return self.arrays[name]


class _Case:
    """A layer, and the numbers that it is tried on."""

    def __init__(self, node: Node, rng: np.random.Generator, formula: Any) -> None:
        self.node, self.rng, self.formula = node, rng, formula
        parameters = {name: p.data for name, p in node.layer.parameters().items()}
        self.weights = {name: _rounded(array) for name, array in parameters.items()}
        self.buffers = {name: _rounded(array) for name, array in node.layer.buffers().items()}
        self.inputs, self.step = self._values(_LOW)
        outputs = self.run("float64", training=False)
        if not all(np.isfinite(y).all() for y in outputs):  # a logarithm, a root
            self.inputs, self.step = self._values(0)
            outputs = self.run("float64", training=False)
        self.plain_outputs = outputs
        self.dy = tuple(_rounded(np.asarray(rng.standard_normal(y.shape))) for y in outputs)
        self.size = max(a.size for a in (*self.inputs, *outputs, *self.weights.values()))

    def _values(self, low: float) -> tuple[tuple[Array, ...], float]:
        """Return inputs of different values in low ... low + 12, and a step that changes no order.

        They lie on a grid that misses all fractions with a small denominator.
        """
        shapes = [(_ROWS, *shape) for shape in each(self.node.input_shape)]
        count = sum(map(math.prod, shapes))
        per_unit = max(4, -(-count // (_HIGH - _LOW)))
        grid = self.rng.permutation(per_unit * (_HIGH - _LOW))[:count]
        exact: Array = low + (grid + 0.618) / per_unit
        values = _rounded(exact)
        parts = np.split(values, np.cumsum([math.prod(shape) for shape in shapes])[:-1])
        inputs = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        if type(self.node.layer).__name__ == "MaxUnpool":
            most = math.prod(self.node.output_shape[:-1])
            inputs[1] = self.rng.integers(most, size=shapes[1]).astype(float)
        return tuple(inputs), min(_STEP, 1 / (8 * per_unit))

    # Running the layer

    def twin(self, dtype: str, weights: Mapping[str, Array] | None = None) -> Layer:
        """Return a new layer of the same arguments and weights, in this dtype."""
        layer: Layer = type(self.node.layer)(**self.node.layer.config())
        arrays = {**self.buffers, **(self.weights if weights is None else weights)}
        layer.prepare(self.node.input_shape, _Given(arrays, dtype))
        return layer

    def run(
        self, dtype: str, training: bool, inputs: Any = None, weights: Any = None
    ) -> tuple[Array, ...]:
        """Return the outputs."""
        arrays = tuple(x.astype(dtype) for x in (inputs or self.inputs))
        y, _ = self.twin(dtype, weights)(unpack(arrays), training)
        return pack(y, len(self.node.outputs))

    def results(self, dtype: str, training: bool, given: Any = None) -> Results:
        """Return outputs and gradients of the layer's kernels."""
        layer = self.twin(dtype)
        y, backward = layer(unpack(tuple(x.astype(dtype) for x in self.inputs)), training)
        dx = backward(unpack(tuple(dy.astype(dtype) for dy in given or self.dy)))
        gradients = {f"d{name}": p.grad for name, p in layer.parameters().items()}
        outputs, slopes = pack(y, len(self.dy)), pack(dx, len(self.inputs))
        return _named("y", outputs) | _named("dx", slopes) | gradients

    def expected(self, dtype: str, training: bool, made: tuple[Array, ...]) -> Results:
        """Return outputs and gradients of the layer's formula."""
        inputs = tuple(Variable(x.astype(dtype)) for x in self.inputs)
        weights = {name: Variable(w.astype(dtype)) for name, w in self.weights.items()}
        state = weights | {name: Variable(b.astype(dtype)) for name, b in self.buffers.items()}
        y = self.formula(Call(self.node.layer.config(), inputs, state, training, made))
        outputs = y if isinstance(y, tuple) else (y,)
        sums = [(part * dy).sum() for part, dy in zip(outputs, self.dy, strict=True)]
        total = sums[0]
        for other in sums[1:]:
            total = total + other
        total.backward()
        gradients = {f"d{name}": _gradient(w) for name, w in weights.items()}
        values = tuple(part.value for part in outputs)
        return _named("y", values) | _named("dx", tuple(map(_gradient, inputs))) | gradients

    def training_differs(self) -> bool:
        """Say whether training changes the outputs."""
        trained = self.run("float64", training=True)
        return not all(map(np.array_equal, trained, self.plain_outputs))

    # Findings

    def findings(self, training: bool) -> dict[str, tuple[float, str]]:
        """Return for each of the three tests the largest error, and of which array."""
        fast = self.results("float64", training)
        made = tuple(array for name, array in fast.items() if name[0] == "y")
        expected = self.expected("float64", training, made) if self.formula else fast
        found = {"slopes": self._slopes(fast, training)}
        for dtype in ("float64", "float32"):
            actual = fast if dtype == "float64" else self.results(dtype, training)
            unit = float(np.finfo(dtype).eps) / 2
            allowed = {name: self._allowed(unit, array) for name, array in expected.items()}
            worst = _worst(actual, expected, allowed)
            if worst[0] > 1:
                allowed = self._allowed_where_values_cancel(unit, expected, training, made)
                worst = _worst(actual, expected, allowed)
            found[dtype] = worst
        return found

    def _allowed(self, unit: float, *arrays: Array) -> float:
        largest = max(float(np.abs(array).max(initial=0)) for array in arrays)
        return 8 * math.sqrt(self.size) * unit * largest + float(np.finfo(np.float32).tiny)

    def _allowed_where_values_cancel(
        self, unit: float, expected: Results, training: bool, made: tuple[Array, ...]
    ) -> dict[str, float]:
        """Return what rounding may do to values that are small by chance, or always.

        By chance: with another dy they are larger. Always: the plain formula, computed in float32,
        loses digits as well.
        """
        draws = [expected]
        for _ in range(4):
            other = tuple(self.rng.standard_normal(dy.shape) for dy in self.dy)
            draws.append(self.results("float64", training, other))
        allowed = {name: self._allowed(unit, *(d[name] for d in draws)) for name in expected}
        if self.formula:
            for name, array in self.expected("float32", training, made).items():
                lost = float(np.abs(array - expected[name]).max(initial=0))
                allowed[name] += 16 * lost * unit / (float(np.finfo(np.float32).eps) / 2)
        return allowed

    def _slopes(self, fast: Results, training: bool) -> tuple[float, str]:
        """Return the largest error of a gradient against finite differences."""
        worst = (0.0, "")
        for i, (name, x) in enumerate(_named("dx", self.inputs).items()):
            if (x == np.rint(x)).all():
                continue  # indices

            def moved(u: Array, i: int = i) -> tuple[Array, ...]:
                inputs = (*self.inputs[:i], u, *self.inputs[i + 1 :])
                return self.run("float64", training, inputs)

            worst = max(worst, (self._slope(x, fast[name], moved), name))
        for name, weight in self.weights.items():

            def changed(u: Array, name: str = name) -> tuple[Array, ...]:
                return self.run("float64", training, None, {**self.weights, name: u})

            worst = max(worst, (self._slope(weight, fast[f"d{name}"], changed), f"d{name}"))
        return worst

    def _slope(self, u: Array, gradient: Array, outputs: Any) -> float:
        """Return the error of one gradient along the best of three directions.

        One that is wrong is wrong along every direction; one that is right may meet, along one, a
        kink inside a function of the user's.
        """
        if gradient.shape != u.shape or not np.isfinite(gradient).all():
            return math.inf
        best = math.inf
        for _ in range(_DIRECTIONS):
            v = self.rng.uniform(0.5, 1, u.shape) * self.rng.choice([-1.0, 1.0], u.shape)
            up, down = outputs(u + self.step * v), outputs(u - self.step * v)
            pairs = list(zip(up, down, self.dy, strict=True))
            slope = sum(float(((a - b) * dy).sum()) for a, b, dy in pairs) / (2 * self.step)
            rounding = sum(float((np.abs(a) * np.abs(dy)).sum()) for a, _, dy in pairs)
            allowed = _SLOPE * float(np.linalg.norm(gradient * v))
            allowed += 4 * np.finfo(np.float64).eps * (rounding + 1) / self.step
            best = min(best, abs(slope - float((gradient * v).sum())) / allowed)
            if best <= 1:
                break
        return best


def _worst(actual: Results, expected: Results, allowed: Mapping[str, float]) -> tuple[float, str]:
    """Return the largest error as a multiple of what is allowed, and of which array."""
    worst = (0.0, "")
    for name, array in expected.items():
        if actual[name].shape != array.shape:
            return math.inf, name
        error = np.abs(actual[name].astype(np.float64) - array).max(initial=0) / allowed[name]
        worst = max(worst, (math.inf if np.isnan(error) else float(error), name))
    return worst


def _rounded(array: Array) -> Array:
    """Return the values that float32 can hold, in float64."""
    return array.astype(np.float32).astype(np.float64)


def _named(name: str, arrays: tuple[Array, ...]) -> Results:
    """Return {"y": array}, or {"y0": array, "y1": array} of several."""
    if len(arrays) == 1:
        return {name: arrays[0]}
    return {f"{name}{i}": array for i, array in enumerate(arrays)}


def _gradient(variable: Variable) -> Array:
    return np.zeros_like(variable.value) if variable.grad is None else variable.grad
