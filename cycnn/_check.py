"""Checks that all layers share: each raises one sentence, which argument, which rule, what came."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

Array = np.ndarray[Any, Any]


class NotBuiltError(RuntimeError):
    """A layer was used before ``build`` gave it a shape and parameters."""


def float_dtype(dtype: DTypeLike, name: str = "dtype") -> np.dtype[Any]:
    """Return `dtype` as float32 or float64, the two that the kernels are built for."""
    try:
        result = np.dtype(dtype)
    except TypeError:
        result = np.dtype(object)
    if result not in (np.float32, np.float64):
        raise ValueError(f"{name} must be float32 or float64, got {dtype!r}")
    return result.newbyteorder("=")


def is_input(x: ArrayLike, dtype: DTypeLike) -> TypeGuard[Array]:
    """Say whether `x` is an aligned, C-contiguous array of `dtype`, as `as_input` returns."""
    if type(x) is not np.ndarray or x.dtype != dtype:
        return False
    flags = x.flags
    return flags.c_contiguous and flags.aligned


def as_input(x: ArrayLike, dtype: DTypeLike, name: str = "x") -> Array:
    """Return `x` as an aligned, C-contiguous array of `dtype`: itself where it is one already."""
    array = np.asarray(x)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    if array.dtype == dtype and array.flags.c_contiguous and array.flags.aligned:
        return array
    return np.require(array, dtype=dtype, requirements=("C", "A"))


def integer(value: object, name: str, minimum: int = 0) -> int:
    """Return `value` as an int of at least `minimum`."""
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    number = int(value.__index__())
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {number}")
    return number


def positive_int(value: object, name: str) -> int:
    """Return `value` as an int of at least 1."""
    return integer(value, name, 1)


def real_number(value: Any, name: str) -> float:
    """Return `value` as a float; raise TypeError if it is no real number, ValueError if NaN."""
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number, got {value!r}")
    number = float(value)
    if math.isnan(number):
        raise ValueError(f"{name} must be a number, got {value!r}")
    return number


def per_axis(value: object, axes: int, name: str, minimum: int = 1) -> tuple[int, ...]:
    """Return one int for each of `axes` spatial axes: an int stands for all, a tuple sets each."""
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        numbers = tuple(integer(v, name, minimum) for v in value)
        if len(numbers) != axes:
            raise ValueError(
                f"{name} must be an int or {axes} of them, one per axis, got {value!r}"
            )
        return numbers
    return (integer(value, name, minimum),) * axes


def hashable(value: Any) -> Any:
    """Return `value` with its lists as tuples."""
    return tuple(map(hashable, value)) if isinstance(value, (list, tuple, np.ndarray)) else value
