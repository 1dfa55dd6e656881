"""Tells whoever reads a run that it waits for the model's provider: as the detail of the milestone that it is at."""

from typing import Final

from eventstore.domain import events
from eventstore.run_writer import RunWriter

WAITING: Final = "waiting for the model provider"


class WaitingNotice:
    """One owner's notices. However many calls wait beside each other, it is told once, and once that it is over."""

    def __init__(self, writer: RunWriter) -> None:
        self._writer = writer
        self._waiting = 0
        self._told = 0
        self.at: events.Progress | None = None  # the milestone that was told last

    def begins(self) -> None:
        """One more call waits."""
        self._waiting += 1
        if self._waiting == 1:
            self._tell(WAITING)

    def ends(self) -> None:
        """One less."""
        self._waiting -= 1
        if self._waiting == 0:
            self._tell(None)

    def _tell(self, detail: str | None) -> None:
        if self.at is not None and self._writer.fault is None:
            self._told += 1
            key = f"waiting#{self._writer.epoch}.{self._told}"
            self._writer.push(self.at.model_copy(update={"key": key, "detail": detail or self.at.detail}))
