"""Sentences, and whether the transcript bears them. Pure: the same text and turns give the same answer."""

import re
from collections.abc import Sequence
from typing import Final

from worker.author import Redaction
from worker.workflows.clinical_note.models import Part, Statement, Turn

WITHHELD: Final = "[withheld]"
END: Final = re.compile(r"(?<=[.!?])\s+|\n+")
CITED: Final = re.compile(r"\[T(\d{1,3})\]")
NUMBER: Final = re.compile(r"\d+(?:[.,]\d+)*")
WORD: Final = re.compile(r"[^\W\d_]{4,}")
STEM: Final = 5
SHARED_MIN: Final = 1 / 3  # of the words
HIGH_RISK: Final = re.compile(
    r"\d\s?(?:mg|ml|units)\b|allerg|anaphyla|overdos|suicid|chest pain|bleed|stroke|warfarin|insulin|opioid",
    re.IGNORECASE,
)


def cut(text: str) -> tuple[list[str], str]:
    """The sentences that are whole, and the rest."""
    *whole, rest = END.split(text)
    return [each for each in whole if each.strip()], rest


def statement(part: Part, number: int, text: str, turns: Sequence[Turn]) -> Statement:
    """What there is to say of one sentence."""
    named = [int(each) for each in CITED.findall(text)]
    return Statement(
        id=f"{part} {number}",
        part=part,
        text=text.strip(),
        turns=named,
        supported=is_supported(text, named, turns),
        high_risk=HIGH_RISK.search(text) is not None,
    )


def is_supported(text: str, named: Sequence[int], turns: Sequence[Turn]) -> bool:
    """Whether the turns that the sentence names exist, hold each of its numbers, and speak of the same things."""
    if not named or not all(1 <= number <= len(turns) for number in named):
        return False
    said = " ".join(turns[number - 1].text for number in named)
    claim = CITED.sub("", text).replace(WITHHELD, "")
    if not {*NUMBER.findall(claim)} <= {*NUMBER.findall(said)}:
        return False
    words = _stems(claim)
    return len(words & _stems(said)) >= max(1.0, SHARED_MIN * len(words))


def redactions(identifiers: Sequence[str]) -> list[Redaction]:
    """Each identifier, however it is spaced or hyphenated."""
    return [
        Redaction(r"[\s./-]*".join(map(re.escape, squeezed(each))), WITHHELD, re.IGNORECASE) for each in identifiers
    ]


def squeezed(text: str) -> str:
    """Only what carries meaning in an identifier."""
    return "".join(char for char in text.casefold() if char.isalnum())


def _stems(text: str) -> set[str]:
    return {word[:STEM] for word in WORD.findall(text.casefold())}
