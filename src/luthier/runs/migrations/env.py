"""Runs migrations on the connection the workspace hands over."""

from alembic import context

from luthier.runs.database import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
