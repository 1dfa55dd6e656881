"""The first thing that a run does which continues another: what that one had finished is copied into its own log.

It is copied before the code begins, in the order in which it stood there, and the last event says that it is the last.
An owner that dies on the way leaves the beginning of a list that the next one makes again from the same ended log, and
goes on with.
"""

from typing import Any, Final
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import log
from eventstore.domain import events
from eventstore.domain.errors import NotStorable
from eventstore.domain.record import Fact
from eventstore.run_writer import Entry, RunWriter
from worker.history import History, read_history
from worker.stops import WorkflowFailed
from worker.taking import Copy, taken_over
from worker.told import Told, read_facts

WAITING_CHARS_MAX: Final = 4_194_304  # how much of it may wait to be stored


async def take_over(engine: AsyncEngine, writer: RunWriter, told: Told, history: History) -> History | None:
    """The run's memory with what it has just taken over; None when nothing of that was left to do. Raises
    WorkflowFailed when the earlier run's log is not there as it was."""
    continues = history.accepted.data.get("continues")
    if continues is None or history.taken_all or history.anew is not None:
        return None
    earlier = events.Continues.model_validate(continues)
    copies = taken_over(await _read(engine, earlier))
    left = [copy for copy in copies if copy.seq > history.taken_to]
    if not left:
        return None
    placed = {fact.data["taken"]["seq"]: fact.seq for fact in told.facts if "taken" in fact.data}
    under_way: dict[int, Entry] = {}
    for copy in left:
        if copy.replaces is not None or writer.waiting[1] > WAITING_CHARS_MAX:
            await writer.flush()
            placed |= {seq: entry.seq or 0 for seq, entry in under_way.items()}
            under_way = {}
        body = as_taken(copy, earlier.run_id, placed.get(copy.replaces or 0), last=copy is left[-1])
        under_way[copy.seq] = writer.push(body)
    await writer.flush()
    return read_history(await told.read_on())


async def _read(engine: AsyncEngine, earlier: events.Continues) -> list[Fact]:
    run_id = UUID(earlier.run_id)
    async with engine.connect() as connection:
        head = await log.head(connection, run_id)
    if head is None or (head.seq, head.chain.hex()) != (earlier.seq, earlier.chain):
        raise WorkflowFailed("continued_gone", "The run that this one continues is not there any more as it ended.")
    return await read_facts(engine, run_id)


def as_taken(copy: Copy, run_id: str, replaces: int | None, *, last: bool) -> events.Body:
    """The event as the new log has it. Raises WorkflowFailed when this release cannot say it."""
    taken = events.Taken(run_id=run_id, seq=copy.seq, at_us=copy.at_us, last=last or None)
    model = events.BODIES[copy.type]
    data: dict[str, Any] = {**copy.data, "taken": taken}
    if replaces is not None:
        data["replaces"] = replaces
    try:
        # What a newer release says of it besides is left out.
        body = model.model_validate({name: value for name, value in data.items() if name in model.model_fields})
        events.new_event(body, 0)
    except (ValidationError, NotStorable) as fault:
        message = f"What the run that this one continues says in event {copy.seq} cannot be taken over."
        raise WorkflowFailed("continued_gone", message) from fault
    return body
