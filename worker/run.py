"""What a workflow's code calls: every call is an event in the log, and after a crash the log answers for it.

    async def contract_review(run: Run, contract: Contract) -> Review:
        await run.milestone("Extracting clauses")
        clauses = await run.step("extract", extract_clauses, contract.text, returns=list[Clause])
        ...

Calls are made one after the other. Between them use only the input, their results and `run`: after a crash the code
runs again from the top, and whatever else it looked at may have changed.
"""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import structlog
from pydantic import BaseModel, TypeAdapter, ValidationError

from eventstore.domain import events, intake
from eventstore.domain.errors import NotStorable
from eventstore.recorder import RunWriter
from worker.asking import ASK_S, Answer, Asked, Asking
from worker.declare import Check, Tool, Workflow
from worker.digests import digest, plain
from worker.llm.model import Model, ModelEnd, ModelFault, ModelRequest
from worker.llm.retrying import FailedAttempt, RetryPolicy, with_retries
from worker.memo import Call, Memo
from worker.speech import Attempt, Shape, listen, recite
from worker.stops import Stop, StopReason, ValidationFailed, WorkflowFailed

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

logger = structlog.get_logger(__name__)

CHARS_PER_TOKEN = 4  # roughly, where a provider does not count; such usage is marked as an estimate
FINISH_MESSAGES: Mapping[str, str] = {
    "length": "The model reached its length limit before it was done.",
    "content_filter": "The model's provider withheld the answer because of what it says.",
    "refused": "The model declined to answer.",
}


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a model said, and how it ended."""

    text: str
    finish: str


class Run:
    """One owner's view of one run, for the workflow's code."""

    def __init__(
        self,
        workflow: Workflow,
        run_id: UUID,
        attempt: int,
        writer: RunWriter,
        memo: Memo,
        asked: Asked,
        model: Model,
        model_name: str,
        retries: RetryPolicy,
        clock_us: Callable[[], int],
    ) -> None:
        self.run_id = run_id
        self.attempt = attempt
        self.workflow = workflow
        self.usage = events.Usage()
        self.findings_made = 0
        self.model_closed_us: int | None = None
        self.validated: dict[str, int] = {}
        self._writer = writer
        self._memo = memo
        self._model = model
        self._model_name = model_name
        self._retries = retries
        self._clock_us = clock_us
        self._stopped: StopReason | None = None
        self._speaking: Attempt | None = None
        self._asking = Asking(writer, memo, asked, self._go_on)
        self.waits = self._asking.waits

    def aborted(self) -> events.Usage:
        """What the call that was under way when the run stopped has cost, as far as we can tell."""
        if self._speaking is None:
            return events.Usage()
        return events.Usage(output_tokens=len(self._speaking.text) // CHARS_PER_TOKEN, source="estimated")

    def stop(self, reason: StopReason) -> None:
        """From now on every call raises Stop, whatever the code caught before."""
        self._stopped = self._stopped or reason

    @property
    def stopped(self) -> StopReason | None:
        return self._stopped

    async def milestone(
        self, label: str, *, detail: str | None = None, done: int | None = None, of: int | None = None
    ) -> None:
        """Say where the run is, in the words of its plan."""
        self._go_on()
        index, milestone = self.workflow.milestone(label)
        key, known = self._memo.milestone(milestone.state)
        if not known:
            self._writer.push(
                events.Progress(
                    state=milestone.state,
                    label=label,
                    index=index,
                    total=len(self.workflow.milestones),
                    key=key,
                    detail=detail,
                    done=done,
                    of=of,
                )
            )

    async def step(self, name: str, fn: Callable[..., Any], *args: Any, returns: Any = Any) -> Any:
        """Do something once: its output is in the log before the code goes on, and a resumed run does not repeat it."""
        self._go_on()
        adapter: TypeAdapter[Any] = TypeAdapter(returns)
        call = self._memo.call("step", name, *args)
        if call.before is not None:
            return adapter.validate_python(call.before.data.get("output"))
        output = await fn(*args) if inspect.iscoroutinefunction(fn) else await asyncio.to_thread(fn, *args)
        told = adapter.dump_python(output, mode="json")
        await self._close(call, events.Step(name=name, status="ok", output=_storable(name, told), **call.closing()))
        return adapter.validate_python(told)

    async def tool(self, tool: Tool, **arguments: Any) -> Any:
        """Ask something outside. Only the arguments that the tool declares as shown are ever disclosed to a user."""
        self._go_on()
        call = self._memo.call("tool_result", tool.name, arguments)
        if call.before is not None:
            return call.before.data.get("output")
        call_id = f"{call.key}/{call.attempt}"
        self._writer.push(
            events.ToolCall(
                tool=tool.name,
                call_id=call_id,
                arguments=plain(arguments),
                shown={name: plain(arguments[name]) for name in tool.shown if name in arguments},
                key=call.key,
                attempt=call.attempt,
            )
        )
        began = time.monotonic()
        output, fault = await _ask(tool, arguments)
        count = len(output) if isinstance(output, list) else None
        await self._close(
            call,
            events.ToolResult(
                tool=tool.name,
                call_id=call_id,
                status="failed" if fault else "ok",
                summary=fault or (f"{count} found" if count is not None else "done"),
                result_count=count,
                duration_ms=round((time.monotonic() - began) * 1000),
                output=_storable(tool.name, output),
                **call.closing(),
            ),
        )
        return output

    async def model(
        self,
        name: str,
        messages: Sequence[Mapping[str, Any]],
        *,
        section: str,
        shape: Shape = "text",
        parameters: Mapping[str, Any] | None = None,
    ) -> Spoken:
        """Let a model speak into a section of the draft. A broken attempt is retried and its text is dead."""
        self._go_on()
        request = ModelRequest(self._model_name, tuple(messages), parameters or {})
        call = self._memo.call("model_call", name, list(messages), request.model, dict(request.parameters))
        if call.before is not None:
            self.usage = self.usage + events.Usage.model_validate(call.before.data["usage"])
            return _finished(Spoken(self._memo.text(call.key), call.before.data["finish"]))

        async def speak(attempt: Attempt) -> Spoken:
            try:
                end = await listen(self._model, request, attempt)
            finally:
                self.model_closed_us = self._clock_us()
            usage = _usage(end, attempt.text)
            self.usage = self.usage + usage
            await self._close(call, _model_call(call, attempt, request, end, usage, name, section))
            return Spoken(attempt.text, end.finish)

        return _finished(await self._attempts(call, section, shape, speak))

    async def value(
        self, name: str, messages: Sequence[Mapping[str, Any]], output: type[M], *, section: str = "values"
    ) -> M:
        """Let a model say a value of this type. Its JSON is kept apart from the draft text that people read."""
        parameters = {"response_format": {"type": "json_object"}}
        said = await self.model(name, messages, section=section, shape="json", parameters=parameters)
        try:
            return output.model_validate(intake.parse(said.text.encode(), 1_048_576))
        except (ValidationError, NotStorable) as fault:
            raise WorkflowFailed(
                "malformed", "The model's answer does not have the form that was asked for.", retryable=True
            ) from fault

    async def draft(self, name: str, source: Callable[[], AsyncIterator[str]], *args: Any, section: str) -> str:
        """Draft text that the workflow's own code speaks, piece by piece; otherwise like `model`."""
        self._go_on()
        call = self._memo.call("step", name, *args)
        if call.before is not None:
            return self._memo.text(call.key)

        async def speak(attempt: Attempt) -> str:
            await recite(source(), attempt)
            output = {"chars": len(attempt.text)}
            closing = {**call.closing(), "attempt": attempt.number}
            await self._close(call, events.Step(name=name, status="ok", output=output, **closing))
            return attempt.text

        return await self._attempts(call, section, "text", speak)

    async def finding(self, value: BaseModel, *, item: str) -> None:
        """One interim result. It is a draft like everything before the result."""
        self._go_on()
        call = self._memo.call("finding", f"finding/{item}", value)
        self.findings_made += 1
        if call.before is None:
            await self._close(call, events.Finding(item=item, value=plain(value), **call.closing()))

    async def validate(self, value: M, checks: Sequence[Check]) -> M:
        """The gate: only a value that passed here can be returned. Raises ValidationFailed, naming what failed."""
        self._go_on()
        call = self._memo.call("validation", "validate", value)
        if call.before is not None:
            told = call.before.data
            failed = [check["name"] for check in told["checks"] if not check["passed"]]
            seq = call.before.seq
        else:
            outcomes = [events.CheckOutcome(name=check.name, passed=_passes(check, value)) for check in checks]
            failed = [outcome.name for outcome in outcomes if not outcome.passed]
            body = events.Validation(
                passed=not failed, checks=outcomes, value_digest=digest(value), seqs=[], **call.closing()
            )
            seq = await self._close(call, body)
        if failed:
            raise ValidationFailed(failed)
        self.validated[digest(value)] = seq
        return value

    async def ask(
        self,
        name: str,
        question: str,
        *,
        to: str,
        choices: Sequence[str] = (),
        answer: type[BaseModel] | None = None,
        wait_s: float = ASK_S,
        default: Any = None,
    ) -> Answer:
        """Ask a person and wait, for days if need be; no worker is held meanwhile."""
        return await self._asking.ask(name, question, to, choices, answer, wait_s, default)

    async def sleep(self, name: str, seconds: float) -> None:
        """Go on after so long, by the database's clock; no worker is held meanwhile."""
        await self._asking.sleep(name, seconds)

    async def _attempts(self, call: Call, section: str, shape: Shape, speak: Callable[[Attempt], Awaitable[T]]) -> T:
        async def once(number: int) -> T:
            self._go_on()
            self._speaking = Attempt(self._writer, call.key, section, shape, call.attempt + number - 1)
            said = await speak(self._speaking)
            self._speaking = None
            return said

        async def failed(told: FailedAttempt) -> None:
            assert self._speaking is not None
            attempt = self._speaking.number
            dead = await self._speaking.said()
            await self._writer.record(
                events.Retry(
                    what="model",
                    key=call.key,
                    reason=told.fault.code,
                    message=told.fault.message_safe,
                    superseded=dead,
                    attempt=attempt,
                    next_attempt=attempt + 1 if told.next_attempt is not None else None,
                    wait_s=round(told.wait_s, 3),
                )
            )

        try:
            return await with_retries(once, failed, policy=self._retries)
        except ModelFault as fault:
            raise WorkflowFailed(fault.code, fault.message_safe, retryable=fault.retryable) from fault

    async def _close(self, call: Call, body: events.Body) -> int:
        entry = await self._writer.record(body)
        assert entry.seq is not None
        return entry.seq

    def _go_on(self) -> None:
        if self._stopped is not None:
            raise Stop(self._stopped)


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


