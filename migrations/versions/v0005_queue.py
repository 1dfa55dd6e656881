"""The queue: who starts next, bounds of tenants, callers and workflows, which versions somebody covers."""

from alembic import op

from migrations import files

revision = "queue_5"
down_revision = "asking_4"


def upgrade() -> None:
    files.run("0005_queue_tables.sql", "0005_queue_end.sql", "0005_queue_order.sql", "0005_queue_taking.sql")


def downgrade() -> None:
    files.run("0005_queue_end_undone.sql")
    op.execute("DROP TRIGGER lines_up ON runwire.head")
    op.execute("DROP TRIGGER keeps_its_place ON runwire.head")
    op.execute(
        "DROP FUNCTION runwire.line_up, runwire.keep_place, runwire.accepted_version, runwire.line, runwire.places"
    )
    op.execute("DROP FUNCTION runwire.take, runwire.given_up, runwire.claim_waiting, runwire.tend, runwire.move_on")
    op.execute("DROP FUNCTION runwire.lock_queue")
    op.execute("DROP TABLE runwire.queue, runwire.coverage")
    op.execute("ALTER TABLE runwire.workflow DROP COLUMN runs_max, DROP COLUMN on_gap, DROP COLUMN version_wait_s")
    op.execute(
        "ALTER TABLE runwire.tenant DROP COLUMN runs_max, DROP COLUMN caller_runs_max, DROP COLUMN queued_max, "
        "DROP COLUMN caller_queued_max"
    )
