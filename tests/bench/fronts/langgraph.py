"""LangGraph's dev server under the same load: what it says is in memory only, and read by the same readers.

It has an environment of its own beside ours, because its pins do not fit ours.
"""

import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx

from ops.ports import address, free_port
from tests.bench.fronts.beside import cost
from tests.bench.fronts.ground import Ground, Process, running
from tests.bench.fronts.peers import dev_server
from tests.bench.log.report import Report

PROGRAM: Final = Path(sys.prefix).with_name(f"{Path(sys.prefix).name}-langgraph") / "bin/langgraph"
RUNS: Final = 100
RATE: Final = 50
SECONDS: Final = 6.0
QUICK_S: Final = 2.0
QUICK_RUNS: Final = 30
READERS: Final = 200
READERS_RATE: Final = 10
AHEAD_S: Final = 0.5  # from the word to begin until the first piece is due
SETTLE_S: Final = 0.5
WITHIN_S: Final = 60.0
FROM_THE_START: Final = "Last-Event-ID: -1\r\n"  # or a reader misses what was said before it came
NAME: Final = "LangGraph dev server"


async def langgraph(report: Report, ground: Ground, quick: bool) -> None:
    """Many runs with a reader each; then one run with many readers."""
    runs, readers, seconds = (QUICK_RUNS, READERS, QUICK_S) if quick else (RUNS, READERS, SECONDS)
    with _serving(ground.folder, runs) as process:
        await _latency(report, ground, process, runs, seconds)
        await _fan_out(report, ground, process, readers, seconds)


async def _latency(report: Report, ground: Ground, process: Process, runs: int, seconds: float) -> None:
    pieces, go = round(RATE * seconds), ground.folder / "go-runs"
    async with ground.crowd() as crowd:
        paths = await _begin(process, runs, go)
        await crowd.order("follow", address=process.address, paths=paths, keep=True, more=FROM_THE_START)
        await crowd.order("until", seq=1, within_s=WITHIN_S)
        began = _say(go, pieces, 1 / (RATE * runs))
        await crowd.order("until", seq=1 + pieces, within_s=WITHIN_S + seconds)
        found = await crowd.order("late", pieces=pieces, begin=began + SETTLE_S, end=began + seconds)
        await crowd.order("leave")
    spread = found["due"]
    name = f"due to delivered, {runs} runs × {RATE} events/s, p50"
    p50, ours = spread["p50_ms"], _measured(report, name)
    report.add(f"{NAME}: {name}", p50, "ms", ours and ours / p50, **spread, wrong=found["wrong"])
    for share in ("p95_ms", "p99_ms", "max_ms"):
        report.add(f"    {share.removesuffix('_ms')}", spread[share], "ms")


def _measured(report: Report, name: str) -> float | None:
    """Ours, where it was measured before."""
    return next((figure.value for figure in report.figures if figure.name == name), None)


async def _fan_out(report: Report, ground: Ground, process: Process, readers: int, seconds: float) -> None:
    pieces, go = round(READERS_RATE * seconds), ground.folder / "go-readers"
    async with ground.crowd() as crowd:
        paths = await _begin(process, 1, go)
        await crowd.order("follow", address=process.address, paths=paths, each=readers, more=FROM_THE_START)

        async def say() -> None:
            _say(go, pieces, 1 / READERS_RATE)

        told = await cost(process, crowd, say(), readers, pieces, opening=1)
        await crowd.order("leave")
    ours = {figure.name: figure.value for figure in report.figures}.get(f"fan-out, ours, 1 run × {readers:,} readers")
    report.add(
        f"{NAME}: fan-out, 1 run × {readers:,} readers", told.us, "µs", ours and ours / told.us, wrong=told.wrong
    )


async def _begin(process: Process, runs: int, go: Path) -> list[str]:
    """Runs that wait for the word; where each is read."""
    paths = []
    async with httpx.AsyncClient(base_url=process.address, trust_env=False, timeout=30) as http:
        for place in range(runs):
            thread = (await http.post("/threads", json={})).raise_for_status().json()["thread_id"]
            order = {
                "assistant_id": "speak",
                "input": {"place": place, "runs": runs, "go": str(go)},
                "stream_mode": ["custom"],
                "stream_resumable": True,
            }
            answer = await http.post(f"/threads/{thread}/runs", json=order)
            run = answer.raise_for_status().json()["run_id"]
            paths.append(f"/threads/{thread}/runs/{run}/stream?stream_mode=custom")
    return paths


def _say(go: Path, pieces: int, beat: float) -> float:
    """Tell the runs to begin; when the first piece is due."""
    began = time.time() + AHEAD_S
    written = go.with_suffix(".new")
    written.write_text(json.dumps({"began": began, "beat": beat, "pieces": pieces}))
    written.replace(go)
    return began


@contextmanager
def _serving(folder: Path, runs: int) -> Iterator[Process]:
    """The server, in a folder of its own: it keeps things where it stands."""
    project = folder / "langgraph"
    shutil.copytree(Path(dev_server.__file__).parent, project, ignore=shutil.ignore_patterns("__pycache__"))
    port = free_port("127.0.0.1")
    words = [str(PROGRAM), "dev", "--no-browser", "--no-reload", "--host", "127.0.0.1", "--port", str(port)]
    words += ["--n-jobs-per-worker", str(runs)]
    environ = {"PATH": f"{PROGRAM.parent}:/usr/bin:/bin", "HOME": str(folder), "LANGSMITH_TRACING": "false",
               "LANGGRAPH_CLI_NO_ANALYTICS": "1"}  # fmt: skip
    url = address("127.0.0.1", port)

    def answers() -> str | None:
        try:
            return url if httpx.get(f"{url}/ok", trust_env=False, timeout=5).is_success else None
        except httpx.TransportError:
            return None

    with running(words, environ, folder, answers, cwd=project) as process:
        yield process
