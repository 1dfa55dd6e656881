"""A submission that continues an earlier run: what it takes from that run, and when it may not."""

from dataclasses import dataclass, replace
from typing import Any

import orjson
from pydantic_core import from_json

from api.access import see
from api.callers import Caller
from api.errors import CannotContinue, Fault, InvalidInput, NothingToContinue
from api.offers import Offer
from api.service import Service
from api.submission import OMITTED, Wish
from eventstore import catalogue, log
from eventstore.domain.errors import UnknownRun
from eventstore.domain.events import Continues, Origin


@dataclass(frozen=True, slots=True)
class Earlier:
    """The run that is continued: where its log ended, and the version that it ran under."""

    told: Continues
    version: int

    def check(self, offer: Offer) -> None:
        """Whether some worker carries runs of its version. One that does not say which it carries is of a release that
        would begin the run from nothing, and do again what was done."""
        if self.version not in (offer.manifest.resumes or ()):
            detail = f"No worker goes on with runs of version {self.version} of this workflow: start a new run."
            raise CannotContinue(detail)


async def continued(service: Service, caller: Caller, wish: Wish) -> tuple[Wish, Earlier | None]:
    """What is wanted, filled in from the run that it continues, if it continues one."""
    if wish.continues is None:
        return wish, None
    async with service.reading.connect() as connection:
        try:
            run = (await see(connection, service, caller, wish.continues)).run
        except UnknownRun as fault:
            raise NothingToContinue(faults=[Fault("/continues", "is no run of yours")]) from fault
        if run.status == "completed":
            raise CannotContinue("The run has its result: there is nothing left of it to do.")
        if run.status not in ("failed", "cancelled"):
            raise CannotContinue("The run has not ended. Wait for its end, or stop it first.")
        if wish.workflow not in ("", run.workflow):
            raise InvalidInput(faults=[Fault("/workflow", "is not the workflow of the run that is continued")])
        before = await catalogue.read_input(connection, run.run_id)
        accepted, version, last = None, 0, None
        after, more = 0, True
        while more:
            page = await log.read_after(connection, run.run_id, after)
            for event in page.events:
                if event.type == "accepted":
                    accepted = event
                    version = int(from_json(event.body)["workflow_version"])
                elif event.type == "retry":  # it may have begun anew, under another version
                    version = int(from_json(event.body).get("version") or version)
            last = page.events[-1] if page.events else last
            after, more = (last.seq if last is not None else 0), page.more
    if accepted is None or last is None or before is None:
        raise CannotContinue("Its log or its input is not there any more.")
    value = from_json(before)
    if wish.input is not OMITTED and _same(wish.input) != _same(value):
        detail = "differs from the input of the run that is continued: leave it out, or start a run of its own"
        raise InvalidInput(faults=[Fault("/input", detail)])
    origin = (from_json(accepted.body).get("continues") or {}).get("origin")
    first = Origin.model_validate(origin) if origin else Origin(run_id=str(run.run_id), at_us=accepted.recorded_us)
    told = Continues(run_id=str(run.run_id), seq=last.seq, chain=last.chain.hex(), origin=first)
    title = wish.title if wish.title is not None else run.title
    filled = replace(wish, workflow=run.workflow, input=value, title=title)
    return filled, Earlier(told, version)


def _same(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
