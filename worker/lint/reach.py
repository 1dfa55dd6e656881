"""Which functions are workflow code: the workflows, what is written inside them, and what they call that can be seen.

A function that is only handed to `run.step`, `run.draft` or `run.tool` is not: it runs once and the log keeps what came
of it. A call among those arguments (`run.draft("speak", speech(order))`) makes such a function; what it returns is one.
"""

import ast
from dataclasses import dataclass, field
from typing import Final

from worker.lint.project import Module, Project, Unit
from worker.lint.syntax import dotted, last_name, parameters

# Which arguments of a call on `run` are functions that the log answers for.
HANDED: Final = {
    "step": ((1,), ("fn", "verify")),
    "draft": ((1,), ("source",)),
    "tool": ((0,), ("tool",)),
    "on_end": ((0,), ("fn",)),
    "model": ((), ("tools",)),
    "value": ((), ("tools",)),
}
BRANCHING: Final = frozenset({"each", "as_done", "gather", "branch"})
BUILDS_CLASSES: Final = ("__init__", "__post_init__", "__new__", "model_post_init")


@dataclass(slots=True)
class Reached:
    """The workflow code of a project."""

    entries: list[Unit] = field(default_factory=list)
    units: dict[Unit, bool] = field(default_factory=dict)  # True: only as a maker of functions for steps
    branches: set[Unit] = field(default_factory=set)
    handed: dict[Unit, set[ast.AST]] = field(default_factory=dict)  # nodes that name functions for steps
    classes: dict[ast.ClassDef, Module] = field(default_factory=dict)  # classes of which workflow code makes objects


def reach(project: Project) -> Reached:
    """Walk from the workflows to all that they call."""
    found = Reached()
    waiting: list[tuple[Unit, bool]] = []
    for module in project.modules:
        for unit in module.units:
            if (declared := declaration(unit)) is not None:
                found.entries.append(unit)
                waiting.append((unit, False))
                waiting += _declared(project, module, declared, found)
            elif takes_run(unit):
                waiting.append((unit, False))
    while waiting:
        unit, maker = waiting.pop()
        known = found.units.get(unit)
        if known is False or known == maker or _is_tool(unit):
            continue
        found.units[unit] = maker
        waiting += _called(project, unit, maker, found)
    return found


def _declared(project: Project, module: Module, call: ast.Call, found: Reached) -> list[tuple[Unit, bool]]:
    """What a declaration names: the assembler of partial results, and models, which are made anew at each resume."""
    named: list[tuple[Unit, bool]] = []
    for word in call.keywords:
        if isinstance(word.value, ast.Lambda):
            named.append((module.by_node[word.value], False))
            continue
        meaning = project.meaning_of(None, module, word.value)
        if isinstance(meaning, Unit):
            named.append((meaning, False))
        elif isinstance(meaning, ast.ClassDef):
            named += [(unit, False) for unit in _when_built(project, meaning, found)]
    return named


def declaration(unit: Unit) -> ast.Call | None:
    """The `@workflow(...)` over a function."""
    for decorator in getattr(unit.node, "decorator_list", ()):
        if isinstance(decorator, ast.Call) and last_name(decorator) == "workflow":
            return decorator
    return None


def run_names(unit: Unit | None) -> set[str]:
    """By which names a run can be reached in a function."""
    names: set[str] = set()
    while unit is not None:
        given = parameters(unit.node)
        names |= {each.arg for each in given if each.arg == "run" or last_name(each.annotation) == "Run"}
        if declaration(unit) is not None and given:
            names.add(given[0].arg)
        unit = unit.parent
    return names


def takes_run(unit: Unit) -> bool:
    """Whether a function is handed a run: it is then part of a workflow, wherever it stands."""
    return any(last_name(each.annotation) == "Run" for each in parameters(unit.node)) and isinstance(
        unit.node, ast.AsyncFunctionDef
    )


def is_run_call(unit: Unit, node: ast.AST) -> str | None:
    """The method of `run` that a call calls."""
    if not isinstance(node, ast.Call):
        return None
    names = dotted(node.func)
    return names[1] if names is not None and len(names) == 2 and names[0] in run_names(unit) else None


