"""A typed answer while it streams: closed values only, each validated once."""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from worker.llm.model import ModelFault
from worker.typed import Known, TypedText, items, partials

SEEN: Counter[str] = Counter()


class Finding(BaseModel):
    clause: str
    risk: Annotated[int, Field(ge=0, le=10)]

    @field_validator("clause")
    @classmethod
    def _counted(cls, clause: str) -> str:
        SEEN[clause] += 1
        return clause


class Review(BaseModel):
    model_config = ConfigDict(extra="forbid")

    title: Annotated[str, AfterValidator(str.strip)]
    findings: list[Finding]
    score: int = 0
    notes: list[Annotated[str, AfterValidator(lambda note: note + "!")]] = []


TEXT = (
    '{"title": " NDA ", "findings": [{"clause": "4.1", "risk": 7}, {"clause": "9", "risk": 10}], '
    '"notes": ["a", "b"], "score": 120}'
)
REVIEW = Review(
    title="NDA",
    findings=[Finding(clause="4.1", risk=7), Finding(clause="9", risk=10)],
    score=120,
    notes=["a", "b"],
)


async def said(text: str, size: int = 1) -> AsyncIterator[str]:
    for start in range(0, len(text), size):
        yield text[start : start + size]


async def test_items_are_given_one_by_one_as_soon_as_each_is_closed() -> None:
    typed = TypedText(Review)
    heard = ""

    async def listening() -> AsyncIterator[str]:
        nonlocal heard
        async for text in said(TEXT):
            heard += text
            yield text

    given_at = [(finding.clause, heard) async for finding in items(listening(), typed, "findings")]
    assert [clause for clause, _ in given_at] == ["4.1", "9"]
    assert all(heard.endswith("}") for _, heard in given_at)
    assert given_at[0][1] == TEXT[: TEXT.index("}") + 1]
    assert typed.value() == REVIEW


async def test_partials_hold_closed_fields_only() -> None:
    seen = [partial async for partial in partials(said(TEXT), TypedText(Review))]
    assert seen[0] == {"title": "NDA"}
    assert seen[1] == {"title": "NDA", "findings": REVIEW.findings[:1]}
    assert [partial.get("score") for partial in seen[:-1]] == [None] * (len(seen) - 1), "12 was not the score"
    assert seen[-1] == {"title": "NDA", "findings": REVIEW.findings, "notes": ["a!", "b!"], "score": 120}


async def test_each_item_is_validated_once_and_is_the_object_that_the_whole_holds() -> None:
    SEEN.clear()
    typed = TypedText(Review)
    given_ = [finding async for finding in items(said(TEXT, 3), typed, "findings")]
    whole = typed.value()
    assert SEEN == {"4.1": 1, "9": 1}
    assert [id(finding) for finding in given_] == [id(finding) for finding in whole.findings]
    assert whole.notes == ["a!", "b!"], "a plain value is not changed twice"


@given(size=st.integers(1, 40), cut=st.integers(0, len(TEXT)))
def test_whatever_the_cut_no_item_is_given_that_the_whole_does_not_hold(size: int, cut: int) -> None:
    typed = TypedText(Review)
    given_: list[Known] = []
    for start in range(0, cut, size):
        given_ += typed.feed(TEXT[start : min(start + size, cut)])
    whole: dict[str, Any] = dict(REVIEW) | {"notes": ["a!", "b!"]}
    for known in given_:
        assert known.value == (whole[known.field] if known.index is None else whole[known.field][known.index])


@pytest.mark.parametrize(
    "text",
    [
        '{"title": "x", "findings": [{"clause": "1", "risk": 11}',
        '{"title": 7,',
        '{"title": "x", "title"',
        "Sure! {",
        "```json",
        '{"findings": [7,',
    ],
)
def test_an_answer_of_the_wrong_form_is_a_fault_as_soon_as_that_is_clear(text: str) -> None:
    typed = TypedText(Review)
    with pytest.raises(ModelFault) as caught:
        typed.feed(text)
    assert (caught.value.code, caught.value.retryable, caught.value.retries_max) == ("malformed", True, 1)


@pytest.mark.parametrize("text", ["", '{"title": "x"', '{"title": "x"}', "[]", "7", TEXT[:-1] + ', "more": 1}'])
def test_an_answer_that_is_not_whole_or_not_that_model_is_a_fault_at_the_end(text: str) -> None:
    typed = TypedText(Review)
    typed.feed(text)
    with pytest.raises(ModelFault):
        typed.value()
