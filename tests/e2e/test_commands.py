"""The commands of a person who wants something reviewed, stopped, seen again or proven."""

import asyncio
import json
import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

from ops.golden import golden_runs
from runwire_testing.golden import replayed
from tests.e2e.stage import RUNWIRE, SAMPLE, Stage, drafting, environ, lines_of, runwire, seqs_of
from tests.machine import soon
from worker.registry import WORKFLOWS

MILESTONES = [
    "Uploaded",
    "Parsing",
    "Extracting clauses",
    "Checking policy",
    "Drafting comments",
    "Validating",
    "Ready for review",
]


@pytest.fixture(scope="module")
def reviewed(stage: Stage) -> str:
    """A run that has ended with its result."""
    run_id = stage.review()
    stage.until_ended(run_id)
    return run_id


def test_a_review_prints_its_milestones_its_draft_and_its_validated_result(stage: Stage) -> None:
    done = stage.runwire("run", "contract_review", "--input", str(SAMPLE))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    told = [line.partition("] ")[2].partition(" – ")[0] for line in lines if line.startswith("[")]
    assert told == MILESTONES
    assert [line for line in lines if "Draft comments (not final) | " in line]
    assert len([line for line in lines if line.strip().startswith("Finding ")]) == 8
    assert lines[-2] == "[7/7] Ready for review"
    assert lines[-1].startswith("Result (validated, final, event ")
    assert json.loads(lines[-1].partition("): ")[2])["clauses"] == 8
    assert all(line.isprintable() for line in lines)


