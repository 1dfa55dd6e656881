"""Runs that ask for readers, and the API processes that tell who reads."""

from alembic import op

from migrations import files

revision = "readers_7"
down_revision = "children_6"


def upgrade() -> None:
    files.run("0007_readers.sql")


def downgrade() -> None:
    op.execute("DROP FUNCTION runwire.abandon, runwire.unread, runwire.reported, runwire.unread_at")
    op.execute("DROP FUNCTION runwire.report_readers, runwire.expect_readers, runwire.readers_grain")
    op.execute("DROP TABLE runwire.readership, runwire.reporter")
