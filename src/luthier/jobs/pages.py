"""Pages of what is listed: by age, going on behind an id."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session


def page_of(
    session: Session,
    table: Any,
    wanted: Iterable[ColumnElement[bool]],
    *,
    after: str | None,
    limit: int,
    is_ascending: bool = False,
) -> tuple[Sequence[Any], bool]:
    """Rows that fulfil all conditions, newest first unless ascending, beginning behind `after`;
    and whether there are more. Behind an unknown id there is nothing."""
    query = select(table).where(*wanted)
    if after:
        seq = session.scalar(select(table.seq).where(table.id == after))
        if seq is None:
            return [], False
        query = query.where(table.seq > seq if is_ascending else table.seq < seq)
    query = query.order_by(table.seq.asc() if is_ascending else table.seq.desc())
    found = session.scalars(query.limit(limit + 1)).all()
    return found[:limit], len(found) > limit
