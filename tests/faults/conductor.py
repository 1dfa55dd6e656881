"""One fault run from start to verdict: servers, crew and killer at work, then quiet, then the walk over the log."""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Final, NamedTuple
from uuid import UUID, uuid4

import psycopg

from eventstore.database import sync_engine
from migrations import schema
from ops.services import Endpoints, Services
from tests.faults.crew import Crew
from tests.faults.inspection import inspect
from tests.faults.judge import FLAWS, Judgement
from tests.faults.killer import Killer
from tests.faults.orders import ENOUGH, Plan
from tests.faults.sabotage import take_out

LOOK_S: Final = 0.05
COUNT_S: Final = 0.5
SAY_S: Final = 5.0
PROGRESS: Final = """
    SELECT coalesce(sum(seq), 0), count(*), count(*) FILTER (WHERE status NOT IN ('completed', 'failed', 'cancelled'))
    FROM runwire.head
"""
SAME_AGAIN: Final = "the same batch again"  # what a recorder says once each time that the log is away


class Progress(NamedTuple):
    """What the log holds."""

    events: int = 0
    runs: int = 0
    open: int = 0


@dataclass(slots=True)
class Outcome:
    """What was done and what was found."""

    plan: Plan
    progress: Progress = field(default_factory=Progress)
    wrote: int = 0  # while there were faults
    wrote_s: float = 0.0
    away_s: float = 0.0
    checked_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    again: int = 0
    database_bytes: int = 0
    journal_bytes: int = 0
    judgement: Judgement = field(default_factory=Judgement)
    troubles: list[str] = field(default_factory=list)  # what kept the run from showing anything

    @property
    def ok(self) -> bool:
        return not self.troubles and self.judgement.ok

    def told(self) -> list[str]:
        """The run in a few lines."""
        said = self.judgement
        rate = self.wrote / max(self.wrote_s, 0.001)
        faults = ", ".join(f"{count} × {kind}" for kind, count in sorted(self.faults.items()))
        unknown = said.events - said.acked
        return [
            f"{said.events:,} events of {said.runs:,} runs; {self.wrote:,} in {self.wrote_s:.0f} s: {rate:,.0f}/s",
            f"{self.faults.total()} faults: {faults or 'none'}",
            f"{said.taken_over:,} takeovers, {self.again} lost answers after which the same batch was sent again,",
            f"{unknown:,} events stored of which no writer learned, {self.away_s:.0f} s until killed servers were back",
            f"disk: database {self.database_bytes / 2**20:,.0f} MiB, journals {self.journal_bytes / 2**20:,.0f} MiB",
            f"checked in {self.checked_s:.0f} s: {said.acked:,} acknowledged and {said.read:,} read events",
            ", ".join(f"{said.counts[kind]:,} {kind}" for kind in FLAWS),
            *map(str, said.examples),
            *self.troubles,
            f"{'PASSED' if self.ok else 'FAILED'} with seed {self.plan.seed}",
        ]


class Conductor:
    """Conducts one fault run in a folder of its own. Only the main thread may: the servers end with it."""

    def __init__(self, plan: Plan, folder: Path, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._folder = folder
        self._say = say
        self._outcome = Outcome(plan)
        self._pause = Event()

    def run(self) -> Outcome:
        with Services(self._folder / "data") as services:
            crew = Crew(self._plan, services.endpoints, _prepare(services.endpoints, self._plan.without), self._folder)
            killer = Killer(self._plan, services, crew)
            try:
                crew.start()
                self._storm(services, crew, killer)
                self._drain(services, crew)
                crew.end()
            finally:
                crew.kill()
            self._outcome.troubles += crew.deserters
            self._outcome.faults = killer.done
            self._outcome.again = crew.said(SAME_AGAIN)
            self._check(services.endpoints, crew)
        return self._outcome

    def _storm(self, services: Services, crew: Crew, killer: Killer) -> None:
        """Faults until there are events enough and every fault was done often enough."""
        plan, began = self._plan, time.monotonic()
        said = counted = began
        while self._progress.events < plan.events or killer.rounds < plan.rounds or not killer.at_rest:
            now = time.monotonic()
            if now - began > plan.deadline_s or crew.too_many_left:
                self._outcome.troubles.append(f"given up after {now - began:.0f} s")
                break
            if self._progress.events:  # before the first there is nothing to hurt
                killer.tick(now)
            self._look_after(services, crew)
            if now - counted > COUNT_S:
                counted = now
                self._count(services)
            if now - said > SAY_S:
                said = now
                self._say_progress(now - began, killer)
            self._pause.wait(LOOK_S)
        killer.rest()
        self._outcome.wrote, self._outcome.wrote_s = self._progress.events, time.monotonic() - began

    def _say_progress(self, seconds: float, killer: Killer) -> None:
        events, runs, still_open = self._progress
        self._say(
            f"{seconds:4.0f} s  {events:,} events  {events / seconds:,.0f}/s  {runs:,} runs, {still_open} open  "
            f"{killer.done.total()} faults"
        )

    def _drain(self, services: Services, crew: Crew) -> None:
        """No faults, no new runs: every run ends."""
        (crew.journals / ENOUGH).touch()
        began = time.monotonic()
        while not (self._count(services) and self._progress.open == 0):
            if time.monotonic() - began > self._plan.drain_s or crew.too_many_left:
                self._outcome.troubles.append(
                    f"{self._progress.open} runs had no end {time.monotonic() - began:.0f} s after the last fault"
                )
                return
            self._look_after(services, crew)
            self._pause.wait(LOOK_S)
        self._say(f"quiet: {self._progress.events:,} events, every run ended after {time.monotonic() - began:.1f} s")

    def _look_after(self, services: Services, crew: Crew) -> None:
        began = time.monotonic()
        if services.tend():
            self._outcome.away_s += time.monotonic() - began
        crew.replace_the_dead()

    @property
    def _progress(self) -> Progress:
        return self._outcome.progress

    def _count(self, services: Services) -> bool:
        """Ask the log how far it is; False when it is away."""
        url = services.endpoints.database_url.replace("+psycopg", "")
        with suppress(psycopg.OperationalError), psycopg.connect(url, connect_timeout=2) as connection:
            found = connection.execute(PROGRESS).fetchone()
            self._outcome.progress = Progress(*map(int, found or ()))
            return True
        return False

    def _check(self, endpoints: Endpoints, crew: Crew) -> None:
        began, outcome = time.monotonic(), self._outcome
        outcome.judgement = inspect(endpoints.database_url, crew.journals, self._plan.read_by)
        outcome.checked_s = time.monotonic() - began
        outcome.journal_bytes = sum(path.stat().st_size for path in crew.journals.iterdir())
        with psycopg.connect(endpoints.database_url.replace("+psycopg", "")) as connection:
            size = connection.execute("SELECT pg_database_size(current_database())").fetchone()
            outcome.database_bytes = size[0] if size else 0
        missing = self._plan.events - outcome.judgement.events
        if missing > 0 and not outcome.troubles:
            outcome.troubles.append(f"{missing:,} events that the log once held are gone")


def _prepare(endpoints: Endpoints, without: str | None) -> UUID:
    """A migrated database with one tenant."""
    engine = sync_engine(endpoints.database_url, application="faults")
    schema.upgrade(engine)
    engine.dispose()
    tenant = uuid4()
    with psycopg.connect(endpoints.database_url.replace("+psycopg", "")) as connection:
        connection.execute("INSERT INTO runwire.tenant VALUES (%s, %s)", (tenant, "faults"))
        if without is not None:
            take_out(connection, without)
    return tenant
