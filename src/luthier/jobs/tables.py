"""Tables of the service's database: here, unlike in a workspace, the database is the truth.

What is listed has a `seq`, given by the database, and is ordered by it: clocks of servers differ
and jump. Times are Unix seconds, as OpenAI's protocol has them.
"""

from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Body = dict[str, Any]
WIDE = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only where the column is called INTEGER."""


class Table(DeclarativeBase):
    """Root of the tables."""

    type_annotation_map = {Body: JSON, int: BigInteger, str: Text}  # noqa: RUF012 - SQLAlchemy's


class Listed:
    """A thing with a name for clients, listed newest first."""

    seq: Mapped[int] = mapped_column(WIDE, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(80), unique=True)
    created_at: Mapped[int]


class FileRow(Listed, Table):
    """A file that was uploaded, or that a job made. Its content lies in the storage, by its id."""

    __tablename__ = "files"

    purpose: Mapped[str] = mapped_column(String(32), index=True)
    filename: Mapped[str]
    bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16))
    status_details: Mapped[str | None]
    report: Mapped[Body]
    expires_at: Mapped[int | None]
    deleted_at: Mapped[int | None]


class UploadRow(Listed, Table):
    """A file that comes in parts."""

    __tablename__ = "uploads"

    filename: Mapped[str]
    purpose: Mapped[str] = mapped_column(String(32))
    bytes: Mapped[int]
    mime_type: Mapped[str]
    status: Mapped[str] = mapped_column(String(16))
    expires_at: Mapped[int]
    file_expires_after: Mapped[int | None]
    file_id: Mapped[str | None] = mapped_column(String(80))


class PartRow(Listed, Table):
    """One part of an upload."""

    __tablename__ = "parts"

    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id"), index=True)
    bytes: Mapped[int]


class JobRow(Listed, Table):
    """A fine-tuning job: what was asked, how far it is, and who works on it.

    `status` is what clients see. `worker` has it in hand; `beat` grows while that worker lives,
    and `hold` grows whenever another one takes the job, so that the former one's late words count
    no more.
    """

    __tablename__ = "jobs"
    __table_args__ = (Index("jobs_to_do", "status", "worker", "seq"),)

    status: Mapped[str] = mapped_column(String(16))
    model: Mapped[str]
    training_file: Mapped[str] = mapped_column(String(80))
    validation_file: Mapped[str | None] = mapped_column(String(80))
    suffix: Mapped[str | None]
    seed: Mapped[int]
    method: Mapped[Body]
    hyperparameters: Mapped[Body]
    integrations: Mapped[Body]
    """{"list": [...]}, as asked."""
    meta: Mapped[Body]
    settings: Mapped[Body]
    """Sections of a recipe that the request adds: ours, beyond the protocol."""
    error: Mapped[Body | None]
    fine_tuned_model: Mapped[str | None]
    trained_tokens: Mapped[int | None]
    result_files: Mapped[Body]
    """{"list": [...]}."""
    evaluation: Mapped[Body]
    """The verdict, once there is one: ours."""
    estimated_finish: Mapped[int | None]
    finished_at: Mapped[int | None]
    run_id: Mapped[str] = mapped_column(String(120), default="")
    source: Mapped[str] = mapped_column(Text, default="")
    """What the model's name stands for, as a recipe says it; never from a request."""
    """Bytes it is expected to take; 0 while unknown."""
    crashes: Mapped[int] = mapped_column(Integer, default=0)
    """Times in a row that its process died without a word and without getting further."""
    worker: Mapped[str] = mapped_column(String(80), default="")
    hold: Mapped[int] = mapped_column(BigInteger, default=0)
    beat: Mapped[int] = mapped_column(BigInteger, default=0)
    asked_by: Mapped[str] = mapped_column(String(80), default="")
    """Id of the key."""
    request_hash: Mapped[str] = mapped_column(String(64), index=True)
    is_claimed: Mapped[int] = mapped_column(Integer, default=1)
    """0 where only a repeated request has made it, and the first one may still arrive."""


class MetadataRow(Table):
    """A pair of a job's metadata, to be found by."""

    __tablename__ = "job_metadata"

    job_seq: Mapped[int] = mapped_column(ForeignKey("jobs.seq"), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(512))
    __table_args__ = (Index("job_metadata_pairs", "key", "value", "job_seq"),)


class EventRow(Listed, Table):
    """What happened to a job. `mark` is one of a kind in it: said again, it is not noted again."""

    __tablename__ = "events"
    __table_args__ = (
        Index("events_of_job", "job_id", "seq"),
        Index("events_once", "job_id", "mark", unique=True),
    )

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    mark: Mapped[str] = mapped_column(String(80))
    level: Mapped[str] = mapped_column(String(8))
    type: Mapped[str] = mapped_column(String(16))
    message: Mapped[str]
    data: Mapped[Body]


