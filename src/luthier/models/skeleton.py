"""A model without its weights, to look at its parts before anything is loaded."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from luthier.errors import ModelError


def outline(folder: Path, *, allow_remote_code: bool = False) -> PreTrainedModel:
    """The modules of a model folder, their weights without content.

    Raises ModelError when the folder is no causal language model.
    """
    try:
        config = AutoConfig.from_pretrained(
            folder, trust_remote_code=allow_remote_code, local_files_only=True
        )
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                config, trust_remote_code=allow_remote_code
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"is no language model: {error}",
            where=str(folder),
            accepted="a causal language model of an architecture transformers knows",
        ) from error
    return model
