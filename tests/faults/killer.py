"""What is done to the processes of a fault run, and when: every kind once a round, in the order that the seed says."""

import os
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from signal import SIGKILL

import psycopg
import redis

from ops.services import Services
from tests.e2e.stage import children
from tests.faults.crew import Crew, Member
from tests.faults.orders import LEASE_S, Plan

CONNECT_S = 2
# Where a backend of the crew works. One that is in the middle of an append is preferred: that is what hurts.
BACKENDS = """
    SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'faults-%' AND backend_type = 'client backend'
    ORDER BY application_name = 'faults-writer' AND state = 'active' DESC, pid
"""


class Killer:
    """Hurts one thing after the other. A fault that finds nobody to hurt is tried again, and only counted when done."""

    def __init__(self, plan: Plan, services: Services, crew: Crew) -> None:
        self._services = services
        self._crew = crew
        self._random = random.Random(plan.seed)
        self._every_s = plan.every_s
        self._next_at: float | None = None
        self._ahead: list[str] = []
        self._frozen: list[tuple[float, Member]] = []
        self.done: Counter[str] = Counter()
        self.kinds: dict[str, Callable[[float], bool]] = {
            "writer killed": self._kill_writer,
            "writer stopped past its lease": self._stop_writer,
            "answer lost": self._lose_an_answer,
            "backend killed": self._kill_backend,
            "backend terminated": self._terminate_backend,
            "postmaster killed": self._kill_postmaster,
            "postgres killed, all of it": self._kill_postgres,
            "valkey killed": self._kill_valkey,
            "valkey flushed": self._flush_valkey,
        }

    @property
    def rounds(self) -> int:
        """How often every kind was done."""
        return min(self.done[kind] for kind in self.kinds)

    @property
    def at_rest(self) -> bool:
        """Whether nobody is stopped any more."""
        return not self._frozen

    def tick(self, now: float) -> None:
        """Do what is due."""
        for due in [one for one in self._frozen if one[0] <= now]:
            self._frozen.remove(due)
            due[1].go_on()
        if self._next_at is None:
            self._next_at = now + self._pause()
        if now < self._next_at:
            return
        if not self._ahead:
            self._ahead = list(self.kinds)
            self._random.shuffle(self._ahead)
        if self.kinds[self._ahead[-1]](now):
            self.done[self._ahead.pop()] += 1
            self._next_at = now + self._pause()

    def rest(self) -> None:
        """No more faults; whoever is stopped goes on."""
        for _, member in self._frozen:
            member.go_on()
        self._frozen = []

    def _pause(self) -> float:
        return self._random.uniform(0.3, 1.7) * self._every_s

    def _awake(self) -> list[Member]:
        return [member for member in self._crew.writers if member.alive and not member.stopped]

    def _kill_writer(self, _: float) -> bool:
        alive = [member for member in self._crew.writers if member.alive]
        if alive:
            self._random.choice(alive).kill()
        return bool(alive)

    def _stop_writer(self, now: float) -> bool:
        awake = self._awake()
        if len(awake) < 2:  # somebody must be there to take its runs over
            return False
        member = self._random.choice(awake)
        member.stop()
        self._frozen.append((now + LEASE_S * self._random.uniform(1.5, 2.2), member))
        return True

    def _lose_an_answer(self, _: float) -> bool:
        awake = [member for member in self._awake() if self._crew.is_ready(member)]
        if awake:
            self._random.choice(awake).lose_an_answer()
        return bool(awake)

    def _backend(self) -> int | None:
        url = self._services.endpoints.database_url.replace("+psycopg", "")
        with suppress(psycopg.OperationalError), psycopg.connect(url, connect_timeout=CONNECT_S) as connection:
            found = connection.execute(BACKENDS).fetchall()
            if found:
                return int(found[0 if self._random.random() < 0.7 else self._random.randrange(len(found))][0])
        return None

    def _kill_backend(self, _: float) -> bool:
        pid = self._backend()
        with suppress(ProcessLookupError):
            if pid is not None:
                os.kill(pid, SIGKILL)
                return True
        return False

    def _terminate_backend(self, _: float) -> bool:
        pid = self._backend()
        url = self._services.endpoints.database_url.replace("+psycopg", "")
        with suppress(psycopg.OperationalError), psycopg.connect(url, connect_timeout=CONNECT_S) as connection:
            told = connection.execute("SELECT pg_terminate_backend(%s)", (pid,)).fetchone()
            return bool(told and told[0])
        return False

    def _kill_postmaster(self, _: float) -> bool:
        return _killed(self._services.processes["postgres"])

    def _kill_postgres(self, _: float) -> bool:
        postmaster = self._services.processes["postgres"]
        others = children(postmaster)
        done = _killed(postmaster)
        for pid in others:
            _killed(pid)
        return done

    def _kill_valkey(self, _: float) -> bool:
        return _killed(self._services.processes["valkey"])

    def _flush_valkey(self, _: float) -> bool:
        url = self._services.endpoints.redis_url
        with suppress(redis.RedisError), redis.Redis.from_url(url, socket_timeout=CONNECT_S) as client:
            return bool(client.flushall())
        return False


def _killed(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, SIGKILL)
        return True
    return False
