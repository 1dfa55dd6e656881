"""What a worker spends while it has nothing to do."""

import time

from tests.bench.figures import Claim
from tests.bench.spending import spent
from tests.bench.workers.ground import Ground


def idle(at: Ground, *, quick: bool) -> list[Claim]:
    """Measure and tell."""
    seconds = 5 if quick else 30
    processes = at.stage.running.processes
    before = spent(processes)
    time.sleep(seconds)
    shares = spent(processes).since(before)
    print(f"idle for {seconds} s, of one core: " + ", ".join(f"{name} {share:.1%}" for name, share in shares.items()))
    worker = max(share for name, share in shares.items() if name in at.workers())
    return [Claim("an idle worker, % of a core", worker * 100, at_most=3)]
