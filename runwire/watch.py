"""The time-out that httpx has not: until the first byte of a body, and another one for those after it."""

import threading
from contextlib import suppress
from socket import SHUT_RDWR
from typing import Any

import httpx


class Watch:
    """Ends a stream whose first byte does not come. httpx knows one time-out for all bytes of a body, and later ones
    may take longer, so a thread shuts the socket down."""

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None
        self._fired = False

    def over(self, response: httpx.Response, seconds: float) -> None:
        """Watch it from now on."""
        stream = response.extensions.get("network_stream")
        socket = stream.get_extra_info("socket") if stream is not None else None
        if socket is not None:
            self._timer = threading.Timer(seconds, self._end, [socket])
            self._timer.daemon = True
            self._timer.start()

    def stop(self) -> bool:
        """Watch no longer; True when the time was up."""
        if self._timer is not None:
            self._timer.cancel()
        return self._fired

    def _end(self, socket: Any) -> None:
        self._fired = True
        with suppress(OSError):
            socket.shutdown(SHUT_RDWR)


def be_patient(response: httpx.Response, silence_s: float | None) -> None:
    """From the answer on, another time-out counts: httpcore reads it when it begins with the body."""
    limits = response.request.extensions.get("timeout")
    if isinstance(limits, dict):
        limits["read"] = silence_s
