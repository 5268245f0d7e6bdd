"""Reverse-mode differentiation over NumPy arrays, small enough to read: the chain rule in the open.

Functions are written with ordinary operators; `backward` gives every gradient, and `trace` shows
what happened on the way: each value, the gradient that arrives, the local gradients.

    >>> from cycnn.autodiff import Variable, exp, max
    >>> x1, x2, w = Variable(1.0), Variable(2.0), Variable(-0.5)
    >>> y1, y2 = Variable(1.0), Variable(0.5)
    >>> f = 1 / exp(-((x1 + x2) * w + max(y1, y2)))
    >>> f.backward()
    >>> [round(float(v.grad), 4) for v in (x1, x2, w, y1, y2)]
    [-0.3033, -0.3033, 1.8196, 0.6065, 0.0]

Training does not run on it: layers have kernels. `cycnn.Lambda` makes a layer of a function
written with it, and `cycnn check` measures the kernels by it.
"""

from __future__ import annotations

from cycnn.autodiff.functions import (
    absolute,
    concatenate,
    exp,
    function,
    log,
    max,  # noqa: A004
    maximum,
    mean,
    relu,
    sigmoid,
    sqrt,
    sum,  # noqa: A004
    tanh,
    where,
)
from cycnn.autodiff.tracing import Step, Trace, trace
from cycnn.autodiff.variable import Edge, Variable, elementwise, linear

__all__ = [
    "Edge", "Step", "Trace", "Variable", "absolute", "concatenate", "elementwise", "exp",
    "function", "linear", "log", "max", "maximum", "mean", "relu", "sigmoid", "sqrt", "sum", "tanh",
    "trace", "where",
]  # fmt: skip
