"""A contestant in a process of its own: asked in lines of JSON, answering in lines of JSON."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, Self

from tests.bench.log.report import Tally
from tests.house import ROOT

PATIENCE_S = 120.0


class Contestant(Protocol):
    """What stores events. It is told once how, and then for how long, as often as the benchmark likes."""

    def prepare(self, how: dict[str, Any]) -> None: ...

    def go(self, seconds: float) -> Tally: ...

    def close(self) -> None: ...


def serve(make: Callable[[str], Contestant]) -> None:
    """The whole life of the process: it ends when nobody asks any more."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    contestant = make(sys.argv[1])
    try:
        print(json.dumps({"ready": True}), file=answers)
        for line in sys.stdin:
            asked = json.loads(line)
            if "prepare" in asked:
                contestant.prepare(asked["prepare"])
                print(json.dumps({"prepared": True}), file=answers)
            else:
                tally = contestant.go(asked["go"])
                told = {"events": tally.events, "seconds": tally.seconds, "calls": tally.calls}
                print(json.dumps(told), file=answers)
    finally:
        contestant.close()


class Child:
    """The parent's side of such a process."""

    def __init__(self, name: str, process: Process, complaints: Path) -> None:
        self.name = name
        self._process = process
        self._complaints = complaints

    @classmethod
    async def start(cls, module: str, database_url: str, complaints: Path) -> Self:
        with complaints.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", module, database_url,
                stdin=PIPE, stdout=PIPE, stderr=stderr, cwd=ROOT, limit=2**24,
            )  # fmt: skip
        child = cls(module, process, complaints)
        try:
            await child._answer()
        except BaseException:
            await child.stop()
            raise
        return child

    async def prepare(self, **how: Any) -> None:
        await self._ask({"prepare": how})

    async def go(self, seconds: float) -> Tally:
        told = await self._ask({"go": seconds})
        return Tally(told["events"], told["seconds"], tuple(told["calls"]))

    async def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 20)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def _ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        return await self._answer()

    async def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE_S)
        if not line:
            raise RuntimeError(f"{self.name} ended:\n{self._complaints.read_text()[-2000:]}")
        told: dict[str, Any] = json.loads(line)
        return told
