"""`python -m tests.faults`: writes events through a storm of kills; says if any was lost, doubled or changed."""

import argparse
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.faults.conductor import Conductor
from tests.faults.orders import Plan
from tests.faults.sabotage import SAFEGUARDS

FOLDER_MODE = 0o755  # as root the servers run as another user, who must be able to enter


def say(line: str) -> None:
    print(line, flush=True)


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--events", type=int, default=300_000, help="go on until the log holds so many")
    parser.add_argument("--seed", type=int, default=None, help="decides which fault comes when; printed")
    parser.add_argument("--rounds", type=int, default=1, help="do every kind of fault at least so often")
    parser.add_argument("--every", type=float, default=1.5, help="seconds between two faults, on average")
    parser.add_argument("--spread", type=float, default=0.0, help="write the events over at least so many seconds")
    parser.add_argument("--writers", type=int, default=2)
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--read-by", type=int, default=1, help="so many of the readers follow each run")
    parser.add_argument("--runs", type=int, default=60, help="runs that a writer carries at a time")
    parser.add_argument("--run-events", type=int, default=1_000, help="events of a run, on average")
    parser.add_argument("--folder", type=Path, default=None, help="work here, and leave everything there")
    parser.add_argument("--without", choices=SAFEGUARDS, help="take this safeguard out: the run is then to fail")
    given = parser.parse_args(words)
    plan = Plan(
        events=given.events,
        seed=secrets.randbelow(10**6) if given.seed is None else given.seed,
        rounds=given.rounds,
        every_s=given.every,
        spread_s=given.spread,
        writers=given.writers,
        readers=given.readers,
        read_by=min(given.read_by, given.readers),
        runs_at_once=given.runs,
        run_events=given.run_events,
        without=given.without,
    )
    folder = given.folder or Path(tempfile.mkdtemp(prefix="runwire-faults-", dir="/tmp"))
    folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    folder.chmod(FOLDER_MODE)
    say(f"seed {plan.seed}: {plan.events:,} events, at most {plan.disk_bytes / 2**30:.1f} GiB of disk in {folder}")
    try:
        if not plan.fits(folder):
            say("the disk has no room for that")
            return 2
        outcome = Conductor(plan, folder, say).run()
        for line in outcome.told():
            say(line)
        return 0 if outcome.ok else 1
    finally:
        if given.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))  # so that what was begun is also cleared away
    sys.exit(main(sys.argv[1:]))