def _called(project: Project, unit: Unit, maker: bool, found: Reached) -> list[tuple[Unit, bool]]:
    handed = _handed(unit, maker)
    found.handed[unit] = handed.functions
    named: list[tuple[Unit, bool]] = []
    seen: set[ast.AST] = set()
    for node in unit.nodes:
        method = is_run_call(unit, node)
        if method in BRANCHING and isinstance(node, ast.Call):
            found.branches |= _units_in(project, unit, node)
        if node in handed.functions or node in seen:
            continue
        if isinstance(node, ast.Attribute):
            seen.update(_inside(node))
        for other in _meant(project, unit, node, found):
            makes = isinstance(node, ast.Name | ast.Attribute) and node in handed.makers
            named.append((other, makes))
            if _has_own_run(other):
                found.branches.add(other)
    named += [(child, False) for child in _unmentioned(unit, handed.functions)]
    found.branches |= {child for child, _ in named if child.parent is unit and _has_own_run(child)}
    return named


@dataclass(slots=True)
class _Handed:
    functions: set[ast.AST] = field(default_factory=set)
    makers: set[ast.AST] = field(default_factory=set)


def _handed(unit: Unit, maker: bool) -> _Handed:
    """Which nodes of a function name what is handed to a step, and which name what makes such a function."""
    found = _Handed()
    for node in unit.nodes:
        if isinstance(node, ast.Call) and (method := is_run_call(unit, node)) in HANDED:
            places, words = HANDED[method]
            values = [node.args[place] for place in places if place < len(node.args)]
            values += [word.value for word in node.keywords if word.arg in words]
            for value in values:
                _hand(found, value)
        elif maker and isinstance(node, ast.Return) and node.value is not None:
            _hand(found, node.value)
    return found


def _hand(found: _Handed, value: ast.AST) -> None:
    if isinstance(value, ast.List | ast.Tuple):
        for each in value.elts:
            _hand(found, each)
    elif isinstance(value, ast.Call):
        if last_name(value) == "partial" and value.args:
            _hand(found, value.args[0])
        else:
            found.makers.add(value.func)
    else:
        found.functions.add(value)
        found.functions.update(_inside(value))


def _inside(node: ast.AST) -> list[ast.AST]:
    """The parts of `a.b.c` that are no name of their own."""
    parts: list[ast.AST] = []
    while isinstance(node, ast.Attribute):
        node = node.value
        parts.append(node)
    return parts


def _meant(project: Project, unit: Unit, node: ast.AST, found: Reached) -> list[Unit]:
    """The functions that a node leads to when it is looked at outside a step."""
    if isinstance(node, ast.Lambda):
        return [unit.module.by_node[node]]
    if not isinstance(node, ast.Name | ast.Attribute) or not isinstance(node.ctx, ast.Load):
        return []
    meaning = project.meaning_of(unit, unit.module, node)
    if isinstance(meaning, Unit):
        return [meaning]
    return _when_built(project, meaning, found) if isinstance(meaning, ast.ClassDef) else []


def _when_built(project: Project, cls: ast.ClassDef, found: Reached) -> list[Unit]:
    """What runs when an object of a class of ours is made."""
    module = project.home_of(cls)
    if module is None or cls in found.classes:
        return []
    found.classes[cls] = module
    units = [module.methods[cls, name] for name in BUILDS_CLASSES if (cls, name) in module.methods]
    made = [_unit_of(project, module, None, factory) for factory in factories(cls)]
    return units + [unit for unit in made if unit is not None]


def factories(cls: ast.ClassDef) -> list[ast.expr]:
    """What makes the defaults of a class's fields."""
    return [node.value for node in ast.walk(cls) if isinstance(node, ast.keyword) and node.arg == "default_factory"]


def _unit_of(project: Project, module: Module, unit: Unit | None, node: ast.AST) -> Unit | None:
    if isinstance(node, ast.Lambda):
        return module.by_node.get(node)
    meaning = project.meaning_of(unit, module, node)
    return meaning if isinstance(meaning, Unit) else None


def _units_in(project: Project, unit: Unit, call: ast.Call) -> set[Unit]:
    """The functions that are handed to a branching call, in whatever shape."""
    found: set[Unit] = set()
    for argument in [*call.args, *(word.value for word in call.keywords if word.arg != "key")]:
        for node in ast.walk(argument):
            other = _unit_of(project, unit.module, unit, node)
            if other is not None:
                found.add(other)
    return found


def _unmentioned(unit: Unit, handed: set[ast.AST]) -> list[Unit]:
    """Functions written inside that no step is handed: they are the workflow's, also when nothing calls them yet."""
    names = {node.id for node in handed if isinstance(node, ast.Name)}
    return [child for name, child in unit.children.items() if name not in names]


def _has_own_run(unit: Unit) -> bool:
    return unit.parent is not None and any(
        each.arg == "run" or last_name(each.annotation) == "Run" for each in parameters(unit.node)
    )


def _is_tool(unit: Unit) -> bool:
    return any(last_name(each) == "tool" for each in getattr(unit.node, "decorator_list", ()))
