"""Flat == padded == one by one, for losses and gradients, per architecture and per layout."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from luthier.models import LanguageModel, load_model, make_trainable, pack
from luthier.models import attention as attention_module
from luthier.models import flat as flat_module
from luthier.models import layout as layout_module
from luthier.models.attention import FLAT, attend
from luthier.models.layout import FlatLayout, Scoring
from luthier.recipe import LoRA
from luthier.tokens import IGNORED
from tiny import FAMILIES, PADDED_FAMILIES, write_model

CPU = torch.device("cpu")
PREFIX = [9, 8, 7, 6, 5, 4, 3, 9, 9, 8]
ROWS = [
    [*PREFIX, 20, 21, 22, 23, 24],
    [*PREFIX, 20, 21, 30],
    [*PREFIX, *PREFIX, 40, 41, 42],
    [*PREFIX, *PREFIX, 50],
    [11, 12, 13, 14],
    [15, 16],
]
LABELS = [
    [IGNORED] * (len(row) - n) + row[-n:] for row, n in zip(ROWS, (4, 1, 2, 1, 3, 1), strict=True)
]


@pytest.fixture(scope="module", params=FAMILIES)
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> LanguageModel:
    folder = write_model(tmp_path_factory.mktemp(request.param), request.param)
    loaded = load_model(folder, dtype=torch.float64, device=CPU)
    make_trainable(loaded, LoRA.model_validate({"rank": 4}), seed=1)
    with torch.no_grad():  # an adapter that starts at zero would hide half of the gradients
        for name, parameter in loaded.network.named_parameters():
            if parameter.requires_grad and "lora_B" in name:
                parameter.normal_(std=0.1)
    loaded.network.to(torch.float64)
    loaded.network.eval()
    return loaded


def losses_and_gradients(
    model: LanguageModel, compute: Callable[[], torch.Tensor]
) -> tuple[float, dict[str, torch.Tensor]]:
    model.network.zero_grad()
    loss = compute()
    loss.backward()
    gradients = {
        n: p.grad.clone() for n, p in model.network.named_parameters() if p.grad is not None
    }
    return loss.item(), gradients


def plain_loss(model: LanguageModel) -> torch.Tensor:
    """Sum of the losses by transformers' own attention and head, each row alone."""
    total = torch.zeros((), dtype=torch.float64)
    for row, labels in zip(ROWS, LABELS, strict=True):
        logits = model.network(input_ids=torch.tensor([row]), use_cache=False).logits[0]
        total = total + functional.cross_entropy(
            logits[:-1], torch.tensor(labels[1:]), ignore_index=IGNORED, reduction="sum"
        )
    return total


def padded_loss(model: LanguageModel) -> torch.Tensor:
    """Sum of the losses of one padded batch, by transformers' own attention, mask and head."""
    width = max(len(row) for row in ROWS)
    ids = torch.tensor([row + [0] * (width - len(row)) for row in ROWS])
    labels = torch.tensor([row + [IGNORED] * (width - len(row)) for row in LABELS])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ROWS])
    logits = model.network(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
    )


def flat_loss(model: LanguageModel, *, share: bool) -> torch.Tensor:
    return model.loss(pack(ROWS, LABELS, share=share)).total


@pytest.mark.parametrize("tile", [2, 256])
def test_flat_equals_padded_equals_one_by_one(
    model: LanguageModel, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.base.set_attn_implementation("eager")
    expected = losses_and_gradients(model, lambda: plain_loss(model))
    # transformers' eager attention gives NaN for padding outside of a window; sdpa knows no cap.
    has_cap = getattr(model.base.config, "attn_logit_softcapping", None)
    model.base.set_attn_implementation("eager" if has_cap else "sdpa")
    padded = losses_and_gradients(model, lambda: padded_loss(model))
    model.base.set_attn_implementation(FLAT)
    monkeypatch.setattr(layout_module, "TILE", tile)
    monkeypatch.setattr(layout_module, "ROUND_TO", min(tile, 32))
    for found in (
        padded,
        losses_and_gradients(model, lambda: flat_loss(model, share=False)),
        losses_and_gradients(model, lambda: flat_loss(model, share=True)),
    ):
        assert found[0] == pytest.approx(expected[0], rel=1e-6)
        assert found[1].keys() == expected[1].keys()
        for name, gradient in expected[1].items():
            # Softmax and norms are computed in float32 on both sides, hence no tighter.
            scale = gradient.abs().max().item()
            torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-5 * scale)


def test_sharing_computes_common_beginnings_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat_module, "ROUND_TO", 1)
    shared, alone = pack(ROWS, LABELS), pack(ROWS, LABELS, share=False)
    # The ten tokens of PREFIX stand in four rows, and twice in two of them.
    assert len(alone.input_ids) - len(shared.input_ids) == 3 * len(PREFIX) + len(PREFIX)
    assert shared.num_tokens == alone.num_tokens == sum(len(row) for row in ROWS)


def test_a_batch_ends_in_filler_up_to_the_rounding() -> None:
    batch = pack([row + row for row in ROWS], [label + label for label in LABELS])
    assert len(batch.input_ids) == len(batch.position_ids) == batch.layout.num_rows
    assert len(batch.input_ids) % flat_module.ROUND_TO == 0
    filler = len(batch.input_ids) - batch.segments[-1][0]
    assert seen_by(batch.layout, filler) == [filler]
    assert batch.index.max() < filler


