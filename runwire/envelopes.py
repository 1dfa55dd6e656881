"""From what the server says to typed events. What is not known here passes through as a plain `Event`."""

from collections.abc import Mapping
from typing import Any, Final

from runwire.catalogue import EVENTS
from runwire.event import EPHEMERAL, Event, LaggingEvent, ResetEvent

CHECKPOINT: Final = "checkpoint"  # a place in the log, for readers who leave most events out
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


def place_of(event: Event) -> int:
    """How far a frame that is in no log brings its reader: what comes again at or before it is known already."""
    if event.type == "lagging":
        return _whole(event.data.get("last"))
    seen = event.data.get("seen") if event.type == "reset" else None
    return _whole(seen.get("seq")) if isinstance(seen, dict) else 0


def gathered(event: Event, at: str) -> list[Event]:
    """The pieces of draft text in a `lagging` frame as the events that they were, in order; all of them at one time."""
    if event.type != "lagging":
        return []
    try:
        events = [
            event_of(
                {
                    "seq": seq,
                    "run_id": event.run_id,
                    "type": draft["type"],
                    "at": at,
                    "attempt": draft["attempt"],
                    "final": False,
                    "data": {**draft["shared"], **({"text": text[0]} if text else {})},
                }
            )
            for draft in event.data.get("drafts") or ()
            for seq, *text in draft["pieces"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise NoEvent("draft text was gathered in a form that is not known here") from error
    return sorted(events, key=lambda one: one.seq)


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
