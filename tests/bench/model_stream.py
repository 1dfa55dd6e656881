"""What a piece of a model's answer costs before it is an event: processor time, ours beside the SDK's typed stream.

The scripted server is a process of its own, so that only the reading is counted. In a burst it sends as fast as it can;
paced, as a model speaks, every piece is a read of its own from the socket, and the event loop wakes up for it.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import jiter
import openai
import uvloop
from pydantic import BaseModel

from tests.bench.figures import percentile
from tests.machine import soon
from worker.holding import Guard, Redaction
from worker.jsonscan import Scanner
from worker.llm.model import ModelEnd, ModelRequest
from worker.llm.provider import create_model
from worker.llm.settings import ModelSettings
from worker.typed import TypedText

PIECES: Final = 2_000
ROUNDS: Final = 5
STREAMS: Final = 20
PACED_PIECES: Final = 200
PACED_RATE: Final = 50.0
START_S: Final = 30.0

Read = Callable[[int], Awaitable[int]]


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    """The scripted model in its own process; gives its address."""
    scripts, port_file = folder / "scripts", folder / "model.port"
    scripts.mkdir(exist_ok=True)
    rules = [
        {"name": str(count), "when": [f"^say {count}$"], "say": " ".join(["word"] * count)}
        for count in (PIECES, PACED_PIECES)
    ]
    (scripts / "bench.script.json").write_text(json.dumps(rules))
    arguments = ["--port-file", str(port_file), "--scripts", str(scripts)]
    program = subprocess.Popen([sys.executable, "-m", "worker.llm.scripted", *arguments], stdout=subprocess.DEVNULL)
    try:
        soon(port_file.exists, START_S)
        yield f"http://127.0.0.1:{port_file.read_text().strip()}"
    finally:
        program.terminate()
        program.wait()


@asynccontextmanager
async def _readers(url: str) -> AsyncIterator[dict[str, Read]]:
    """Each way to read an answer: it gives how many pieces of text there were."""
    settings: dict[str, Any] = {"OPENAI_API_KEY": None, "OPENAI_BASE_URL": None, "RUNWIRE_SCRIPTED_URL": url}
    ours = create_model(ModelSettings(**settings, responses_models="responses"))
    async with openai.AsyncOpenAI(api_key="x", base_url=url, max_retries=0) as sdk:

        async def typed_chat(model: str, count: int) -> int:
            messages: list[Any] = [{"role": "user", "content": f"say {count}"}]
            stream = await sdk.chat.completions.create(model=model, messages=messages, stream=True)
            return sum([bool(chunk.choices[0].delta.content) async for chunk in stream])

        async def typed_responses(model: str, count: int) -> int:
            stream = await sdk.responses.create(model=model, input=f"say {count}", stream=True)
            return sum([event.type == "response.output_text.delta" async for event in stream])

        async def raw(model: str, count: int) -> int:
            request = ModelRequest(model, ({"role": "user", "content": f"say {count}"},))
            async with aclosing(ours.stream(request)) as stream:
                return sum([not isinstance(item, ModelEnd) async for item in stream])

        yield {
            "chat, SDK typed": partial(typed_chat, "chat"),
            "chat, own decoding": partial(raw, "chat"),
            "responses, SDK typed": partial(typed_responses, "responses"),
            "responses, own decoding": partial(raw, "responses"),
        }
    await ours.aclose()


async def _streams(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as control, _readers(f"{url}/v1") as readers:
        for shape, rate, streams, count in (
            ("burst", 0.0, 1, PIECES),
            (f"paced, {STREAMS} streams at {PACED_RATE:.0f}/s", PACED_RATE, STREAMS, PACED_PIECES),
        ):
            await control.post("/scripted/pace", json={"pieces_per_s": rate})
            rounds = ROUNDS if rate == 0 else 1
            for name, read in readers.items():
                if rate == 0:
                    await read(PACED_PIECES)  # the first answer pays for imports
                spent = [await _cpu_per_piece(read, streams, count) for _ in range(rounds)]
                print(f"{shape}: {name}: {percentile(spent, 0.5) * 1e6:.1f} µs of CPU per piece")


async def _cpu_per_piece(read: Read, streams: int, count: int) -> float:
    began = time.process_time()
    pieces = await asyncio.gather(*(read(count) for _ in range(streams)))
    spent = time.process_time() - began
    assert pieces == [count] * streams
    return spent / (streams * count)


class _Finding(BaseModel):
    clause: str
    risk: int
    quote: str


class _Review(BaseModel):
    findings: list[_Finding]


def _structured() -> None:
    """A typed answer in pieces of four characters: our scanner, and jiter over all that came, again and again."""
    item = {"clause": "4.1", "risk": 7, "quote": "The cap is two million, and \N{SECTION SIGN} 9 says so. " * 4}
    text = json.dumps({"findings": [item] * 100}, ensure_ascii=False)
    pieces = [text[at : at + 4] for at in range(0, len(text), 4)]

    def scanned() -> None:
        scanner = Scanner()
        for piece in pieces:
            scanner.feed(piece)
        scanner.close()

    def typed() -> None:
        reading = TypedText(_Review)
        for piece in pieces:
            reading.feed(piece)
        reading.value()

    def parsed_again() -> None:
        so_far = bytearray()
        for piece in pieces:
            so_far += piece.encode()
            jiter.from_json(bytes(so_far), partial_mode="trailing-strings")

    for name, work in (("own scanner", scanned), ("own scanner, validated", typed), ("jiter again", parsed_again)):
        spent = percentile([_cpu(work) for _ in range(ROUNDS)], 0.5)
        print(f"structured, {len(text):,} characters: {name}: {spent / len(pieces) * 1e6:.1f} µs of CPU per piece")


def _held() -> None:
    """Text through a guard, piece by piece."""
    text = "It is so, and clause 4.1 says why: the cap is two million. " * 400
    pieces = [text[at : at + 5] for at in range(0, len(text), 5)]
    redact = (Redaction(r"\b\d{3}-\d{2}-\d{4}\b"), Redaction(r"[\w.+-]+@[\w.-]+\w"))
    for name, guard in (
        ("sentence", Guard("sentence")),
        ("word, two redactions", Guard("word", redact)),
        ("sentence, two redactions", Guard("sentence", redact)),
    ):

        def work(guard: Guard = guard) -> None:
            holder = guard.holder()
            for piece in pieces:
                for _ in holder.feed(piece):
                    pass
            for _ in holder.close():
                pass

        spent = percentile([_cpu(work) for _ in range(ROUNDS)], 0.5)
        print(f"held by {name}: {spent / len(pieces) * 1e6:.1f} µs of CPU per piece")


def _cpu(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def main(folder: Path) -> None:
    with _server(folder) as url:
        uvloop.run(_streams(url))
    _structured()
    _held()
