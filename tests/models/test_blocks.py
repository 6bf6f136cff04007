"""The last feed-forward computes the tokens that predict something, and no others."""

from pathlib import Path

import pytest
import torch
from torch import nn

from luthier.models import LanguageModel, load_model, pack
from luthier.models.blocks import blocks_of, narrow_last
from luthier.tokens import IGNORED
from tiny import FAMILIES, MULTIMODAL_FAMILIES, write_model

IDS = [[5, 6, 7, 8, 9, 10, 11, 12], [5, 6, 7, 8, 9, 10, 11, 12, 13, 14]]
LABELS = [[*[IGNORED] * 7, 12], [*[IGNORED] * 8, 13, 14]]
FLAT = [*(family for family in FAMILIES if family != "opt"), *MULTIMODAL_FAMILIES]
"""OPT's feed-forward is no module of its own."""


def loaded(folder: Path, family: str) -> LanguageModel:
    path = write_model(folder, family)
    return load_model(path, dtype=torch.float32, device=torch.device("cpu"))


def tokens_seen(model: LanguageModel, ids: list[list[int]], labels: list[list[int]]) -> list[int]:
    """Tokens that go through the feed-forward of each block."""
    seen = []

    def note(module: nn.Module, args: tuple[torch.Tensor]) -> None:
        seen.append(args[0].shape[1])

    inner = [block.get_submodule("mlp") for block in blocks_of(model.base)[1]]
    hooks = [module.register_forward_pre_hook(note) for module in inner]
    model.predicting_states(pack(ids, labels))
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("family", FLAT)
def test_only_what_predicts_goes_through_the_last_feed_forward(family: str, tmp_path: Path) -> None:
    seen = tokens_seen(loaded(tmp_path, family), IDS, LABELS)
    # The last prompt token of the first sequence and two of the second; one of them is shared.
    assert seen[-1] == len(pack(IDS, LABELS).predicting) == 3
    assert seen[:-1] == [32]


def test_where_everything_is_learnt_all_tokens_go_through(tmp_path: Path) -> None:
    ids = [[5, 6, 7] * 11]
    assert tokens_seen(loaded(tmp_path, "llama"), ids, ids) == [32, 32]


def test_what_comes_after_a_narrowed_batch_is_whole(tmp_path: Path) -> None:
    model = loaded(tmp_path, "llama")
    batch = pack(IDS, LABELS)
    before = model.run(batch.input_ids, batch.position_ids, flat_layout=batch.layout)
    model.predicting_states(batch)
    after = model.run(batch.input_ids, batch.position_ids, flat_layout=batch.layout)
    assert torch.equal(before, after)


def test_a_feed_forward_that_mixes_tokens_is_left_alone(tmp_path: Path) -> None:
    class Mixing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x - x.mean(1, keepdim=True)

    model = loaded(tmp_path, "llama")
    mixing = Mixing()
    blocks_of(model.base)[1][-1].mlp = mixing
    narrow_last(model.base)
    assert not mixing._forward_pre_hooks
