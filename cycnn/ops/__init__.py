"""Pure functions on arrays: each checks, allocates, and hands one plan to the engine.

Arrays are C-contiguous, channels last, float32 or float64; results come from the engine's pool.

A function's module is imported when the function is first asked for: `import cycnn` waits only for
what layers are checked by, and a model for those of its own layers (SPEC 1 of Scientific Python,
"Lazy loading of submodules and functions"). `__init__.pyi` says the same to type checkers and
editors.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

_FUNCTIONS = {
    "activation": (
        "activation activation_backward log_softmax log_softmax_backward prelu prelu_backward "
        "softmax softmax_backward"
    ),
    "algorithm": "ALGORITHMS check_algorithm planned_for",
    "bias": "add_bias bias_gradient",
    "conv": "conv conv_backward_input conv_backward_weight conv_output_shape",
    "conv_transpose": (
        "conv_transpose conv_transpose_backward_input conv_transpose_backward_weight "
        "conv_transpose_output_shape"
    ),
    "dense": "dense dense_backward_input dense_backward_weight",
    "elementwise": "add concat dropout relu relu_backward scale split zeros",
    "global_pool": (
        "global_avg_pool global_avg_pool_backward global_max_pool global_max_pool_backward "
        "max_unpool max_unpool_backward"
    ),
    "group_norm": "group_norm group_norm_backward",
    "locally_connected": (
        "locally_connected locally_connected_backward_input locally_connected_backward_weight"
    ),
    "loss": "softmax_cross_entropy",
    "lrn": "local_response_norm local_response_norm_backward",
    "merge": "channel_dropout maximum maximum_backward multiply multiply_backward",
    "norm": (
        "Normalisation batch_norm batch_norm_backward batch_norm_inference channel_statistics "
        "standardize"
    ),
    "optim": "adagrad_update adam_update lion_update rmsprop_update sgd_update",
    "pool": (
        "adaptive_avg_pool adaptive_avg_pool_backward adaptive_max_index adaptive_max_pool "
        "adaptive_max_pool_backward avg_pool avg_pool_backward lp_pool lp_pool_backward max_pool "
        "max_pool_backward max_pool_index"
    ),
    "rearrange": (
        "borders check_upsample_mode crop crop_backward pad pad_backward upsample upsample_backward"
    ),
    "regression_loss": (
        "absolute_loss binary_hinge_loss hinge_loss huber_loss logistic_loss soft_cross_entropy "
        "squared_loss"
    ),
    "row_norm": "row_norm row_norm_backward",
    "slices": "permute slice_axis slice_axis_backward",
}
_HOMES = {name: module for module, names in _FUNCTIONS.items() for name in names.split()}

__all__ = sorted(_HOMES)


class _Ops(ModuleType):
    """The package `cycnn.ops`: it looks for its functions in their own modules."""

    def __getattr__(self, name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        # Importing cycnn.ops.conv would make `ops.conv` the module: the name is the function's.
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_HOMES})

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, (__name__,)  # by name, as cloudpickle has other modules


sys.modules[__name__].__class__ = _Ops
