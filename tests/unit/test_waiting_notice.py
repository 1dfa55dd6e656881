"""A run that waits for the provider says so once, where it stands, and says when it is over."""

from typing import Any, cast

from eventstore.domain.events import Progress
from eventstore.run_writer import RunWriter
from worker.waiting import WAITING, WaitingNotice

AT = Progress(state="checking", label="Checking", index=2, total=3, key="milestone:checking#4", done=3, of=7)


class Writer:
    """Keeps what is pushed."""

    epoch = 2
    fault: Exception | None = None

    def __init__(self) -> None:
        self.pushed: list[Any] = []

    def push(self, body: Any) -> None:
        self.pushed.append(body)


def test_calls_that_wait_beside_each_other_are_told_once_and_the_milestone_stays_as_it_was() -> None:
    writer = Writer()
    notice = WaitingNotice(cast("RunWriter", writer))
    notice.at = AT
    notice.begins()
    notice.begins()
    notice.ends()
    assert [body.detail for body in writer.pushed] == [WAITING]
    notice.ends()
    assert [body.detail for body in writer.pushed] == [WAITING, None]
    assert {(body.state, body.index, body.done, body.of) for body in writer.pushed} == {("checking", 2, 3, 7)}
    assert len({body.key for body in [AT, *writer.pushed]}) == 3, "no report of a milestone may be taken for another"


def test_before_the_first_milestone_and_after_the_run_was_lost_nothing_is_told() -> None:
    writer = Writer()
    notice = WaitingNotice(cast("RunWriter", writer))
    notice.begins()
    notice.ends()
    notice.at, writer.fault = AT, RuntimeError("fenced")
    notice.begins()
    assert writer.pushed == []
