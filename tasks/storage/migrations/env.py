"""How Alembic reaches the tables: over the connection that the store hands in."""

from __future__ import annotations

from alembic import context
from sqlmodel import SQLModel

import tasks.storage.tables  # noqa: F401  (registers the tables)

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
