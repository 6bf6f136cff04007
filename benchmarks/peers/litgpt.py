"""litgpt: its own model and its own loop for full fine-tuning, in each of its precisions."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
from litgpt.args import EvalArgs, TrainArgs
from litgpt.finetune.full import fit
from litgpt.model import GPT, Config
from litgpt.scripts.convert_hf_checkpoint import convert_hf_checkpoint
from litgpt.utils import load_checkpoint
from torch.utils.data import DataLoader

from benchmarks.measuring import IGNORED, Clock, Job, Row, Seen, Trained, read_job, report

NAME = "SmolLM2-135M-Instruct"


def variants(task: str, batch_size: int) -> dict[str, dict[str, Any]]:
    """Settings tried; the fastest is "tuned". Its default is bf16-mixed.

    Its default of one row at once is not among them: litgpt takes the mean of each part's mean
    loss, which is another loss where answers differ in length.
    """
    return {precision: {"precision": precision} for precision in ("bf16-mixed", "32-true")}


def main() -> None:
    """Train, and report."""
    job = read_job()
    report(job, _train(job), ("litgpt", "lightning"))


def _train(job: Job) -> Trained:
    place = _converted(Path(job.model), Path(job.folder) / "litgpt")
    fabric = lightning.Fabric(
        accelerator="cpu", devices=1, precision=job.variant.get("precision", "bf16-mixed")
    )
    with fabric.init_module(empty_init=False):
        network = GPT(Config.from_file(place / "model_config.yaml"))
    model = fabric.setup(network)
    optimizer = fabric.setup_optimizers(
        torch.optim.AdamW(model.parameters(), lr=job.learning_rate, weight_decay=0.0)
    )
    load_checkpoint(fabric, model, place / "lit_model.pth")
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    state = {
        "model": model, "optimizer": optimizer, "scheduler": scheduler,
        "iter_num": 0, "step_count": 0,
    }  # fmt: skip
    losses: list[float] = []
    fabric.log_dict = lambda metrics, step: losses.append(metrics["loss"])
    clock, seen = Clock(), Seen(job.batch_size)
    batches = _Timed(_loader(job.rows, job.batch_size, seen), clock)
    fit(
        fabric=fabric, state=state, train_dataloader=batches,
        val_dataloader=_loader(job.held_out[:1], 1, Seen(10**9)), devices=1, resume=False,
        checkpoint_dir=place, out_dir=job.scratch, data=None,
        train=TrainArgs(
            save_interval=None, log_interval=1, global_batch_size=job.batch_size,
            micro_batch_size=job.batch_size, lr_warmup_steps=0, epochs=1,
            max_steps=len(job.rows) // job.batch_size,
        ),
        eval=EvalArgs(interval=10**9, initial_validation=False, final_validation=False),
    )  # fmt: skip
    clock.stop()
    network.max_seq_length = max(len(row["input_ids"]) for row in (*job.rows, *job.held_out))
    return Trained(model, clock.seconds, losses, seen.steps)


class _Timed:
    """A loader; the clock starts with its first batch."""

    def __init__(self, loader: Any, clock: Clock) -> None:
        self.loader, self.dataset, self.clock = loader, loader.dataset, clock

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        self.clock.start()
        return iter(self.loader)


def _loader(rows: list[Row], batch_size: int, seen: Seen) -> DataLoader[Any]:
    dataset = [{name: torch.tensor(ids) for name, ids in row.items()} for row in rows]

    def collate(members: list[dict[str, torch.Tensor]]) -> dict[str, Any]:
        """Pad on the right, as litgpt's own collator does."""
        seen.take([(m["input_ids"].tolist(), m["labels"].tolist()) for m in members])
        padded = {
            name: torch.nn.utils.rnn.pad_sequence(
                [m[name] for m in members], batch_first=True, padding_value=value
            )
            for name, value in (("input_ids", 0), ("labels", IGNORED))
        }
        counts = torch.tensor([[len(m["input_ids"])] for m in members])
        return {**padded, "token_counts": {"raw": counts, "raw_plus_prompt_template": counts}}

    return DataLoader(dataset, batch_size=batch_size, shuffle=False, collate_fn=collate)


def _converted(model: Path, place: Path) -> Path:
    """The model as litgpt stores it, converted once."""
    if not (place / "lit_model.pth").is_file():
        place.mkdir(parents=True, exist_ok=True)
        for file in model.iterdir():
            shutil.copy(file, place / file.name)
        convert_hf_checkpoint(checkpoint_dir=place, model_name=NAME, dtype="float32")
    return place


if __name__ == "__main__":
    main()
