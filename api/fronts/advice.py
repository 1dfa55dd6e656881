"""When to ask again: soon while a run speaks, later while it waits or says nothing, and at once on news."""

from typing import Final

from api.lines import InLine
from api.service import Service
from eventstore.catalogue import RunRow

SOON_S: Final = {"queued": 2, "running": 1, "waiting": 2, "stopping": 1}
ALWAYS_S: Final = 2  # no longer than this, while a run may stop because nobody reads it
SILENT_SHARE: Final = 0.1  # of the time that a run has been silent
PLACES_A_SECOND: Final = 5  # so far back in line, a run is asked for a second later


def retry_after(service: Service, run: RunRow, status: str | None, place: InLine | None) -> str:
    """Seconds, as a header says them."""
    soon = SOON_S.get(status or "", 1)
    if place is not None and place.position is not None:
        soon = max(soon, place.position // PLACES_A_SECOND)
    wait_s = max(soon, int(service.standings.silent_s(run) * SILENT_SHARE))
    most = service.settings.poll_retry_s_max if service.readers.unasked(run.run_id) else ALWAYS_S
    return str(min(wait_s, most))
