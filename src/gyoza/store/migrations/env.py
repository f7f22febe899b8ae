"""Alembic's entry: runs the numbered steps in one transaction, over the connection that `store.schema` hands in."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], target_metadata=None)
with context.begin_transaction():
    context.run_migrations()