def test_json_gives_each_event_on_a_line_and_nothing_else(stage: Stage) -> None:
    done = subprocess.run(
        [RUNWIRE, "run", "drill", "--input", "-", "--title", "Mine", "--json"],
        input='{"pieces": 20, "rate_per_s": 0}',
        env=environ(RUNWIRE_DATA=str(stage.data)),
        capture_output=True,
        text=True,
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert events[0]["data"]["title"] == "Mine"
    assert events[-1]["final"] is True
    assert events == stage.events(events[0]["run_id"], "operator")


def test_polling_watching_and_replaying_give_the_same_events(stage: Stage, reviewed: str) -> None:
    watched = stage.runwire("watch", reviewed, "--json").stdout
    assert stage.runwire("poll", reviewed, "--json", "--limit", "7").stdout == watched
    assert stage.runwire("replay", reviewed, "--json", "--speed", "max", "--as", "user").stdout == watched
    after = seqs_of(watched.splitlines())[4]
    later = stage.runwire("watch", reviewed, "--json", "--after", str(after)).stdout
    assert later == "".join(f"{line}\n" for line in watched.splitlines()[5:])
    end = seqs_of(watched.splitlines())[-1]
    nothing = stage.runwire("watch", reviewed, "--json", "--after", str(end))
    assert (nothing.stdout, nothing.returncode) == ("", 0)


def test_a_part_can_be_replayed(stage: Stage, reviewed: str) -> None:
    done = stage.runwire("replay", reviewed, "--speed", "max", "--from", "3", "--to", "6", "--json")
    assert seqs_of(done.stdout.splitlines()) == [3, 4, 5, 6]


def test_show_tells_how_a_run_stands_and_stood(stage: Stage, reviewed: str) -> None:
    now = stage.runwire("show", reviewed)
    assert "completed" in now.stdout.splitlines()[0]
    assert "Result – validated, final" in now.stdout
    then = json.loads(stage.runwire("show", reviewed, "--at", "3", "--json").stdout)
    assert (then["status"], then["seq"], then["result"]) == ("running", 3, None)
    middle = next(event["seq"] for event in reversed(stage.events(reviewed)) if drafting(event))
    assert "Draft – not final" in stage.runwire("show", reviewed, "--at", str(middle)).stdout


def test_a_run_is_verified_and_listed(stage: Stage, reviewed: str) -> None:
    done = stage.runwire("verify", reviewed)
    assert done.returncode == 0
    assert done.stdout.startswith(f"Verified: {len(stage.events(reviewed))} events, no fault.")
    assert reviewed in stage.runwire("runs", "--workflow", "contract_review").stdout


def test_a_cancelled_run_keeps_its_partial_result_and_is_cancelled_once(stage: Stage, folder: Path) -> None:
    stage.hold_the_comments()
    run_id = stage.review()
    stage.until(run_id, drafting)
    watching = stage.begin(folder / "watched", "watch", run_id)
    assert stage.runwire("cancel", run_id, "--reason", "we signed already").returncode == 0
    log = stage.until_ended(run_id)
    state = stage.state(run_id, "user")
    assert (state["status"], state["result"]) == ("cancelled", None)
    assert state["cancel"]["reason"] == "we signed already"
    assert state["partial"]["final"] is False
    assert len(state["partial"]["findings"]) == 8
    assert watching.wait(timeout=20) == 3
    assert lines_of(folder / "watched")[-1].startswith("Partial result (not final): ")
    again = stage.runwire("cancel", run_id, "--reason", "twice")
    assert (again.returncode, again.stdout) == (0, "The run had ended before: cancelled.\n")
    assert stage.events(run_id) == log


def test_a_run_that_was_stopped_is_taken_up_by_a_new_one(stage: Stage) -> None:
    stage.hold_the_comments()
    earlier = stage.review()
    found = [event for event in stage.until(earlier, drafting) if event["type"] == "finding"]
    assert stage.runwire("cancel", earlier, "--reason", "later").returncode == 0
    stage.until_ended(earlier)
    done = stage.runwire("run", "--continue", earlier, "--json")
    assert done.returncode == 0, done.stderr
    run_id = json.loads(done.stdout.splitlines()[0])["run_id"]
    log = stage.until_ended(run_id)
    assert log[0]["data"]["continues"]["run_id"] == earlier
    assert log[-1]["type"] == "result"
    taken = {event["data"]["taken"]["seq"]: event for event in log if event["type"] == "finding"}
    assert {seq: event["data"]["value"] for seq, event in taken.items()} == {
        event["seq"]: event["data"]["value"] for event in found
    }
    again = stage.runwire("run", "--continue", run_id)
    assert again.returncode != 0
    assert "nothing left" in again.stderr


def test_a_cancel_after_the_end_changes_nothing(stage: Stage, reviewed: str) -> None:
    log = stage.events(reviewed)
    done = stage.runwire("cancel", reviewed, "--reason", "too late", "--json")
    assert json.loads(done.stdout)["status"] == "completed"
    assert stage.events(reviewed) == log


def test_a_run_that_fails_ends_with_exit_code_1(stage: Stage, folder: Path) -> None:
    (folder / "order").write_text('{"pieces": 5, "rate_per_s": 0, "fail_at": 2}')
    done = stage.runwire("run", "drill", "--input", str(folder / "order"))
    assert done.returncode == 1
    assert "Failed (event " in done.stdout


def test_ctrl_c_in_a_pipe_detaches_and_the_run_goes_on(stage: Stage, folder: Path) -> None:
    (folder / "order").write_text('{"pieces": 60, "rate_per_s": 30}')
    running = stage.begin(folder / "out", "run", "drill", "--json", "--input", str(folder / "order"))
    soon(lambda: len(lines_of(folder / "out")) > 5, 20)
    running.send_signal(signal.SIGINT)
    assert running.wait(timeout=20) == 130
    run_id = json.loads(lines_of(folder / "out")[0])["run_id"]
    assert f"runwire watch {run_id}" in (folder / "out.err").read_text()
    assert stage.until_ended(run_id)[-1]["type"] == "result"


def test_ctrl_c_in_a_terminal_asks_and_cancels(stage: Stage, folder: Path) -> None:
    (folder / "order").write_text('{"pieces": 900, "rate_per_s": 30}')
    person, terminal = pty.openpty()
    shown = b""

    def sees(words: bytes) -> bool:
        nonlocal shown
        shown += os.read(person, 65536)
        return words in shown

    running = subprocess.Popen(
        [RUNWIRE, "run", "drill", "--input", str(folder / "order")],
        env=environ(RUNWIRE_DATA=str(stage.data), TERM="xterm"),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    soon(lambda: sees(b"Draft, not final"), 20)
    running.send_signal(signal.SIGINT)
    soon(lambda: sees(b"[d/c]"), 20)
    os.write(person, b"c\n")
    soon(lambda: sees(b"partial result, not final"), 20)
    assert running.wait(timeout=20) == 3
    os.close(person)


def test_no_server_and_no_key_are_exit_code_4(stage: Stage, reviewed: str) -> None:
    away = runwire("watch", reviewed, RUNWIRE_URL="http://127.0.0.1:9", RUNWIRE_KEY="rw_x")
    assert away.returncode == 4
    assert away.stderr.startswith("runwire: cannot reach http://127.0.0.1:9")
    url = stage.running.address
    assert runwire("runs", RUNWIRE_URL=url, RUNWIRE_KEY="rw_wrong").returncode == 4
    assert runwire("runs", RUNWIRE_URL=url).returncode == 4


def test_a_new_key_works_at_once(stage: Stage) -> None:
    made = stage.runwire("keys", "create", "--role", "user", "--tenant", "acme", "--subject", "ada", "--json")
    key = json.loads(made.stdout)["key"]
    done = runwire("runs", "--json", RUNWIRE_URL=stage.running.address, RUNWIRE_KEY=key)
    assert (done.returncode, done.stdout) == (0, "")  # another tenant: it sees nothing of the runs above
    assert stage.runwire("keys", "create", "--role", "king", "--tenant", "a", "--subject", "b").returncode == 2
    assert "as it was" in stage.runwire("migrate").stdout


def test_a_refused_input_says_what_to_mend(stage: Stage, folder: Path) -> None:
    (folder / "order").write_text('{"pieces": -1}')
    done = stage.runwire("run", "drill", "--input", str(folder / "order"))
    assert done.returncode == 1
    assert "/input/pieces must be at least 0" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_second_start_on_the_same_data_is_refused_in_one_line(stage: Stage) -> None:
    done = stage.runwire("up", "--port", "0")
    assert done.stderr.startswith(f"runwire: runwire already runs on {stage.data}: {stage.running.address}")
    assert (done.stderr.count("\n"), done.returncode) == (1, 1)
    assert stage.runwire("up", "--port", "eighty").returncode == 2


def test_a_question_is_answered_on_the_command_line_once(stage: Stage, folder: Path) -> None:
    run_id = stage.submit("contract_review", {**json.loads(SAMPLE.read_text()), "ask_about_high_risk": True})
    watching = stage.begin(folder / "watched", "watch", run_id)
    stage.until(run_id, lambda event: event["type"] == "escalation")
    assert "waiting for reviewer" in stage.runwire("show", run_id).stdout
    wrong = stage.runwire("decide", run_id, "burn")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "comment, stop" in wrong.stderr
    done = stage.runwire("decide", run_id, "comment", "--note", "as always")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Recorded as event ")
    log = stage.until_ended(run_id)
    assert log[-1]["type"] == "result"
    assert watching.wait(timeout=20) == 0
    assert any(line.endswith(": comment – as always") for line in lines_of(folder / "watched"))
    [asked] = [event["seq"] for event in log if event["type"] == "escalation"]
    assert stage.runwire("decide", run_id, "stop", "--event", str(asked)).returncode == 1
    assert stage.runwire("decide", run_id, "comment", "--event", str(asked)).returncode == 0
    assert stage.runwire("decide", run_id, "comment").stderr.startswith("runwire: this run asks nothing")
    assert stage.runwire("decide", run_id).returncode == 2
    assert stage.events(run_id) == log


async def test_a_run_that_has_ended_is_exported_and_fits_the_code_it_ran_on(
    stage: Stage, reviewed: str, tmp_path: Path
) -> None:
    done = await asyncio.to_thread(stage.runwire, "export-golden", reviewed, "--out", str(tmp_path), "--name", "first")
    assert done.returncode == 0, done.stderr
    [(file, golden)] = golden_runs(tmp_path).items()
    assert done.stdout == f"{file}\n"
    assert file == tmp_path / "contract_review/v1/first.jsonl"
    assert [fact.seq for fact in golden.facts] == [event["seq"] for event in stage.events(reviewed)]
    assert await replayed(WORKFLOWS["contract_review"], golden) is None


def test_a_run_that_cannot_be_exported_is_one_line(stage: Stage, reviewed: str, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path), "--name", "first")
    assert stage.runwire("export-golden", reviewed, *out).returncode == 0
    for run_id, said, code in (
        (reviewed, "is there already", 1),
        ("0197a1b0-0000-7000-8000-000000000000", "there is no run", 1),
        ("first", "first is no run's id", 2),
    ):
        done = stage.runwire("export-golden", run_id, *out)
        assert said in done.stderr
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
