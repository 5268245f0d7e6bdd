"""Pure functions on arrays: each checks, allocates, and hands one plan to the engine.

Arrays are C-contiguous, channels last, float32 or float64; results come from the engine's memory pool.
"""

from cycnn.ops.conv import conv, conv_backward_input, conv_backward_weight, conv_output_shape
from cycnn.ops.dense import dense, dense_backward_input, dense_backward_weight
from cycnn.ops.elementwise import (
    add, concat, dropout, dropout_backward, relu, relu_backward, scale, split,
)  # fmt: skip
from cycnn.ops.loss import softmax_cross_entropy
from cycnn.ops.norm import (
    batch_norm, batch_norm_backward, batch_norm_inference, batch_norm_inference_backward,
)  # fmt: skip
from cycnn.ops.optim import adam_update, sgd_update
from cycnn.ops.pool import (
    avg_pool, avg_pool_backward, global_avg_pool, global_avg_pool_backward, max_pool,
    max_pool_backward, pool_output_shape,
)  # fmt: skip

__all__ = [
    "adam_update", "add", "avg_pool", "avg_pool_backward", "batch_norm", "batch_norm_backward",
    "batch_norm_inference", "batch_norm_inference_backward", "concat", "conv", "conv_backward_input",
    "conv_backward_weight", "conv_output_shape", "dense", "dense_backward_input",
    "dense_backward_weight", "dropout", "dropout_backward", "global_avg_pool",
    "global_avg_pool_backward", "max_pool", "max_pool_backward", "pool_output_shape", "relu",
    "relu_backward", "scale", "sgd_update", "softmax_cross_entropy", "split",
]  # fmt: skip
