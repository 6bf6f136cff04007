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
ranks = join_ranks("cpu", is_sharded=True)
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


def launched(count: int, script: Path, content: str, *arguments: str) -> str:
    """The last line that a script says, run by `count` processes."""
    here = Path(__file__).parent
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    script.write_text(content)
    paths = (here, here.parent, here.parents[1] / "src")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *(launch if count > 1 else []), str(script), *arguments],
        capture_output=True, text=True, check=False,
        env={
            **os.environ, "PYTHONPATH": ":".join(map(str, paths)), "PYTHONWARNINGS": "ignore"
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()[-1]


def run(count: int, cases: list[Case]) -> list[tuple[list[float], list[float]]]:
    """Losses of steps and of validations of each case, trained by `count` processes."""
    script = Path(cases[0][1]).parent / "script.py"
    said = launched(count, script, SCRIPT, json.dumps(cases))
    return [(losses, checks) for losses, checks in json.loads(said)]


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


GATHERED = """
import sys
from pathlib import Path
import torch
from safetensors.torch import load_file
from test_exactness import examples
from luthier.models import gather, load_model, make_trainable, shard, trained_parameters
from luthier.recipe import SFT, Full, Training
from luthier.training import *

torch.set_num_threads(1)
ranks, rows = join_ranks("cpu", is_sharded=True), examples(SFT())

def start():
    model = load_model(Path(sys.argv[1]), dtype=torch.float32, device=torch.device("cpu"))
    make_trainable(model, Full(), seed=0)
    return model

model, objective = start(), build_objective(SFT(), share_prefixes=True)
shard(model)
place, losses = Path(sys.argv[2]), iter([3.0, 1.0, 2.0])

def validate():
    measure(model, objective, rows[:3], 60, ranks)
    return Measured(next(losses), {})

training = Training.model_validate({
    "epochs": 3, "batch_size": len(rows), "micro_batch_tokens": 60, "max_length": 100,
    "learning_rate": 2e-3, "evaluate_every": 1, "checkpoint_every": 3, "patience": 99,
})
train(model, objective, rows, training, Surroundings(
    place, "r", validate, lambda event: None, lambda: False, memory=lambda: 0, ranks=ranks,
))
whole = start()
gather(model, whole)
best = load_file(place / "best-00000002.safetensors")
found = trained_parameters(whole.network)
different = [name for name in best if not torch.equal(best[name], found[name])]
leave_ranks()
if ranks.is_first:
    print(len(best), *different)
"""


@pytest.mark.parametrize("count", [1, 2])
def test_a_model_gathered_from_processes_is_the_best_one(
    folder: Path, tmp_path: Path, count: int
) -> None:
    """Of a run whose last weights, which the last validation saw, are worse."""
    said = launched(count, tmp_path / "script.py", GATHERED, str(folder), str(tmp_path / "run"))
    num_weights, *different = said.split()
    assert int(num_weights) > 10
    assert different == []


SQUEEZED = """
import sys
from pathlib import Path
import torch
from test_exactness import examples
from luthier.errors import TrainingError
from luthier.models import load_model, make_trainable, shard
from luthier.recipe import SFT, Full, Training
from luthier.training import *
from luthier.training.objectives import Losses

class OutOfMemory(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        raise torch.OutOfMemoryError("CUDA out of memory")

class Limited(SupervisedObjective):
    def losses(self, model, batch, examples, seen):
        found = super().losses(model, batch, examples, seen)
        return Losses(OutOfMemory.apply(found.total)) if batch.num_tokens > 60 else found

torch.set_num_threads(1)
ranks, rows = join_ranks("cpu", is_sharded=True), examples(SFT())
model = load_model(Path(sys.argv[1]), dtype=torch.float32, device=torch.device("cpu"))
make_trainable(model, Full(), seed=0)
shard(model)
training = Training.model_validate({
    "epochs": 1, "batch_size": len(rows), "micro_batch_tokens": 400, "max_length": 100,
    "learning_rate": 2e-3, "evaluate_every": 1, "checkpoint_every": 3, "patience": 99,
})
try:
    train(model, Limited(share_prefixes=True), rows, training, Surroundings(
        Path(sys.argv[2]), "r", None, lambda e: None, lambda: False, lambda: 0, ranks,
    ))
except TrainingError as error:
    print(error)
else:
    print("it went on")
"""


def test_running_out_of_memory_is_said_where_a_step_cannot_begin_anew(
    folder: Path, tmp_path: Path
) -> None:
    """Of a process alone, too: an aborted backward pass leaves FSDP without gradients."""
    said = launched(1, tmp_path / "script.py", SQUEEZED, str(folder), str(tmp_path / "run"))
    assert "memory ran out" in said
    assert "set training.micro_batch_tokens below 400" in said


FULL_DISK = """
import resource, sys
from pathlib import Path
import torch
from luthier.errors import CheckpointError
from luthier.models import load_model, make_trainable, shard, trained_parameters
from luthier.recipe import Full
from luthier.training import *
from luthier.training.checkpoints import Progress
from luthier.training.optimizers import build_optimizer
from luthier.training.sharded import save_sharded

ranks, place = join_ranks("cpu", is_sharded=True), Path(sys.argv[2])
model = load_model(Path(sys.argv[1]), dtype=torch.float32, device=torch.device("cpu"))
make_trainable(model, Full(), seed=0)
shard(model)
parameters = trained_parameters(model.network)
optimizer = build_optimizer(parameters.values(), "adamw", 0.0)
if ranks.rank == ranks.count - 1:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    save_sharded(place, Progress(2, "r"), parameters, optimizer, ranks)
except CheckpointError as error:
    said = f"{error} LEFT {[path.name for path in place.iterdir()]}"
leave_ranks()
if ranks.is_first:
    print(said)
"""


@pytest.mark.parametrize("count", [1, 2])
def test_a_part_that_cannot_be_written_is_said_by_all_and_leaves_nothing(
    folder: Path, tmp_path: Path, count: int
) -> None:
    """No file of the last process may become as large as its part."""
    said = launched(count, tmp_path / "script.py", FULL_DISK, str(folder), str(tmp_path / "run"))
    assert "step-00000002: cannot be written: File too large; free some disk space" in said
    assert said.endswith("LEFT []")


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


COUNTED = """
import sys
from pathlib import Path
import torch
from test_exactness import examples
from luthier.models import load_model, make_trainable
from luthier.models.trained import TrainedWeights
from luthier.recipe import SFT, LoRA
from luthier.training import *
from luthier.training.gradients import Gradients

ranks, rows = join_ranks("cpu"), examples(SFT())
model = load_model(Path(sys.argv[1]), dtype=torch.float32, device=torch.device("cpu"))
make_trainable(model, LoRA(rank=4), seed=0)
objective = SupervisedObjective(share_prefixes=False)
gradients = Gradients(model, objective, rows, TrainedWeights(model.network), ranks)
tally, _ = gradients.of_step(range(len(rows)), 0)
leave_ranks()
if ranks.is_first:
    print(tally.num_computed - tally.num_filler, sum(row.num_tokens - 1 for row in rows))
"""


def test_what_a_step_computes_is_counted_on_all_processes(folder: Path, tmp_path: Path) -> None:
    """All tokens but the last one of each row, which is learnt only."""
    said = launched(2, tmp_path / "script.py", COUNTED, str(folder))
    found, expected = said.split()
    assert found == expected


ON_CPU = """
import torch
import torch.distributed as dist
from luthier.training import join_ranks, leave_ranks

torch.cuda.is_available = lambda: True
join_ranks("cpu", is_sharded=True)
print(dist.get_backend())
leave_ranks()
"""


def test_a_gpu_that_is_not_computed_on_exchanges_nothing(tmp_path: Path) -> None:
    assert launched(1, tmp_path / "script.py", ON_CPU) == "gloo"


@given(st.lists(st.integers(1, 500), min_size=1, max_size=40), st.integers(1, 9), st.integers(0, 3))
def test_examples_are_divided_by_tokens_and_none_is_lost(
    lengths: list[int], count: int, skipped: int
) -> None:
    chosen = range(skipped, len(lengths))
    shares = Ranks(0, count).divide(chosen, lengths)
    assert sorted(i for share in shares for i in share) == list(chosen)
    loads = [sum(lengths[i] for i in share) for share in shares]
    assert max(loads) - min(loads) <= max(lengths)
