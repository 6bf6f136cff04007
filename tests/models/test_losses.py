"""The loss of reference answers: one number an example, or none where nothing is supervised."""

from pathlib import Path

import pytest
import torch

from luthier.models import answer_losses, load_model
from luthier.tokens import Encoded
from tiny import write_model

ROWS = [
    Encoded("a", [5, 6, 7, 8, 9], [-100, -100, 7, 8, 9], ((2, 5),)),
    Encoded("nothing", [11, 12, 13], [-100, -100, -100], ()),
    Encoded("b", [11, 12, 13], [-100, -100, 13], ((2, 3),)),
]


@pytest.mark.parametrize("budget", [1, 100])
def test_an_answer_without_tokens_has_no_loss(budget: int, tmp_path: Path) -> None:
    model = load_model(write_model(tmp_path), dtype=torch.float32, device=torch.device("cpu"))
    first, nothing, last = answer_losses(model, ROWS, budget=budget)
    assert nothing is None
    assert [first, last] == pytest.approx(answer_losses(model, [ROWS[0], ROWS[2]], budget=100))
