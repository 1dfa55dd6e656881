"""What the seal needs to go on: heads that rest, and setting blocks aside that are not those that were signed."""

from alembic import op

from migrations import files

revision = "outside_3"
down_revision = "seal_2"


def upgrade() -> None:
    files.run("0003_outside_resting.sql", "0003_outside_aside.sql")


def downgrade() -> None:
    op.execute("DROP FUNCTION runwire.block_aside, runwire.set_blocks_aside, runwire.wake_heads, runwire.rest_heads")
    op.execute("DROP TABLE runwire.block_set_aside")
    op.execute("ALTER TABLE runwire.head DROP COLUMN resting")
