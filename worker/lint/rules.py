"""What workflow code may not do, one function per rule; each looks at one function of the workflow."""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from worker.lint.finding import Finding, Level, Rule
from worker.lint.project import Place, Project, Unit
from worker.lint.reach import is_run_call
from worker.lint.sets import unordered
from worker.lint.syntax import FUNCTIONS, TRIES, body_of, dotted, last_name, own_nodes
from worker.lint.table import (
    BROAD,
    FILE_METHODS,
    IN_A_TOOL,
    MUTATORS,
    OUTSIDE,
    PURE_PATH,
    SEEDED,
    STOPS,
    Ban,
    banned,
    words,
)

RAISE_ON = "let it pass: end the handler with a bare `raise`, or name the exceptions that you expect"
AWAITED = words("milestone step tool model value draft finding validate ask sleep each gather branch child")


@dataclass(frozen=True, slots=True)
class Scope:
    """One function that is looked at, and what is known of it."""

    project: Project
    unit: Unit
    handed: set[ast.AST]
    branches: set[Unit]

    def says(self, node: ast.AST, rule: Rule, what: str, instead: str, level: Level = "error") -> Finding:
        return said(self.unit.module.path, node, rule, what, instead, level)

    def binder(self, name: str) -> Place | None:
        """Whose value a name is: a function's, or the module's; None when it is no value that can be changed."""
        at: Unit | None = self.unit
        while at is not None:
            if name in at.imports:
                return None
            if name in at.bound:
                return Place(at)
            at = at.parent
        module = self.unit.module
        ours = name in module.functions or name in module.classes
        return Place(None) if not ours and (name in module.bound or name in module.rebound) else None

    def dotted(self, node: ast.AST) -> str | None:
        """The dotted name that a node means, if it is none of ours and no value."""
        meaning = self.project.meaning_of(self.unit, self.unit.module, node)
        return meaning if isinstance(meaning, str) else None


def said(path: str, node: ast.AST, rule: Rule, what: str, instead: str, level: Level = "error") -> Finding:
    """A finding at a node's first character."""
    return Finding(path, getattr(node, "lineno", 1), getattr(node, "col_offset", 0) + 1, rule, level, what, instead)


def forbidden_names(scope: Scope) -> Iterator[Finding]:
    """Clocks, chance, the environment, the outside, tasks and threads."""
    called = {id(node.func): node for node in scope.unit.nodes if isinstance(node, ast.Call)}
    inner: set[int] = set()
    for node in scope.unit.nodes:
        if not isinstance(node, ast.Name | ast.Attribute) or node in scope.handed:
            continue
        if isinstance(node, ast.Attribute):
            inner.add(id(node.value))
        if id(node) in inner:
            continue
        name = scope.dotted(node)
        if name is None:
            continue
        ban = ban_on(name, called.get(id(node)))
        if ban is not None:
            shown = name.removeprefix("builtins.") + ("()" if id(node) in called else "")
            yield scope.says(node, ban.rule, f"{shown} {ban.why}", ban.instead)


def ban_on(name: str, call: ast.Call | None) -> Ban | None:
    """A class or an exception may be named, for `isinstance` and `except`; a function not even that."""
    last = name.rpartition(".")[2]
    if call is None and (last[:1].isupper() or not name.count(".")):
        return None
    if name == SEEDED and call is not None and call.args:
        return None
    return banned(name)


def files(scope: Scope) -> Iterator[Finding]:
    """Paths that are looked at on disk."""
    for node in scope.unit.nodes:
        match node:
            case ast.Call(func=ast.Attribute(value=base, attr=method) as func) if func not in scope.handed:
                on_path = isinstance(base, ast.Call) and scope.dotted(base.func) == "pathlib.Path"
                if method in FILE_METHODS or (on_path and method not in PURE_PATH):
                    yield scope.says(node, OUTSIDE.rule, f".{method}() {OUTSIDE.why}", IN_A_TOOL)


def swallowed_stops(scope: Scope) -> Iterator[Finding]:
    """Handlers that would keep a stop from leaving the workflow, and broad ones around calls."""
    for node in scope.unit.nodes:
        if isinstance(node, TRIES):
            for handler in node.handlers:
                yield from _handler(scope, node, handler)
            for left in _leaves(node.finalbody):
                what = "leaving from `finally` drops the stop that is passing through"
                yield scope.says(left, "swallow", what, "leave after the `try`")
        elif isinstance(node, ast.Call) and _suppresses_stops(scope, node):
            yield scope.says(node, "swallow", "this swallows the stop of a run", "name the exceptions you expect")


def _suppresses_stops(scope: Scope, call: ast.Call) -> bool:
    return scope.dotted(call.func) == "contextlib.suppress" and any(scope.dotted(each) in STOPS for each in call.args)


def _handler(scope: Scope, node: "ast.Try | ast.TryStar", handler: ast.ExceptHandler) -> Iterator[Finding]:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    names = {scope.dotted(kind) for kind in kinds if kind is not None}
    if _raises_on(handler):
        return
    if handler.type is None or names & STOPS:
        shown = "a bare `except`" if handler.type is None else f"`except {', '.join(map(last_name, kinds))}`"
        yield scope.says(handler, "swallow", f"{shown} swallows the stop of a run (cancel, deadline)", RAISE_ON)
    elif BROAD in names and any(isinstance(each, ast.Await) for each in own_nodes(node.body)):
        what = "`except Exception` around a call lets a stop pass, but hides mistakes of this code as well"
        yield scope.says(handler, "broad-except", what, "name what you expect, such as WorkflowFailed", "warning")


