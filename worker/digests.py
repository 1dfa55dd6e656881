"""Names for values: the same value has the same name in every process and at every time."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, TypeAdapter

ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)


def plain(value: Any) -> Any:
    """The value as JSON can say it: models become objects, dates become text."""
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else ANYTHING.dump_python(value, mode="json")


def digest(value: Any) -> str:
    """The name of a value: SHA-256 over its JSON with sorted keys."""
    return sha256(orjson.dumps(plain(value), option=orjson.OPT_SORT_KEYS)).hexdigest()


def folder_digest(folder: Path) -> str:
    """The name of a workflow's code: every Python file in its folder but its tests, which change no run."""
    total = sha256()
    for path in sorted(path for path in folder.rglob("*.py") if not path.name.startswith("test_")):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()[:16]
