"""An event that this owner has stored, as whoever reads the log later meets it."""

from pydantic_core import from_json

from eventstore.domain import events
from eventstore.domain.record import Fact
from eventstore.run_writer import Entry


def fact_of(entry: Entry, body: events.Body) -> Fact:
    """The stored event."""
    assert entry.seq is not None
    assert entry.recorded_us is not None
    data = from_json(entry.frozen().body)
    return Fact(entry.seq, body.type_, entry.recorded_us, data.get("attempt", 0), data)
