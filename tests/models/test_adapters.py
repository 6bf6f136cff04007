"""What learns: ranks and targets, variants, some weights only, float32 masters, starting again."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from luthier.errors import ModelError
from luthier.models import (
    LanguageModel,
    TrainedWeights,
    load_adapter,
    load_model,
    make_trainable,
    merge_adapter,
    pack,
    save_adapter,
    save_model,
    trained_parameters,
)
from luthier.models.adapters import LeanLoraLinear, linear_layers
from luthier.models.rounding import round_evenly
from luthier.recipe import Embeddings, Full, LastLayers, LoRA, Tuning
from tiny import MULTIMODAL_FAMILIES, write_model

IDS = [[5, 6, 7, 8, 9, 10, 11, 12]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("llama"))


def model_of(folder: Path, dtype: torch.dtype = torch.float32) -> LanguageModel:
    return load_model(folder, dtype=dtype, device=torch.device("cpu"))


def learning(folder: Path, tuning: Tuning) -> tuple[LanguageModel, dict[str, torch.nn.Parameter]]:
    model = model_of(folder)
    make_trainable(model, tuning, seed=0)
    return model, trained_parameters(model.network)


def lora(**settings: object) -> LoRA:
    return LoRA.model_validate({"rank": 4, **settings})


def shake(model: LanguageModel) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trained_parameters(model.network).values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def states(model: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        return model.predicting_states(pack(IDS, IDS))


def test_targets_by_name_by_pattern_and_with_ranks(folder: Path) -> None:
    def ranks(targets: object) -> dict[str, int]:
        _, found = learning(folder, lora(targets=targets))
        return {
            n.split("model.model.model.")[-1]
            .removeprefix("base_model.model.model.")
            .split(".lora_A")[0]: p.shape[0]
            for n, p in found.items()
            if "lora_A" in n
        }

    assert set(ranks(["q_proj"])) == {f"layers.{i}.self_attn.q_proj" for i in (0, 1)}
    assert set(ranks(["layers.1.mlp.*"])) == {
        f"layers.1.mlp.{name}_proj" for name in ("gate", "up", "down")
    }
    assert ranks({"q_proj": 2, "layers.0.mlp.down_proj": 8}) == {
        "layers.0.self_attn.q_proj": 2, "layers.1.self_attn.q_proj": 2,
        "layers.0.mlp.down_proj": 8,
    }  # fmt: skip
    assert len(ranks("all-linear")) == 14


def test_each_rank_keeps_the_scale_of_alpha_over_rank(folder: Path) -> None:
    model, _ = learning(folder, lora(targets={"q_proj": 2, "v_proj": 8}, alpha=16))
    scales = {
        n.rsplit(".", 1)[-1]: m.scaling["default"]
        for n, m in model.network.named_modules()
        if isinstance(m, LeanLoraLinear)
    }
    assert scales == {"q_proj": 8.0, "v_proj": 2.0}
    model, _ = learning(folder, lora(targets=["q_proj"], alpha=16, variants=["rslora"]))
    layer = next(m for m in model.network.modules() if isinstance(m, LeanLoraLinear))
    assert layer.scaling["default"] == 8.0  # 16 / sqrt(4)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize(("family", "target"), [("llama", "up_proj"), ("gpt2", "c_fc")])
def test_a_young_adapter_counts_in_bfloat16(
    tmp_path: Path, family: str, target: str, dropout: float
) -> None:
    """Whether it learns or answers, updates far below one step of bfloat16 are not lost."""
    model = model_of(write_model(tmp_path, family), torch.bfloat16)
    make_trainable(model, lora(targets=[target], dropout=dropout), seed=0)
    model.network.eval()
    layer = next(m for m in model.network.modules() if isinstance(m, LeanLoraLinear))
    torch.manual_seed(0)
    x = torch.randn(512, 32).bfloat16()
    down, up = (cast(torch.Tensor, m["default"].weight) for m in (layer.lora_A, layer.lora_B))
    with torch.no_grad():
        before = layer(x).double()
        up.copy_(torch.randn(up.shape) * 1e-4)
        update = layer.scaling["default"] * x.double() @ down.double().t() @ up.double().t()
        answers = layer(x).double()
    for after in (answers, layer(x).detach().double()):
        realised = ((after - before) * update).sum() / update.square().sum()
        assert realised == pytest.approx(1, abs=0.1)


def test_bad_targets_and_ranks_are_named(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"no linear layer called wq.*some of down_proj, gate_pr"):
        learning(folder, lora(targets=["wq"]))
    with pytest.raises(ModelError, match=r"rank 40 is larger than model.layers.0.self_attn.q_proj"):
        learning(folder, lora(rank=40))
    with pytest.raises(ModelError, match="the model has 2 blocks"):
        learning(folder, LastLayers(count=3))


def test_dora_learns_a_magnitude_for_every_output(folder: Path) -> None:
    _, found = learning(folder, lora(variants=["dora"], targets=["q_proj"]))
    magnitudes = [p for n, p in found.items() if "magnitude" in n]
    assert [p.shape for p in magnitudes] == [(32,), (32,)]


def test_some_weights_learn_and_the_others_do_not(folder: Path) -> None:
    _, last = learning(folder, LastLayers(count=1))
    assert all(".layers.1." in n or n == "model.norm.weight" for n in last)
    assert "model.norm.weight" in last
    assert any(".layers.1." in n for n in last)
    _, embeddings = learning(folder, Embeddings())
    assert set(embeddings) == {"model.embed_tokens.weight"}
    model, everything = learning(folder, Full())
    assert sum(p.numel() for p in everything.values()) == model.base.num_parameters()


@pytest.mark.parametrize(
    "tuning", [Full(), LastLayers(count=1), Embeddings()], ids=lambda t: t.kind
)
def test_gradients_reach_everything_that_learns(folder: Path, tuning: Tuning) -> None:
    model, found = learning(folder, tuning)
    model.loss(pack(IDS, IDS)).total.backward()
    for name, parameter in found.items():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_masters_gather_gradients_in_float32_and_round_back(folder: Path) -> None:
    model = model_of(folder, torch.bfloat16)
    make_trainable(model, Full(), seed=0)
    trained = TrainedWeights(model.network)
    plain = model_of(folder, torch.bfloat16)
    make_trainable(plain, Full(), seed=0)
    for _ in range(3):
        model.loss(pack(IDS, IDS)).total.backward()
    plain.loss(pack(IDS, IDS)).total.backward()
    rounded = trained_parameters(plain.network)
    for name, master in trained.masters.items():
        assert master.dtype == torch.float32
        assert master.grad is not None
        one = rounded[name].grad
        assert one is not None
        torch.testing.assert_close(master.grad, 3 * one.float())
    assert all(p.grad is None for p in model.network.parameters()), "let go at once"
    with torch.no_grad():
        for master in trained.masters.values():
            master.add_(2.0)
    trained.round()
    for name, parameter in trained_parameters(model.network).items():
        assert torch.equal(parameter, round_evenly(trained.masters[name]))


def test_an_adapter_goes_on_or_is_merged(folder: Path, tmp_path: Path) -> None:
    model, _ = learning(folder, lora())
    shake(model)
    save_adapter(model, tmp_path / "adapter")
    expected = states(model)
    on = model_of(folder)
    on.network = load_adapter(on.base, tmp_path / "adapter", is_trainable=True)
    make_trainable(on, lora(), seed=5)
    torch.testing.assert_close(states(on), expected)
    assert trained_parameters(on.network).keys() == trained_parameters(model.network).keys()
    merged = model_of(folder)
    merge_adapter(merged, tmp_path / "adapter")
    torch.testing.assert_close(states(merged), expected, rtol=1e-4, atol=1e-5)
    make_trainable(merged, lora(), seed=5)
    torch.testing.assert_close(states(merged), expected, rtol=1e-4, atol=1e-5)


def test_a_merged_update_is_not_lost_in_the_rounding(folder: Path, tmp_path: Path) -> None:
    model = model_of(folder, torch.bfloat16)
    make_trainable(model, lora(), seed=0)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in trained_parameters(model.network).items():
            parameter.mul_(0 if "lora_A" in name else 1).add_(torch.randn(parameter.shape) * 2e-3)
    save_adapter(model, tmp_path)
    layers = [m for m in model.network.modules() if isinstance(m, LeanLoraLinear)]
    update = torch.cat([m.get_delta_weight("default").flatten() for m in layers]).detach().double()
    merged, plain = model_of(folder, torch.bfloat16), model_of(folder, torch.bfloat16)
    merge_adapter(merged, tmp_path)
    assert {p.dtype for p in merged.base.parameters()} == {torch.bfloat16}
    after, before = (
        torch.cat(
            [
                cast(torch.Tensor, m.weight).detach().flatten()
                for m in linear_layers(of.base).values()
            ]
        )
        for of in (merged, plain)
    )
    moved = after.double() - before.double()
    realised = float((moved * update).sum() / update.square().sum())
    assert realised == pytest.approx(1, abs=0.1)


def test_a_whole_model_is_saved_with_its_tokenizer(folder: Path, tmp_path: Path) -> None:
    model, _ = learning(folder, Full())
    shake(model)
    save_model(model, tmp_path / "saved", folder)
    again = model_of(tmp_path / "saved")
    assert torch.equal(states(again), states(model))
    names = {p.name for p in (tmp_path / "saved").iterdir()}
    assert names >= {"tokenizer.json", "chat_template.jinja", "model.safetensors", "config.json"}


@pytest.mark.parametrize("tuning", [lora(), Full(), LastLayers(count=1)], ids=lambda t: t.kind)
@pytest.mark.parametrize("family", MULTIMODAL_FAMILIES)
def test_what_reads_images_is_left_alone(family: str, tuning: Tuning, tmp_path: Path) -> None:
    model, learnt = learning(write_model(tmp_path, family), tuning)
    assert all("language_model" in name for name in learnt)
    model.loss(pack(IDS, IDS)).total.backward()
    assert all(weight.grad is not None for weight in learnt.values())
    if tuning.kind == "last-layers":
        assert {"model.language_model.norm.weight"} < learnt.keys()
        assert all(".layers.1." in name or ".norm." in name for name in learnt)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.filterwarnings("ignore:Adapter 'default'")  # PEFT takes biases for torn matrices
@pytest.mark.parametrize("settings", [{"lora_bias": True}, {"bias": "all"}], ids=str)
def test_an_adapter_made_elsewhere_counts_with_its_biases(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    base = write_model(tmp_path / "base", "phi")
    config = LoraConfig(r=4, target_modules=["q_proj", "k_proj", "v_proj", "fc1"], **settings)
    foreign = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for parameter in foreign.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    foreign.save_pretrained(str(tmp_path / "adapter"))
    loss = foreign(input_ids=torch.tensor(IDS), labels=torch.tensor(IDS)).loss
    loss.backward()
    expected = {n: p.grad for n, p in foreign.named_parameters() if p.requires_grad}
    model = model_of(base)
    model.network = load_adapter(model.base, tmp_path / "adapter", is_trainable=True)
    learnt = trained_parameters(model.network)
    assert learnt.keys() == expected.keys()
    found = model.loss(pack(IDS, IDS)).total / (len(IDS[0]) - 1)
    found.backward()
    torch.testing.assert_close(found, loss, rtol=1e-5, atol=1e-6)
    for name, weight in learnt.items():
        torch.testing.assert_close(weight.grad, expected[name], rtol=1e-3, atol=1e-5)
