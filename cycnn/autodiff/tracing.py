"""Trace: what a backward pass did, variable by variable, as a table and as a drawing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike

from cycnn.autodiff.variable import Array, Variable

_MOST_SHOWN = 4  # values of an array that a table writes out

_COLUMN, _ROW, _WIDTH, _HEIGHT, _MARGIN = 256, 92, 130, 62, 20  # of a drawing, in pixels


class Step(NamedTuple):
    """One variable in a backward pass.

    Attributes
    ----------
    name : str
        Its own, or v1, v2, ... in the order of computation.
    formula : str
        How it was computed, in the names of its operands; "" for an input.
    value : ndarray
    gradient : ndarray
        What arrives from the loss: dL/d(variable).
    local : dict of str to (ndarray or str)
        d(variable)/d(operand) by the operand's name; linear maps in words.
    """

    name: str
    formula: str
    value: Array
    gradient: Array
    local: dict[str, Array | str]


class Named(Protocol):
    """Anything with a name."""

    @property
    def name(self) -> str:
        """What it is found by."""


_Step = TypeVar("_Step", bound=Named)


class Steps(Sequence[_Step]):
    """A sequence whose items are found by number or by name."""

    def __init__(self, steps: Sequence[_Step]) -> None:
        self.steps = tuple(steps)

    @overload
    def __getitem__(self, key: int | str) -> _Step: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[_Step, ...]: ...
    def __getitem__(self, key: Any) -> Any:
        """Return a step by number or name."""
        if not isinstance(key, str):
            return self.steps[key]
        for step in self.steps:
            if step.name == key:
                return step
        raise KeyError(key)

    def __len__(self) -> int:
        return len(self.steps)


class Trace(Steps[Step]):
    """The steps of a backward pass, from the loss back to the inputs; printing it gives a table."""

    def __str__(self) -> str:
        lines = [("variable", "computed as", "value", "gradient", "local gradients")]
        for step in self.steps:
            local = ", ".join(f"d{step.name}/d{u} = {_text(g)}" for u, g in step.local.items())
            lines.append((
                step.name, step.formula or "input", _text(step.value), _text(step.gradient), local,
            ))  # fmt: skip
        head, *text = table(lines)
        return "\n".join((head, "-" * max(map(len, (head, *text))), *text))

    __repr__ = __str__

    def to_svg(self) -> str:
        """Return a drawing: inputs on the left, the loss on the right.

        A box holds a variable's name, value (above) and gradient (below); an arrow carries the
        local gradient. Without any package: save the text as a file.svg, or let a notebook show the
        trace.
        """
        places = _places(self.steps)
        columns, rows = (max(axis) + 1 for axis in zip(*places.values(), strict=True))
        width = 2 * _MARGIN + (columns - 1) * _COLUMN + _WIDTH
        height = 2 * _MARGIN + (rows - 1) * _ROW + _HEIGHT
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
            f'width="{width:g}" height="{height:g}" font-family="monospace" font-size="11">',
            '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" '
            'markerHeight="8" orient="auto"><path d="M0 0 8 4 0 8z" fill="#888"/></marker></defs>',
            f'<rect width="{width:g}" height="{height:g}" fill="white"/>',
        ]
        for step in self.steps:
            for source, local in step.local.items():
                parts.append(_arrow(places[source], places[step.name], _text(local)))
        parts += [_box(places[step.name], step) for step in self.steps]
        return "\n".join([*parts, "</svg>"])

    def _repr_svg_(self) -> str:
        return self.to_svg()


def trace(f: Variable, dy: ArrayLike | None = None) -> Trace:
    """Run the backward pass of `f` and return what happened, from `f` back to the inputs.

    Parameters
    ----------
    f : Variable
    dy : array_like, optional
        The gradient that arrives at f; 1 for a single number.

    Returns
    -------
    Trace

    Examples
    --------
    >>> x, y, z = Variable(-2, "x"), Variable(5, "y"), Variable(-4, "z")
    >>> print(trace((x + y) * z))
    variable  computed as  value  gradient  local gradients
    ----------------------------------------------------------------
    v2        v1 * z       -12    1         dv2/dv1 = -4, dv2/dz = 3
    z         input        -4     3
    v1        x + y        3      -4        dv1/dx = 1, dv1/dy = 1
    y         input        5      -4
    x         input        -2     -4
    """
    f.backward(dy)
    order = f.history()
    names = _names(order)
    steps = []
    for variable in reversed(order):
        operands = [
            _text(operand.value) if operand.constant else names[id(operand)]
            for operand in variable.operands
        ]
        local: dict[str, Array | str] = {}
        for edge in variable.edges:
            name, factor = names[id(edge.source)], edge.local
            factor = factor.format(*operands) if isinstance(factor, str) else factor
            if name in local:  # the same operand twice, as in x * x: the local gradients add up
                known = local[name]
                both = isinstance(known, str) or isinstance(factor, str)
                factor = f"{known} + {factor}" if both else known + factor
            local[name] = factor
        gradient = variable.value if variable.grad is None else variable.grad
        formula = variable.formula.format(*operands)
        steps.append(Step(names[id(variable)], formula, variable.value, gradient, local))
    return Trace(steps)


def table(lines: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of cells as text, the cells of a column below each other."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _names(order: Sequence[Variable]) -> dict[int, str]:
    """Return a name of its own for each variable, by identity."""
    taken = {variable.name for variable in order if variable.name}
    fresh = (name for i in range(1, 2 * len(order) + 2) if (name := f"v{i}") not in taken)
    names: dict[int, str] = {}
    used: set[str] = set()
    for variable in order:
        name = variable.name if variable.name and variable.name not in used else next(fresh)
        used.add(name)
        names[id(variable)] = name
    return names


def _text(value: Array | str) -> str:
    """Return a few numbers written out, or the shape of many."""
    if isinstance(value, str):
        return value
    if value.ndim == 0:
        return f"{value:.4g}"
    if value.size <= _MOST_SHOWN:
        return np.array2string(value, precision=3, separator=", ").replace("\n", "")
    return f"({' x '.join(map(str, value.shape))} values)"


# The drawing


def _places(steps: Sequence[Step]) -> dict[str, tuple[int, float]]:
    """Return (column, row) of each variable: right of its operands, inputs just before use."""
    column: dict[str, int] = {}
    for step in reversed(steps):
        column[step.name] = 1 + max((column[source] for source in step.local), default=-1)
    first_use: dict[str, int] = {}
    for step in steps:
        for source in step.local:
            first_use[source] = min(first_use.get(source, column[step.name]), column[step.name])
    for step in steps:
        if not step.local:
            column[step.name] = first_use.get(step.name, 1) - 1
    members: dict[int, list[str]] = {}
    for step in reversed(steps):
        members.setdefault(column[step.name], []).append(step.name)
    tallest = max(map(len, members.values()))
    return {
        name: (number, row + (tallest - len(names)) / 2)
        for number, names in members.items()
        for row, name in enumerate(names)
    }


def _corner(place: tuple[int, float]) -> tuple[float, float]:
    return _MARGIN + place[0] * _COLUMN, _MARGIN + place[1] * _ROW


def _box(place: tuple[int, float], step: Step) -> str:
    left, top = _corner(place)
    title = step.name if not step.formula else f"{step.name} = {step.formula}"
    lines = (
        (title, "#222"), (f"value {_text(step.value)}", "#187018"),
        (f"gradient {_text(step.gradient)}", "#b01010"),
    )  # fmt: skip
    text = "".join(
        f'<text x="{left + _WIDTH / 2:g}" y="{top + 18 + 17 * i:g}" text-anchor="middle" '
        f'fill="{colour}">{_escaped(_short(line))}</text>'
        for i, (line, colour) in enumerate(lines)
    )
    return (
        f'<g><title>{_escaped(title)}</title><rect x="{left:g}" y="{top:g}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" rx="6" fill="#f4f6fa" stroke="#667"/>{text}</g>'
    )


def _arrow(source: tuple[int, float], target: tuple[int, float], label: str) -> str:
    left, top = _corner(source)
    end, end_top = _corner(target)
    label = _escaped(_short(label))
    x1, y1, x2, y2 = left + _WIDTH, top + _HEIGHT / 2, end, end_top + _HEIGHT / 2
    gap, slope = (_COLUMN - _WIDTH) / 2, (y2 - y1) / (x2 - x1)  # the label stands before the target
    return (
        f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="#888" '
        f'marker-end="url(#head)"/><text x="{x2 - gap:g}" y="{y2 - gap * slope - 4:g}" '
        f'text-anchor="middle" fill="#666">{label}</text>'
    )


def _short(text: str, most: int = 19) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _escaped(text: str) -> str:
    from html import escape  # a table of entities, which `import cycnn` need not load

    return escape("".join(c if c.isprintable() else "?" for c in text))  # XML has no control codes