def _passes(check: Check, value: Any) -> bool:
    try:
        return bool(check.passes(value))
    except Exception:  # a check that cannot be carried out has not been passed
        logger.exception("a check could not be carried out", check=check.name)
        return False


def _finished(said: Spoken) -> Spoken:
    if said.finish != "stop":
        message = FINISH_MESSAGES.get(said.finish, "The model ended its answer for a reason that is not known here.")
        raise WorkflowFailed(f"model_{said.finish}"[:64], message, retryable=said.finish == "length")
    return said


def _usage(end: ModelEnd, text: str) -> events.Usage:
    if end.usage is None:
        return events.Usage(output_tokens=max(1, len(text) // CHARS_PER_TOKEN), source="estimated")
    return events.Usage(
        input_tokens=end.usage.input_tokens,
        output_tokens=end.usage.output_tokens,
        reasoning_tokens=end.usage.reasoning_tokens,
        source="provider",
    )


def _model_call(
    call: Call, attempt: Attempt, request: ModelRequest, end: ModelEnd, usage: events.Usage, name: str, section: str
) -> events.ModelCall:
    first_ms = end.first_piece_ms
    spoken_ms = end.total_ms - (first_ms or 0.0)
    return events.ModelCall(
        name=name,
        section=section,
        model=request.model,
        model_served=end.model_served,
        parameters=dict(request.parameters),
        prompt_digest=digest([dict(message) for message in request.messages]),
        finish=end.finish,
        usage=usage,
        first_piece_ms=round(first_ms) if first_ms is not None else None,
        per_piece_ms=round(spoken_ms / end.pieces, 2) if end.pieces else None,
        pieces=end.pieces,
        request_id=end.request_id,
        **{**call.closing(), "attempt": attempt.number},
    )
