"""Walks over syntax trees without recursion: a module that Python can read must never be too deep for the lint."""

import ast
from collections.abc import Iterator, Sequence
from typing import Final

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
TRIES: Final = (ast.Try, ast.TryStar)


def own_nodes(roots: Sequence[ast.AST], *, into_classes: bool = True) -> Iterator[ast.AST]:
    """Every node that runs when these do, outer ones first: not the bodies of functions inside, not annotations."""
    waiting = list(reversed(roots))
    while waiting:
        node = waiting.pop()
        yield node
        if into_classes or not isinstance(node, ast.ClassDef):
            waiting.extend(reversed(list(_evaluated(node))))


def body_of(function: Function) -> list[ast.AST]:
    """What runs when the function is called."""
    return [function.body] if isinstance(function, ast.Lambda) else list(function.body)


def parameters(function: Function) -> list[ast.arg]:
    """All parameters, in order."""
    given = function.args
    rest = [each for each in (given.vararg, given.kwarg) if each is not None]
    return [*given.posonlyargs, *given.args, *given.kwonlyargs, *rest]


def dotted(node: ast.AST) -> list[str] | None:
    """`a.b.c` as its names; None for anything else."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    return [*reversed([*names, node.id])]


def last_name(node: ast.AST | None) -> str:
    """The last name of `a.b.c`, of `a.b.c(...)` and of "a.b.c"; empty for anything else."""
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.rpartition(".")[2].strip()
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def bound_names(roots: Sequence[ast.AST]) -> Iterator[str]:
    """The names that these bind where they stand; what stands in a class is the class's."""
    for node in own_nodes(roots, into_classes=False):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name
            case ast.MatchMapping(rest=str(name)):
                yield name


def _evaluated(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, FUNCTIONS):
        if not isinstance(node, ast.Lambda):
            yield from node.decorator_list
        yield from node.args.defaults
        yield from (default for default in node.args.kw_defaults if default is not None)
    elif isinstance(node, ast.AnnAssign):
        yield node.target
        if node.value is not None:
            yield node.value
    else:
        yield from ast.iter_child_nodes(node)