@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=24), st.integers(1, 6)),
        min_size=1,
        max_size=6,
    ),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_packing_never_loses_a_prediction(rows: list[tuple[list[int], int]], share: bool) -> None:
    ids = [row for row, _ in rows]
    labels = [[IGNORED] * max(0, len(row) - n) + row[max(0, len(row) - n) :] for row, n in rows]
    batch = pack(ids, labels, share=share)
    expected = sorted(
        (owner, row[:t], row[t])
        for owner, (row, label) in enumerate(zip(ids, labels, strict=True))
        for t in range(1, len(row))
        if label[t] != IGNORED
    )
    found = sorted(
        (owner, context_of(batch.layout, batch.input_ids.tolist(), index), target)
        for owner, index, target in zip(
            batch.owners.tolist(), batch.index.tolist(), batch.targets.tolist(), strict=True
        )
    )
    assert found == expected
    for index in batch.index.tolist():
        context = context_of(batch.layout, batch.input_ids.tolist(), index)
        assert batch.position_ids[index] == len(context) - 1


def seen_by(layout: FlatLayout, row: int) -> list[int]:
    """The tokens a token sees, in order, itself last."""
    keys = next(keys.tolist() for rows, keys in layout.chains(CPU) if row in rows.tolist())
    return keys[: keys.index(row) + 1]


def context_of(layout: FlatLayout, ids: list[int], index: int) -> list[int]:
    """The tokens that the token at `index` sees, itself included, by the layout."""
    return [ids[t] for t in seen_by(layout, index)]


@pytest.mark.parametrize(
    ("lengths", "parents"),
    [((5,), None), ((3, 700, 1, 0, 4), None), ((4, 3, 6, 2), (-1, 0, 0, 2)), ((300, 290), (-1, 0))],
)
def test_attention_equals_softmax_over_each_chain(
    lengths: tuple[int, ...], parents: tuple[int, ...] | None
) -> None:
    generator = torch.Generator().manual_seed(0)
    total = sum(lengths)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)

    query, key, value = random(2, total, 3, 8), random(2, total, 8), random(2, total, 8)
    layout = FlatLayout.of(lengths, parents)
    mask = torch.zeros(total, total, dtype=torch.bool)
    for row in range(total):
        mask[row, seen_by(layout, row)] = True
    scores = torch.einsum("ktgd,ksd->ktgs", query, key) * 0.3
    shares = scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1)
    expected = torch.einsum("ktgs,ksd->ktgd", shares, value)
    weight = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    found = attend(query, key, value, layout, Scoring(0.3))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    for a, b in zip(
        torch.autograd.grad((found * weight).sum(), (query, key, value)),
        torch.autograd.grad((expected * weight).sum(), (query, key, value)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", PADDED_FAMILIES)
@pytest.mark.parametrize("share", [True, False])
def test_what_cannot_run_flat_runs_padded_and_says_so(
    family: str, share: bool, tmp_path: Path
) -> None:
    model = load_model(write_model(tmp_path, family), dtype=torch.float32, device=CPU)
    assert f"{family} models" in model.padded_because
    model.base.requires_grad_(True)
    found = losses_and_gradients(model, lambda: flat_loss(model, share=share))
    expected = losses_and_gradients(model, lambda: plain_loss(model))
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    for name, gradient in expected[1].items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("family", [*FAMILIES, *PADDED_FAMILIES])
def test_all_weights_learn_alike_flat_and_plain(family: str, tmp_path: Path) -> None:
    dtype = torch.float32 if family in PADDED_FAMILIES else torch.float64
    model = load_model(write_model(tmp_path, family), dtype=dtype, device=CPU)
    model.base.requires_grad_(True)
    found = losses_and_gradients(model, lambda: flat_loss(model, share=True))
    if not model.padded_because:
        model.base.set_attn_implementation("eager")
    expected = losses_and_gradients(model, lambda: plain_loss(model))
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        if family == "opt" and name.endswith("k_proj.bias"):
            # All keys move alike, which no softmax sees: rounding is left, in float32 by theirs.
            assert found[1][name].abs().max() < 1e-12
            assert gradient.abs().max() < 1e-6
            continue
        scale = gradient.abs().max().item()
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-5 * scale)


def test_kept_probabilities_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept or computed again, also where a batch has blocks of both kinds: equal bit for bit."""
    torch.manual_seed(0)
    layout = FlatLayout.of([40, 30, 250, 7], [-1, 0, -1, 0])
    tokens = sum(layout.lengths)
    shapes = (2, tokens, 3, 8), (2, tokens, 8), (2, tokens, 8)
    query, key, value = (torch.randn(shape, requires_grad=True) for shape in shapes)
    found = []
    for kept in (0, 96, 10_000):
        monkeypatch.setattr(attention_module, "KEPT", kept)
        output = attend(query, key, value, layout, Scoring(0.3))
        slopes = torch.autograd.grad(output.square().sum(), (query, key, value))
        found.append([output, *slopes])
    blocks = layout.blocks(2, 3, CPU)
    assert {block.keys.shape[1] <= 96 for block in blocks} == {True, False}
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
