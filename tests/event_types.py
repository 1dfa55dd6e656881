"""The event catalogue as TypeScript: `python -m tests.event_types` writes the client's types, a test compares them."""

import types
from collections.abc import Collection
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from eventstore.domain.disclosure import DRAFTS
from eventstore.domain.events import BODIES, TYPES
from eventstore.domain.lifecycle import TERMINAL_TYPES
from tests.house import ROOT

FILE = ROOT / "api" / "web" / "client" / "events.ts"
HEAD = """\
// Written by `python -m tests.event_types` from eventstore/domain/events.py. What a policy may withhold may be absent.
"""
PLAIN: dict[Any, str] = {str: "string", int: "number", float: "number", bool: "boolean", Any: "unknown"}


def typescript() -> str:
    """The whole module."""
    shapes: dict[str, type[BaseModel]] = {}
    bodies = [_interface(f"{body.__name__}Data", body, shapes, withheld=True) for body in BODIES.values()]
    nested: list[str] = []
    while new := [shape for name, shape in shapes.items() if name not in {text.split()[2] for text in nested}]:
        nested += [_interface(shape.__name__, shape, shapes, withheld=False) for shape in new]
    rows = "".join(f"  readonly {name}: {body.__name__}Data;\n" for name, body in BODIES.items())
    catalogue = f"export interface EventData {{\n{rows}}}\n\nexport type EventType = keyof EventData;\n"
    return "\n".join([HEAD, *sorted(nested), *bodies, catalogue, _constants()])


def _constants() -> str:
    told = {
        "TERMINAL": ("The run ends with one of these.", TERMINAL_TYPES),
        "DRAFTS": ("What a later `retry` may take back.", DRAFTS),
    }
    return "\n".join(
        f"// {meaning}\nexport const {name}: ReadonlySet<string> = new Set([{_quoted(types_)}]);\n"
        for name, (meaning, types_) in told.items()
    )


def _quoted(types_: Collection[str], line: int = 60) -> str:
    words = [f'"{type_}"' for type_ in TYPES if type_ in types_]
    one_line = ", ".join(words)
    return one_line if len(one_line) <= line else "\n" + "".join(f"  {word},\n" for word in words)


def _interface(name: str, model: type[BaseModel], shapes: dict[str, type[BaseModel]], *, withheld: bool) -> str:
    lines = [
        f"  readonly {field}{'?' if withheld or _may_be_absent(info) else ''}: {_type(info.annotation, shapes)};\n"
        for field, info in model.model_fields.items()
    ]
    return f"export interface {name} {{\n{''.join(lines)}}}\n"


def _may_be_absent(info: FieldInfo) -> bool:
    return not info.is_required() and info.default is None


def _type(kind: Any, shapes: dict[str, type[BaseModel]]) -> str:
    if kind in PLAIN:
        return PLAIN[kind]
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " | ".join(f'"{value}"' for value in args)
    if origin in {Union, types.UnionType}:
        return " | ".join(_type(arg, shapes) for arg in args if arg is not types.NoneType)
    if origin is list:
        inner = _type(args[0], shapes)
        return f"readonly ({inner})[]" if " " in inner else f"readonly {inner}[]"
    if origin is tuple:
        return f"readonly [{', '.join(_type(arg, shapes) for arg in args)}]"
    if origin is dict:
        return f"Readonly<Record<string, {_type(args[1], shapes)}>>"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        shapes[kind.__name__] = kind
        return kind.__name__
    raise TypeError(f"no TypeScript for {kind}")


if __name__ == "__main__":
    FILE.write_text(typescript(), encoding="utf-8")
