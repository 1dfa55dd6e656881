"""Questions to people: the status `waiting`, decisions, and runs that rest without an owner until they are due."""

from alembic import op

from migrations import files

revision = "asking_4"
down_revision = "outside_3"


def upgrade() -> None:
    files.run("0004_asking_lifecycle.sql", "0004_asking_control.sql", "0004_asking_resting.sql")


def downgrade() -> None:
    op.execute("DROP FUNCTION runwire.suspend, runwire.lapse, runwire.claim, runwire.release, runwire.forgotten")
    op.execute("DROP FUNCTION runwire.control, runwire.open_run")
    op.execute("DELETE FROM runwire.transition WHERE status = 'waiting' OR type IN ('escalation', 'decision')")
    op.execute("ALTER TABLE runwire.head DROP COLUMN due_at, DROP COLUMN parked")
    files.run("0001_claim.sql", "0001_control.sql", "0001_grants.sql")
