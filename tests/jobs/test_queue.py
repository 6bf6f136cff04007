"""The queue: states, holds, repeated requests, listings; on SQLite and on a real PostgreSQL."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import given
from hypothesis import strategies as st

from luthier.errors import JobError
from luthier.jobs import LAYOUT, LostHoldError
from luthier.jobs.states import LEADS_TO, OVER
from luthier.jobs.tables import EventRow, ModelRow, Table
from own_service import Service


@pytest.fixture(params=["sqlite", "postgresql"])
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    url = ""
    if request.param == "postgresql":
        url = request.getfixturevalue("new_database")()
    opened = Service(tmp_path, url)
    yield opened
    opened.database.close()


def test_the_migrations_make_the_tables_the_code_expects(service: Service) -> None:
    with service.database._engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []
    config = Config()
    config.set_main_option("script_location", str(LAYOUT.migrations))
    assert ScriptDirectory.from_config(config).get_current_head() == LAYOUT.revision


def event(mark: str) -> EventRow:
    return EventRow(mark=mark, level="info", type="message", message=mark, data={})


def test_jobs_are_listed_newest_first_page_by_page(service: Service) -> None:
    made = [service.create("file-x", meta={"n": str(i % 2)}).id for i in range(7)]
    seen: list[str] = []
    after, has_more = None, True
    while has_more:
        page, has_more = service.jobs.list(after, 3)
        seen += [job.id for job in page]
        after = seen[-1]
    assert seen == made[::-1]
    odd, _ = service.jobs.list(None, 10, {"n": "1"})
    assert [job.id for job in odd] == made[5::-2]
    assert service.jobs.list(None, 10, {"n": "1", "m": "1"}) == ([], False)
    assert service.jobs.list(None, 10, {}) == ([], False)
    bare = service.create("file-x")
    assert [job.id for job in service.jobs.list(None, 10, {})[0]] == [bare.id]
    assert service.jobs.list("ftjob-unknown", 10) == ([], False)


@given(st.lists(st.sampled_from([*LEADS_TO]), max_size=8))
def test_states_never_go_backward(wanted: list[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder))
        job, been = service.create("file-x"), ["validating_files"]
        for status in wanted:
            if status in LEADS_TO[been[-1]]:
                service.jobs.move(job.id, status, f"now {status}")
                been.append(status)
            else:
                with pytest.raises(JobError, match=f"is {been[-1]}, so it cannot become {status}"):
                    service.jobs.move(job.id, status, "never said")
        assert service.job(job.id).status == been[-1]
        assert service.messages(job.id)[2:] == [f"now {status}" for status in been[1:]]
        assert not any(status in OVER for status in been[:-1])
        service.database.close()


def test_a_job_is_taken_by_one_of_many(service: Service) -> None:
    job = service.create("file-x")
    with ThreadPoolExecutor(8) as pool:
        holds = list(pool.map(lambda i: service.jobs.take(job, f"worker {i}"), range(8)))
    assert sum(hold is not None for hold in holds) == 1


def test_a_worker_that_lost_its_job_spoils_nothing(service: Service) -> None:
    job = service.create("file-x")
    first = service.jobs.take(job, "first")
    assert first is not None
    assert service.jobs.beat(first) == "validating_files"
    second = service.jobs.take(service.job(job.id), "second")
    assert second is not None
    before = service.messages(job.id)
    with pytest.raises(LostHoldError):
        service.jobs.beat(first)
    with pytest.raises(LostHoldError):
        service.jobs.tell(first, [event("late")])
    with pytest.raises(LostHoldError):
        service.jobs.change(first, "failed", "late")
    service.jobs.release(first)
    assert service.job(job.id).worker == "second"
    assert service.messages(job.id) == before
    assert service.jobs.change(second, "queued", "in time")


def test_what_a_client_has_ended_stays_ended(service: Service) -> None:
    job = service.create("file-x")
    hold = service.jobs.take(job, "worker")
    assert hold is not None
    service.jobs.move(job.id, "cancelled", "cancelled")
    assert service.jobs.beat(hold) == "cancelled", "so the worker hears of it"
    assert not service.jobs.change(hold, "queued", "too late")
    assert service.job(job.id).status == "cancelled"


def test_an_event_that_is_told_again_is_noted_once(service: Service) -> None:
    job = service.create("file-x")
    hold = service.jobs.take(job, "worker")
    assert hold is not None
    service.jobs.tell(hold, [event("step-1"), event("step-2"), event("step-1")])
    service.jobs.tell(hold, [event("step-2"), event("step-3")])
    assert service.messages(job.id)[2:] == ["step-1", "step-2", "step-3"]
    found, _ = service.jobs.events(job.id, None, 10)
    assert len({e.id for e in found}) == len(found)


def test_a_repeated_request_makes_no_second_job(service: Service) -> None:
    first = service.create("file-x", request_hash="a")
    assert service.create("file-x", request_hash="a", is_repeated=True).id == first.id
    assert service.create("file-x", request_hash="a").id != first.id, "asked for twice"
    # A repetition may arrive before what it repeats.
    early = service.create("file-x", request_hash="b", is_repeated=True)
    assert service.create("file-x", request_hash="b").id == early.id
    assert service.create("file-x", request_hash="b").id != early.id
    other = service.create("file-x", request_hash="a", asked_by="key-2", is_repeated=True)
    assert other.id != first.id, "another key's"


def test_many_at_once_make_as_many_jobs_as_were_wanted(service: Service) -> None:
    def ask(i: int) -> str:
        return service.create("file-x", request_hash=str(i // 3), is_repeated=i % 3 > 0).id

    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(ask, range(90)))
    assert len(set(made)) == 30
    jobs, _ = service.jobs.list(None, 100)
    assert len(jobs) == 30


def test_only_the_newest_checkpoints_are_kept(service: Service) -> None:
    other, job = service.create("file-x"), service.create("file-x")
    for one, steps in ((other, [1]), (job, [5, 10, 15, 20, 10])):
        hold = service.jobs.take(service.job(one.id), "worker")
        assert hold is not None
        for step in steps:
            model = ModelRow(
                id=f"{one.id}:ckpt-step-{step}", parent="tiny", kind="write", job_id=one.id,
                place=f"jobs/{one.id}/{step}", deleted_at=None,
            )  # fmt: skip
            service.jobs.add_checkpoint(hold, step, model, {"step": step})
    checkpoints, has_more = service.jobs.checkpoints(job.id, None, 2)
    assert [row.step for row in checkpoints] == [20, 15]
    assert has_more
    (last,), has_more = service.jobs.checkpoints(job.id, checkpoints[-1].id, 2)
    assert (last.step, has_more) == (10, False)
    assert service.models.find(f"{job.id}:ckpt-step-5") is None
    assert service.models.find(f"{other.id}:ckpt-step-1") is not None
    service.models.delete(f"{job.id}:ckpt-step-20")
    assert service.jobs.checkpoints(job.id, None, 1)[0][0].step == 15
