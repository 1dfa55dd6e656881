"""What LangGraph's server runs: a node that says pieces of text, each at its own moment, once it is told to begin."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any, TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph

LOOKING_S = 0.02


class State(TypedDict):
    """Which of how many runs this is, and the file that tells all of them when to begin."""

    place: int
    runs: int
    go: str


async def speak(state: State) -> dict[str, Any]:
    """One event when the run is there, then the pieces."""
    write, go = get_stream_writer(), Path(state["go"])
    write({"seq": 1, "due": time.time(), "text": ""})
    while not go.exists():  # noqa: ASYNC110, ASYNC240 - a file is all that the two environments share
        await asyncio.sleep(LOOKING_S)
    told = json.loads(go.read_text())  # noqa: ASYNC240
    for number in range(told["pieces"]):
        due = told["began"] + (number * state["runs"] + state["place"]) * told["beat"]
        await asyncio.sleep(max(0.0, due - time.time()))
        write({"seq": number + 2, "due": due, "text": f"{number:07d}".ljust(24, "x")})
    return {}


graph = StateGraph(State).add_node("speak", speak).add_edge(START, "speak").add_edge("speak", END).compile()
