"""Runs, and the datasets and models they used."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "datasets",
        sa.Column("fingerprint", sa.String(64), primary_key=True),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column("first_used", sa.String(32), nullable=False),
    )
    op.create_table(
        "models",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("revision", sa.Text(), nullable=False),
        sa.Column("first_used", sa.String(32), nullable=False),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.String(120), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False, index=True),
        sa.Column("status", sa.String(16), nullable=False, index=True),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("finished_at", sa.String(32), nullable=False),
        sa.Column("recipe_hash", sa.String(64), nullable=False),
        sa.Column(
            "data_fingerprint", sa.String(64), sa.ForeignKey("datasets.fingerprint"), nullable=False
        ),
        sa.Column("model_sha256", sa.String(64), sa.ForeignKey("models.sha256"), nullable=False),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("metric", sa.String(32), nullable=False),
        sa.Column("before", sa.Float(), nullable=True),
        sa.Column("after", sa.Float(), nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
    )


def downgrade() -> None:
    """Remove the tables."""
    for table in ("runs", "models", "datasets"):
        op.drop_table(table)
