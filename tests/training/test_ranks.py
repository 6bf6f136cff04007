"""Several processes train as one: the same losses, and a resume on another number of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.training.ranks import Ranks
from tiny import write_model

SCRIPT = """
import json, sys
from pathlib import Path
import torch
from test_exactness import examples
from luthier.models import load_model, make_trainable, shard
from luthier.recipe import DPO, KTO, SFT, Full, LoRA, Training
from luthier.tokens import EncodedRated
from luthier.training import *

torch.set_num_threads(1)
ranks = join_ranks(is_sharded=True)
METHODS = {"sft": SFT(), "dpo": DPO(), "kto": KTO(good_weight=1.5)}

def trained(folder, place, method, tuning, stop_after):
    tuning, _, sharding = tuning.partition("+")
    method = METHODS[method]
    dtype = torch.bfloat16 if tuning == "masters" else torch.float32
    model = load_model(Path(folder), dtype=dtype, device=torch.device("cpu"))
    make_trainable(model, LoRA(rank=4) if tuning == "lora" else Full(), seed=0)
    rows = examples(DPO() if method.kind == "kto" else method)
    if method.kind == "kto":
        rows = [EncodedRated(p.chosen, p.rejected, True) for p in rows]
    if method.kind != "sft":
        rows = with_references(rows, reference_logprobs(model, rows, 10_000))
    if sharding:
        shard(model)
    objective = build_objective(method, share_prefixes=True)
    learnt = 1 if method.kind == "kto" else 2
    num_tokens = sum(s.num_tokens for row in rows for s in row.sequences[:learnt])
    losses, checks = [], []

    def observe(event):
        if isinstance(event, StepDone):
            losses.append(event.loss)
            assert event.num_tokens == num_tokens
        if isinstance(event, Validated):
            checks.append(event.loss)

    training = Training.model_validate({
        "epochs": 6, "batch_size": len(rows), "micro_batch_tokens": 60, "max_length": 100,
        "learning_rate": 2e-3, "evaluate_every": 2, "checkpoint_every": 2, "patience": 99,
    })
    validate = lambda: measure(model, objective, rows[:3], 60, ranks)
    train(model, objective, rows, training, Surroundings(
        Path(place), "r", validate, observe, lambda: len(losses) >= stop_after,
        memory=lambda: 0, ranks=ranks,
    ))
    return losses, checks

found = [trained(*case) for case in json.loads(sys.argv[1])]
leave_ranks()
if ranks.is_first:
    print(json.dumps(found))
"""

Case = tuple[str, str, str, str, int]
"""Folder of the model, of the checkpoints, method, tuning, steps to stop after."""
CASES = (
    ("sft", "lora"), ("dpo", "full"), ("kto", "lora"), ("sft", "masters"),
    ("sft", "lora+fsdp"), ("dpo", "full+fsdp"), ("kto", "full+fsdp"), ("sft", "masters+fsdp"),
)  # fmt: skip


def run(count: int, cases: list[Case]) -> list[tuple[list[float], list[float]]]:
    """Losses of steps and of validations of each case, trained by `count` processes."""
    here = Path(__file__).parent
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    script = Path(cases[0][1]).parent / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *(launch if count > 1 else []), str(script),
         json.dumps(cases)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{here}:{here.parent}", "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [(losses, checks) for losses, checks in json.loads(done.stdout.splitlines()[-1])]


def case(
    folder: Path, place: Path, method: str = "sft", tuning: str = "lora", stop: int = 99
) -> Case:
    return (str(folder), str(place), method, tuning, stop)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("llama"))


def test_several_processes_train_like_one(folder: Path, tmp_path: Path) -> None:
    """Three of them, too: in a step of four pairs there is less to do for one."""
    found: dict[tuple[int, str, str], tuple[list[float], list[float]]] = {}
    for count in (1, 2, 3):
        places = [tmp_path / f"{count}-{i}" for i in range(len(CASES))]
        cases = [case(folder, place, *c) for place, c in zip(places, CASES, strict=True)]
        for (method, tuning), trained in zip(CASES, run(count, cases), strict=True):
            found[count, method, tuning] = trained
    for (_, method, tuning), (losses, checks) in found.items():
        one = found[1, method, tuning]
        # Spread over processes or not is the same; bfloat16 rounds by what stands beside.
        plain = found.get((1, method, tuning.removesuffix("+fsdp")), one)
        tolerance = 1e-2 if "masters" in tuning else 1e-5
        assert (len(losses), len(checks)) == (6, 3)
        for expected in (one, plain):
            assert losses == pytest.approx(expected[0], rel=tolerance)
            assert checks == pytest.approx(expected[1], rel=tolerance)


@pytest.mark.parametrize("tuning", ["lora", "full+fsdp"])
def test_a_run_resumes_on_another_number_of_processes(
    folder: Path, tmp_path: Path, tuning: str
) -> None:
    """Two processes, then one, then two again, against one all the way."""
    place = tmp_path / "moved"
    first = run(2, [case(folder, place, "sft", tuning, 2)])[0][0]
    alone = [case(folder, place, "sft", tuning, 2), case(folder, tmp_path / "all", "sft", tuning)]
    second, whole = (losses for losses, _ in run(1, alone))
    third = run(2, [case(folder, place, "sft", tuning)])[0][0]
    assert [len(part) for part in (first, second, third)] == [2, 2, 2]
    assert [*first, *second, *third] == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("damage", ["missing", "flipped"])
def test_a_checkpoint_with_a_bad_part_is_passed_over(
    folder: Path, tmp_path: Path, damage: str
) -> None:
    place = tmp_path / "run"
    whole = run(2, [case(folder, place, "sft", "full+fsdp", 4)])[0][0]
    newest = max(place.glob("step-*"))
    part = min(newest.glob("*.safetensors"))
    assert len(list(newest.glob("*.safetensors"))) == 2, "one part a process"
    if damage == "missing":
        part.unlink()
    else:
        content = bytearray(part.read_bytes())
        content[-5] ^= 1
        part.write_bytes(content)
    again = run(1, [case(folder, place, "sft", "full+fsdp")])[0][0]
    assert again[:2] == pytest.approx(whole[2:], rel=1e-5), "it goes on from step 2, not 4"
    assert len(again) == 4


@given(st.lists(st.integers(1, 500), min_size=1, max_size=40), st.integers(1, 9), st.integers(0, 3))
def test_examples_are_divided_by_tokens_and_none_is_lost(
    lengths: list[int], count: int, skipped: int
) -> None:
    chosen = range(skipped, len(lengths))
    shares = Ranks(0, count).divide(chosen, lengths)
    assert sorted(i for share in shares for i in share) == list(chosen)
    loads = [sum(lengths[i] for i in share) for share in shares]
    assert max(loads) - min(loads) <= max(lengths)
