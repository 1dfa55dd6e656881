"""Questions that are put to the log together: few of them, each as true as one's own, and nobody pays for another."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from sqlalchemy.exc import OperationalError

from api.gathering import Gathered
from eventstore.domain.errors import LogUnavailable
from tests.serving import until


class Log:
    """Answers with what it holds when it is asked, once the test lets it."""

    def __init__(self) -> None:
        self.holds: dict[str, int] = {}
        self.questions: list[list[str]] = []
        self.gate = asyncio.Semaphore(0)
        self.fault: Exception | None = None

    async def ask(self, keys: Sequence[str]) -> Mapping[str, int]:
        self.questions.append(list(keys))
        found = {key: self.holds[key] for key in keys if key in self.holds}
        await self.gate.acquire()
        if self.fault is not None:
            raise self.fault
        return found


async def asked(log: Log, many: int) -> None:
    await until(lambda: len(log.questions) >= many)


async def test_what_is_asked_while_a_question_is_under_way_goes_together() -> None:
    log = Log()
    log.holds = {str(n): n for n in range(10)}
    together = Gathered(log.ask)
    first = asyncio.create_task(together.of("0"))
    await asked(log, 1)
    rest = [asyncio.create_task(together.of(str(n % 10))) for n in range(20)]
    await asyncio.sleep(0)
    log.gate.release()
    log.gate.release()
    assert await first == 0
    assert await asyncio.gather(*rest) == [n % 10 for n in range(20)]
    assert log.questions == [["0"], [str(n) for n in range(10)]]


async def test_an_answer_is_from_after_the_question() -> None:
    """Whoever asks while the same is being asked waits for the next question: what they wrote before must be in it."""
    log = Log()
    log.holds = {"run": 1}
    together = Gathered(log.ask)
    before = asyncio.create_task(together.of("run"))
    await asked(log, 1)
    log.holds["run"] = 2  # as a cancel, through another process
    after = asyncio.create_task(together.of("run"))
    await asyncio.sleep(0)
    log.gate.release()
    log.gate.release()
    assert (await before, await after) == (1, 2)


async def test_one_who_leaves_takes_nothing_from_the_others() -> None:
    log = Log()
    log.holds = {"run": 1}
    together = Gathered(log.ask)
    asking = [asyncio.create_task(together.of("run")) for _ in range(3)]
    await asked(log, 1)
    asking[0].cancel()
    log.gate.release()
    assert await asyncio.gather(*asking[1:]) == [1, 1]
    assert asking[0].cancelled()


async def test_there_may_be_no_answer() -> None:
    log = Log()
    log.gate.release()
    assert await Gathered(log.ask).of("nothing") is None


@pytest.mark.parametrize("fault", [OperationalError("", None, OSError()), OSError()])
async def test_a_fault_is_everybodys_who_asked_and_nobody_elses(fault: Exception) -> None:
    log = Log()
    together = Gathered(log.ask)
    log.fault = fault
    asking = [asyncio.create_task(together.of(str(n))) for n in range(3)]
    await asked(log, 1)
    log.gate.release()
    assert await asyncio.gather(*asking, return_exceptions=True) == [fault] * 3
    log.fault, log.holds = None, {"0": 5}
    log.gate.release()
    assert await together.of("0") == 5


async def test_a_log_that_does_not_answer_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.gathering.ANSWER_S", 0.01)
    with pytest.raises(LogUnavailable):
        await Gathered(Log().ask).of("run")


async def test_no_question_is_larger_than_it_may_be() -> None:
    log = Log()
    log.holds = {str(n): n for n in range(7)}
    together = Gathered(log.ask, together_max=3)
    for _ in range(3):
        log.gate.release()
    assert await asyncio.gather(*(together.of(str(n)) for n in range(7))) == [*range(7)]
    assert [len(question) for question in log.questions] == [3, 3, 1]


async def test_at_the_end_nobody_is_left_waiting() -> None:
    log = Log()
    together = Gathered(log.ask)
    under_way = asyncio.create_task(together.of("a"))
    await asked(log, 1)
    gathered = asyncio.create_task(together.of("b"))
    await asyncio.sleep(0)
    await together.close()
    for task in (under_way, gathered):
        with pytest.raises(LogUnavailable):
            await task
