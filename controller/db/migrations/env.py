"""What Alembic runs: `controller.db.migrate` hands it an open connection."""

from __future__ import annotations

from alembic import context

from controller.db.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite's DDL is transactional once the driver leaves BEGIN to us.
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
