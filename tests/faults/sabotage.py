"""Takes one safeguard out of a database, to see that a fault run without it does not pass."""

from typing import Final

import psycopg

_FENCE: Final = "IF p_epochs[i] IS DISTINCT FROM h.epoch OR h.epoch = 0 THEN"
_DUPLICATE: Final = "ELSIF p_counts[i] > 0 AND p_batches[i] IS NOT DISTINCT FROM h.batch_no THEN"
_IN_ORDER: Final = "ELSIF p_counts[i] > 0 AND p_batches[i] IS DISTINCT FROM h.batch_no + 1 THEN"
SAFEGUARDS: Final = {
    "durability": [],
    "duplicates": [_DUPLICATE, _IN_ORDER],  # a batch sent twice is stored twice
    "fence": [_FENCE, _DUPLICATE, _IN_ORDER],  # who was superseded goes on writing
}


def take_out(connection: psycopg.Connection, safeguard: str) -> None:
    """Without durability, by a setting of the database; without a condition of `append`, by making it never hold."""
    if safeguard == "durability":
        connection.execute(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database()); END $$"
        )
    if conditions := SAFEGUARDS[safeguard]:
        found = connection.execute("SELECT pg_get_functiondef('runwire.append'::regproc)").fetchone()
        source = found[0] if found else ""
        for condition in conditions:
            assert source.count(condition) == 1, f"append no longer says {condition}"
            source = source.replace(condition, f"{condition.split()[0]} false THEN")
        connection.execute(source)
