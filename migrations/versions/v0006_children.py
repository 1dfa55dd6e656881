"""Runs that another run asks for: opened once, by its owner, and waking it when they have ended."""

from alembic import op

from migrations import files

revision = "children_6"
down_revision = "queue_5"


def upgrade() -> None:
    files.run("0006_children.sql")


def downgrade() -> None:
    op.execute("DROP TRIGGER wakes_parent ON runwire.head")
    op.execute("DROP FUNCTION runwire.open_child, runwire.stop_child, runwire.wake_parent")
    files.run("0006_children_undone.sql")
    op.execute("DROP TABLE runwire.child")
    op.execute("ALTER TABLE runwire.head DROP COLUMN nudged")