def _raises_on(handler: ast.ExceptHandler) -> bool:
    for statement in handler.body:
        match statement:
            case ast.Raise(exc=None):
                return True
            case ast.Raise(exc=ast.Name(id=name), cause=None) if name == handler.name:
                return True
    return False


def _leaves(body: list[ast.stmt]) -> Iterator[ast.AST]:
    loops = [node for node in own_nodes(body) if isinstance(node, ast.For | ast.AsyncFor | ast.While)]
    looped = {id(inner) for loop in loops for inner in own_nodes([*loop.body, *loop.orelse])}
    for node in own_nodes(body):
        if isinstance(node, ast.Return) or (isinstance(node, ast.Break | ast.Continue) and id(node) not in looped):
            yield node


def outer_values(scope: Scope) -> Iterator[Finding]:
    """Values that belong to somebody else and are changed here."""
    for name, told in scope.unit.elsewhere.items():
        if isinstance(told, ast.Global):
            yield _global(scope, told, name)
        elif _crosses_a_branch(scope, name, scope.unit.parent):
            yield _shared(scope, told, name)
    for node, name in _changes(scope.unit):
        if name in scope.unit.bound or name in scope.unit.elsewhere:
            continue
        place = scope.binder(name)
        if place is None:
            continue
        if place.unit is None:
            yield _global(scope, node, name)
        elif _crosses_a_branch(scope, name, scope.unit):
            yield _shared(scope, node, name)
    for node in scope.unit.nodes:
        match node:
            case ast.Name(id=name, ctx=ast.Load()) if name in scope.unit.module.rebound:
                place = scope.binder(name)
                if place is not None and place.unit is None and name not in scope.unit.elsewhere:
                    what = f"{name} is a global that a function assigns: another worker has another value"
                    yield scope.says(node, "global", what, "pass it in the input, or read it in a step")


def _global(scope: Scope, node: ast.AST, name: str) -> Finding:
    what = f"{name} belongs to the module and is changed: every run of the process sees it, a resumed run does not"
    return scope.says(node, "global", what, "keep it in a local value and return it")


def _shared(scope: Scope, node: ast.AST, name: str) -> Finding:
    what = f"{name} is changed from a branch: in which order branches come by differs each time"
    return scope.says(node, "shared", what, "return the value from the branch and join what the branches returned")


def _crosses_a_branch(scope: Scope, name: str, at: Unit | None) -> bool:
    """Whether a branch function stands between here and where the name is bound."""
    crossed = scope.unit in scope.branches
    while at is not None and name not in at.bound:
        crossed = crossed or at in scope.branches
        at = at.parent
    return crossed


def _changes(unit: Unit) -> Iterator[tuple[ast.AST, str]]:
    """Each change of a value that a name stands for, not of the name."""
    for node in unit.nodes:
        match node:
            case ast.Call(func=ast.Attribute(attr=method) as func) if method in MUTATORS:
                changed: ast.AST = func.value
            case ast.Call(func=ast.Name(id="next" | "setattr" | "delattr"), args=[first, *_]):
                changed = first
            case ast.Subscript(value=value, ctx=ast.Store() | ast.Del()):
                changed = value
            case ast.Attribute(value=value, ctx=ast.Store() | ast.Del()):
                changed = value
            case _:
                continue
        while isinstance(changed, ast.Attribute | ast.Subscript):
            changed = changed.value
        if isinstance(changed, ast.Name):
            yield node, changed.id


def lost_calls(scope: Scope) -> Iterator[Finding]:
    """Calls on `run` that nobody awaits: they never happen."""
    for node in scope.unit.nodes:
        if isinstance(node, ast.Expr) and (method := is_run_call(scope.unit, node.value)) in AWAITED:
            yield scope.says(node, "not-awaited", f"run.{method}(...) is not awaited, so it never happens", "await it")


def set_order(scope: Scope) -> Iterator[Finding]:
    """Sets that are gone through in the order that they happen to have."""
    for node in unordered(scope.unit, lambda each: scope.dotted(each) or ""):
        what = "a set has another order in each process"
        yield scope.says(node, "set-order", what, "go through sorted(...) of it, or use a list or a dict")


def nested(unit: Unit) -> list[ast.AST]:
    """A function's nodes with those of the functions inside."""
    waiting, found = body_of(unit.node), list[ast.AST]()
    while waiting:
        node = waiting.pop()
        for each in own_nodes([node]):
            found.append(each)
            if each is not node and isinstance(each, FUNCTIONS):
                waiting += body_of(each)
    return found


def is_call_of(node: ast.AST, method: str) -> bool:
    """Whether this is `anything.method(...)`."""
    names = dotted(node.func) if isinstance(node, ast.Call) else None
    return names is not None and names[-1] == method


RULES: tuple[Callable[[Scope], Iterator[Finding]], ...] = (
    forbidden_names,
    files,
    swallowed_stops,
    outer_values,
    lost_calls,
    set_order,
)
