"""The modules of one workflow: their functions, and what a name means where it is used."""

import ast
import builtins
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from worker.lint.syntax import FUNCTIONS, Function, body_of, bound_names, dotted, own_nodes, parameters


@dataclass(eq=False, slots=True)
class Place:
    """Where a name is bound to something that is only known when the code runs: in a function, or in a module."""

    unit: "Unit | None"


Meaning: TypeAlias = "Unit | ast.ClassDef | Place | str | None"


@dataclass(eq=False)
class Unit:
    """One function or lambda."""

    module: "Module"
    node: Function
    parent: "Unit | None"
    owner: ast.ClassDef | None
    children: dict[str, "Unit"] = field(default_factory=dict)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """What runs when it is called, without the functions inside."""
        return list(own_nodes(body_of(self.node)))

    @cached_property
    def imports(self) -> Mapping[str, str]:
        return _imports(self.nodes, self.module.package)

    @cached_property
    def elsewhere(self) -> Mapping[str, ast.Global | ast.Nonlocal]:
        """Names that it declares to be bound outside."""
        return {name: node for node in self.nodes if isinstance(node, ast.Global | ast.Nonlocal) for name in node.names}

    @cached_property
    def bound(self) -> frozenset[str]:
        """The names that are its own."""
        names = {each.arg for each in parameters(self.node)} | set(bound_names(body_of(self.node)))
        return frozenset(names - set(self.elsewhere))

    @property
    def name(self) -> str:
        return getattr(self.node, "name", "a lambda")


class Module:
    """One parsed file. `package` is the dotted name that relative imports start from, `name` its own."""

    def __init__(self, path: str, name: str, package: str, tree: ast.Module) -> None:
        self.path = path
        self.name = name
        self.package = package
        self.units: list[Unit] = []
        self.by_node: dict[ast.AST, Unit] = {}
        self.functions: dict[str, Unit] = {}
        self.methods: dict[tuple[ast.ClassDef, str], Unit] = {}
        self.nodes = list(own_nodes(tree.body))
        self.classes = {node.name: node for node in self.nodes if isinstance(node, ast.ClassDef)}
        self.bound = frozenset(bound_names(tree.body))
        self.imports = _imports(self.nodes, package)
        self._find_units(tree)
        self.aliases = self._aliases(tree)
        self.rebound = frozenset(
            name for unit in self.units for name, node in unit.elsewhere.items() if isinstance(node, ast.Global)
        )

    def _find_units(self, tree: ast.Module) -> None:
        waiting: list[tuple[Sequence[ast.AST], Unit | None]] = [(tree.body, None)]
        while waiting:
            roots, parent = waiting.pop()
            owners: dict[ast.AST, ast.ClassDef] = {
                child: node
                for node in own_nodes(roots)
                if isinstance(node, ast.ClassDef)
                for child in node.body
                if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            }
            for node in own_nodes(roots):
                if isinstance(node, FUNCTIONS) and node not in self.by_node:
                    unit = Unit(self, node, parent, owners.get(node))
                    self.units.append(unit)
                    self.by_node[node] = unit
                    self._name(unit, parent)
                    waiting.append((body_of(node), unit))

    def _name(self, unit: Unit, parent: Unit | None) -> None:
        if isinstance(unit.node, ast.Lambda):
            return
        if unit.owner is not None:
            self.methods[unit.owner, unit.node.name] = unit
        elif parent is not None:
            parent.children[unit.node.name] = unit
        else:
            self.functions[unit.node.name] = unit

    def _aliases(self, tree: ast.Module) -> dict[str, str]:
        """`now = datetime.now`, `http = httpx.Client()` at the top: what is done with these is done with those."""
        found: dict[str, str] = {}
        for node in tree.body:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    value = value.func if isinstance(value, ast.Call) else value
                    names = dotted(value.value if isinstance(value, ast.Subscript) else value)
                    if names is not None and names[0] in self.imports:
                        found[name] = ".".join([self.imports[names[0]], *names[1:]])
        return found


class Project:
    """The modules that are read together, and the way from a name to what it means."""

    def __init__(self, modules: Iterable[Module]) -> None:
        self.modules = list(modules)
        self._by_name = {module.name: module for module in self.modules}

    def meaning(self, unit: Unit | None, module: Module, name: str) -> Meaning:
        """What a bare name means in a function (or at the top of a module): ours, a dotted name, or a value."""
        while unit is not None:
            if name in unit.children:
                return unit.children[name]
            if name in unit.imports:
                return self._outside(unit.imports[name])
            if name in unit.bound:
                return Place(unit)
            unit = unit.parent
        if name in module.functions:
            return module.functions[name]
        if name in module.classes:
            return module.classes[name]
        if name in module.imports:
            return self._outside(module.imports[name])
        if name in module.aliases:
            return self._outside(module.aliases[name])
        if name in module.bound or name in module.rebound:
            return Place(None)
        return f"builtins.{name}" if hasattr(builtins, name) else None

    def meaning_of(self, unit: Unit | None, module: Module, node: ast.AST) -> Meaning:
        """The same for `a.b.c`. An attribute of a value means nothing that can be seen here."""
        names = dotted(node)
        if names is None:
            return None
        first = self.meaning(unit, module, names[0])
        if len(names) == 1:
            return first
        if isinstance(first, str):
            return self._outside(".".join([first, *names[1:]]))
        if isinstance(first, ast.ClassDef) and len(names) == 2:
            home = self.home_of(first)
            return None if home is None else home.methods.get((first, names[1]))
        if names[0] == "self" and len(names) == 2 and unit is not None:
            owner = _class_of(unit)
            return module.methods.get((owner, names[1])) if owner is not None else None
        return None

    def _outside(self, name: str) -> "Unit | ast.ClassDef | str":
        """A dotted name: a function or class of one of our modules if it is one, else itself."""
        home, _, last = name.rpartition(".")
        parts = home.split(".")
        for start in range(len(parts)):
            module = self._by_name.get(".".join(parts[start:]))
            if module is not None:
                if last in module.functions:
                    return module.functions[last]
                if last in module.classes:
                    return module.classes[last]
        return name

    def home_of(self, node: ast.ClassDef) -> Module | None:
        """The module that a class stands in."""
        return next((module for module in self.modules if module.classes.get(node.name) is node), None)


def _class_of(unit: Unit) -> ast.ClassDef | None:
    at: Unit | None = unit
    while at is not None:
        if at.owner is not None:
            return at.owner
        at = at.parent
    return None


def _imports(nodes: Iterable[ast.AST], package: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for node in nodes:
        match node:
            case ast.Import(names=names):
                for alias in names:
                    top = alias.name.partition(".")[0]
                    found[alias.asname or top] = alias.name if alias.asname else top
            case ast.ImportFrom(module=module, names=names, level=level):
                base = ".".join(part for part in (_above(package, level), module or "") if part)
                found.update({alias.asname or alias.name: f"{base}.{alias.name}" for alias in names})
    return found


def _above(package: str, level: int) -> str:
    if level == 0:
        return ""
    parts = package.split(".")
    return ".".join(parts[: max(0, len(parts) - (level - 1))])
