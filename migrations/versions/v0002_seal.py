"""The seal: blocks of moved heads, their log, signed checkpoints, one leading sealer, and the gate of the log."""

from alembic import op

from migrations import files

revision = "seal_2"
down_revision = "log_1"


def upgrade() -> None:
    files.run(
        "0002_roles.sql",
        "0002_tables.sql",
        "0002_sealing.sql",
        "0002_gate.sql",
        "0002_grants.sql",
    )


def downgrade() -> None:
    # The role stays: it belongs to the server, and other databases of it may use it.
    op.execute("DROP TRIGGER log_is_shut ON runwire.event")
    op.execute("DROP FUNCTION runwire.refuse_while_shut, runwire.shut_gate, runwire.open_gate")
    op.execute("DROP FUNCTION runwire.lead, runwire.lead_over, runwire.add_block, runwire.put_block")
    op.execute("DROP FUNCTION runwire.pin, runwire.keep_checkpoint, runwire.rebuild_sealed")
    op.execute("DROP TABLE runwire.block, runwire.checkpoint, runwire.sealed, runwire.sealer, runwire.gate")
    op.execute("DROP TABLE runwire.identity")
