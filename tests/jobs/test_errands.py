"""Errands: in one's hands at a time, each row once, whoever dies or is thought dead."""

import threading
from pathlib import Path
from typing import Any

import pytest

from luthier.errors import JobError
from luthier.jobs import LostHoldError
from luthier.jobs.tables import ErrandRow
from luthier.jobs.watching import Watch
from own_service import Service


def errand(service: Service, **changes: Any) -> ErrandRow:
    row: dict[str, Any] = {
        "kind": "batch", "status": "validating", "eval_id": None, "outcome": {}, "error": None,
        "request": {}, "meta": {}, "asked_by": "",
    }  # fmt: skip
    return service.errands.create(ErrandRow(**(row | changes)), "batch_")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_of_many_servers_one_takes_it(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("new_database")() if kind == "postgresql" else ""
    service = Service(tmp_path, url)
    row = errand(service)
    taken = []

    def take(name: str) -> None:
        hold = service.errands.take(row, name)
        if hold is not None:
            taken.append(hold)

    threads = [threading.Thread(target=take, args=(f"server-{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1
    service.database.close()


def test_what_one_thought_dead_says_counts_no_more(tmp_path: Path) -> None:
    errands = (service := Service(tmp_path)).errands
    first = errands.take(errand(service), "first")
    assert first is not None
    errands.add(first, 0, "item_", "pass", {})
    (row,) = errands.open()
    second = errands.take(row, "second")
    assert second is not None
    assert errands.done(second) == {0}
    for said in (
        lambda: errands.add(first, 1, "item_", "pass", {}),
        lambda: errands.change(first, "completed"),
        lambda: errands.beat(first),
    ):
        with pytest.raises(LostHoldError):
            said()
    errands.add(second, 0, "item_", "fail", {})
    assert errands.counts(row.id) == {"pass": 1}
    errands.release(first)
    assert errands.open()[0].worker == "second"


def test_a_stopped_errand_stays_stopped(tmp_path: Path) -> None:
    errands = (service := Service(tmp_path)).errands
    row = errand(service, kind="eval_run", status="queued")
    hold = errands.take(row, "server")
    assert hold is not None
    assert errands.stop(row.id, "canceled").status == "canceled"
    errands.change(hold, "completed", outcome={"counts": {}})
    found = errands.find("eval_run", row.id)
    assert found is not None
    assert found.status == "canceled"
    assert not errands.open()
    with pytest.raises(JobError, match="canceled"):
        errands.stop(row.id, "canceled")


def test_a_deleted_errand_is_let_go(tmp_path: Path) -> None:
    errands = (service := Service(tmp_path)).errands
    row = errand(service)
    hold = errands.take(row, "server")
    assert hold is not None
    errands.delete(row.id)
    assert errands.find("batch", row.id) is None
    assert not errands.open()
    with pytest.raises(LostHoldError):
        errands.beat(hold)


def test_only_who_does_not_beat_is_thought_dead(tmp_path: Path) -> None:
    errands = (service := Service(tmp_path)).errands
    row = errand(service)
    hold = errands.take(row, "server")
    assert hold is not None
    now = [0.0]
    watch = Watch(30.0, clock=lambda: now[0])
    for second in range(0, 100, 10):
        now[0] = float(second)
        errands.beat(hold)
        assert watch.dead(errands.open()) == []
    now[0] = 120.0
    assert watch.dead(errands.open()) == []
    now[0] = 121.0
    assert [one.id for one in watch.dead(errands.open())] == [row.id]
    assert watch.dead([]) == []
