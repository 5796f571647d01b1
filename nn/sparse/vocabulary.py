"""What a file may name: functions, methods and attributes of tensors, and modules of torch.

A graph in a file is a list of words, and this is the dictionary. All words are functions of tensors without any other
effect. Left out on purpose, although they look the same:

    as_strided, empty, new_empty, resize_, set_     they show memory that is not the tensor's
    out=..., transpose_, unsqueeze_, ...            they change the shape of a tensor that somebody else holds
    numpy, item, tolist, type, apply_, map_         they leave torch, or look something up by its name
    the products of sparseopt themselves            they trust `crow` and `col`, which only a layer has checked

Words are looked up in dictionaries that are made here, from the lists below: none is ever imported or evaluated.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

__all__ = ["ATTRIBUTES", "CONSTANTS", "DTYPES", "FUNCTIONS", "FUNCTION_NAMES", "METHODS", "MODULES"]

_OPERATORS = """
    add sub mul truediv floordiv mod pow matmul neg pos abs invert and_ or_ xor eq ne lt le gt ge getitem
    iadd isub imul itruediv ifloordiv imatmul iand ior ixor
"""
_MATH = "sqrt floor ceil log"
# Functions of torch that are methods of tensors under the same name.
_BOTH = """
    abs acos add addcdiv addcmul addmm all amax amin any argmax argmin argsort asin atan atan2 baddbmm bmm broadcast_to
    ceil chunk clamp clamp_max clamp_min clip clone cos cosh count_nonzero cross cummax cummin cumprod cumsum diag
    diag_embed diagonal diff div divide dot eq erf erfc exp exp2 expm1 fix flatten flip fliplr flipud floor floor_divide
    fmod frac gather ge gt heaviside hypot index_add index_fill index_select isclose isfinite isinf isnan kron le lerp
    log log10 log1p log2 log_softmax logaddexp logcumsumexp logical_and logical_not logical_or logical_xor logit
    logsumexp lt masked_fill matmul max maximum mean median min minimum mm moveaxis movedim mul multiply mv nan_to_num
    nanmean nansum narrow ne neg negative norm outer permute positive pow prod ravel reciprocal relu remainder
    repeat_interleave reshape roll rot90 round rsqrt scatter scatter_add select sigmoid sign sin sinh softmax sort split
    sqrt square squeeze std sub subtract sum swapaxes swapdims t take_along_dim tan tanh tensor_split tile topk
    transpose tril triu true_divide trunc unbind unflatten unsqueeze var where xlogy
"""
_TORCH = """
    arange broadcast_tensors cat cdist celu concat concatenate cosine_similarity dropout einsum eye full full_like
    hstack linspace meshgrid ones ones_like prelu rms_norm rrelu selu stack std_mean tensordot var_mean vstack zeros
    zeros_like
"""
_FUNCTIONAL = """
    linear bilinear embedding one_hot scaled_dot_product_attention cosine_similarity pairwise_distance normalize pad
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d unfold fold interpolate upsample grid_sample
    affine_grid pixel_shuffle pixel_unshuffle channel_shuffle
    relu relu6 elu selu celu leaky_relu prelu gelu silu mish softplus softsign softshrink hardshrink tanhshrink hardtanh
    hardswish hardsigmoid logsigmoid sigmoid tanh softmax log_softmax softmin glu threshold
    max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d lp_pool1d lp_pool2d
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
    adaptive_max_pool3d
    batch_norm layer_norm group_norm instance_norm rms_norm local_response_norm
    dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout
"""
# In-place arithmetic stays inside the tensor that it is given: no shape, type or address changes.
_TENSOR = """
    size dim ndimension numel view view_as reshape_as expand expand_as repeat contiguous unfold to type_as cpu cuda
    float double half bfloat16 int long bool is_floating_point detach new_zeros new_ones new_full sum_to_size
    add_ sub_ mul_ div_ relu_ sigmoid_ tanh_ clamp_ clamp_min_ clamp_max_ masked_fill_ neg_ exp_ sqrt_ square_
