"""What a workflow may say of runs that nobody reads, and where it is told."""

import pytest
from pydantic import BaseModel, ConfigDict

from api.fronts.advice import ALWAYS_S, SOON_S
from eventstore.domain.events import UNREAD_S_MIN, OnDisconnect
from eventstore.domain.manifest import Manifest
from ops.client import Frame
from ops.story import Story
from worker.author import CancelAfter, Run, workflow
from worker.declare import Workflow


class Nothing(BaseModel):
    """An input, and an output."""

    model_config = ConfigDict(extra="forbid")


def declared(**said: object) -> Workflow:
    @workflow(
        "quiet", version=1, title="Quiet", summary="", input=Nothing, output=Nothing, milestones=("Only",),
        partial=lambda view: None, **said,  # type: ignore[arg-type]
    )  # fmt: skip
    async def quiet(run: Run, value: Nothing) -> Nothing:
        return value

    return quiet


def test_a_run_goes_on_unless_its_workflow_says_otherwise() -> None:
    assert declared().manifest().on_disconnect is None
    assert declared(on_disconnect="continue").manifest().on_disconnect is None
    wanted = declared(on_disconnect=CancelAfter(60, while_waiting=True)).manifest()
    assert wanted.on_disconnect == OnDisconnect(cancel_after_s=60, while_waiting=True)
    assert Manifest.model_validate(wanted.model_dump(mode="json")) == wanted


@pytest.mark.parametrize("said", [CancelAfter(UNREAD_S_MIN - 0.1), CancelAfter(float("nan")), "cancel", None, 60])
def test_what_cannot_be_meant_is_refused_in_one_line(said: object) -> None:
    with pytest.raises(ValueError, match=r"^quiet: ") as refused:
        declared(on_disconnect=said)
    assert "\n" not in str(refused.value)


def test_whoever_polls_as_seldom_as_is_advised_is_never_too_late() -> None:
    assert 2 * max(ALWAYS_S, *SOON_S.values()) < UNREAD_S_MIN


def test_the_story_of_a_run_tells_that_it_stops_when_nobody_watches() -> None:
    data = {"workflow": "quiet", "title": "Q", "on_disconnect": {"cancel_after_s": 60.0, "while_waiting": False}}
    frame = Frame("accepted", {"seq": 1, "run_id": "r", "type": "accepted", "data": data})
    assert Story().lines(frame) == ["Run r: Q (quiet)", "      It stops when nobody watches for 60 s"]
