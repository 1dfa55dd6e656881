"""How alembic reaches the database: bounded waits, and one migrator at a time."""

from alembic import context
from sqlalchemy import Connection, text

MIGRATION_LOCK = 0x52554E57  # "RUNW"


def run(connection: Connection) -> None:
    context.configure(connection=connection, transaction_per_migration=False)
    with context.begin_transaction():
        connection.execute(text("SET LOCAL statement_timeout = '60s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        # A migration that would wait behind a long transaction makes every append wait behind itself: give up instead.
        connection.execute(text("SET LOCAL lock_timeout = '5s'"))
        context.run_migrations()


run(context.config.attributes["connection"])
