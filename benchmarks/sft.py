"""Supervised fine-tuning beside TRL + PEFT: same rows, masks, steps and start; speed and memory.

    python -m benchmarks.sft [--repeats 5] [--steps 12] [--workloads a b c]

Every measurement is a fresh process; contenders take turns within a repeat. Both get the same ids
and labels, batch membership and order, LoRA start, optimizer and learning rate, and both must end
with the same losses, or the comparison is void. Timed is training alone, from the first batch to
the last update, tokenising and loading apart. Results go to benchmarks/results/ as JSON.

Workloads: (a) short rows, everything supervised; (b) long prompt, short answer (package
descriptions to synopses); (c) mixed lengths, long answers (the same, turned round).
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SYNOPSIS = ROOT.parent / "shared" / "data" / "deb-synopsis"
CONTENDERS = ("luthier", "trl", "trl-tuned")
BATCH_SIZE, LEARNING_RATE, RANK, ALPHA, HELD_OUT = 8, 1e-3, 16, 32, 24
TOLERANCE = 0.05
"""Largest difference of losses between contenders, in nats: one computes in mixed precision."""


def main() -> None:
    """Run all contenders on all workloads, and print and store the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--workloads", nargs="*", default=["a", "b", "c"])
    parser.add_argument("--worker", nargs=4, metavar=("CONTENDER", "FOLDER", "MODEL", "STEPS"))
    arguments = parser.parse_args()
    if arguments.worker:
        contender, folder, model, steps = arguments.worker
        print(json.dumps(measure(contender, Path(folder), Path(model), int(steps))))
        return
    results: dict[str, Any] = {"machine": machine(), "settings": vars(arguments), "workloads": {}}
    model = model_folder()
    for workload in arguments.workloads:
        rows = rows_of(workload)
        if rows is None:
            print(f"({workload}) skipped: {SYNOPSIS} is not there")
            continue
        with tempfile.TemporaryDirectory() as folder:
            write_rows(Path(folder), model, rows, workload, arguments.steps)
            runs = repeat(Path(folder), model, arguments.steps, arguments.repeats)
        results["workloads"][workload] = runs
        report(workload, runs)
    place = ROOT / "benchmarks" / "results" / "sft.json"
    place.parent.mkdir(exist_ok=True)
    place.write_text(json.dumps(results, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    from luthier.runs import capture_environment

    facts: dict[str, Any] = dict(capture_environment())
    facts["packages"] = {**facts["packages"], "trl": _version("trl")}
    facts["machine"] = platform.machine()
    return facts


def _version(package: str) -> str:
    from importlib import metadata

    return metadata.version(package)


def model_folder() -> Path:
    """SmolLM2-135M-Instruct as a folder."""
    from luthier.models import default_cache, resolve_source
    from luthier.recipe import read_recipe

    model = read_recipe(ROOT / "examples" / "smart-home" / "recipe.yaml").recipe.model
    cache = Path(os.environ.get("LUTHIER_BENCHMARK_CACHE", default_cache()))
    return resolve_source(model, cache).path


def rows_of(workload: str) -> list[dict[str, Any]] | None:
    """Chats of a workload, or None when its data is not there."""
    if workload == "a":
        path = ROOT / "examples" / "smart-home" / "train.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]
    if not SYNOPSIS.is_dir():
        return None
    rows = [json.loads(line) for line in (SYNOPSIS / "train.jsonl").read_text().splitlines()]
    if workload == "b":
        return rows
    turned = []
    for row in rows:
        asked, answered = (message["content"] for message in row["messages"][-2:])
        description = asked.split("\n\n", 1)[1]
        question = f"Write the description of this software package.\n\n{answered}"
        turned.append(
            {
                "messages": [
                    {"role": "user", "content": question},
                    {"role": "assistant", "content": description},
                ]
            }
        )
    return turned


def write_rows(
    folder: Path, model: Path, rows: list[dict[str, Any]], workload: str, steps: int
) -> None:
    """Tokenise once, for everyone: ids and labels, in the order of training."""
    from luthier.data import Chat, Message, Place
    from luthier.tokens import Tokenizer, encode_chat

    tokenizer = Tokenizer.load(model)
    needed = steps * BATCH_SIZE + HELD_OUT
    encoded = []
    for number, row in enumerate(rows[:needed], 1):
        messages = tuple(Message(m["role"], m["content"]) for m in row["messages"])
        chat = encode_chat(tokenizer, Chat(str(number), Place("rows", number), messages))
        labels = list(chat.input_ids) if workload == "a" else chat.labels
        encoded.append({"input_ids": chat.input_ids, "labels": labels})
    (folder / "rows.json").write_text(json.dumps(encoded))


def repeat(folder: Path, model: Path, steps: int, repeats: int) -> dict[str, list[Any]]:
    """Measurements per contender; contenders take turns."""
    runs: dict[str, list[Any]] = {contender: [] for contender in CONTENDERS}
    for _ in range(repeats):
        for contender in CONTENDERS:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-m", "benchmarks.sft", "--worker", contender,
                 str(folder), str(model), str(steps)],
                cwd=ROOT, capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                raise SystemExit(f"{contender} failed:\n{done.stderr[-3000:]}")
            runs[contender].append(json.loads(done.stdout.splitlines()[-1]))
    return runs


def report(workload: str, runs: dict[str, list[Any]]) -> None:
    """Print one workload's table: medians, spread, and whether the losses agree."""
    print(f"\n({workload})   supervised tok/s      tok/s (min-max)    peak GiB  held-out loss")
    for contender, measured in runs.items():
        speeds = [m["tokens"] / m["seconds"] for m in measured]
        supervised = statistics.median(m["supervised"] / m["seconds"] for m in measured)
        memory = statistics.median(m["peak_bytes"] for m in measured) / 2**30
        print(
            f"  {contender:10} {supervised:12.1f} {statistics.median(speeds):12.1f} "
            f"({min(speeds):.0f}-{max(speeds):.0f}) {memory:10.2f} {measured[0]['held_out']:12.4f}"
        )
    ours = runs["luthier"]
    for peer in CONTENDERS[1:]:
        ratios = [
            theirs["seconds"] / mine["seconds"]
            for mine, theirs in zip(ours, runs[peer], strict=True)
        ]
        gap = max(
            abs(a - b) for a, b in zip(ours[0]["losses"], runs[peer][0]["losses"], strict=True)
        )
        gap = max(gap, abs(ours[0]["held_out"] - runs[peer][0]["held_out"]))
        verdict = "losses agree" if gap <= TOLERANCE else "VOID: losses differ"
        print(
            f"  {statistics.median(ratios):.2f}x {peer} ({min(ratios):.2f}-{max(ratios):.2f}); "
            f"{verdict} (largest difference {gap:.3f})"
        )


def measure(contender: str, folder: Path, model: Path, steps: int) -> dict[str, Any]:
    """Train in this process; seconds, losses, held-out loss and peak memory."""
    import torch

    rows = json.loads((folder / "rows.json").read_text())
    train, held_out = rows[: steps * BATCH_SIZE], rows[steps * BATCH_SIZE :][:HELD_OUT]
    torch.manual_seed(0)
    run = run_luthier if contender == "luthier" else run_trl
    network, seconds, losses = run(contender, train, model, steps, folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "seconds": seconds,
        "losses": losses[:10],
        "held_out": plain_loss(network, held_out),
        "tokens": sum(len(row["input_ids"]) for row in train),
        "supervised": sum(label != -100 for row in train for label in row["labels"]),
        "peak_bytes": peak,
    }


def plain_loss(network: Any, rows: list[dict[str, Any]]) -> float:
    """Mean loss over supervised tokens, row by row, by transformers alone."""
    import torch
    from torch.nn import functional

    total, count = 0.0, 0
    network.eval()
    with torch.no_grad():
        for row in rows:
            logits = network(input_ids=torch.tensor([row["input_ids"]])).logits[0].float()
            labels = torch.tensor(row["labels"])
            total += functional.cross_entropy(logits[:-1], labels[1:], reduction="sum").item()
            count += int((labels[1:] != -100).sum())
    return total / count


def initial_adapter(network: Any) -> None:
    """Start everyone from the same adapter: A from one seed in the order of names, B zero."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in sorted(network.named_parameters()):
            if "lora_A" in name:
                bound = parameter.shape[1] ** -0.5
                values = torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator)
                parameter.copy_(values)
            elif "lora_B" in name:
                parameter.zero_()


def run_luthier(
    contender: str, rows: list[dict[str, Any]], model: Path, steps: int, folder: Path
) -> tuple[Any, float, list[float]]:
    """Our loop, with the settings it would choose on this machine."""
    import time

    import torch

    from luthier.models import attach, load_model, peak_memory, precision, probe_devices
    from luthier.recipe import LoRA, Training
    from luthier.tokens import Encoded
    from luthier.training import StepDone, SupervisedObjective, Surroundings, TrainingEvent, train

    devices = probe_devices()
    torch.set_num_threads(devices.num_cores)
    dtype = precision("bfloat16" if devices.has_bfloat16 else "float32")
    loaded = load_model(model, dtype=dtype, device=torch.device("cpu"))
    loaded.network = attach(loaded.base, LoRA(rank=RANK, alpha=ALPHA, dropout=0.0), seed=0)
    initial_adapter(loaded.network)
    losses: list[float] = []

    def observe(event: TrainingEvent) -> None:
        if isinstance(event, StepDone):
            losses.append(event.loss)

    training = Training.model_validate(
        {
            "epochs": 1, "batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE,
            "schedule": "constant", "warmup_ratio": 0.0, "micro_batch_tokens": 2048,
            "max_length": 8192, "evaluate_every": 10**6, "checkpoint_every": 10**6,
        }
    )  # fmt: skip
    surroundings = Surroundings(
        folder / f"checkpoints-{os.getpid()}", "", None, observe, lambda: False, peak_memory
    )
    encoded = [
        Encoded(str(i), row["input_ids"], row["labels"], _spans(row["labels"]))
        for i, row in enumerate(rows)
    ]
    ordered = in_order(encoded)
    started = time.perf_counter()
    train(loaded, SupervisedObjective(share_prefixes=True), ordered, training, surroundings)
    seconds = time.perf_counter() - started
    loaded.base.set_attn_implementation("sdpa")
    return loaded.network, seconds, losses


def in_order(encoded: list[Any]) -> list[Any]:
    """Place rows so that the loop's shuffled order visits them as they stand."""
    from luthier.training.batches import StepPlan

    plan = StepPlan(len(encoded), BATCH_SIZE, epochs=1, seed=0)
    order = [i for step in range(plan.num_steps) for i in plan.examples_of(step)]
    placed: list[Any] = [None] * len(encoded)
    for row, position in zip(encoded, order, strict=True):
        placed[position] = row
    return placed


def _spans(labels: list[int]) -> tuple[tuple[int, int], ...]:
    """Ranges of supervised tokens; the first token of a row predicts nothing from nothing."""
    learnt = [t for t, label in enumerate(labels) if label != -100 and t > 0]
    starts = [t for t in learnt if t - 1 not in set(learnt)]
    ends = [t + 1 for t in learnt if t + 1 not in set(learnt)]
    return tuple(zip(starts, ends, strict=True))


def run_trl(
    contender: str, rows: list[dict[str, Any]], model: Path, steps: int, folder: Path
) -> tuple[Any, float, list[float]]:
    """TRL as its quick start has it ("trl"), or as fast as we could tune it ("trl-tuned")."""
    import time
    from importlib import import_module

    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM

    trl: Any = import_module("trl")  # optional, and its exports are not typed
    torch.set_num_threads(os.cpu_count() or 1)
    is_tuned = contender == "trl-tuned"
    tuned: dict[str, Any] = {"gradient_checkpointing": False, "bf16": False} if is_tuned else {}
    config = trl.SFTConfig(
        output_dir=str(folder / f"trl-{os.getpid()}"),
        per_device_train_batch_size=BATCH_SIZE,
        max_steps=steps,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        train_sampling_strategy="sequential",
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        use_cpu=True,
        **tuned,
    )
    source = (
        AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
        if is_tuned
        else str(model)
    )
    trainer = trl.SFTTrainer(
        model=source,
        args=config,
        train_dataset=Dataset.from_list(rows),
        peft_config=LoraConfig(
            task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, target_modules="all-linear"
        ),
    )
    initial_adapter(trainer.model)
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return trainer.model, seconds, losses


if __name__ == "__main__":
    main()
