"""The tools of the agent: they search and read the documents of one task, and nothing else."""

from collections.abc import Sequence
from typing import Final, TypedDict

from worker.declare import Tool, tool
from worker.stops import WorkflowFailed
from worker.workflows.agent.models import Document

FOUND_MAX: Final = 5
LINES_MAX: Final = 200


class Hit(TypedDict):
    """Where something stands."""

    document: str
    line: str


def tools_of(documents: Sequence[Document]) -> list[Tool]:
    """Tools for these documents."""
    texts = {document.name: document.text for document in documents}

    @tool(reads_only=True, timeout_s=5.0, shown=("query",))
    async def search(query: str, limit: int = FOUND_MAX) -> list[Hit]:
        """Lines of the documents that hold these words, in any case."""
        wanted = query.casefold()
        hits = [
            Hit(document=name, line=line.strip())
            for name, text in texts.items()
            for line in text.splitlines()
            if wanted in line.casefold()
        ]
        return hits[: min(limit, FOUND_MAX)]

    @tool(reads_only=True, timeout_s=5.0, shown=("document",))
    async def read(document: str) -> str:
        """The text of a document, by its name."""
        if document not in texts:
            raise WorkflowFailed("unknown_document", f"There is no {document}; there are: {', '.join(sorted(texts))}")
        lines = texts[document].splitlines()
        rest = f"\n({len(lines) - LINES_MAX} lines more)" if len(lines) > LINES_MAX else ""
        return f"Text of {document}:\n" + "\n".join(lines[:LINES_MAX]) + rest

    return [search, read]
