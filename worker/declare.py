"""How a workflow is declared: its name, models, milestones in product language, limits, and how a stop is answered."""

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import orjson
import structlog
from pydantic import BaseModel, ValidationError

from eventstore.domain.events import UNREAD_S_MIN, Milestone, OnDisconnect, RunLimits
from eventstore.domain.manifest import Manifest, Sample
from eventstore.domain.run import RunState
from eventstore.domain.transcript import section_text
from worker.digests import folder_digest
from worker.limits import declared_limits

NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
REVIEWER: Final = "reviewer"
APPROVE_S: Final = 7 * 86_400.0


logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RunView:
    """What a partial result may be made of: the folded run, never anything a process remembers."""

    state: RunState

    def text(self, section: str) -> str:
        """The living draft text of a section."""
        return section_text(self.state, section)

    @property
    def findings(self) -> list[Mapping[str, Any]]:
        """The findings so far, in the order they were made."""
        return [value for _, value in self.state.findings.values()]


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a validation: a name that a person can read, and a question to the value."""

    name: str
    passes: Callable[[Any], bool]

    def holds(self, value: Any) -> bool:
        """Whether the value passes; a check that cannot be carried out has not been passed."""
        try:
            return bool(self.passes(value))
        except Exception:
            logger.exception("a check could not be carried out", check=self.name)
            return False


@dataclass(frozen=True, slots=True)
class CancelAfter:
    """Stop a run that nobody has read for so many seconds; also while it waits for a person, if that is wanted."""

    seconds: float
    while_waiting: bool = False


@dataclass(frozen=True, slots=True)
class Tool:
    """Something outside that a workflow or its model may ask. Only `shown` arguments are ever disclosed to a user."""

    name: str
    fn: Callable[..., Awaitable[Any]]
    timeout_s: float
    shown: tuple[str, ...]
    reads_only: bool = False
    effect: bool = False
    approve: str | None = None  # whom to ask before each call
    approve_s: float = APPROVE_S


def tool(
    *,
    timeout_s: float = 10.0,
    shown: tuple[str, ...] = (),
    reads_only: bool = False,
    effect: bool = False,
    approve: bool | str = False,
    approve_s: float = APPROVE_S,
) -> Callable[[Callable[..., Awaitable[Any]]], Tool]:
    """Make an async function a tool, for the workflow's code and for its model.

    `reads_only`: it changes nothing outside, so calls of it may run beside each other. `effect`: it must not happen
    twice outside: the intent is stored first, and whoever finds one without an outcome calls again with the same
    idempotency key. `approve`: a person is asked before each call, a reviewer or whom it names; nobody's word for
    `approve_s` seconds is a no.
    """

    def declare(fn: Callable[..., Awaitable[Any]]) -> Tool:
        name = fn.__name__
        if unknown := set(shown) - set(inspect.signature(fn).parameters):
            raise ValueError(f"tool {name}: shown names no parameter: {', '.join(sorted(unknown))}")
        if reads_only and effect:
            raise ValueError(f"tool {name}: what only reads has no effect; say one of reads_only and effect")
        if timeout_s <= 0 or approve_s <= 0:
            raise ValueError(f"tool {name}: timeout_s and approve_s are seconds, more than 0")
        to = REVIEWER if approve is True else approve or None
        return Tool(name, fn, timeout_s, shown, reads_only, effect, to, approve_s)

    return declare


@dataclass(frozen=True, slots=True)
class Workflow:
    """A task type: code, models, milestones, limits."""

    name: str
    version: int
    title: str
    summary: str
    input: type[BaseModel]
    output: type[BaseModel]
    milestones: tuple[Milestone, ...]
    limits: RunLimits
    partial: Callable[[RunView], Mapping[str, Any] | BaseModel | None]
    title_field: str | None
    parallel: int
    fn: Callable[..., Awaitable[BaseModel]]
    folder: Path
    code: str = field(default="")
    resumes: tuple[int, ...] = ()
    runs_max: int | None = None
    on_gap: Literal["error", "restart"] = "error"
    version_wait_s: float = 3_600.0
    on_disconnect: OnDisconnect | None = None

    @property
    def covers(self) -> tuple[int, ...]:
        """The versions whose runs this code can carry: its own, and those that it says it resumes."""
        return tuple(sorted({self.version, *self.resumes}))

    def milestone(self, label: str) -> tuple[int, Milestone]:
        """The place of a milestone in the plan, counted from 1."""
        for index, milestone in enumerate(self.milestones, start=1):
            if milestone.label == label:
                return index, milestone
        raise ValueError(f"{self.name} has no milestone {label!r}; its plan is {[m.label for m in self.milestones]}")

    def manifest(self) -> Manifest:
        """What the API must know to accept a run and to show its plan."""
        return Manifest(
            title=self.title,
            summary=self.summary,
            milestones=list(self.milestones),
            input_schema=self.input.model_json_schema(),
            output_schema=self.output.model_json_schema(),
            samples=[self._sample(path) for path in sorted((self.folder / "samples").glob("*.json"))],
            limits=self.limits,
            title_field=self.title_field,
            on_disconnect=self.on_disconnect,
            resumes=self.covers,
        )

    def _sample(self, path: Path) -> Sample:
        value = orjson.loads(path.read_bytes())
        title = value.get(self.title_field) if self.title_field else None
        return Sample(name=path.stem, title=title or path.stem.replace("_", " "), input=value)


def workflow(
    name: str,
    *,
    version: int,
    title: str,
    summary: str,
    input: type[BaseModel],  # noqa: A002 - the author's word for it
    output: type[BaseModel],
    milestones: tuple[str, ...],
    partial: Callable[[RunView], Mapping[str, Any] | BaseModel | None],
    limits: RunLimits | None = None,
    title_field: str | None = None,
    parallel: int | None = None,
    resumes: tuple[int, ...] = (),
    runs_max: int | None = None,
    on_gap: Literal["error", "restart"] = "error",
    version_wait_s: float = 3_600.0,
    on_disconnect: Literal["continue"] | CancelAfter = "continue",
) -> Callable[[Callable[..., Awaitable[BaseModel]]], Workflow]:
    """Declare a workflow: one async function over `run` and its input."""

    def declare(fn: Callable[..., Awaitable[BaseModel]]) -> Workflow:
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no workflow name: lower case letters, digits and _, at most 63")
        for model in (input, output):
            if model.model_config.get("extra") != "forbid":
                raise ValueError(f"{name}: {model.__name__} must forbid extra fields, or typing errors pass unseen")
        if not milestones or len(set(milestones)) != len(milestones):
            raise ValueError(f"{name}: milestones must be named, each once")
        if parallel is not None and parallel < 1:
            raise ValueError(f"{name}: parallel is how many branches run beside each other, at least 1")
        whole = declared_limits(name, limits)
        if parallel is not None:
            whole = whole.model_copy(update={"parallel": parallel})
        if any(not 0 < other <= version for other in resumes):
            raise ValueError(
                f"{name}: resumes names versions whose runs this code can go on with, none above {version}"
            )
        if (runs_max is not None and runs_max < 1) or version_wait_s <= 0:
            raise ValueError(f"{name}: runs_max and version_wait_s must be above 0")
        folder = Path(inspect.getfile(fn)).parent
        return Workflow(
            name=name,
            version=version,
            title=title,
            summary=summary,
            input=input,
            output=output,
            milestones=tuple(
                Milestone(state=re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_"), label=label)
                for label in milestones
            ),
            limits=whole,
            partial=partial,
            title_field=title_field,
            parallel=whole.parallel or 1,
            on_disconnect=_on_disconnect(name, on_disconnect),
            fn=fn,
            folder=folder,
            code=folder_digest(folder),
            resumes=resumes,
            runs_max=runs_max,
            on_gap=on_gap,
            version_wait_s=version_wait_s,
        )

    return declare


def _on_disconnect(name: str, wanted: Literal["continue"] | CancelAfter) -> OnDisconnect | None:
    if wanted == "continue":
        return None
    if not isinstance(wanted, CancelAfter):
        raise ValueError(f'{name}: on_disconnect is "continue" or CancelAfter(seconds)')
    try:
        return OnDisconnect(cancel_after_s=wanted.seconds, while_waiting=wanted.while_waiting)
    except ValidationError:
        raise ValueError(
            f"{name}: CancelAfter takes {UNREAD_S_MIN:g} seconds to a day: a reader must have the time to come back"
        ) from None
