"""Every method and every kind of tuning, from rows to verdict, on a real tiny model."""

import json
from pathlib import Path
from typing import Any

import pytest
from journey import SETTINGS, luthier, rows, write_rows
from safetensors.torch import load_file

import luthier as package
from luthier.errors import ConfigError, DataError, ModelError
from luthier.models import lean, probe_devices
from luthier.pipeline import Tuned
from tiny import write_model


def preferences(count: int) -> list[dict[str, object]]:
    return [
        {"prompt": f"number {i}", "chosen": json.dumps({"n": i % 5}), "rejected": f"It is {i % 5}."}
        for i in range(count)
    ]


def thumbs(count: int) -> list[dict[str, object]]:
    return [
        {"prompt": f"number {i}", "label": good, "completion": '{"n": 1}' if good else "It is 1."}
        for i in range(count // 2)
        for good in (True, False)
    ]


def texts(count: int) -> list[dict[str, object]]:
    return [{"text": f"Number {i} follows number {i - 1}. " * (1 + i % 3)} for i in range(count)]


ROWS = {"chats": rows(30), "pairs": preferences(30), "thumbs": thumbs(60), "texts": texts(30)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    write_model(folder / "model")
    for name, content in ROWS.items():
        write_rows(folder / f"{name}.jsonl", content)
    return folder


def tuned(folder: Path, data: str, limit: int | None = None, **changes: Any) -> Tuned:
    settings: dict[str, Any] = {name: {**section} for name, section in SETTINGS.items()}
    settings["runtime"] |= {"workspace": folder / "workspace", "cache": folder / "cache"}
    for name, section in changes.items():
        is_kind = name in ("method", "tuning")
        settings[name] = section if is_kind else {**settings.get(name, {}), **section}
    model = settings.pop("model", {}).get("source", str(folder / "model"))
    rows = {"train": folder / f"{data}.jsonl", "limit": limit}
    return package.tune(model=model, data=rows, **settings)


def events(run: Tuned, kind: str) -> list[dict[str, Any]]:
    lines = run.run.path("events.jsonl").read_text().splitlines()
    return [e for e in map(json.loads, lines) if e["event"] == kind]


@pytest.mark.parametrize(
    ("data", "method"),
    [("pairs", kind) for kind in ("dpo", "ipo", "simpo", "orpo", "kto")]
    + [("thumbs", "kto"), ("texts", "pretrain")],
)
def test_every_method_goes_the_whole_path(folder: Path, data: str, method: str) -> None:
    run = tuned(folder, data, method={"kind": method})
    assert run.is_finished
    assert run.evaluation is not None
    assert run.verdict is not None
    expected = {"pairs": "preference_probability", "thumbs": "exact", "texts": "loss"}[data]
    expected = "exact" if method == "kto" else expected
    assert run.evaluation.primary == expected
    assert run.report.is_file()
    steps, checks = events(run, "step"), events(run, "validation")
    if method in ("dpo", "ipo", "simpo", "orpo"):
        assert steps[-1]["watched"]["reward_margin"] > 0
        assert checks[-1]["watched"]["preference_accuracy"] == 1.0
        assert checks[-1]["watched"]["kl_to_start"] > 0
    else:
        assert steps[-1]["loss"] < steps[0]["loss"]


@pytest.mark.parametrize(
    "tuning",
    [
        {"kind": "full"},
        {"kind": "last-layers", "count": 1},
        {"kind": "embeddings"},
        {"kind": "lora", "rank": 4, "variants": ["rslora", "dora"], "targets": ["q_proj"]},
    ],
    ids=lambda t: t["kind"],
)
def test_every_tuning_goes_the_whole_path_and_opens_again(
    folder: Path, tuning: dict[str, Any]
) -> None:
    run = tuned(folder, "chats", tuning=tuning)
    assert run.is_finished
    opened = run.open()
    (first,) = run.evaluation.examples[:1] if run.evaluation else ()
    answer = opened.answer(list(first.prompt))
    system = (
        next(s for s in run.evaluation.systems if s.kind == "tuned") if run.evaluation else None
    )
    assert system is not None
    assert system.predictions[0].text == answer
    assert (run.run.path("adapter").is_dir()) == (tuning["kind"] == "lora")
    assert (run.run.path("model").is_dir()) == (tuning["kind"] != "lora")


def test_full_tuning_in_bfloat16_keeps_float32_masters(folder: Path) -> None:
    run = tuned(folder, "chats", tuning={"kind": "full"}, runtime={"dtype": "bfloat16"})
    checkpoint = sorted(run.run.path("checkpoints").glob("step-*"))[-1]
    masters = load_file(checkpoint / "trained.safetensors")
    saved = load_file(run.run.path("model", "model.safetensors"))
    assert {str(w.dtype) for w in masters.values()} == {"torch.float32"}
    assert {str(w.dtype) for w in saved.values()} == {"torch.bfloat16"}


@pytest.mark.parametrize("first", ["lora", "full"])
@pytest.mark.parametrize("earlier", ["merge", "continue"])
def test_a_run_starts_from_what_an_earlier_one_made(folder: Path, first: str, earlier: str) -> None:
    tuning = {"kind": "lora", "rank": 4, "earlier": earlier}
    start = tuned(folder, "chats", tuning={"kind": "full"} if first == "full" else tuning)
    model = {"source": f"run:{start.run.id}"}
    on = tuned(folder, "chats", tuning=tuning, model=model, training={"seed": 1})
    assert start.evaluation is not None
    assert on.evaluation is not None
    before = next(s for s in start.evaluation.systems if s.kind == "tuned")
    now = next(s for s in on.evaluation.systems if s.kind == "zero_shot")
    assert [p.text for p in now.predictions] == [p.text for p in before.predictions]
    losses = [p.target_loss for p in before.predictions]
    assert [p.target_loss for p in now.predictions] == pytest.approx(losses, rel=1e-4)
    tuned_now = next(s for s in on.evaluation.systems if s.kind == "tuned")
    first_row = on.evaluation.examples[0]
    assert on.open().answer(list(first_row.prompt)) == tuned_now.predictions[0].text
    # The reference and the schedule of a third run stand on both.
    third = tuned(
        folder, "pairs", method={"kind": "dpo"}, tuning=tuning,
        model={"source": f"run:{on.run.id}"},
    )  # fmt: skip
    assert third.is_finished


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.skipif(not probe_devices().can_compile, reason="there is no compiler")
def test_compiled_kernels_train_alike_and_only_while_training(folder: Path) -> None:
    plain = tuned(folder, "chats", tuning={"kind": "lora", "rank": 4})
    found = tuned(
        folder, "chats", tuning={"kind": "lora", "rank": 4}, runtime={"compile": "always"}
    )
    expected = [event["loss"] for event in events(plain, "step")]
    assert [event["loss"] for event in events(found, "step")] == pytest.approx(expected, rel=0.05)
    assert not lean._compiled


def test_an_earlier_adapter_is_not_merged_into_four_bits(folder: Path) -> None:
    start = tuned(folder, "chats", tuning={"kind": "lora", "rank": 4})
    four = {"kind": "lora", "rank": 4, "quantize": "nf4"}
    with pytest.raises(ConfigError, match="cannot be merged into weights of 4 bits"):
        tuned(folder, "chats", tuning=four, model={"source": f"run:{start.run.id}"})


def test_reference_log_likelihoods_are_computed_once(folder: Path) -> None:
    place = folder / "workspace" / "references"
    tuned(folder, "pairs", method={"kind": "dpo"}, training={"seed": 11})
    kept = {p: p.stat().st_mtime_ns for p in place.iterdir()}
    tuned(folder, "pairs", method={"kind": "ipo", "beta": 0.3}, training={"seed": 12})
    assert {p: p.stat().st_mtime_ns for p in place.iterdir()} == kept


def test_references_of_a_merged_adapter_are_not_those_of_one_that_learns_on(folder: Path) -> None:
    """In bfloat16 a merged one is rounded with its weights."""
    place = folder / "workspace" / "references"
    start = tuned(folder, "chats", tuning={"kind": "lora", "rank": 4}, training={"seed": 21})
    kept = set(place.glob("*.json"))
    for earlier in ("merge", "continue"):
        tuned(
            folder, "pairs", method={"kind": "dpo"}, model={"source": f"run:{start.run.id}"},
            tuning={"kind": "lora", "rank": 4, "earlier": earlier}, training={"epochs": 1},
            runtime={"dtype": "bfloat16"},
        )  # fmt: skip
    assert len(set(place.glob("*.json")) - kept) == 4, "two of training rows, two of held-out rows"


def test_rows_of_another_kind_than_the_method_needs_are_refused(folder: Path) -> None:
    with pytest.raises(
        DataError, match=r"holds preferences, which sft cannot.*set method.kind to d"
    ):
        tuned(folder, "pairs")
    with pytest.raises(DataError, match="holds conversations, which dpo cannot learn from"):
        tuned(folder, "chats", method={"kind": "dpo"})


def test_a_start_that_is_not_there_is_said(folder: Path) -> None:
    with pytest.raises(ConfigError, match="there is no run 'nothing'"):
        tuned(folder, "chats", model={"source": "run:nothing"})


def test_bad_tunings_are_said_by_the_command_line(folder: Path) -> None:
    write_rows(folder / "rows.jsonl", ROWS["chats"])
    (folder / "recipe.yaml").write_text("model: ./model\ndata: rows.jsonl\nmethod: dpo\n")

    def error(*sets: str) -> str:
        done = luthier(folder, "check", "recipe.yaml", *(x for s in sets for x in ("--set", s)))
        assert done.code == 2, done
        return done.error

    assert "--set method=dpu: method.kind is 'dpu'; expected 'sft', 'pretrain', 'dpo'" in error(
        "method=dpu"
    )
    assert "tuning.rank is no setting of tuning.kind full; it belongs to lora" in error(
        "method=sft", "tuning.kind=full", "tuning.rank=8"
    )
    assert "there is no setting method.betta; did you mean method.beta?" in error("method.betta=1")
    for said, *sets in (
        ("rank 64 is larger than model.layers.0", "tuning.rank=64"),
        ("no linear layer called W_pack", "tuning.targets=[W_pack]"),
        ("the model has 2 blocks", "tuning.kind=last-layers", "tuning.count=3"),
        ("does not compile", "evaluation.metrics=[regex]", "evaluation.pattern=(", "tuning.rank=4"),
    ):
        assert said in error("method=sft", *sets)


def test_what_cannot_learn_is_said_before_the_prompts_are_evaluated(folder: Path) -> None:
    runtime = {"workspace": folder / "too-wide", "cache": folder / "cache"}
    with pytest.raises(ModelError, match="rank 64 is larger than"):
        tuned(folder, "chats", tuning={"rank": 64}, runtime=runtime)
    (run,) = (folder / "too-wide" / "runs").iterdir()
    assert not (run / "evaluation").exists()


def test_prompts_hold_as_many_examples_as_there_are(folder: Path) -> None:
    run = tuned(folder, "chats", limit=2, evaluation={"shots": [2, 5, 9]})
    assert run.evaluation is not None
    names = [system.name for system in run.evaluation.systems]
    assert names == [
        "prompt alone", "2 examples in the prompt", "2 nearest examples in the prompt",
        "fine-tuned",
    ]  # fmt: skip