class CheckpointRow(Listed, Table):
    """A state of a job's model that can be asked."""

    __tablename__ = "checkpoints"
    __table_args__ = (Index("checkpoints_once", "job_id", "step", unique=True),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    step: Mapped[int]
    model: Mapped[str] = mapped_column(String(200))
    metrics: Mapped[Body]


class ModelRow(Listed, Table):
    """A model that a job made; its id is the name clients ask for."""

    __tablename__ = "models"

    id: Mapped[str] = mapped_column(String(200), unique=True)
    parent: Mapped[str]
    """Name of the model it started from."""
    kind: Mapped[str] = mapped_column(String(16))
    """write or read: answers, or labels and vectors of texts."""
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    place: Mapped[str]
    """Its folder in the storage."""
    deleted_at: Mapped[int | None]


class PermissionRow(Listed, Table):
    """A project that may use a checkpoint."""

    __tablename__ = "permissions"

    checkpoint: Mapped[str] = mapped_column(String(200), index=True)
    project_id: Mapped[str] = mapped_column(String(80))


class KeyRow(Listed, Table):
    """A key; only its hash is kept."""

    __tablename__ = "keys"

    name: Mapped[str] = mapped_column(String(80))
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    hint: Mapped[str] = mapped_column(String(16))
    """Its last letters, to tell keys apart."""
    scopes: Mapped[Body]
    """{"list": [...]}."""
    requests_per_minute: Mapped[int | None]
    revoked_at: Mapped[int | None]


class HookRow(Listed, Table):
    """An address that is told of what has ended."""

    __tablename__ = "hooks"

    url: Mapped[str]
    secret: Mapped[str] = mapped_column(String(80))
    """What its messages are signed with, whsec_ and base64."""
    removed_at: Mapped[int | None]


class DeliveryRow(Listed, Table):
    """A message to an address, until it has been taken or nobody takes it."""

    __tablename__ = "deliveries"
    __table_args__ = (Index("deliveries_due", "next_at"),)

    hook_id: Mapped[str] = mapped_column(ForeignKey("hooks.id"))
    type: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(String(80))
    tries: Mapped[int] = mapped_column(Integer, default=0)
    next_at: Mapped[int | None]
    """When it is tried next; None when it is not any more."""
    sent_at: Mapped[int | None]


class EvalRow(Listed, Table):
    """What answers are to be judged by."""

    __tablename__ = "evals"

    name: Mapped[str]
    config: Mapped[Body]
    """What its rows hold, and the graders, as asked."""
    meta: Mapped[Body]
    deleted_at: Mapped[int | None]


class ErrandRow(Listed, Table):
    """Work that servers do beside answering: a batch of requests, a run of an eval.

    Held like a job; what it has done is kept row by row.
    """

    __tablename__ = "errands"
    __table_args__ = (Index("errands_of_eval", "eval_id", "seq"),)

    kind: Mapped[str] = mapped_column(String(16), index=True)
    """batch or eval_run."""
    status: Mapped[str] = mapped_column(String(16), index=True)
    eval_id: Mapped[str | None] = mapped_column(ForeignKey("evals.id"))
    request: Mapped[Body]
    """As asked."""
    outcome: Mapped[Body]
    """What came of it, as far as it goes."""
    meta: Mapped[Body]
    error: Mapped[Body | None]
    times: Mapped[Body]
    """State -> when it was reached."""
    deleted_at: Mapped[int | None]
    asked_by: Mapped[str] = mapped_column(String(80), default="")
    worker: Mapped[str] = mapped_column(String(80), default="")
    hold: Mapped[int] = mapped_column(BigInteger, default=0)
    beat: Mapped[int] = mapped_column(BigInteger, default=0)


class ItemRow(Listed, Table):
    """What came of one row of an errand."""

    __tablename__ = "items"
    __table_args__ = (Index("items_once", "errand_id", "number", unique=True),)

    errand_id: Mapped[str] = mapped_column(ForeignKey("errands.id"))
    number: Mapped[int]
    """Of the row, from 0."""
    status: Mapped[str] = mapped_column(String(16))
    """pass, fail or error."""
    body: Mapped[Body]


class CaptureRow(Listed, Table):
    """What was asked and answered, kept to learn from; its id is the answer's."""

    __tablename__ = "captures"

    model: Mapped[str] = mapped_column(String(200))
    key_id: Mapped[str] = mapped_column(String(80))
    request: Mapped[Body]
    answer: Mapped[Body]
    feedback: Mapped[Body | None]


class AuditRow(Listed, Table):
    """Who did what that changes something."""

    __tablename__ = "audit"

    key_id: Mapped[str] = mapped_column(String(80))
    action: Mapped[str] = mapped_column(String(80))
    subject: Mapped[str]
    request_id: Mapped[str] = mapped_column(String(80))


METADATA = Table.metadata
