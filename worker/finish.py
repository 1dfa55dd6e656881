"""The last thing that an owner says of a run: exactly one of `result`, `cancelled` and `error`.

The log decides every race. A result that comes after a cancel request is refused by the append, and the run ends
`cancelled` with the validated value as its partial result.
"""

from collections.abc import Callable

from pydantic import BaseModel

from eventstore.domain import events
from eventstore.domain.errors import AppendRefused, NotStorable
from eventstore.domain.run import RunState
from eventstore.domain.transcript import partial as default_partial
from eventstore.run_writer import RunWriter
from worker import endings
from worker.children import Children
from worker.declare import Workflow
from worker.digests import digest
from worker.limits import LimitReached
from worker.metrics import WorkerMetrics
from worker.stops import WorkflowFailed
from worker.told import Told
from worker.work import Work


class Finish:
    """How one owner ends its run."""

    def __init__(
        self,
        writer: RunWriter,
        told: Told,
        clock_us: Callable[[], int],
        metrics: WorkerMetrics,
        assemble_s: float,
        children: Children,
    ) -> None:
        self.over = False  # whether the terminal event is in the log
        self._children = children
        self._writer = writer
        self._told = told
        self._clock_us = clock_us
        self._metrics = metrics
        self._assemble_s = assemble_s

    async def result(self, workflow: Workflow, run: Work, output: BaseModel) -> None:
        """The value that the code returned, if this very value was validated."""
        if digest(output) not in run.validated:
            await self.error(workflow, "not_validated", "The workflow returned a value that was not validated.")
            return
        if len(output.model_dump_json().encode()) > run.limits.output_bytes_max:
            await self.failed(workflow, LimitReached("output_bytes_max"))
            return
        state = await self._last_state()
        try:
            await self._say(endings.result(output, state, state.usage, len(run.memo.changed)))
        except NotStorable as fault:
            await self.error(workflow, "not_storable", str(fault))
        except AppendRefused:
            if self._writer.drop_refused() is None or not self._writer.cancel.is_set():
                raise
            await self.observed(run, self._clock_us())
            await self.cancelled(workflow, run, validated=True)

    async def observed(self, run: Work, seen_us: int) -> None:
        """The request to stop was seen, and what was under way was cut off."""
        try:
            await self._writer.flush()
        except AppendRefused:  # what was on its way has no place in the log of a run that stops: a question
            if self._writer.drop_refused() is None or not self._writer.cancel.is_set():
                raise
        self._writer.push(
            events.CancelObserved(seen_us=seen_us, model_closed_us=run.model_closed_us, usage=run.aborted())
        )

    async def cancelled(self, workflow: Workflow | None, run: Work | None, *, validated: bool = False) -> None:
        """Somebody asked the run to stop."""
        state = await self._last_state()
        made = await self._assemble(workflow, state)
        if run is not None:
            made.missing.extend(f"whether {effect.name} took place" for effect in run.effects.values())
        await self._say(endings.cancelled(state.cancel, made, validated))
        for asked in (fact for fact in self._told.facts if fact.type == "cancel_requested"):
            self._metrics.cancelled(asked.at_us, self._writer.last_us)

    async def failed(self, workflow: Workflow | None, fault: WorkflowFailed) -> None:
        """The run cannot go on, for a reason that may be shown."""
        await self.error(workflow, fault.code, fault.message, retryable=fault.retryable, call=fault.call)

    async def error(
        self, workflow: Workflow | None, code: str, message: str, *, retryable: bool = False, call: str | None = None
    ) -> None:
        """The same, said in words of the runner's."""
        state = await self._last_state()
        made = await self._assemble(workflow, state)
        try:
            await self._say(endings.error(code, message, made, retryable=retryable, call=call))
        except AppendRefused:
            if self._writer.drop_refused() is None:
                raise
            await self.cancelled(workflow, None)

    async def _say(self, body: events.Body) -> None:
        await self._writer.record(body)
        self.over = True

    async def _last_state(self) -> RunState:
        """What the terminal event is made of. Runs below that end with this one are asked to before it is said."""
        state = await self._told.state()
        if state.children:
            await self._children.stop(self._writer.run_id, self._writer.epoch, state)
        return state

    async def _assemble(self, workflow: Workflow | None, state: RunState) -> endings.Assembled:
        if workflow is None:
            return endings.Assembled(default_partial(state), "default", [m["label"] for m in state.plan])
        return await endings.assemble(workflow, state, self._assemble_s)
