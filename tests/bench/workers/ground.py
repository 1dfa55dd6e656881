"""Where the workers are measured: all of `runwire up`, with a workflow that lets a model talk at a steady pace."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import httpx

from tests.bench.workers import talk
from tests.e2e.stage import Stage

PACE: Final = 20  # pieces a second, as a model speaks


def word(number: int) -> str:
    """A word that says its place."""
    return f"w{number:06d}"


def _workflow(folder: Path, lengths: tuple[int, ...]) -> Path:
    """The workflow's folder with a script that knows texts of these lengths."""
    made = folder / "talk"
    shutil.copytree(Path(talk.__file__).parent, made, ignore=shutil.ignore_patterns("__pycache__"))
    rules = [
        {"name": f"talk: {length}", "when": [f"^Say {length} words$"], "say": " ".join(map(word, range(length)))}
        for length in lengths
    ]
    (made / "talk.script.json").write_text(json.dumps(rules))
    return made


class Ground:
    """A running stage and what a measurement asks of it."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        scripted = stage.running.scripted_url
        assert scripted is not None
        self._scripted = scripted.removesuffix("/v1")
        with stage.client("user") as client:
            self.key = client.headers["Authorization"].removeprefix("Bearer ")

    @property
    def address(self) -> str:
        return self.stage.running.address

    def journal(self) -> dict[str, dict[str, Any]]:
        """What the model server saw, by the digest of the prompt; of several the last."""
        told = httpx.get(f"{self._scripted}/scripted/journal", timeout=30, trust_env=False).raise_for_status().json()
        return {entry["prompt_digest"]: entry for entry in told["requests"]}

    def workers(self) -> dict[str, int]:
        """Process ids of the workers, by name."""
        found = {name: pid for name, pid in self.stage.running.processes.items() if name.startswith("worker")}
        assert found, f"no worker among {[*self.stage.running.processes]}"
        return found


def digest_of(name: str, words: int) -> str:
    """How the model server's journal names the request of a run."""
    return sha256(f"Talk {name}\nSay {words} words".encode()).hexdigest()


def asked(name: str, words: int) -> dict[str, Any]:
    """What is posted to begin a run."""
    return {"workflow": "talk", "input": {"words": words, "name": name}}


@contextmanager
def ground(folder: Path, *lengths: int, workers: int = 1, runs_max: int = 400) -> Iterator[Ground]:
    """Start everything, and stop it."""
    folder.mkdir()
    folder.chmod(0o755)
    more = {"RUNWIRE_WORKFLOWS": str(_workflow(folder, lengths)), "RUNWIRE_SCRIPTED_PIECES_PER_S": str(PACE)}
    stage = Stage(folder / "data", workers, RUNWIRE_RUNS_MAX=str(runs_max), **more).start()
    try:
        yield Ground(stage)
    finally:
        stage.stop()
