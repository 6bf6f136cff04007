"""A job goes on from a tuned model: one adapter learns on, over the base that both share."""

from pathlib import Path

import openai
import pytest
from openai import OpenAI
from running import running

from luthier.pipeline import Engines
from luthier.recipe import Runtime
from own_service import QUICK, Service, chats, work_until

pytestmark = pytest.mark.enable_socket


def test_a_tuned_model_learns_on_and_answers(tmp_path: Path) -> None:
    service = Service(tmp_path)
    worker = service.worker()
    engines = Engines(Runtime.model_validate({"device": "cpu"}), slots=2)
    with (
        running(service, engines, needs_key=False) as address,
        OpenAI(base_url=address, api_key="none", max_retries=0) as client,
    ):

        def job(model: str) -> str:
            made = client.fine_tuning.jobs.create(
                model=model, training_file=service.upload(chats(40)), suffix="on",
                hyperparameters={"n_epochs": 2}, extra_body={"recipe": QUICK, "lora_rank": 4},
            )  # fmt: skip
            done = work_until(service, worker, made.id, "succeeded", "failed")
            assert done.status == "succeeded", done.error
            return str(done.fine_tuned_model)

        first = job("tiny/tiny-model")
        second = job(first)
        assert second.startswith("ft:tiny-model:local:on:")
        assert second != first
        assert dict(client.models.retrieve(second))["parent"] == first
        losses = [
            [e.data["train_loss"] for e in service.jobs.events(row.job_id, None, 100)[0]
             if e.type == "metrics"][-1]
            for row in (service.model_row(first), service.model_row(second))
        ]  # fmt: skip
        assert losses[1] < losses[0]
        client.models.delete(first)
        answer = client.chat.completions.create(
            model=second, messages=[{"role": "user", "content": "word 1"}], max_tokens=4
        )
        assert answer.choices[0].finish_reason
        checkpoint = next(m.id for m in client.models.list() if "ckpt" in m.id)
        with pytest.raises(openai.BadRequestError, match="checkpoint"):
            client.fine_tuning.jobs.create(
                model=checkpoint, training_file=service.upload(chats(40))
            )
    engines.close()
