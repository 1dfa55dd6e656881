"""How alembic reaches the database: bounded waits, and one migrator at a time."""

from alembic import context
from sqlalchemy import Connection, text

from migrations.waiting import LOCK_TIMEOUT_MS, STATEMENT_TIMEOUT_MS

MIGRATION_LOCK = 0x52554E57  # "RUNW"


def run(connection: Connection, wait_ms: int) -> None:
    context.configure(connection=connection, transaction_per_migration=False)
    bound = text("SELECT set_config(:name, :value, true)")
    with context.begin_transaction():
        # Whoever waits for another migrator holds nothing and stops nobody.
        connection.execute(bound, {"name": "statement_timeout", "value": "0"})
        connection.execute(bound, {"name": "lock_timeout", "value": f"{wait_ms}ms"})
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        connection.execute(bound, {"name": "lock_timeout", "value": f"{LOCK_TIMEOUT_MS}ms"})
        connection.execute(bound, {"name": "statement_timeout", "value": f"{STATEMENT_TIMEOUT_MS}ms"})
        context.run_migrations()


run(context.config.attributes["connection"], context.config.attributes["wait_ms"])
