"""`python -m tests.bench.workers`: the workers' figures and whether they are what they are to be."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.bench import first_event
from tests.bench.figures import Claim
from tests.bench.workers.cancel import WORDS, cancel
from tests.bench.workers.crash import crash
from tests.bench.workers.ground import PACE, ground
from tests.bench.workers.idle import idle
from tests.bench.workers.live import live

PARTS: Final = ("idle", "first-event", "cancel", "crash", "live")


def _asked(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.workers", description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help="some of the parts: %(default)s")
    parser.add_argument("--runs", type=int, default=300, help="live runs (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=300, help="for how long they talk (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, for a look")
    asked = parser.parse_args(arguments)
    asked.only = asked.only.split(",")
    if unknown := set(asked.only) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return asked


def _measured(asked: argparse.Namespace, folder: Path) -> list[Claim]:
    claims: list[Claim] = []
    if {"idle", "cancel"} & {*asked.only}:
        with ground(folder / "one", WORDS) as at:
            if "idle" in asked.only:
                claims += idle(at, quick=asked.quick)
            if "cancel" in asked.only:
                claims += cancel(at, quick=asked.quick)
    if "first-event" in asked.only:
        first_event.main(folder)
    if "crash" in asked.only:
        with ground(folder / "two", WORDS, workers=2) as at:
            claims += crash(at, quick=asked.quick)
    if "live" in asked.only:
        with ground(folder / "live", asked.seconds * PACE, runs_max=asked.runs) as at:
            claims += live(at, asked.runs, asked.seconds)
    return claims


def main(arguments: list[str]) -> int:
    """0 when all that was measured is as it is to be."""
    asked = _asked(arguments)
    folder = Path(tempfile.mkdtemp(prefix="runwire-bench-"))
    folder.chmod(0o755)  # as root the servers run as another user, who must be able to enter
    try:
        claims = _measured(asked, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for claim in claims:
        print(claim.line())
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
