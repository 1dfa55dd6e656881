"""Where a set is gone through: its order comes from hashes that differ from process to process."""

import ast
from collections.abc import Callable, Iterator
from typing import Final

from worker.lint.project import Unit
from worker.lint.syntax import last_name, parameters

MAKES_SET: Final = frozenset({"builtins.set", "builtins.frozenset"})
SET_METHODS: Final = frozenset({"union", "intersection", "difference", "symmetric_difference"})
SET_TYPES: Final = frozenset({"set", "frozenset", "Set", "FrozenSet", "AbstractSet", "MutableSet"})
IN_ORDER: Final = frozenset(
    f"builtins.{name}" for name in ("list", "tuple", "enumerate", "iter", "zip", "map", "filter", "reversed")
)
ORDER_FREE: Final = frozenset(
    f"builtins.{name}" for name in ("sorted", "set", "frozenset", "any", "all", "len", "min", "max", "sum")
)
DEEP: Final = 40  # operators and brackets inside each other; deeper ones are taken for no set

Dotted = Callable[[ast.AST], str]


def unordered(unit: Unit, dotted: Dotted) -> Iterator[ast.AST]:
    """The nodes of a function at which a set's order is used."""
    known = _known_sets(unit, dotted)
    free = _order_free(unit, dotted)
    for node in unit.nodes:
        match node:
            case ast.For(iter=gone_through) | ast.AsyncFor(iter=gone_through):
                candidates = [gone_through]
            case ast.ListComp(generators=generators) | ast.DictComp(generators=generators):
                candidates = [each.iter for each in generators]
            case ast.GeneratorExp(generators=generators) if id(node) not in free:
                candidates = [each.iter for each in generators]
            case ast.Call(func=ast.Attribute(attr="pop", value=value), args=[], keywords=[]):
                candidates = [value]
            case ast.Call(func=ast.Attribute(attr="join" | "each"), args=[first, *_]):
                candidates = [first]
            case ast.Call(func=func, args=args) if dotted(func) in IN_ORDER:
                candidates = list(args)
            case ast.Starred(value=value, ctx=ast.Load()):
                candidates = [value]
            case _:
                continue
        yield from (each for each in candidates if _is_set(each, known, dotted, 0))


def _order_free(unit: Unit, dotted: Dotted) -> set[int]:
    """Generators whose order nobody sees, for what takes them has none of its own."""
    return {
        id(node.args[0])
        for node in unit.nodes
        if isinstance(node, ast.Call) and len(node.args) >= 1 and dotted(node.func) in ORDER_FREE
    }


def _known_sets(unit: Unit, dotted: Dotted) -> frozenset[str]:
    """Names that are sets wherever this function assigns them."""
    found = {each.arg for each in parameters(unit.node) if _is_set_type(each.annotation)}
    values: dict[str, list[ast.expr]] = {}
    others: set[str] = set()
    for node in unit.nodes:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.NamedExpr(target=ast.Name(id=name), value=value)
            ):
                values.setdefault(name, []).append(value)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation) if _is_set_type(annotation):
                found.add(name)
            case ast.For(target=target) | ast.AsyncFor(target=target):
                others |= {each.id for each in ast.walk(target) if isinstance(each, ast.Name)}
    known = frozenset(found - others)
    for name, given in values.items():
        if name not in others and all(_is_set(value, known, dotted, 0) for value in given):
            known |= {name}
    return known


def _is_set_type(annotation: ast.expr | None) -> bool:
    return last_name(annotation.value if isinstance(annotation, ast.Subscript) else annotation) in SET_TYPES


def _is_set(node: ast.expr, known: frozenset[str], dotted: Dotted, depth: int) -> bool:
    if depth > DEEP:
        return False
    match node:
        case ast.Set() | ast.SetComp():
            return True
        case ast.Name(id=name):
            return name in known
        case ast.Call(func=ast.Attribute(value=value, attr=method)) if method in SET_METHODS:
            return _is_set(value, known, dotted, depth + 1)
        case ast.Call(func=func):
            return dotted(func) in MAKES_SET
        case ast.BinOp(left=left, op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor(), right=right):
            return any(_is_set(side, known, dotted, depth + 1) for side in (left, right))
        case ast.IfExp(body=body, orelse=orelse):
            return any(_is_set(side, known, dotted, depth + 1) for side in (body, orelse))
    return False
