"""`python -m tests.bench.log`: the log's figures, the peers' beside them, as a table and as JSON."""

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from ops.binaries import postgres_programs
from ops.places import service_user
from ops.services import Services
from tests.bench.figures import Claim
from tests.bench.log import beside, growth, machine, reading, shapes, sizes
from tests.bench.log.ground import Ground, libpq
from tests.bench.log.report import Report

Part = Callable[[Report, Ground, argparse.Namespace], Awaitable[None]]

PARTS: Final[dict[str, Part]] = {
    "append": lambda report, ground, asked: shapes.shapes(report, ground, asked.seconds),
    "processes": lambda report, ground, asked: shapes.processes(report, ground, asked.seconds),
    "peers": lambda report, ground, asked: beside.beside(report, ground, asked.seconds, report.about["packages"]),
    "sizes": lambda report, ground, asked: sizes.sizes(report, ground),
    "reading": lambda report, ground, asked: reading.reading(report, ground),
    "growth": lambda report, ground, asked: growth.growth(report, ground, int(asked.growth * growth.MILLION)),
}


def _asked(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.log", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each measurement (default: 2, the quick mode)")
    parser.add_argument("--growth", type=float, default=1.0, help="millions of events to grow the log to (default: 1)")
    parser.add_argument("--json", type=Path, help="write everything to this file too")
    parser.add_argument("--only", default=",".join(PARTS), help="some of the parts: %(default)s")
    parser.add_argument("--folder", type=Path, help="a folder on the disk to measure (default: the system's temporary)")
    asked = parser.parse_args(arguments)
    asked.only = asked.only.split(",")
    if unknown := set(asked.only) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    missing = [name for name in ("eventsourcing", "dbos") if find_spec(name) is None]
    if missing and "peers" in asked.only:
        parser.error(f"{' and '.join(missing)} missing: `make bench-log` brings them; or leave out the part `peers`")
    return asked


def _claims(report: Report, parts: list[str]) -> None:
    if "append" in parts:
        rate = report.value(shapes.shape_name(*shapes.LARGE))
        report.claim(Claim("durable appends with the chain, events/s", rate, at_least=100_000))
        report.claim(Claim("cost of the chain, % of the rate", report.value(shapes.COST), at_most=15))
    if "peers" in parts:
        for peer, at_least in ((beside.RECORDERS, 2.5), (beside.ORDERED, 2.5), (beside.STREAMS, 100)):
            report.claim(Claim(f"times the best of {peer}", beside.ratio_to(report, peer), at_least=at_least))
    if "growth" in parts:
        report.claim(Claim("growth, % that a slice is off the median", report.value(growth.FLATNESS), at_most=20))
    if "reading" in parts:
        report.claim(Claim("verification, events/s on one core", report.value(reading.VERIFY), at_least=200_000))


async def _measure(report: Report, ground: Ground, asked: argparse.Namespace) -> None:
    for name in asked.only:
        report.begin(name, machine.fsync_rate(ground.folder))
        await PARTS[name](report, ground, asked)
        report.end(machine.fsync_rate(ground.folder))


def main(arguments: list[str]) -> int:
    asked = _asked(arguments)
    began = time.perf_counter()
    folder = Path(tempfile.mkdtemp(prefix="runwire-bench-", dir=asked.folder))
    folder.chmod(0o755)  # as root the servers run as another user, who must be able to enter
    try:
        with Services(folder / "data") as services:
            url = services.endpoints.database_url
            about = machine.about(libpq(url))
            program = postgres_programs(services.data, service_user()) / "pg_test_fsync"
            about["pg_test_fsync_per_s"] = machine.pg_test_fsync(program, folder)
            about["seconds"] = asked.seconds
            print(machine.told(about))
            report = Report(about)
            asyncio.run(_measure(report, Ground(url, folder), asked))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _claims(report, asked.only)
    report.about["took_s"] = round(time.perf_counter() - began, 1)
    print(report.told_claims())
    if asked.json:
        report.write(asked.json)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
