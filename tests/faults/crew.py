"""The writer and reader processes of a fault run: started, replaced when killed, told to end."""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM, SIGUSR1
from uuid import UUID

from ops.services import Endpoints
from ops.tether import tethered
from tests.faults.journal import SUFFIX
from tests.faults.orders import Order, Plan, ReaderOrder, WriterOrder
from tests.house import ROOT


@dataclass(slots=True)
class Member:
    """One process, and what was done to it."""

    name: str
    place: int
    process: "subprocess.Popen[bytes]"
    stopped: bool = False
    killed: bool = False

    @property
    def alive(self) -> bool:
        return not self.killed and self.process.poll() is None

    def lose_an_answer(self) -> None:
        """Of the log, to its next append."""
        self.process.send_signal(SIGUSR1)

    def kill(self) -> None:
        self.killed = True
        self.process.send_signal(SIGKILL)

    def stop(self) -> None:
        self.stopped = True
        self.process.send_signal(SIGSTOP)

    def go_on(self) -> None:
        """After `stop`; one that was killed meanwhile stays dead."""
        self.stopped = False
        self.process.send_signal(SIGCONT)


@dataclass(slots=True)
class Crew:
    """All processes of one fault run. They end with this one, however it ends."""

    plan: Plan
    endpoints: Endpoints
    tenant: UUID
    folder: Path
    writers: list[Member] = field(default_factory=list)
    readers: list[Member] = field(default_factory=list)
    deserters: list[str] = field(default_factory=list)  # whoever ended without being told to
    _starts: int = 0

    @property
    def journals(self) -> Path:
        return self.folder / "journals"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def start(self) -> None:
        self.journals.mkdir()
        self.logs.mkdir()
        for place in range(self.plan.readers):
            self.readers.append(self._reader(place))
        for place in range(self.plan.writers):
            self.writers.append(self._writer(place))

    def is_ready(self, member: Member) -> bool:
        """Whether it listens to signals: it opens its journal after that."""
        return (self.journals / (member.name + SUFFIX)).exists()

    def replace_the_dead(self) -> None:
        """Start a writer in the place of each that has ended; nobody ends unless we killed it."""
        for number, member in enumerate(self.writers):
            if member.process.poll() is not None:
                if not member.killed:
                    self._deserted(member)
                self.writers[number] = self._writer(member.place)

    @property
    def too_many_left(self) -> bool:
        """Whether processes end by themselves, so that going on shows nothing."""
        return len(self.deserters) >= 3 or any(reader.process.poll() is not None for reader in self.readers)

    def end(self) -> None:
        """Writers stop where they are; readers follow every run to its end first."""
        for member in [*self.writers, *self.readers]:
            member.process.send_signal(SIGTERM)
        for member in [*self.writers, *self.readers]:
            try:
                code = member.process.wait(self.plan.drain_s)
            except subprocess.TimeoutExpired:
                self.deserters.append(f"{member.name} did not end within {self.plan.drain_s:.0f} s")
                member.process.kill()
                member.process.wait()
                continue
            if code != 0:
                self._deserted(member)

    def kill(self) -> None:
        """No more of them, at once."""
        for member in [*self.writers, *self.readers]:
            member.process.kill()
            member.process.wait()

    def said(self, what: str) -> int:
        """How often any of them logged this."""
        return sum(path.read_text(errors="replace").count(what) for path in self.logs.iterdir())

    def _deserted(self, member: Member) -> None:
        last = (self.logs / member.name).read_text(errors="replace").strip().splitlines()[-1:]
        self.deserters.append(f"{member.name} ended by itself with {member.process.returncode}: {' '.join(last)}")

    def _writer(self, place: int) -> Member:
        plan = self.plan
        rate = plan.events / plan.spread_s / plan.writers if plan.spread_s else None
        common = self._common(f"writer-{place}")
        order = WriterOrder(
            **common,
            tenant=self.tenant,
            runs_at_once=plan.runs_at_once,
            run_events=plan.run_events,
            window=plan.window,
            rate_per_s=rate,
        )
        return self._begin("tests.faults.writer", place, order)

    def _reader(self, place: int) -> Member:
        common = self._common(f"reader-{place}")
        order = ReaderOrder(**common, place=place, readers=self.plan.readers, read_by=self.plan.read_by)
        return self._begin("tests.faults.reader", place, order)

    def _common(self, name: str) -> dict[str, object]:
        self._starts += 1
        return {
            "name": f"{name}-{self._starts}",
            "journals": self.journals,
            "database_url": self.endpoints.database_url,
            "redis_url": self.endpoints.redis_url,
            "seed": self.plan.seed,
        }

    def _begin(self, module: str, place: int, order: Order) -> Member:
        argv = tethered([sys.executable, "-m", module, order.model_dump_json()], SIGKILL)
        with (self.logs / order.name).open("wb") as out:
            process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        return Member(order.name, place, process)
