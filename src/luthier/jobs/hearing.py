"""What a job's process tells, in the protocol's words: events, checkpoints, results."""

import csv
import io
from collections.abc import Iterable
from typing import Any, Literal
from zlib import crc32

from luthier.jobs.naming import checkpoint_name, model_name
from luthier.jobs.tables import Body, EventRow, JobRow, ModelRow

COLUMNS = {
    "step": "step",
    "train_loss": "train_loss",
    "train_accuracy": "train_mean_token_accuracy",
    "valid_loss": "valid_loss",
    "valid_mean_token_accuracy": "valid_mean_token_accuracy",
}
"""Columns of the results -> what metrics events call them."""

METRICS = (
    "train_loss", "train_mean_token_accuracy", "valid_loss", "valid_mean_token_accuracy",
    "full_valid_loss", "full_valid_mean_token_accuracy",
)  # fmt: skip


class Hearing:
    """Gathers what is to be written down about a job."""

    def __init__(self, job: JobRow) -> None:
        self._job = job
        self.run_id = job.run_id
        self.events: list[EventRow] = []
        self.checkpoints: list[tuple[int, ModelRow, Body]] = []
        self.changes: dict[str, Any] = {}
        self.seconds_left: float | None = None
        """Until the last step."""
        self._step: dict[str, Any] | None = None

    def hear(self, line: dict[str, Any]) -> None:
        """Take in one line."""
        kind = line.get("kind")
        if kind != "validated":
            self.flush()
        if kind == "ready":
            self._ready(line)
        elif kind == "step":
            self._step = line
        elif kind == "validated" and self._step is not None:
            self._step |= {
                "valid_loss": line["loss"],
                "valid_mean_token_accuracy": line["watched"].get("mean_token_accuracy"),
            }
        elif kind == "saved":
            self._saved(line)
        elif kind == "note":
            text = line["text"]
            self.events.append(self.message(f"note-{crc32(text.encode()):08x}", text))
        elif kind == "system":
            scores = ", ".join(f"{name}={value:.4g}" for name, value in line["metrics"].items())
            mark = f"system-{line['name']}"[:80]
            self.events.append(
                self.message(mark, f"Evaluated {line['name']}: {scores}", data=line["metrics"])
            )

    def _ready(self, line: dict[str, Any]) -> None:
        self.run_id = line["run_id"]
        self.changes |= {
            "run_id": self.run_id,
            "hyperparameters": {
                **self._job.hyperparameters,
                "n_epochs": line["n_epochs"],
                "batch_size": line["batch_size"],
                "learning_rate_multiplier": self._multiplier(),
                "learning_rate": line["learning_rate"],
            },
        }
        self.events += [
            self.message(f"warning-{i}", text, "warn") for i, text in enumerate(line["warnings"])
        ]

    def _multiplier(self) -> float:
        given = self._job.hyperparameters.get("learning_rate_multiplier", "auto")
        return 1.0 if given in ("auto", None) else float(given)

    def flush(self) -> None:
        """The last step is complete: no measurement belongs to it any more."""
        line, self._step = self._step, None
        if line is None:
            return
        step, total = line["step"], line["num_steps"]
        data = dict.fromkeys(METRICS)
        data |= {
            "step": step,
            "total_steps": total,
            "train_loss": line["loss"],
            "train_mean_token_accuracy": line["watched"].get("mean_token_accuracy"),
            "valid_loss": line.get("valid_loss"),
            "valid_mean_token_accuracy": line.get("valid_mean_token_accuracy"),
            "full_valid_loss": line.get("valid_loss"),
            "full_valid_mean_token_accuracy": line.get("valid_mean_token_accuracy"),
            "learning_rate": line["learning_rate"],
            "num_tokens": line["num_tokens"],
        }
        words = f"Step {step}/{total}: training loss={_short(line['loss'])}"
        if line.get("valid_loss") is not None:
            words += (
                f", validation loss={_short(line['valid_loss'])}"
                f", full validation loss={_short(line['valid_loss'])}"
            )
        self.events.append(
            EventRow(mark=f"step-{step}", level="info", type="metrics", message=words, data=data)
        )
        self.seconds_left = line["seconds"] * (total - step)

    def _saved(self, line: dict[str, Any]) -> None:
        step = line["step"]
        model = self.model(self.run_id, "write", step)
        self.checkpoints.append((step, model, line["metrics"]))
        self.events.append(self.message(f"saved-{step}", f"Checkpoint created at step {step}"))

    def model(self, run_id: str, kind: str, step: int | None = None) -> ModelRow:
        """The tuned model, or what it was after a step."""
        name = model_name(self._job) if step is None else checkpoint_name(self._job, step)
        place = f"jobs/{self._job.id}/runs/{run_id}"
        return ModelRow(
            id=name, parent=self._job.model, kind=kind, job_id=self._job.id,
            place=place if step is None else f"{place}/asked/step-{step:08d}",
        )  # fmt: skip

    def message(
        self,
        mark: str,
        text: str,
        level: Literal["info", "warn", "error"] = "info",
        data: Body | None = None,
    ) -> EventRow:
        """An event in words."""
        return EventRow(mark=mark, level=level, type="message", message=text, data=data or {})

    @staticmethod
    def results(metrics: Iterable[Body]) -> str:
        """The steps' numbers as CSV, as OpenAI's result file has them."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        for data in metrics:
            writer.writerow([data.get(name) for name in COLUMNS.values()])
        return out.getvalue()


def _short(loss: float | None) -> str:
    return "nan" if loss is None else f"{loss:.4f}"
