"""Memory: what runs out is said before the first step, and goes on smaller with the same result."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.adamw import AdamW

from luthier.errors import TrainingError
from luthier.models import FlatBatch, LanguageModel, load_model, make_trainable, trained_parameters
from luthier.recipe import Full, LoRA, Training, Tuning
from luthier.tokens import IGNORED, Encoded
from luthier.training import (
    Objective,
    RowsLearnt,
    Squeezed,
    StepDone,
    SupervisedObjective,
    Surroundings,
    TrainingEvent,
    train,
)
from luthier.training.memory import kept_activations
from luthier.training.objectives import Losses, Seen
from luthier.training.optimizers import build_optimizer
from tiny import write_model

SETTINGS = {
    "epochs": 2, "batch_size": 4, "micro_batch_tokens": 400, "max_length": 100,
    "learning_rate": 0.01, "evaluate_every": 99, "checkpoint_every": 2,
}  # fmt: skip


def examples() -> list[Encoded]:
    made = []
    for i in range(8):
        ids = [4 + (j * (1 + i // 3)) % 90 for j in range(12 + 3 * i)]
        made.append(Encoded(f"row {i}", ids, [IGNORED] * 8 + ids[8:], ((8, len(ids)),)))
    return made


class Limited(SupervisedObjective):
    """Runs out of memory like a GPU (or like a process) above so many tokens at once."""

    def __init__(self, most: int, error: type[RuntimeError] = torch.OutOfMemoryError) -> None:
        super().__init__(share_prefixes=True)
        self.most, self.error = most, error
        self.seen: list[int] = []

    def losses(
        self,
        model: LanguageModel,
        batch: FlatBatch,
        examples: Sequence[Encoded],
        seen: Seen | None,
    ) -> Losses:
        self.seen.append(batch.num_tokens)
        torch.rand(1)  # as dropout would
        if batch.num_tokens > self.most:
            raise self.error("DefaultCPUAllocator: can't allocate memory")
        return super().losses(model, batch, examples, seen)


def run(
    folder: Path, place: Path, objective: Objective, *, dropout: float = 0.0,
    tuning: Tuning | None = None, stop_after: int = 99, **settings: Any,
) -> tuple[list[TrainingEvent], dict[str, Tensor]]:  # fmt: skip
    model = load_model(folder, dtype=torch.float32, device=torch.device("cpu"))
    make_trainable(model, tuning or LoRA(rank=4, dropout=dropout), seed=0)
    events: list[TrainingEvent] = []
    surroundings = Surroundings(
        place, "r", None, events.append,
        lambda: sum(isinstance(e, StepDone) for e in events) >= stop_after, memory=lambda: 0,
    )  # fmt: skip
    training = Training.model_validate({**SETTINGS, **settings})
    train(model, objective, examples(), training, surroundings)
    return events, {n: p.detach() for n, p in trained_parameters(model.network).items()}


def losses(events: list[TrainingEvent]) -> list[float]:
    return [event.loss for event in events if isinstance(event, StepDone)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("llama"))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_running_out_of_memory_halves_the_micro_batch_and_changes_nothing(
    folder: Path, tmp_path: Path, error: type[RuntimeError]
) -> None:
    plain, _ = run(folder, tmp_path / "plain", SupervisedObjective(share_prefixes=True))
    objective = Limited(60, error)
    found, _ = run(folder, tmp_path / "limited", objective)
    assert losses(found) == pytest.approx(losses(plain), rel=1e-5)
    assert [e for e in found if isinstance(e, Squeezed)] == [
        Squeezed(200, "keep"), Squeezed(100, "keep"), Squeezed(50, "keep")
    ]  # fmt: skip
    kinds = [type(event).__name__ for event in found]
    assert kinds[:2] == ["Squeezed", "Squeezed"], "it comes out at the first step"


def test_a_look_that_does_not_fit_halves_the_micro_batch_too(folder: Path, tmp_path: Path) -> None:
    class Looking(SupervisedObjective):
        looks = "always"  # type: ignore[assignment]

        def rows_of(self, example: Encoded) -> int:
            return 1

        def look(self, model: LanguageModel, examples: Sequence[Encoded]) -> Tensor:
            if sum(example.num_tokens for example in examples) > 60:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return torch.zeros(len(examples), 1)

    plain, _ = run(folder, tmp_path / "plain", SupervisedObjective(share_prefixes=True))
    found, _ = run(folder, tmp_path / "limited", Looking(share_prefixes=True))
    assert losses(found) == pytest.approx(losses(plain), rel=1e-5)
    assert isinstance(found[0], Squeezed)


def test_the_largest_micro_batch_is_tried_first(folder: Path, tmp_path: Path) -> None:
    objective = Limited(1000)
    run(folder, tmp_path, objective, micro_batch_tokens=50)
    assert objective.seen[0] == max(objective.seen)


def test_trying_uses_no_random_number(folder: Path, tmp_path: Path) -> None:
    """Two trainings, one of which runs out of memory in the middle, draw the same dropout."""

    class LimitedOnce(Limited):
        """In the middle of the second step, with its longest example alone in a batch."""

        def losses(self, *args: Any, **kwargs: Any) -> Losses:
            self.most = 0 if len(self.seen) == 4 else 1000
            return super().losses(*args, **kwargs)

    whole, weights = run(folder, tmp_path / "a", Limited(1000), dropout=0.3, micro_batch_tokens=33)
    once = LimitedOnce(1000)
    again, others = run(folder, tmp_path / "b", once, dropout=0.3, micro_batch_tokens=33)
    told = [e for e in again if not isinstance(e, RowsLearnt)]
    kinds = [e if isinstance(e, Squeezed) else type(e).__name__ for e in told]
    assert kinds[:3] == ["StepDone", Squeezed(33, "recompute"), "StepDone"]
    assert losses(whole) == losses(again)
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_a_resumed_run_computes_as_memory_allowed(folder: Path, tmp_path: Path) -> None:
    whole, weights = run(folder, tmp_path / "whole", Limited(60))
    first, _ = run(folder, tmp_path / "cut", Limited(60), stop_after=2)
    rest, others = run(folder, tmp_path / "cut", Limited(60))
    assert losses(first) + losses(rest) == losses(whole)
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert not [e for e in rest if isinstance(e, Squeezed)], "it is known by now"


def test_one_example_too_large_is_an_error_that_says_what_to_do(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"single example of 33 tokens.*max_length"):
        run(folder, tmp_path, Limited(20))


def test_another_runtime_error_is_not_taken_for_memory(folder: Path, tmp_path: Path) -> None:
    class Broken(SupervisedObjective):
        def losses(self, *args: Any, **kwargs: Any) -> Losses:
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        run(folder, tmp_path, Broken(share_prefixes=True))


@pytest.mark.parametrize("activations", ["recompute", "offload"])
def test_recomputed_and_offloaded_activations_give_the_same_weights(
    folder: Path, tmp_path: Path, activations: str
) -> None:
    plain, weights = run(folder, tmp_path / "keep", SupervisedObjective(share_prefixes=True))
    found, others = run(
        folder, tmp_path / "other", SupervisedObjective(share_prefixes=True),
        activations=activations,
    )  # fmt: skip
    assert losses(found) == losses(plain)
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_recomputing_keeps_less(folder: Path) -> None:
    """Bytes kept for the backward pass, with a block's insides kept and computed again."""
    from luthier.models import pack
    from luthier.training.memory import recompute_activations

    def kept(*, recompute: bool) -> int:
        model = load_model(folder, dtype=torch.float32, device=torch.device("cpu"))
        make_trainable(model, LoRA(rank=4), seed=0)
        model.network.train()
        if recompute:
            recompute_activations(model)
        saved: dict[int, int] = {}

        def pack_hook(tensor: Tensor) -> Tensor:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        ids = [[5 + i % 90 for i in range(200)]]
        with torch.autograd.graph.saved_tensors_hooks(pack_hook, lambda tensor: tensor):
            loss = model.loss(pack(ids, ids)).total
        loss.backward()
        weights = {p.untyped_storage().data_ptr() for p in model.network.parameters()}
        return sum(size for pointer, size in saved.items() if pointer not in weights)

    assert kept(recompute=True) < 0.5 * kept(recompute=False)


