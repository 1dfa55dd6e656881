"""What an earlier owner of a run left half said, named by the next one so that no reader and no fold keeps it."""

from eventstore.domain import events
from worker.history import History


def superseding(history: History) -> list[events.Retry]:
    """What an earlier owner left open, said to be dead; the memory forgets it."""
    told = []
    for key, dead in history.left_open():
        attempt = history.attempts[key]
        told.append(
            events.Retry(
                what="run",
                key=key,
                reason="worker_lost",
                message=f"Another worker took the run over; this part {'starts again' if dead else 'goes on'}.",
                superseded=dead,
                attempt=attempt,
                next_attempt=None if history.cancel else attempt + 1,
            )
        )
        history.bury(dead)
    return told
