"""sentence-transformers' trainer on pairs, as its documentation has it."""

from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.sampler import DefaultBatchSampler
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from torch import nn
from torch.utils.data import SequentialSampler

from benchmarks.measuring import Job, Trained, read_job, report
from benchmarks.peers.trainers import Watch, is_bfloat16_faster, shared_settings

SCALE = 20.0


def variants(task: str, batch_size: int) -> dict[str, dict[str, Any]]:
    """Settings tried; the fastest is "tuned". As shipped it computes in float32."""
    parts = {f"cached, {n} pairs at once": {"at_once": n} for n in (4, 8, 16)}
    found: dict[str, dict[str, Any]] = {"memory kept": {"at_once": 0}, **parts}
    if is_bfloat16_faster():
        return {f"autocast, {name}": {**one, "bf16": True} for name, one in found.items()}
    return found


def main() -> None:
    """Train, and report."""
    job = read_job()
    report(job, _train(job), ("sentence-transformers", "transformers"))


class _Watch(Watch):
    """Sees the texts of pairs."""

    def _look(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        features = args[0] if args else kwargs["input"]
        if not self.clock.seconds:
            rows = zip(features["input_ids"].tolist(), features["attention_mask"].tolist(),
                       strict=True)  # fmt: skip
            self.seen.take([([i for i, m in zip(ids, mask, strict=True) if m], [-100, 0])
                            for ids, mask in rows])  # fmt: skip


def _in_order(dataset: Any, batch_size: int, drop_last: bool, **others: Any) -> Any:
    return DefaultBatchSampler(
        SequentialSampler(dataset), batch_size=batch_size, drop_last=drop_last
    )


def _train(job: Job) -> Trained:
    settings = {**shared_settings(job), **job.variant}
    at_once = settings.pop("at_once", 0)
    model = SentenceTransformer(job.model)
    model.max_seq_length = max(len(ids) for row in job.rows for ids in row["ids"])
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # all contenders train without: their losses can be compared
    loss: nn.Module = MultipleNegativesRankingLoss(model, scale=SCALE)
    if at_once:
        loss = CachedMultipleNegativesRankingLoss(model, scale=SCALE, mini_batch_size=at_once)
    watch = _Watch(job, 2 * job.batch_size)
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(batch_sampler=_in_order, **settings),
        train_dataset=Dataset.from_list(
            [dict(zip(("anchor", "positive"), row["texts"], strict=True)) for row in job.rows]
        ),
        loss=loss,
        callbacks=[watch],
    )
    trainer.train()

    def ask(ids: list[int]) -> torch.Tensor:
        batch = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids))}
        return model.eval()(batch)["sentence_embedding"][0]

    return Trained(ask, watch.clock.seconds, watch.losses, watch.seen.steps)


if __name__ == "__main__":
    main()
