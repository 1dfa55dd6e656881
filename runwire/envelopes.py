"""From what the server says to typed events. What is not known here passes through as a plain `Event`."""

from collections.abc import Mapping
from typing import Any, Final

from runwire.catalogue import EVENTS
from runwire.event import EPHEMERAL, Event, LaggingEvent, ResetEvent

OUTSIDE_THE_LOG: Final[Mapping[str, type[Event]]] = {"lagging": LaggingEvent, "reset": ResetEvent}


class NoEvent(ValueError):
    """What came is no event of a run."""


def event_of(envelope: object, type_: str = "", *, in_log: bool = True) -> Event:
    """The event in an envelope; `type_` is the name that the stream gave it. What is in no log has no place of its own,
    whatever it speaks of."""
    if not isinstance(envelope, dict):
        raise NoEvent("an event is no JSON object")
    kind = str(envelope.get("type") or type_)
    data = envelope.get("data")
    if not in_log or kind in EPHEMERAL:
        # Their whole body is what they say, unless they have the envelope's form.
        return _made(OUTSIDE_THE_LOG.get(kind, Event), 0, kind, envelope, data if isinstance(data, dict) else envelope)
    seq = envelope.get("seq")
    if not isinstance(seq, int) or isinstance(seq, bool) or seq < 1:
        raise NoEvent("an event has no place in the log")
    return _made(EVENTS.get(kind, Event), seq, kind, envelope, data if isinstance(data, dict) else {})


def _made(kind: type[Event], seq: int, type_: str, told: Mapping[str, Any], data: Mapping[str, Any]) -> Event:
    return kind(
        seq=seq,
        run_id=str(told.get("run_id", "")),
        type=type_,
        at=str(told.get("at", "")),
        attempt=_whole(told.get("attempt")),
        final=told.get("final") is True,
        data=data,
        envelope=told,
    )


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
