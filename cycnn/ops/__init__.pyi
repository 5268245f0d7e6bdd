from cycnn.ops.activation import (
    activation,
    activation_backward,
    log_softmax,
    log_softmax_backward,
    prelu,
    prelu_backward,
    softmax,
    softmax_backward,
)
from cycnn.ops.algorithm import ALGORITHMS, check_algorithm, planned_for
from cycnn.ops.bias import add_bias, bias_gradient
from cycnn.ops.conv import conv, conv_backward_input, conv_backward_weight, conv_output_shape
from cycnn.ops.conv_transpose import (
    conv_transpose,
    conv_transpose_backward_input,
    conv_transpose_backward_weight,
    conv_transpose_output_shape,
)
from cycnn.ops.dense import dense, dense_backward_input, dense_backward_weight
from cycnn.ops.elementwise import add, concat, dropout, relu, relu_backward, scale, split, zeros
from cycnn.ops.global_pool import (
    global_avg_pool,
    global_avg_pool_backward,
    global_max_pool,
    global_max_pool_backward,
    max_unpool,
    max_unpool_backward,
)
from cycnn.ops.group_norm import group_norm, group_norm_backward
from cycnn.ops.locally_connected import (
    locally_connected,
    locally_connected_backward_input,
    locally_connected_backward_weight,
)
from cycnn.ops.loss import softmax_cross_entropy
from cycnn.ops.lrn import local_response_norm, local_response_norm_backward
from cycnn.ops.merge import channel_dropout, maximum, maximum_backward, multiply, multiply_backward
from cycnn.ops.norm import (
    Normalisation,
    batch_norm,
    batch_norm_backward,
    batch_norm_inference,
    channel_statistics,
    standardize,
)
from cycnn.ops.optim import adagrad_update, adam_update, lion_update, rmsprop_update, sgd_update
from cycnn.ops.pool import (
    adaptive_avg_pool,
    adaptive_avg_pool_backward,
    adaptive_max_index,
    adaptive_max_pool,
    adaptive_max_pool_backward,
    avg_pool,
    avg_pool_backward,
    lp_pool,
    lp_pool_backward,
    max_pool,
    max_pool_backward,
    max_pool_index,
)
from cycnn.ops.rearrange import (
    borders,
    check_upsample_mode,
    crop,
    crop_backward,
    pad,
    pad_backward,
    upsample,
    upsample_backward,
)
from cycnn.ops.regression_loss import (
    absolute_loss,
    binary_hinge_loss,
    hinge_loss,
    huber_loss,
    logistic_loss,
    soft_cross_entropy,
    squared_loss,
)
from cycnn.ops.row_norm import row_norm, row_norm_backward
from cycnn.ops.slices import permute, slice_axis, slice_axis_backward

__all__ = [
    "ALGORITHMS", "Normalisation", "absolute_loss", "activation", "activation_backward",
    "adagrad_update", "adam_update", "adaptive_avg_pool", "adaptive_avg_pool_backward",
    "adaptive_max_index", "adaptive_max_pool", "adaptive_max_pool_backward", "add", "add_bias",
    "avg_pool", "avg_pool_backward", "batch_norm", "batch_norm_backward",
    "batch_norm_inference", "bias_gradient", "binary_hinge_loss", "borders", "channel_dropout",
    "channel_statistics", "check_algorithm", "check_upsample_mode", "concat", "conv",
    "conv_backward_input", "conv_backward_weight", "conv_output_shape", "conv_transpose",
    "conv_transpose_backward_input", "conv_transpose_backward_weight",
    "conv_transpose_output_shape", "crop", "crop_backward", "dense", "dense_backward_input",
    "dense_backward_weight", "dropout", "global_avg_pool", "global_avg_pool_backward",
    "global_max_pool", "global_max_pool_backward", "group_norm", "group_norm_backward",
    "hinge_loss", "huber_loss", "lion_update", "local_response_norm",
    "local_response_norm_backward", "locally_connected", "locally_connected_backward_input",
    "locally_connected_backward_weight", "log_softmax", "log_softmax_backward", "logistic_loss",
    "lp_pool", "lp_pool_backward", "max_pool", "max_pool_backward", "max_pool_index",
    "max_unpool", "max_unpool_backward", "maximum", "maximum_backward", "multiply",
    "multiply_backward", "pad", "pad_backward", "permute", "planned_for", "prelu",
    "prelu_backward", "relu", "relu_backward", "rmsprop_update", "row_norm",
    "row_norm_backward", "scale", "sgd_update", "slice_axis", "slice_axis_backward",
    "soft_cross_entropy", "softmax", "softmax_backward", "softmax_cross_entropy", "split",
    "squared_loss", "standardize", "upsample", "upsample_backward", "zeros",
]  # fmt: skip