def test_the_8_bit_optimizer_learns_and_resumes(tmp_path: Path) -> None:
    """With moments of 8 bits, which weights of 4,096 numbers and more have."""
    pytest.importorskip("bitsandbytes", reason="the extra luthier[qlora] is missing")
    large = write_model(tmp_path / "gpt2", "gpt2")

    def trained(place: str, **settings: Any) -> tuple[list[TrainingEvent], dict[str, Tensor]]:
        objective = SupervisedObjective(share_prefixes=True)
        return run(
            large, tmp_path / place, objective, tuning=Full(), learning_rate=1e-3, **settings
        )

    plain, _ = trained("plain")
    whole, weights = trained("whole", optimizer="adamw-8bit")
    assert sum(weight.numel() >= 4096 for weight in weights.values()) > 1
    first, _ = trained("cut", optimizer="adamw-8bit", stop_after=2)
    rest, others = trained("cut", optimizer="adamw-8bit")
    assert losses(first) + losses(rest) == losses(whole)
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert losses(whole) == pytest.approx(losses(plain), rel=0.05)


def test_the_8_bit_optimizer_keeps_a_quarter(folder: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="the extra luthier[qlora] is missing")
    sizes = {}
    for kind in ("adamw", "adamw-8bit"):
        weight = torch.nn.Parameter(torch.randn(64, 4096))
        optimizer = build_optimizer([weight], kind, 0.0)
        weight.grad = torch.randn_like(weight)
        optimizer.step()
        state = optimizer.state[weight].values()
        sizes[kind] = sum(t.nbytes for t in state if isinstance(t, Tensor))
    assert isinstance(build_optimizer([weight], "adamw", 0.0), AdamW)
    assert sizes["adamw-8bit"] < 0.27 * sizes["adamw"]


def test_weights_are_not_offloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[torch.Size] = []

    class Noting(torch.autograd.graph.save_on_cpu):
        def __init__(self, *, pin_memory: bool) -> None:
            super().__init__(pin_memory)
            pack = self.pack_hook

            def noted(x: Tensor) -> object:
                moved.append(x.shape)
                return pack(x)

            self.pack_hook = noted

    monkeypatch.setattr(torch.autograd.graph, "save_on_cpu", Noting)
    frozen = torch.nn.Linear(5, 4).requires_grad_(False)
    x = torch.randn(3, 5, requires_grad=True)
    with kept_activations("offload"):
        total = frozen(x.sin()).square().sum()
    total.backward()
    assert moved == [(3, 5), (3, 4)]  # what sin and square read, not the weight
    expected = torch.autograd.grad(frozen(x.sin()).square().sum(), x)[0]
    assert x.grad is not None
    assert torch.equal(x.grad, expected)
