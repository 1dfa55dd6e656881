"""One page of a run's frames, for readers who ask instead of listening."""

from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from api.fronts.feed import Feed, Frame
from api.negotiation import size
from api.settings import ApiSettings
from api.states import Pages
from eventstore.log import PAGE_BYTES_MAX
from eventstore.tail import Entry

LOOKS_MAX: Final = 8  # pages of the log read for one answer: a view that shows little must not read the whole run


@dataclass(frozen=True, slots=True)
class Page:
    """Frames, and the cursor to go on from; it lies behind events that the view withholds."""

    frames: list[Frame]
    next_after: int
    taken: list[Entry] = field(default_factory=list)  # what the frames were made of, and what was withheld between

    def body(self, last_seq: int) -> dict[str, Any]:
        """As answers hold it: the envelopes with the very bytes that streams send."""
        return {
            "events": [orjson.Fragment(frame.data) for frame in self.frames],
            "next_after": self.next_after,
            "more": self.next_after < last_seq,
        }


async def page_of(pages: Pages, feed: Feed, limit: int | None, settings: ApiSettings, *, keep: bool = False) -> Page:
    """The next frames: at most `limit`, and no further look once they hold a page's bytes. With `keep` the events that
    were gone over are kept too."""
    wanted = size(limit, settings.page_events_default, settings.page_events_max)
    frames: list[Frame] = []
    taken: list[Entry] = []
    held = 0
    for _ in range(LOOKS_MAX):
        if feed.closed:
            break
        stored = await pages.after(feed.cursor)
        shown = feed.take(stored.entries, wanted - len(frames))
        if keep:
            taken += [entry for entry in stored.entries if entry.seq <= feed.cursor]
        frames += shown
        held += sum(len(frame.data) for frame in shown)
        if len(frames) >= wanted or held >= PAGE_BYTES_MAX or not stored.more:
            break
    return Page(frames, feed.cursor, taken)
