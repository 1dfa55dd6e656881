"""The first thing a newcomer runs."""

import socket
from pathlib import Path

from tests.e2e.stage import Stage, runwire
from tests.e2e.test_commands import MILESTONES


def test_the_demo_shows_one_review_from_the_upload_to_the_verified_result(folder: Path) -> None:
    with socket.socket() as taken:  # the demo does not insist on its port
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 8080))
        taken.listen()
        done = runwire("demo", "--data", str(folder / "data"))
    assert done.returncode == 0, done.stderr
    assert all(f"] {label}" in done.stdout for label in MILESTONES)
    assert "Draft comments (not final) | " in done.stdout
    assert "Result (validated, final, event " in done.stdout
    assert "\nVerified: " in done.stdout
    assert "http://127.0.0.1:8080/#/runs/" in done.stdout
    assert "--speed 4" in done.stdout
    assert not (folder / "data" / "up.json").exists()


def test_the_demo_uses_what_runs_already_and_leaves_it_running(stage: Stage) -> None:
    done = stage.runwire("demo")
    assert done.returncode == 0, done.stderr
    assert f"{stage.running.address}/#/runs/" in done.stdout
    assert "Result (validated, final, event " in done.stdout
    assert not stage.ended
