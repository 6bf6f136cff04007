"""A model computes here what it computes in transformers, or is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from luthier.errors import ModelError
from luthier.models import LanguageModel, load_model, loading, pack
from tiny import UNSET, write_model

ROW = [5, 12, 3, 8, 9, 20]


def loaded(folder: Path, dtype: torch.dtype = torch.float32) -> LanguageModel:
    return load_model(folder, dtype=dtype, device=torch.device("cpu"))


def plain_logits(folder: Path) -> Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    found: Tensor = model(input_ids=torch.tensor([ROW])).logits[0, :-1]
    return found


HEADS: list[tuple[str, dict[str, Any]]] = [
    ("gemma2", {"final_logit_softcapping": 1.0}),
    ("gemma4", {}),
    ("granite", {"logits_scaling": 8.0}),
    ("hyperclovax", {"logits_scaling": 8.0}),
    ("cohere", {"logit_scale": 0.25}),
    ("opt", {}),
    ("falcon_h1", {
        "lm_head_multiplier": 0.25, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8,
        "mamba_n_groups": 1, "mamba_d_state": 8,
    }),
    ("recurrent_gemma", {"logits_soft_cap": 1.0, "num_hidden_layers": 3, "lru_width": 32}),
]  # fmt: skip
"""Architectures that scale or bound their logits."""


@pytest.mark.parametrize(("family", "changes"), HEADS)
def test_logits_are_the_models_own(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    folder = write_model(tmp_path, family, **changes)
    expected = plain_logits(folder)
    model = loaded(folder)
    found = model.logits(model.predicting_states(pack([ROW], [ROW])))
    scale = expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_logits_that_are_made_in_another_way_are_refused(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    """ModernBERT's decoder has a layer between hidden states and head."""
    folder = write_model(tmp_path, "modernbert-decoder", bos_token_id=1)
    with pytest.raises(ModelError, match=r"modernbert-decoder models make logits .* differ by"):
        loaded(folder, dtype)


DROPPING: list[tuple[str, dict[str, Any]]] = [
    ("opt", {"dropout": 0.5, "layerdrop": 0.5}),
    ("falcon", {"hidden_dropout": 0.5, "attention_dropout": 0.5, "head_dim": UNSET}),
    ("bloom", {"hidden_dropout": 0.5}),
    ("biogpt", {"hidden_dropout_prob": 0.5, "activation_dropout": 0.5, "layerdrop": 0.5}),
    ("xglm", {"d_model": 32, "ffn_dim": 64, "dropout": 0.5, "activation_dropout": 0.5}),
    ("gpt2", {"resid_pdrop": 0.5, "attn_pdrop": 0.5}),
    ("llama", {"attention_dropout": 0.5}),
]


@pytest.mark.parametrize(("family", "changes"), DROPPING)
def test_nothing_is_dropped_in_training(
    family: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    model = loaded(write_model(tmp_path, family, **changes))
    batch = pack([ROW], [ROW])
    with torch.no_grad():
        expected = model.loss(batch).each
        model.network.train()
        assert torch.equal(model.loss(batch).each, expected)


@pytest.mark.parametrize(("device", "shares"), [("cpu", [True]), ("cuda", [True, False])])
def test_every_kernel_of_a_device_is_tried(device: str, shares: list[bool]) -> None:
    """On a GPU, what shares no beginning has a kernel of its own."""
    batches = loading._probe_batches(loading._probe_rows(), torch.device(device))
    assert [batch.layout.shares for batch in batches] == shares
