"""The log: events, heads, append, claim, control, partitions, roles."""

from alembic import op

from migrations import files

revision = "log_1"
down_revision = None


def upgrade() -> None:
    files.run(
        "0001_roles.sql",
        "0001_tables.sql",
        "0001_lifecycle.sql",
        "0001_chain.sql",
        "0001_partitions.sql",
        "0001_append.sql",
        "0001_claim.sql",
        "0001_control.sql",
        "0001_grants.sql",
    )


def downgrade() -> None:
    # The roles stay: they belong to the server, and other databases of it may use them.
    op.execute("DROP SCHEMA runwire CASCADE")
