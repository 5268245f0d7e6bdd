"""What a formula is told, and the table of formulas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cycnn._check import Array
from cycnn.autodiff import Variable


@dataclass(frozen=True)
class Call:
    """One call of a layer.

    Attributes
    ----------
    options : mapping of str to object
        The arguments that the layer was made with.
    inputs : tuple of Variable
    state : mapping of str to Variable
        Parameters, and buffers as they were before the call.
    training : bool
    made : tuple of ndarray
        What the layer itself returned: a formula may read off it what is random, nothing else.
    """

    options: Mapping[str, Any]
    inputs: tuple[Variable, ...]
    state: Mapping[str, Variable]
    training: bool
    made: tuple[Array, ...]

    @property
    def x(self) -> Variable:
        """The only input, or the first."""
        return self.inputs[0]


Formula = Callable[[Call], "Variable | tuple[Variable, ...]"]

FORMULAS: dict[str, Formula] = {}
"""The formula of each layer, by the name of its class."""


def formula(*names: str) -> Callable[[Formula], Formula]:
    """Register a function as the formula of these layers."""

    def register(function: Formula) -> Formula:
        FORMULAS.update(dict.fromkeys(names, function))
        return function

    return register
