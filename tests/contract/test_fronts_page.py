"""What docs/fronts.md says is what the fronts do: its frames, its settings, and the reader that it prints."""

import asyncio
import json
import re
from typing import Any

import httpx

from api.fronts.feed import CHECKPOINT, OWN_TYPES, Feed, said
from api.fronts.lagging import conflated
from api.fronts.sse import event
from api.policies import load
from api.settings import ROOT, ApiSettings
from eventstore.domain.events import Token, new_event
from eventstore.tail import Entry
from tests.contract.runs import ENDS, Stage
from tests.histories import RUN, recorded
from tests.serving import DEADLINE_S
from tests.writing import NOW_US, accepted, started

PAGE = (ROOT / "docs" / "fronts.md").read_text(encoding="utf-8")
WORDS = ["The ", "term ", "is ", "long.", "So."]
OFFICER = load(ROOT / "policies").view("contract_review", "officer")


def frames() -> dict[str, bytes]:
    """The frames that the page shows, by type."""
    shown = re.findall(r"^```\n((?:id: .+\n)?event: (\w+)\ndata: .+\n\n)```$", PAGE, flags=re.MULTILINE)
    return {type_: frame.encode() for frame, type_ in shown}


def bare(frame: bytes) -> bytes:
    return frame.replace(str(RUN).encode(), "…".encode())


def piece(text: str) -> Token:
    return Token(text=text, section="findings", step="draft#1", attempt=1)


def test_the_page_shows_each_kind_of_frame_and_each_is_what_is_sent() -> None:
    shown = frames()
    assert set(shown) == {"token", *OWN_TYPES}
    history = recorded([accepted(), started(), *[piece("x")] * 39, piece("Clause 4.1 …"), *map(piece, WORDS)])
    sent = Feed(OFFICER, 0).take([Entry(event) for event in history])
    assert re.sub(rb'"at":"[^"]*"', b'"at":""', bare(event(sent[41]))) == re.sub(
        rb'"at":"[^"]*"', b'"at":""', shown["token"]
    )
    lagging, last = conflated(sent[42:])
    assert bare(event(lagging)) == shown["lagging"]
    assert last is sent[46]
    assert bare(event(said(RUN, CHECKPOINT, {}, 57))) == shown["checkpoint"]
    reset = json.loads(shown["reset"].partition(b"data: ")[2])
    assert shown["reset"] == event(said("…", "reset", reset["data"]))


def test_the_page_lists_the_settings_with_their_defaults() -> None:
    rows = re.findall(r"^\| `RUNWIRE_(\w+)` \| (\S+) \|", PAGE, flags=re.MULTILINE)
    assert len(rows) >= 11
    for name, default in rows:
        assert float(default) == ApiSettings.model_fields[name.lower()].default, name
    named = set(re.findall(r"RUNWIRE_(\w+)", PAGE))
    assert named <= {name.upper() for name in ApiSettings.model_fields}


async def test_the_reader_that_the_page_prints_reads_a_run_to_its_end(stage: Stage) -> None:
    [code] = re.findall(r"^```python\n(.+?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    run = await stage.begin([new_event(body, NOW_US) for body in [started(), *map(piece, WORDS), ENDS["result"]]])
    await run.write(4)
    reader: dict[str, Any] = {}
    exec(code, reader)

    def read() -> list[dict[str, Any]]:
        headers = {"X-API-Key": stage.api.key()}
        with httpx.Client(base_url=stage.api.address, headers=headers, timeout=DEADLINE_S) as client:
            return list(reader["follow"](client, run.run_id))

    reading = asyncio.create_task(asyncio.to_thread(read))
    await run.write()
    told = await asyncio.wait_for(reading, DEADLINE_S)
    assert [event["seq"] for event in told] == list(range(1, 9))
    assert told == [json.loads(envelope) for envelope in await stage.expected(run.run_id, "user")]
    lagging = {"run_id": str(run.run_id), "type": "lagging", "data": {"drafts": []}}
    assert reader["events_in"](lagging) == []
    frame = json.loads(frames()["lagging"].partition(b"data: ")[2])
    assert [(one["seq"], one["data"]["text"]) for one in reader["events_in"](frame)] == list(
        zip(range(43, 47), WORDS, strict=False)
    )
