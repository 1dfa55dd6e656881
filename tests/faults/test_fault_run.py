"""A storm of kills over a small log: nothing acknowledged is lost, nothing comes twice, every reader saw the log."""

import pytest

from tests.faults.conductor import Conductor
from tests.faults.orders import Plan
from tests.machine import open_folder

SMALL = Plan(events=60_000, seed=20, every_s=0.8, spread_s=8, runs_at_once=15, run_events=400, read_by=2)


@pytest.mark.timeout(300)
def test_a_storm_of_kills_loses_doubles_and_changes_nothing() -> None:
    with open_folder() as folder:
        outcome = Conductor(SMALL, folder, print).run()
    print(*outcome.told(), sep="\n")
    assert outcome.ok
    assert len(outcome.faults) == 9
    assert outcome.judgement.events >= SMALL.events
    assert outcome.judgement.read == 2 * outcome.judgement.events
    assert outcome.judgement.taken_over > 0
    assert outcome.again > 0
