"""What a workflow's declaration promises and its code must keep: planned milestones, a validation, steady defaults."""

import ast
from collections.abc import Iterator

from worker.lint.finding import Finding
from worker.lint.project import Project, Unit
from worker.lint.reach import Reached, declaration, factories
from worker.lint.rules import ban_on, is_call_of, nested, said


def declarations(project: Project, reached: Reached) -> Iterator[Finding]:
    """Findings that concern a workflow as a whole."""
    for entry in reached.entries:
        yield from _milestones(entry)
    code = [node for unit in reached.units for node in unit.nodes]
    if not any(is_call_of(node, "validate") for node in code):
        for entry in reached.entries:
            what = f"{entry.name} never calls run.validate, so nothing that it returns is taken as its result"
            instead = "return only what `await run.validate(value, checks)` let through"
            yield said(entry.module.path, entry.node, "not-validated", what, instead)
    yield from _defaults(project, reached)


def _milestones(entry: Unit) -> Iterator[Finding]:
    """Milestones that the code tells and the plan does not have. Labels that are put together are not looked at."""
    call = declaration(entry)
    plan = next((word.value for word in call.keywords if word.arg == "milestones"), None) if call else None
    if isinstance(plan, ast.Name):
        plan = _constant(entry, plan.id)
    if not isinstance(plan, ast.Tuple | ast.List):
        return
    labels = [each.value for each in plan.elts if isinstance(each, ast.Constant)]
    if len(labels) != len(plan.elts):
        return
    for node in nested(entry):
        match node:
            case ast.Call(args=[ast.Constant(value=str(label)), *_]) if is_call_of(node, "milestone"):
                if label not in labels:
                    what = f"the milestone {label!r} is not in the plan of {entry.name}"
                    yield said(entry.module.path, node, "unplanned", what, "add it to milestones=, in its place")


def _constant(entry: Unit, name: str) -> ast.expr | None:
    for node in entry.module.nodes:
        match node:
            case ast.Assign(targets=[ast.Name(id=found)], value=value) if found == name:
                return value
            case ast.AnnAssign(target=ast.Name(id=found), value=ast.expr() as value) if found == name:
                return value
    return None


def _defaults(project: Project, reached: Reached) -> Iterator[Finding]:
    """Defaults that differ each time. A model is made anew from the log whenever a run is resumed."""
    for cls, module in reached.classes.items():
        for factory in factories(cls):
            meaning = project.meaning_of(None, module, factory)
            ban = ban_on(meaning, None) if isinstance(meaning, str) else None
            if ban is not None:
                yield said(module.path, factory, ban.rule, f"{cls.name}: {meaning} {ban.why}", ban.instead)
