"""Keeps the client's classes of events true: `python -m ops.client_events` writes them again from the log's own."""

import json
import re
import sys
import types
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from eventstore.domain.events import BODIES

PACKAGE: Final = Path(__file__).parent.parent / "runwire"
DOCUMENT: Final = Path(__file__).parent.parent / "docs" / "events.md"
BODIES_HEAD: Final = '''"""What each type of event says, field by field; written by `python -m ops.client_events`."""

from typing import Any, Literal, TypedDict
'''
CATALOGUE_HEAD: Final = '''"""Every type of event; written by `python -m ops.client_events`, never by hand."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from runwire import bodies
from runwire.event import Event
'''


def rendered() -> dict[Path, str]:
    """The modules as they must be today."""
    says = _meanings()
    shapes = dict.fromkeys(shape for body in BODIES.values() for shape in _shapes(body))
    dicts = [_typed_dict(shape.__name__, shape) for shape in shapes]
    dicts += [_typed_dict(body.__name__, body) for body in BODIES.values()]
    classes = [
        f"@dataclass(frozen=True, slots=True)\nclass {body.__name__}Event(Event):\n"
        f'    """{says[type_]}"""\n\n    data: bodies.{body.__name__}\n'
        for type_, body in BODIES.items()
    ]
    rows = "".join(f'    "{type_}": {body.__name__}Event,\n' for type_, body in BODIES.items())
    table = f"EVENTS: Final[Mapping[str, type[Event]]] = {{\n{rows}}}\n"
    return {
        PACKAGE / "bodies.py": "\n\n".join([BODIES_HEAD, *dicts]),
        PACKAGE / "catalogue.py": "\n\n".join([CATALOGUE_HEAD, *classes, table]),
    }


def _meanings() -> dict[str, str]:
    """What each event says, as the documents have it."""
    found = re.findall(r"^## `(\w+)`\n\n(.+?)\n\n", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return {type_: _sentence(" ".join(said.split())) for type_, said in found}


def _sentence(said: str) -> str:
    said = said.partition("It says: ")[2].partition(".")[0].strip()
    return said[:1].upper() + said[1:] + "."


def _shapes(model: type[BaseModel]) -> list[type[BaseModel]]:
    """The models inside this one, the innermost first."""
    found: list[type[BaseModel]] = []
    for field in model.model_fields.values():
        for inner in _models(field.annotation):
            found += [one for one in [*_shapes(inner), inner] if one not in found]
    return found


def _models(kind: Any) -> list[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    return [model for part in get_args(kind) for model in _models(part)]


def _typed_dict(name: str, model: type[BaseModel]) -> str:
    fields = "".join(f"    {name}: {_written(field.annotation)}\n" for name, field in model.model_fields.items())
    return f"class {name}(TypedDict, total=False):\n{fields}"


def _written(kind: Any) -> str:
    """A field's type as JSON brings it: what may be none is not there then, and a pair comes as a list."""
    if kind is Any:
        return "Any"
    if isinstance(kind, type) and not get_args(kind):
        return kind.__name__
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {types.UnionType, Union}:
        return " | ".join(_written(one) for one in arguments if one is not type(None))
    if origin is Literal:
        return f"Literal[{', '.join(json.dumps(one) for one in arguments)}]"
    if origin is tuple:
        return f"list[{_written(arguments[0])}]"
    return f"{origin.__name__}[{', '.join(map(_written, arguments))}]"


def main() -> int:
    """Write them."""
    for module, text in rendered().items():
        module.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
