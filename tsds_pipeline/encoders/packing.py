"""Linear layers whose weights are laid out once as the processor multiplies them, instead of at every call.

The products differ from PyTorch's own in their last bits. Nothing here knows what a model is for.
"""

import platform
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor, nn

MOST_BYTES = 2**30
"""Of weights, which are held twice: a model that has more is left as it is."""
ROWS = 1024
"""The layout suits products with about so many rows, and does for any number."""


def pack(model: "nn.Module") -> int:
    """Have the linear layers of ``model``, which is on a CPU, use packed weights; return how many do.

    None do where PyTorch's oneDNN cannot: the operators are those that its compiler uses, without a promise.
    """
    import torch

    layers = [layer for layer in model.modules() if type(layer) is torch.nn.Linear]
    dtypes = {layer.weight.dtype for layer in layers}
    if not _can_pack(dtypes) or sum(layer.weight.nbytes for layer in layers) > MOST_BYTES:
        return 0
    for layer in layers:
        # The weight itself stays: some models look at it.
        packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), ROWS)
        layer.forward = _product(packed, None if layer.bias is None else layer.bias.detach())
    return len(layers)


def _can_pack(dtypes: "set[torch.dtype]") -> bool:
    import torch

    return (
        platform.machine() in ("x86_64", "AMD64")
        and torch.backends.mkldnn.is_available()
        and all(hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))
        and dtypes <= {torch.float32, torch.bfloat16}
        and (torch.bfloat16 not in dtypes or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def _product(packed: "Tensor", bias: "Tensor | None") -> "Callable[[Tensor], Tensor]":
    import torch

    return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
