"""Jobs are worked on together only where they fit into memory together."""

from pathlib import Path

import pytest

from luthier.errors import ModelError
from luthier.jobs.attendant import Attendant
from luthier.models import count_weights
from luthier.pipeline.needing import FROZEN, LEARNING, PROCESS, memory_for_runs, memory_needed
from luthier.recipe import Recipe
from own_service import QUICK, Service, chats
from tiny import write_model


def recipe(model: Path | str, **changes: object) -> Recipe:
    return Recipe.model_validate(
        {"data": {"train": "x.jsonl"}, "model": {"source": str(model)}, **changes}
    )


def test_more_is_needed_where_more_learns(tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny")
    adapter = memory_needed(recipe(model, runtime={"device": "cpu"}))
    whole = memory_needed(recipe(model, runtime={"device": "cpu"}, tuning={"kind": "full"}))
    assert adapter is not None
    assert whole is not None
    assert PROCESS < adapter < whole
    weights = (whole - adapter) // (LEARNING - FROZEN)
    assert weights == count_weights(model).model
    small = memory_needed(
        recipe(model, runtime={"device": "cpu"}, training={"micro_batch_tokens": 64})
    )
    assert small is not None
    assert small < adapter
    assert memory_for_runs() > 2**28


def test_of_a_model_that_is_not_here_nobody_knows(tmp_path: Path) -> None:
    assert memory_needed(recipe("nobody/has-this-model")) is None
    with pytest.raises(ModelError, match="no such folder"):
        memory_needed(recipe(tmp_path / "absent"))


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Attendant]:
    """Attendants that were begun; they do nothing until they are taken from the list."""
    found: list[Attendant] = []
    monkeypatch.setattr(Attendant, "start", lambda own: found.append(own))
    monkeypatch.setattr(Attendant, "is_alive", lambda own: own in found)
    return found


@pytest.mark.parametrize(("share", "together"), [(0.5, 1), (1.5, 1), (2.5, 2)])
def test_jobs_wait_for_memory(
    tmp_path: Path, begun: list[Attendant], share: float, together: int
) -> None:
    service = Service(tmp_path)
    file = service.upload(chats(12))
    made = [service.create(file, settings={"recipe": QUICK}) for _ in range(2)]
    need = memory_needed(recipe(service.model(), training={"micro_batch_tokens": 2048}))
    assert need is not None
    said: list[str] = []
    worker = service.worker(slots=2, memory=int(share * need), say=said.append)
    for _ in range(3):
        worker.turn()
    states = [service.job(job.id).status for job in made]
    assert states == ["running", "running" if together == 2 else "queued"]
    waits = [text for text in said if "waits" in text]
    assert len(waits) == 2 - together, "told once"
    begun.clear()
    worker.turn()
    assert service.job(made[1].id).status == "running"
