"""Keeps the life-cycle diagram in ARCHITECTURE.md true: `python -m ops.lifecycle` writes it again from the table."""

import sys
from pathlib import Path

from eventstore.domain.lifecycle import diagram

DOCUMENT = Path(__file__).parent.parent / "ARCHITECTURE.md"
START, END = "```mermaid\n", "```\n"


def with_diagram(text: str) -> str:
    """The document with today's diagram between its fences."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return before + START + diagram() + END + after


def main() -> int:
    DOCUMENT.write_text(with_diagram(DOCUMENT.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
