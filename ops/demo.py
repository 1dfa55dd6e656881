"""The first thing a newcomer runs: everything started, one contract reviewed before their eyes, everything stopped."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ops.client import Client, Stopped
from ops.devkeys import stored_keys
from ops.display import display_for
from ops.exits import FAILED, INTERRUPTED, Complaint
from ops.following import Following
from ops.ports import check_port, free_port
from ops.reading import first_sample, verdict
from ops.running import Running
from ops.up import Options, everything

WORKFLOW: Final = "contract_review"
HOST: Final = "127.0.0.1"

Say = Callable[[str], None]


class _Showing:
    """One sample run from submission to verification."""

    def __init__(self, address: str, user_key: str, officer_key: str, say: Say) -> None:
        self.run_id = ""
        self.code = FAILED
        self.fault: Complaint | None = None
        self.stop = threading.Event()
        self._address = address
        self._user_key = user_key
        self._officer_key = officer_key
        self._say = say

    def go(self) -> None:
        """The whole of it; what is wrong is kept for whoever started this."""
        try:
            self._go()
        except Stopped:
            self.code = INTERRUPTED
        except Complaint as complaint:
            self.fault = complaint

    def _go(self) -> None:
        with Client(self._address, self._user_key, stop=self.stop) as client:
            self.run_id = str(client.submit(WORKFLOW, first_sample(client, WORKFLOW))["id"])
            self.code = Following(client, self.run_id).to_the_end(display_for(as_json_lines=False))
        with Client(self._address, self._officer_key, stop=self.stop) as officer:
            found = officer.verify(self.run_id)
        self._say(verdict(found))
        if not found["ok"]:
            self.code = FAILED


def show(data: Path, port: int, command: str, say: Say) -> int:
    """The demonstration; answers its exit code. One that runs already is used, and left running."""
    if (running := Running.found(data)) is not None:
        say(f"Using the Runwire that already runs at {running.address}.")
        keys = stored_keys(data)
        if not {"user", "officer"} <= keys.keys():
            raise Complaint(f"there are no keys in {data}", FAILED, "stop that one and start again")
        showing = _Showing(running.address, keys["user"], keys["officer"], say)
        showing.go()
        return _told(showing, say, f"Open {running.address}/#/runs/{showing.run_id}", command)
    try:
        check_port(HOST, port)
    except Complaint:
        port = free_port(HOST)
    with everything(Options(HOST, port, data, workers=1), say) as up:
        if not up.ready:
            return INTERRUPTED
        showing = _Showing(up.address, up.keys["user"], up.keys["officer"], say)
        # The children end with the thread that started them, so this one watches over them and the other one shows.
        thread = threading.Thread(target=showing.go, name="demo", daemon=True)
        thread.start()
        up.supervisor.run(until=lambda: not thread.is_alive())
        showing.stop.set()
        thread.join(5.0)
        if thread.is_alive() or showing.code == INTERRUPTED:
            return INTERRUPTED
    return _told(showing, say, f"Start it with `make run` and open http://{HOST}:8080/#/runs/{showing.run_id}", command)


def _told(showing: _Showing, say: Say, where: str, command: str) -> int:
    if showing.fault is not None:
        raise showing.fault
    say("")
    say(f"To see this run in the browser: {where}")
    say("   (sign in with the user key that the start prints)")
    say(f"To see it again as it happened, while it runs: {command} replay {showing.run_id} --speed 4")
    return showing.code
