"""What dramatiq calls: one actor that lets the host look for runs, and nothing else."""

import dramatiq

from eventstore.handoff import ACTOR, QUEUE
from worker.broker import HintBroker
from worker.host import Host


def declare(broker: HintBroker, host: Host) -> None:
    """Make the actor known to the broker."""

    @dramatiq.actor(actor_name=ACTOR, queue_name=QUEUE, broker=broker)
    def run_workflow(run_id: str) -> None:
        # Which run it is about does not matter: who is next is the database's to say.
        host.hint()
