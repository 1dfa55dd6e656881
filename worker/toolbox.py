"""Tools as a model is told of them: a schema from the function's signature, and what a call must hold to fit it."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_type_hints
from weakref import WeakKeyDictionary

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, create_model

from worker.declare import Tool

FAULTS_TOLD: Final = 5  # of one call's arguments; a model that sees more does not write better ones
SAID_INSTEAD: Final = "[secret]"


class Unfit(ValueError):
    """A call cannot be made: the text is for whoever asked."""


class ToolContext:
    """What a tool's function may know besides its arguments; it is given to one that asks for it first.

    `idempotency_key` is the same for every try at the call, in this process and in any other. Secrets are those of the
    worker's configuration: neither the model nor the log ever holds one.
    """

    def __init__(self, idempotency_key: str, time_left_s: float, secrets: Mapping[str, SecretStr]) -> None:
        self.idempotency_key = idempotency_key
        self.time_left_s = time_left_s
        self.given: set[str] = set()
        self._secrets = secrets

    def secret(self, name: str) -> str:
        """A secret of the configuration, by its name there. Raises LookupError when it has none."""
        if name not in self._secrets:
            raise LookupError(f"no secret {name!r} is configured: see RUNWIRE_TOOL_SECRETS")
        value = self._secrets[name].get_secret_value()
        self.given.add(value)
        return value

    def clean(self, value: Any) -> Any:
        """What the tool has made, without the secrets that it was given."""
        if isinstance(value, str):
            for secret in self.given:
                value = value.replace(secret, SAID_INSTEAD) if secret else value
            return value
        if isinstance(value, dict):
            return {self.clean(name): self.clean(item) for name, item in value.items()}
        return [self.clean(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class Form:
    """What a tool's function takes: `names` gives the parameter of each field of the model."""

    context: bool
    model: type[BaseModel]
    names: Mapping[str, str]
    schema: Mapping[str, Any]


# A workflow may make tools for each run, over what that run was given: they are forgotten with it.
_FORMS: Final[WeakKeyDictionary[Callable[..., Any], Form]] = WeakKeyDictionary()


def form_of(tool: Tool) -> Form:
    """The form of a tool's arguments. Raises ValueError when the function does not say what it takes."""
    form = _FORMS.get(tool.fn)
    if form is None:
        form = _FORMS[tool.fn] = _form(tool)
    return form


def _form(tool: Tool) -> Form:
    parameters = [*inspect.signature(tool.fn).parameters.values()]
    hints = get_type_hints(tool.fn, include_extras=True)
    context = wants_context(tool.fn)
    fields: dict[str, Any] = {}
    names: dict[str, str] = {}
    for number, parameter in enumerate(parameters[1:] if context else parameters):
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ValueError(f"tool {tool.name}: {parameter} cannot be told to a model; name each parameter")
        if parameter.name not in hints:
            raise ValueError(f"tool {tool.name}: {parameter.name} needs a type, for the model is told it")
        default = ... if parameter.default is parameter.empty else parameter.default
        # A parameter may have any name, a field not.
        names[f"a{number}"] = parameter.name
        fields[f"a{number}"] = (hints[parameter.name], Field(default, alias=parameter.name))
    config = ConfigDict(extra="forbid", serialize_by_alias=True)
    made: type[BaseModel] = create_model(f"{tool.name} arguments", __config__=config, **fields)
    schema = {"properties": {}, **made.model_json_schema(by_alias=True)}
    schema.pop("title", None)
    return Form(context, made, names, schema)


def wants_context(fn: Callable[..., Any]) -> bool:
    """Whether the function's first parameter is declared as a ToolContext, or is a bare `ctx`."""
    first = next(iter(inspect.signature(fn).parameters.values()), None)
    if first is None:
        return False
    if first.annotation is first.empty:
        return first.name == "ctx"
    return first.annotation is ToolContext or str(first.annotation).rpartition(".")[2] == "ToolContext"


def offered(tools: Sequence[Tool]) -> tuple[Mapping[str, Any], ...]:
    """The tools in the words of chat completions. Raises ValueError for what no model can be told."""
    names = [tool.name for tool in tools]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two tools have the same name: {', '.join(twice)}")
    return tuple(_offered(tool) for tool in tools)


def _offered(tool: Tool) -> Mapping[str, Any]:
    described = inspect.getdoc(tool.fn) or ""
    function = {
        "name": tool.name,
        **({"description": described} if described else {}),
        "parameters": form_of(tool).schema,
        "strict": False,  # said, because the two APIs take another default when it is not
    }
    return {"type": "function", "function": function}


def named(tools: Iterable[Tool], name: str) -> Tool:
    """The tool of this name. Raises Unfit when none was offered."""
    known = {tool.name: tool for tool in tools}
    if name not in known:
        raise Unfit(f"there is no tool of this name; there are: {', '.join(sorted(known))}")
    return known[name]


def fitting(tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as the function takes them. Raises Unfit, naming what does not fit."""
    form = form_of(tool)
    try:
        made = form.model.model_validate(arguments)
    except ValidationError as fault:
        told = [
            f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}"
            for each in fault.errors(include_url=False, include_input=False, include_context=False)
        ]
        raise Unfit("; ".join(told[:FAULTS_TOLD])) from None
    return {form.names[field]: getattr(made, field) for field in form.names if field in made.model_fields_set}
