"""Figures, the sources that sentences name, and whether the one stands in the other. Pure."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

FIGURE: Final = re.compile(r"\d+(?:[.,]\d+)*")
NAMED: Final = re.compile(r"\[([A-Z][\w-]*)\]")
END: Final = re.compile(r"(?<=[.!?])\s+|\n+")
ADVICE: Final = re.compile(r"\b(?:buy|sell|invest in|should hold|price target)\b", re.IGNORECASE)


def sentences(text: str) -> list[str]:
    """The sentences of a text."""
    return [each for each in END.split(text) if each.strip()]


def named(text: str) -> list[str]:
    """The sources that a text names."""
    return NAMED.findall(text)


def figures(text: str) -> set[str]:
    """The figures of a text; what stands in a source's name is none."""
    return {each.replace(",", "") for each in FIGURE.findall(NAMED.sub("", text))}


def borne(sentence: str, texts: Mapping[str, str]) -> bool:
    """Whether each figure of a sentence stands in a source that the same sentence names."""
    said: Iterable[set[str]] = (figures(texts.get(source, "")) for source in named(sentence))
    return figures(sentence) <= set[str]().union(*said)
