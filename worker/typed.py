"""A typed answer while it streams: each field and each item of a list validated once, when it is closed.

Code acts on closed values only: what is still being said may become anything. An item that is a model is validated
when it closes and goes into the whole value as that object; plain fields are looked at again with the whole, when the
text is over, from what was said and not from what became of it.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Generic, NoReturn, TypeVar, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from worker.jsonscan import Closed, NotJson, Scanner
from worker.llm.model import ModelFault

M = TypeVar("M", bound=BaseModel)

_ANNOTATED: Any = Annotated
WRONG_FORM: Final = "The model's answer does not have the form that was asked for."


@dataclass(frozen=True, slots=True)
class Known:
    """A field that is closed, or one item of a field that is a list: then `index` says which."""

    field: str
    index: int | None
    value: Any


class _Field:
    """How the values of one field are validated."""

    def __init__(self, name: str, info: FieldInfo) -> None:
        self.name = name
        [item] = get_args(info.annotation) if get_origin(info.annotation) is list else [None]
        self.items: TypeAdapter[Any] | None = TypeAdapter(item) if item is not None else None
        whole: Any = _ANNOTATED[(info.annotation, *info.metadata)] if info.metadata else info.annotation
        self.whole: TypeAdapter[Any] = TypeAdapter(whole)


class TypedText(Generic[M]):
    """Reads the text of one answer. Raises ModelFault as soon as it cannot become what was asked for."""

    def __init__(self, output: type[M]) -> None:
        self._output = output
        self._fields = {_said_as(name, info): _Field(name, info) for name, info in output.model_fields.items()}
        self._scanner = Scanner(levels=2)
        self._items: dict[str, list[Any]] = {}

    def feed(self, text: str) -> list[Known]:
        """Give what this piece closes."""
        try:
            return [known for closed in self._scanner.feed(text) if (known := self._known(closed)) is not None]
        except (NotJson, ValidationError) as fault:
            _wrong(fault)

    def value(self) -> M:
        """The whole value, once the text is over."""
        try:
            self._scanner.close()
            said = self._scanner.value
            if isinstance(said, dict):
                said = {**said, **{name: made for name, made in self._items.items() if _are_models(made)}}
            return self._output.model_validate(said)
        except (NotJson, ValidationError) as fault:
            _wrong(fault)

    def _known(self, closed: Closed) -> Known | None:
        field = self._fields.get(closed.path[0]) if closed.path and isinstance(closed.path[0], str) else None
        if field is None:
            return None  # the whole itself, or a field that the output does not know: its own rules judge that
        name = str(closed.path[0])
        if len(closed.path) == 1:
            made = self._items.get(name, [])
            value = made if isinstance(closed.value, list) and _are_models(made) else closed.value
            return Known(field.name, None, field.whole.validate_python(value))
        if field.items is None or not isinstance(closed.path[1], int):
            return None
        item = field.items.validate_python(closed.value)
        self._items.setdefault(name, []).append(item)
        return Known(field.name, closed.path[1], item)


async def items(texts: AsyncIterator[str], typed: TypedText[M], field: str) -> AsyncGenerator[Any, None]:
    """The items of a list, each as soon as it is closed."""
    async for text in texts:
        for known in typed.feed(text):
            if known.field == field and known.index is not None:
                yield known.value


async def partials(texts: AsyncIterator[str], typed: TypedText[M]) -> AsyncGenerator[Mapping[str, Any], None]:
    """The closed fields so far, each time that there is one more; of a list, its closed items."""
    fields: dict[str, Any] = {}
    async for text in texts:
        closed = typed.feed(text)
        for known in closed:
            if known.index is None:
                fields[known.field] = known.value
            else:
                fields[known.field] = [*fields.get(known.field, ()), known.value]
        if closed:
            yield dict(fields)


def _said_as(name: str, info: FieldInfo) -> str:
    """The field's name in the text."""
    return info.validation_alias if isinstance(info.validation_alias, str) else name


def _are_models(made: list[Any]) -> bool:
    """Whether these go through a second validation as they are; any other value would be changed twice."""
    return bool(made) and all(isinstance(item, BaseModel) for item in made)


def _wrong(fault: Exception) -> NoReturn:
    raise ModelFault("malformed", WRONG_FORM, retryable=True, retries_max=1) from fault
