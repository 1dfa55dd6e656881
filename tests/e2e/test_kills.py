"""Processes are killed, stopped and emptied while runs go on: nothing is lost, nothing comes twice, every run ends."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

from tests.e2e.stage import Event, Stage, drafting, lines_of, seqs_of
from tests.machine import soon

QUICK = {"pieces": 10, "rate_per_s": 0}
WORKERS = 2  # so that what is measured is the taking over, not the start of a process
TAKEN_OVER_S = 10.0
HANDED_OVER_S = 5.0  # a lease is longer: nobody waited for it to run out


def test_a_review_whose_worker_is_killed_ends_with_its_validated_result(stage: Stage) -> None:
    stage.hold_the_comments()
    run_id = stage.review()
    before = stage.until(run_id, drafting)
    carrier = stage.carrier(before)
    killed = stage.hurt(carrier, signal.SIGKILL)
    log = stage.until_ended(run_id)
    assert log[-1]["type"] == "result"
    assert log[: len(before)] == before
    assert not_repeated(log)
    assert text_is_of_one_attempt(stage, run_id, log)
    assert silence_s(log) < TAKEN_OVER_S
    assert stage.runwire("verify", run_id).returncode == 0
    stage.until_replaced(carrier, killed)


def test_a_worker_that_is_told_to_stop_hands_its_run_over(stage: Stage) -> None:
    stage.hold_the_comments()
    run_id = stage.review()
    carrier = stage.carrier(stage.until(run_id, drafting))
    told = stage.hurt(carrier, signal.SIGTERM)
    log = stage.until_ended(run_id)
    assert log[-1]["type"] == "result"
    assert not_repeated(log)
    assert text_is_of_one_attempt(stage, run_id, log)
    assert silence_s(log) < HANDED_OVER_S
    stage.until_replaced(carrier, told)


def test_a_reader_whose_api_is_killed_sees_each_event_once(stage: Stage, folder: Path) -> None:
    with stage.slowly():
        run_id = stage.review()
        watching = stage.begin(folder / "watched", "watch", run_id, "--json")
        polling = stage.begin(folder / "polled", "poll", run_id, "--json", "--wait", "2")
        soon(lambda: min(len(lines_of(folder / name)) for name in ("watched", "polled")) > 5, 20)
        killed = stage.hurt("api", signal.SIGKILL)
        soon(lambda: "connection lost" in (folder / "watched.err").read_text(), 20)
    assert (watching.wait(timeout=30), polling.wait(timeout=30)) == (0, 0)
    stage.until_replaced("api", killed)
    seqs = [event["seq"] for event in stage.events(run_id, "user")]
    assert seqs_of(lines_of(folder / "watched")) == seqs
    assert seqs_of(lines_of(folder / "polled")) == seqs
    assert stage.until_ended(run_id)[-1]["type"] == "result"


def test_an_emptied_redis_loses_neither_what_runs_nor_what_waits(stage: Stage, folder: Path) -> None:
    with watched(stage, folder):
        workers = [f"worker-{number + 1}" for number in range(WORKERS)]
        for name in workers:
            stage.hurt(name, signal.SIGSTOP)
        try:
            waiting = [stage.submit("drill", QUICK) for _ in range(3)]
            stage.flush_redis()
        finally:
            for name in workers:
                stage.hurt(name, signal.SIGCONT)
        for run_id in waiting:
            assert stage.until_ended(run_id)[-1]["type"] == "result"


def test_a_killed_redis_loses_nothing(stage: Stage, folder: Path) -> None:
    with watched(stage, folder):
        killed = stage.hurt("valkey", signal.SIGKILL)
        meanwhile = stage.submit("drill", QUICK)
        assert stage.until_ended(meanwhile)[-1]["type"] == "result"
    stage.until_replaced("valkey", killed)


def test_a_redis_that_hangs_holds_nobody_up(stage: Stage, folder: Path) -> None:
    with watched(stage, folder):
        stage.hurt("valkey", signal.SIGSTOP)
        try:
            meanwhile = stage.submit("drill", QUICK)
            assert stage.until_ended(meanwhile)[-1]["type"] == "result"
        finally:
            stage.hurt("valkey", signal.SIGCONT)


def test_a_killed_database_comes_back_with_everything_it_had_confirmed(stage: Stage, folder: Path) -> None:
    with watched(stage, folder) as running:
        before = stage.events(running)
        killed = stage.hurt("postgres", signal.SIGKILL)
        stage.until_replaced("postgres", killed)
        soon(lambda: answers(stage), 20)
    assert stage.events(running)[: len(before)] == before


def test_a_killed_model_comes_back_where_the_workers_look_for_it(stage: Stage) -> None:
    stage.hold_the_comments()
    run_id = stage.review()
    stage.until(run_id, drafting)
    killed = stage.hurt("model", signal.SIGKILL)
    log = stage.until_ended(run_id)
    assert log[-1]["type"] == "result", log[-1]
    assert text_is_of_one_attempt(stage, run_id, log)
    stage.until_replaced("model", killed)


@contextmanager
def watched(stage: Stage, folder: Path) -> Iterator[str]:
    """A review that is held back while the block goes on, and somebody who watches it.

    At the end it has its result, and its watcher saw each event that is for them, in order and once.
    """
    with ExitStack() as stack:
        with stage.slowly():
            run_id = stage.review()
            watching = stage.begin(folder / "watched", "watch", run_id, "--json")
            stack.callback(watching.wait)
            stack.callback(watching.kill)  # does nothing to one that has ended
            stage.until(run_id, lambda event: event["type"] == "token")
            yield run_id
        assert stage.until_ended(run_id)[-1]["type"] == "result"
        assert watching.wait(timeout=20) == 0
    assert seqs_of(lines_of(folder / "watched")) == [event["seq"] for event in stage.events(run_id, "user")]


def answers(stage: Stage) -> bool:
    with stage.client("officer") as client:
        return client.get("/readyz").status_code == 200


def not_repeated(log: list[Event]) -> bool:
    """Whether what was completed before the fault was not done a second time."""
    done = [event["data"]["key"] for event in log if event["type"] in {"step", "tool_result", "finding", "progress"}]
    return len(done) == len(set(done)) and [event["type"] for event in log].count("started") == 2


def text_is_of_one_attempt(stage: Stage, run_id: str, log: list[Event]) -> bool:
    """Whether the text that readers were left with is the text of the result, and the replaced one is gone."""
    dead = [span for event in log if event["type"] == "retry" for span in event["data"]["superseded"]]
    gone = [event for event in log if drafting(event) and any(first <= event["seq"] <= last for first, last in dead)]
    last = stage.state(run_id, "user", at=log[-2]["seq"])
    final = log[-1]["data"]["output"]["comments"]
    return bool(gone) and last["partial"]["sections"]["comments"] == final


def silence_s(log: list[Event]) -> float:
    """How long nothing happened before the second worker started."""
    started = [place for place, event in enumerate(log) if event["type"] == "started"][1]
    until, since = (datetime.fromisoformat(log[place]["at"]) for place in (started, started - 1))
    return (until - since).total_seconds()
