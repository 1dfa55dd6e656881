"""A run that begins anew because the code that began it is gone: all that it said is taken back, once, in the log.

Only a workflow that says so (`on_gap="restart"`) begins a run anew, and only a run that did nothing outside, opened no
child and asked nobody: what was done must not be done again without anybody knowing.
"""

from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import queue
from eventstore.domain import events
from eventstore.run_writer import RunWriter
from worker.declare import Workflow
from worker.giving_up import GONE, GivenUp
from worker.history import History


def _may(why: GivenUp, history: History, workflow: Workflow) -> bool:
    if why is not GONE or workflow.on_gap != "restart":
        return False
    calls = [*history.closed.values(), *history.intents.values()]
    return not history.at_end and not any(call.effect or call.fact.type == "escalation" for call in calls)


async def begin_anew(
    engine: AsyncEngine, writer: RunWriter, history: History, workflow: Workflow | None, why: GivenUp
) -> bool:
    """Whether this run that is to be given up begins again from nothing instead: then the log says so, and under which
    version it goes on."""
    if workflow is None or not _may(why, history, workflow):
        return False
    attempt = history.attempts.get("run", 0) + 1
    writer.push(
        events.Retry(
            what="run",
            key="run",
            reason="version_gone",
            message="The code that began this run is gone; it begins anew.",
            superseded=[(2, history.last_seq)] if history.last_seq > 1 else [],
            attempt=attempt,
            next_attempt=attempt + 1,
            version=workflow.version,
        )
    )
    await writer.flush()
    async with engine.begin() as connection:
        await queue.move_on(connection, writer.run_id, writer.epoch, workflow.version)
    history.begin_anew(workflow.version)
    return True
