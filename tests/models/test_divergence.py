"""The divergence from the start: nothing before training, and exact after it."""

from pathlib import Path

import pytest
import torch

from luthier.models import kl_to_start, load_model, make_trainable, trained_parameters
from luthier.recipe import LoRA
from luthier.tokens import Encoded
from tiny import write_model

ROWS = [
    Encoded("a", [5, 6, 7, 8, 9], [-100, -100, 7, 8, 9], ((2, 5),)),
    Encoded("b", [11, 12, 13], [-100, -100, 13], ((2, 3),)),
]


def test_it_is_the_mean_over_answer_tokens_of_the_exact_divergence(tmp_path: Path) -> None:
    model = load_model(write_model(tmp_path), dtype=torch.float32, device=torch.device("cpu"))
    make_trainable(model, LoRA(rank=4), seed=0)
    assert kl_to_start(model, ROWS, budget=100) == pytest.approx(0, abs=1e-7)
    with torch.no_grad():
        for name, parameter in trained_parameters(model.network).items():
            if "lora_B" in name:
                parameter.fill_(0.05)
    divergences = []
    for row in ROWS:
        ids = torch.tensor([row.input_ids])
        model.base.set_attn_implementation("eager")
        with torch.no_grad():
            now = model.network(input_ids=ids).logits[0].log_softmax(-1)
            with model.without_adapter():
                before = model.network(input_ids=ids).logits[0].log_softmax(-1)
        each = (now.exp() * (now - before)).sum(-1)
        divergences += [each[t - 1].item() for start, end in row.spans for t in range(start, end)]
    model.base.set_attn_implementation("luthier_flat")
    expected = sum(divergences) / len(divergences)
    assert expected > 1e-3
    nothing = Encoded("c", [11, 12, 13], [-100, -100, -100], ())
    for budget in (1, 100):
        assert kl_to_start(model, [*ROWS, nothing], budget=budget) == pytest.approx(
            expected, rel=1e-4
        )
