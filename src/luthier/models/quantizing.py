"""Frozen weights in 4 bits: NF4 with double quantisation (QLoRA, Dettmers et al. 2023).

bitsandbytes does the work, on CUDA and, since 0.49, on CPUs; it is an optional extra.
"""

from importlib.util import find_spec

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from luthier.errors import missing_package


def four_bits(dtype: torch.dtype) -> BitsAndBytesConfig:
    """How transformers is to load 4-bit weights that compute in `dtype`.

    Raises ConfigError when bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise missing_package(
            "bitsandbytes", "qlora", where="tuning.quantize", accepted="none, or nf4 with it"
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def keep_differentiable(network: nn.Module) -> None:
    """Keep 4-bit layers in the layout that gradients flow through.

    On CPUs with AVX-512 bfloat16, bitsandbytes 0.50 repacks a layer's weights when it is first used
    without gradients, and the repacked product has no backward: training after any evaluation would
    silently learn from wrong gradients.
    """
    for module in network.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 - not typed
