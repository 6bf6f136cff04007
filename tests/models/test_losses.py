"""The loss of reference answers: one number an example, or none where nothing is supervised."""

from pathlib import Path
from typing import Any

import pytest
import torch

from luthier.models import LanguageModel, answer_losses, choice_likelihoods, load_model
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


@pytest.mark.parametrize("family", ["llama", "bloom"])
def test_choices_are_weighed_within_a_budget(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(
        write_model(tmp_path, family), dtype=torch.float32, device=torch.device("cpu")
    )
    before = list(range(10, 30))
    questions = [
        [Encoded("", [*before, 100 + i, 2], [*[-100] * 20, 100 + i, 2], ((20, 22),))
         for i in range(count)]
        for count in (12, 3, 0, 1)
    ]  # fmt: skip
    whole = choice_likelihoods(model, questions, budget=10_000)
    sizes: list[int] = []
    plain = LanguageModel.predicting_states

    def counted(self: LanguageModel, batch: Any) -> Any:
        shared = len(batch.input_ids) - batch.num_filler
        sizes.append(batch.num_sequences * 22 if self.padded_because else shared)
        return plain(self, batch)

    monkeypatch.setattr(LanguageModel, "predicting_states", counted)
    told: list[int] = []
    parts = choice_likelihoods(model, questions, budget=50, observe=told.append)
    assert [len(own) for own in parts] == [12, 3, 0, 1]
    for own, other in zip(whole, parts, strict=True):
        assert [a.log for a in own] == pytest.approx([b.log for b in other], rel=1e-5)
    assert max(sizes) <= 50
    assert told[-1] == len(questions)
