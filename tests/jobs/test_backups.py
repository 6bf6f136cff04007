"""A service's database in one file, and back, also into another kind of database."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Select, Table, select

from luthier.errors import ConfigError
from luthier.jobs.backups import backup, restore
from luthier.jobs.tables import METADATA
from own_service import Service, chats


def in_order(table: Table) -> Select[Any]:
    return select(table).order_by(*table.primary_key)


def everything(service: Service) -> dict[str, list[dict[str, object]]]:
    with service.database.session() as session:
        return {
            table.name: [
                dict(row)
                for row in session.execute(select(table).order_by(*table.primary_key)).mappings()
            ]
            for table in METADATA.sorted_tables
        }


def filled(folder: Path, url: str = "") -> Service:
    service = Service(folder, url)
    for _ in range(3):
        job = service.create(service.upload(chats(3)), meta={"a": "b"})
        service.jobs.move(job.id, "paused", "Fine-tuning job paused")
    service.keys.create("anna", ["read"])
    return service


def test_what_is_backed_up_comes_back(tmp_path: Path) -> None:
    before = filled(tmp_path / "before")
    counts = backup(before.database, tmp_path / "copy.db")
    assert (counts["jobs"], counts["files"], counts["keys"]) == (3, 3, 1)
    after = Service(tmp_path / "after")
    assert restore(tmp_path / "copy.db", after.database) == counts
    assert everything(after) == everything(before)


def test_a_service_moves_to_postgresql_and_back(
    tmp_path: Path, new_database: Callable[[], str]
) -> None:
    before = filled(tmp_path / "before")
    backup(before.database, tmp_path / "copy.db")
    moved = Service(tmp_path / "moved", new_database())
    restore(tmp_path / "copy.db", moved.database)
    assert everything(moved) == everything(before)
    newer = moved.create(moved.upload(chats(3)))
    assert newer.seq > len(everything(before)["jobs"])
    backup(moved.database, tmp_path / "again.db")
    back = Service(tmp_path / "back")
    restore(tmp_path / "again.db", back.database)
    assert everything(back) == everything(moved)
    moved.database.close()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    service = filled(tmp_path / "service")
    backup(service.database, tmp_path / "copy.db")
    with pytest.raises(ConfigError, match="exists already"):
        backup(service.database, tmp_path / "copy.db")
    with pytest.raises(ConfigError, match="one without rows"):
        restore(tmp_path / "copy.db", service.database)
    with pytest.raises(ConfigError, match="no such file"):
        restore(tmp_path / "nothing.db", Service(tmp_path / "other").database)
