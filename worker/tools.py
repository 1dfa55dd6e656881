"""A tool's call: what is asked is told first, what came back is told before anybody acts on it."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import structlog

from eventstore.domain import events, intake
from eventstore.domain.errors import NotStorable
from eventstore.recorder import Entry
from worker.branches import Branch
from worker.declare import Tool
from worker.digests import plain
from worker.history import Range
from worker.memo import Call
from worker.speaking import STOPPED
from worker.stops import WorkflowFailed
from worker.work import Work

logger = structlog.get_logger(__name__)


class Asked:
    """A tool that has been asked and has not answered."""

    def __init__(self, work: Work, call: Call, entry: Entry) -> None:
        self._work = work
        self._call = call
        self._entry = entry

    async def said(self) -> list[Range]:
        """Where the question stands in the log."""
        seq = (await self._work.writer.stored(self._entry)).seq
        assert seq is not None
        return [(seq, seq)]

    async def taken_back(self) -> None:
        """No attempt follows."""
        call = self._call
        await self._work.retry("step", call.key, STOPPED, await self.said(), call.attempt, again=False)


async def use_tool(work: Work, branch: Branch, call: Call, tool: Tool, arguments: Mapping[str, Any]) -> Any:
    """Ask, and store what came back; a tool that fails has a failed result, which the code reads."""
    await work.outside(branch)
    call_id = f"{call.key}/{call.attempt}"
    entry = work.writer.push(
        events.ToolCall(
            tool=tool.name,
            call_id=call_id,
            arguments=plain(arguments),
            shown={name: plain(arguments[name]) for name in tool.shown if name in arguments},
            key=call.key,
            attempt=call.attempt,
        )
    )
    asked = Asked(work, call, entry)
    branch.open = asked
    began = time.monotonic()
    output, fault = await _ask(tool, arguments)
    count = len(output) if isinstance(output, list) else None
    body = events.ToolResult(
        tool=tool.name,
        call_id=call_id,
        status="failed" if fault else "ok",
        summary=fault or (f"{count} found" if count is not None else "done"),
        result_count=count,
        duration_ms=round((time.monotonic() - began) * 1000),
        output=_storable(tool.name, output),
        **call.closing(),
    )
    await work.close(branch, body, said=asked.said)
    return output


async def _ask(tool: Tool, arguments: Mapping[str, Any]) -> tuple[Any, str | None]:
    """The tool's plain output, or None and a line for people. What went wrong inside is for the process's own log."""
    try:
        async with asyncio.timeout(tool.timeout_s):
            return plain(await tool.fn(**arguments)), None
    except TimeoutError:
        return None, f"no answer within {tool.timeout_s:g} s"
    except Exception:  # a tool is an outside: whatever it raises is a failed result that the code reads
        logger.exception("a tool failed", tool=tool.name)
        return None, "failed"


def _storable(name: str, value: Any) -> Any:
    try:
        intake.check(value)
    except NotStorable as fault:
        raise WorkflowFailed("not_storable", f"The output of {name} cannot be stored: {fault}") from fault
    return value