"""


def _named(prefix: str, home: Any, names: str) -> dict[str, Callable[..., Any]]:
    """Those of the names that this version of torch has."""
    return {f"{prefix}{name}": getattr(home, name) for name in names.split() if hasattr(home, name)}


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **_named("operator.", operator, _OPERATORS),
    **_named("math.", math, _MATH),
    **_named("torch.", torch, _BOTH + _TORCH),
    **_named("functional.", functional, _FUNCTIONAL),
    "getattr": getattr,  # of ATTRIBUTES only
}
FUNCTION_NAMES = {function: name for name, function in reversed(FUNCTIONS.items())}
METHODS = frozenset(_named("", torch.Tensor, _BOTH + _TENSOR))
ATTRIBUTES = frozenset({"shape", "ndim", "dtype", "device", "T", "mT", "is_cuda"})

DTYPES = tuple("float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex64".split())
_FORMATS = ("contiguous_format", "preserve_format", "channels_last", "channels_last_3d")
CONSTANTS = {name: getattr(torch, name) for name in DTYPES + _FORMATS}

_CONV = "in_channels out_channels kernel_size stride padding dilation groups bias padding_mode"
_NORM = "num_features eps momentum affine track_running_stats bias"
_POOL = "kernel_size stride padding"
_RNN = "input_size hidden_size num_layers bias batch_first dropout bidirectional"
_ARGUMENTS = {
    "Identity Tanh Tanhshrink Sigmoid LogSigmoid Softsign Softmax2d": "",
    "ReLU ReLU6 SELU SiLU Mish Hardswish Hardsigmoid": "inplace",
    "ELU CELU": "alpha inplace",
    "LeakyReLU": "negative_slope inplace",
    "PReLU": "num_parameters",
    "GELU": "approximate",
    "Softplus": "beta threshold",
    "Softshrink Hardshrink": "lambd",
    "Hardtanh": "min_val max_val inplace",
    "Threshold": "threshold value inplace",
    "GLU Softmax LogSoftmax Softmin": "dim",
    "Dropout Dropout1d Dropout2d Dropout3d AlphaDropout FeatureAlphaDropout": "p inplace",
    "Linear": "in_features out_features bias",
    "Bilinear": "in1_features in2_features out_features bias",
    "Conv1d Conv2d Conv3d": _CONV,
    "ConvTranspose1d ConvTranspose2d ConvTranspose3d": _CONV + " output_padding",
    "BatchNorm1d BatchNorm2d BatchNorm3d InstanceNorm1d InstanceNorm2d InstanceNorm3d": _NORM,
    "GroupNorm": "num_groups num_channels eps affine bias",
    "LayerNorm": "normalized_shape eps elementwise_affine bias",
    "RMSNorm": "normalized_shape eps elementwise_affine",
    "LocalResponseNorm": "size alpha beta k",
    "Embedding": "num_embeddings embedding_dim padding_idx max_norm norm_type scale_grad_by_freq sparse",
    "MaxPool1d MaxPool2d MaxPool3d": _POOL + " dilation return_indices ceil_mode",
    "AvgPool1d": _POOL + " ceil_mode count_include_pad",
    "AvgPool2d AvgPool3d": _POOL + " ceil_mode count_include_pad divisor_override",
    "LPPool1d LPPool2d": "norm_type kernel_size stride ceil_mode",
    "AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d": "output_size",
    "AdaptiveMaxPool1d AdaptiveMaxPool2d AdaptiveMaxPool3d": "output_size return_indices",
    "ZeroPad1d ZeroPad2d ZeroPad3d": "padding",
    "ReflectionPad1d ReflectionPad2d ReflectionPad3d ReplicationPad1d ReplicationPad2d ReplicationPad3d": "padding",
    "ConstantPad1d ConstantPad2d ConstantPad3d": "padding value",
    "Flatten": "start_dim end_dim",
    "Unflatten": "dim unflattened_size",
    "Fold": "output_size kernel_size dilation padding stride",
    "Unfold": "kernel_size dilation padding stride",
    "Upsample": "size scale_factor mode align_corners recompute_scale_factor",
    "PixelShuffle": "upscale_factor",
    "PixelUnshuffle": "downscale_factor",
    "ChannelShuffle": "groups",
    "CosineSimilarity": "dim eps",
    "RNN": _RNN + " nonlinearity",
    "GRU": _RNN,
    "LSTM": _RNN + " proj_size",
    "MultiheadAttention": "embed_dim num_heads dropout bias add_bias_kv add_zero_attn kdim vdim batch_first",
}
# A class, and the arguments that make another one like a given module; torch before 2.13 has no `bias` of BatchNorm.
MODULES: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    name: (getattr(nn, name), tuple(arguments.split()))
    for names, arguments in _ARGUMENTS.items()
    for name in names.split()
    if hasattr(nn, name)
}
