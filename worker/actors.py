"""What dramatiq calls: one actor that says a run's id to the host, and nothing else."""

from uuid import UUID

import dramatiq

from eventstore.handoff import ACTOR, QUEUE
from worker.broker import HintBroker
from worker.host import Host


def declare(broker: HintBroker, host: Host) -> None:
    """Make the actor known to the broker."""

    @dramatiq.actor(actor_name=ACTOR, queue_name=QUEUE, broker=broker)
    def run_workflow(run_id: str) -> None:
        host.admit(UUID(run_id))
