"""The database's tables: an index over runs, datasets and models that the folders can rebuild."""

from sqlalchemy import JSON, Float, ForeignKey, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Table(DeclarativeBase):
    """Root of the tables."""


class DatasetRow(Table):
    """Data that a run used, by content."""

    __tablename__ = "datasets"

    fingerprint: Mapped[str] = mapped_column(String(64), primary_key=True)
    files: Mapped[dict[str, str]] = mapped_column(JSON)
    first_used: Mapped[str] = mapped_column(String(32))


class ModelRow(Table):
    """A model that a run started from, by content of its weights."""

    __tablename__ = "models"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    source: Mapped[str] = mapped_column(Text)
    revision: Mapped[str] = mapped_column(Text)
    first_used: Mapped[str] = mapped_column(String(32))


class RunRow(Table):
    """A run."""

    __tablename__ = "runs"

    id: Mapped[str] = mapped_column(String(120), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), index=True)
    status: Mapped[str] = mapped_column(String(16), index=True)
    created_at: Mapped[str] = mapped_column(String(32))
    finished_at: Mapped[str] = mapped_column(String(32), default="")
    recipe_hash: Mapped[str] = mapped_column(String(64))
    data_fingerprint: Mapped[str] = mapped_column(ForeignKey("datasets.fingerprint"))
    model_sha256: Mapped[str] = mapped_column(ForeignKey("models.sha256"))
    decision: Mapped[str] = mapped_column(String(16), default="")
    metric: Mapped[str] = mapped_column(String(32), default="")
    before: Mapped[float | None] = mapped_column(Float, default=None)
    after: Mapped[float | None] = mapped_column(Float, default=None)
    error: Mapped[str] = mapped_column(Text, default="")
