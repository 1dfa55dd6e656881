"""The lint names what a resumed run could not repeat, at its line, and nothing else; and it reads every module."""

import ast
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent, indent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.lint.check import Report, Source, check, check_file, check_folder
from worker.lint.finding import Finding
from worker.workflows import agent, contract_review, drill

HEAD = """\
import asyncio, contextlib, datetime as dt, os, random, secrets, socket, subprocess, threading, time, uuid
from collections import defaultdict
from datetime import date, datetime
from functools import partial
from pathlib import Path
from time import monotonic as tick
from uuid import uuid4
import httpx
import urllib.request
from worker.declare import workflow
from worker.run import Run
from worker.stops import Stop, WorkflowFailed

SEEN = []
TOTALS = {"a": 1}
COUNT = 0
"""
DECORATOR = '@workflow("w", version=1, milestones=("Reading", "Writing"), partial=None)\n'
AT = "# <- here"


def module(body: str, top: str = "") -> str:
    """A module with one workflow of this body."""
    code = indent(dedent(body).strip("\n"), "    ")
    return f"{HEAD}{dedent(top)}\n{DECORATOR}async def w(run: Run, value):\n{code}\n    await run.validate(value, [])\n"


def report(text: str, path: str = "w.py") -> Report:
    return check([Source(path, "w.workflow", "w", text.encode())])


def marked(text: str) -> list[int]:
    return [number for number, line in enumerate(text.splitlines(), 1) if line.rstrip().endswith(AT)]


@dataclass(frozen=True)
class Bad:
    rule: str
    body: str
    top: str = ""

    def __str__(self) -> str:
        return f"{self.rule}: {' '.join((self.top + self.body).split())[:60]}"


BAD = [
    Bad("clock", f"now = datetime.now() {AT}"),
    Bad("clock", f"now = dt.datetime.utcnow() {AT}"),
    Bad("clock", f"today = date.today().isoformat() {AT}"),
    Bad("clock", f"began = time.monotonic() {AT}"),
    Bad("clock", f"began = tick() {AT}"),
    Bad("clock", f"clock = time.time {AT}"),
    Bad("clock", f"rows = sorted(value, key=lambda row: time.time()) {AT}"),
    Bad("clock", "when = stamp()", f"def stamp():\n    return datetime.now() {AT}\n"),
    Bad("clock", "when = first()", f"def first():\n    return second()\ndef second():\n    return time.time() {AT}\n"),
    Bad("clock", f"now = clock() {AT}", "clock = datetime.now\n"),
    Bad("clock", f"told = now.isoformat() {AT}", "now = datetime.now()\n"),
    Bad("clock", f"def inner():\n    return time.time() {AT}\ninner()"),
    Bad("clock", f"def inner():\n    return time.time() {AT}\nawait run.step('a', inner)\nb = inner()"),
    Bad("clock", "a = Row()", f"class Row:\n    def __init__(self):\n        self.at = time.time() {AT}\n"),
    Bad("clock", "a = Row.now()", f"class Row:\n    @staticmethod\n    def now():\n        return time.time() {AT}\n"),
    Bad("chance", f"dice = random.random() {AT}"),
    Bad("chance", f"dice = random.Random().random() {AT}"),
    Bad("chance", f"token = secrets.token_hex(8) {AT}"),
    Bad("chance", f"name = uuid4() {AT}"),
    Bad("chance", f"name = uuid.uuid1() {AT}"),
    Bad("chance", f"salt = os.urandom(8) {AT}"),
    Bad("chance", f"place = hash(value) % 8 {AT}"),
    Bad("chance", f"rows = sorted(value, key=id) {AT}"),
    Bad("chance", "a = Row()", f"class Row:\n    id: str = Field(default_factory=uuid4) {AT}\n"),
    Bad("environment", f"level = os.environ['LEVEL'] {AT}"),
    Bad("environment", f"level = os.environ.get('LEVEL') {AT}"),
    Bad("environment", f"level = os.getenv('LEVEL') {AT}"),
    Bad("environment", f"host = socket.gethostname() {AT}"),
    Bad("environment", f"say(LEVEL) {AT}", "LEVEL = os.environ['LEVEL']\ndef say(x):\n    return x\n"),
    Bad("tasks", f"await asyncio.sleep(1) {AT}"),
    Bad("tasks", f"time.sleep(1) {AT}"),
    Bad("tasks", f"a, b = await asyncio.gather(value.a(), value.b()) {AT}"),
    Bad("tasks", f"done, _ = await asyncio.wait(value) {AT}"),
    Bad("tasks", f"task = asyncio.create_task(value) {AT}"),
    Bad("tasks", f"async with asyncio.TaskGroup() as group: {AT}\n    pass"),
    Bad("tasks", f"async with asyncio.timeout(3): {AT}\n    pass"),
    Bad("tasks", f"text = await asyncio.to_thread(value) {AT}"),
    Bad("tasks", f"threading.Thread(target=value).start() {AT}"),
    Bad("outside", f"text = open('a.txt').read() {AT}"),
    Bad("outside", f"text = Path('a.txt').read_text() {AT}"),
    Bad("outside", f"there = Path('a.txt').exists() {AT}"),
    Bad("outside", f"names = os.listdir('.') {AT}"),
    Bad("outside", f"page = httpx.get('http://a.example') {AT}"),
    Bad("outside", f"page = urllib.request.urlopen('http://a.example') {AT}"),
    Bad("outside", f"page = await web.get('http://a.example') {AT}", "web = httpx.AsyncClient()\n"),
    Bad("outside", f"out = subprocess.run(['ls']) {AT}"),
    Bad("outside", f"page = await run.step('page', fetch, httpx.get('a')) {AT}", "def fetch(x):\n    return x\n"),
    Bad("swallow", f"try:\n    await run.step('a', f)\nexcept: {AT}\n    pass"),
    Bad("swallow", f"try:\n    await run.step('a', f)\nexcept BaseException as fault: {AT}\n    print(fault)"),
    Bad("swallow", f"try:\n    await run.step('a', f)\nexcept (ValueError, BaseException): {AT}\n    pass"),
    Bad("swallow", f"try:\n    await run.step('a', f)\nexcept Stop: {AT}\n    pass"),
    Bad("swallow", f"try:\n    await run.step('a', f)\nexcept asyncio.CancelledError: {AT}\n    pass"),
    Bad("swallow", f"try:\n    await run.step('a', f)\nexcept: {AT}\n    if value:\n        raise"),
    Bad("swallow", f"try:\n    await run.step('a', f)\nexcept BaseException as e: {AT}\n    raise ValueError from e"),
    Bad("swallow", f"with contextlib.suppress(BaseException): {AT}\n    await run.step('a', f)"),
    Bad("swallow", f"try:\n    await run.step('a', f)\nfinally:\n    return value {AT}"),
    Bad("swallow", f"for x in value:\n    try:\n        await run.step('a', f)\n    finally:\n        break {AT}"),
    Bad("broad-except", f"try:\n    await run.step('a', f)\nexcept Exception: {AT}\n    pass"),
    Bad("shared", f"got = []\nasync def go(run: Run, x):\n    got.append(x) {AT}\nawait run.each(value, go)"),
    Bad("shared", f"got = {{}}\nasync def go(run, x):\n    got[x] = 1 {AT}\nawait run.each(value, go)"),
    Bad("shared", f"async def go(part):\n    value.done = part {AT}\nawait run.each(value, go)"),
    Bad("shared", f"n = 0\nasync def go(run: Run, x):\n    nonlocal n {AT}\n    n += x\nawait run.each(value, go)"),
    Bad("shared", f"it = iter(value)\nasync def go(run: Run, x):\n    next(it) {AT}\nawait run.each(value, go)"),
    Bad("global", f"SEEN.append(value) {AT}"),
    Bad("global", f"TOTALS['a'] += 1 {AT}"),
    Bad("global", f"global COUNT {AT}\nCOUNT += 1"),
    Bad("global", f"print(COUNT) {AT}", "def raise_it():\n    global COUNT\n    COUNT += 1\n"),
    Bad("global", "note(value)", f"def note(x):\n    SEEN.append(x) {AT}\n"),
    Bad("set-order", f"for x in {{1, 2}}: {AT}\n    print(x)"),
    Bad("set-order", f"for x in set(value): {AT}\n    print(x)"),
    Bad("set-order", f"names = {{x.name for x in value}}\nfor name in names: {AT}\n    print(name)"),
    Bad("set-order", f"rows = [x for x in frozenset(value)] {AT}"),
    Bad("set-order", f"rows = list(set(value)) {AT}"),
    Bad("set-order", f"text = ', '.join({{x for x in value}}) {AT}"),
    Bad("set-order", f"left = set(value) - {{1}}\nrows = [*left] {AT}"),
    Bad("set-order", f"names = set(value)\none = names.pop() {AT}"),
    Bad("set-order", f"rows = {{x: 1 for x in set(value)}} {AT}"),
    Bad("set-order", f"await run.each(set(value), f) {AT}"),
    Bad("set-order", "go(value)", f"def go(rows: set[str]):\n    return [row for row in rows] {AT}\n"),
    Bad("not-awaited", f"run.milestone('Reading') {AT}"),
    Bad("unplanned", f"await run.milestone('Thinking') {AT}"),
]

GOOD = [
    "now = await run.step('now', time.time)",
    "now = await run.step('now', lambda: datetime.now().isoformat())",
    "name = await run.step('name', uuid4)",
    "page = await run.step('page', httpx.get, 'http://a.example')",
    "page = await run.step('page', partial(httpx.get, timeout=3), 'http://a.example')",
    "def fetch():\n    return Path('a').read_text()\ntext = await run.step('text', fetch)",
    "def fetch():\n    return time.time()\ntext = await run.step('text', fn=fetch)",
    "async def speak():\n    await asyncio.sleep(1)\n    yield 'a'\nawait run.draft('speak', speak, section='a')",
    "name = uuid.UUID('00000000-0000-0000-0000-000000000000')",
    "name = uuid.uuid5(uuid.NAMESPACE_URL, 'a')",
    "dice = random.Random(value.seed).random()",
    "where = os.path.join('a', 'b')",
    "where = Path('a') / 'b'\nsame = Path('a').with_suffix('.txt')",
    "at = datetime(2026, 1, 1)\nlater = at + dt.timedelta(days=1)",
    "at: datetime = value.at\nok = isinstance(value, Path)",
    "try:\n    await run.step('a', f)\nexcept WorkflowFailed:\n    pass",
    "try:\n    await run.step('a', f)\nexcept BaseException:\n    print('gone')\n    raise",
    "try:\n    await run.step('a', f)\nexcept BaseException as fault:\n    print('gone')\n    raise fault",
    "try:\n    await run.step('a', f)\nexcept httpx.HTTPError:\n    pass",
    "try:\n    n = int(value)\nexcept Exception:\n    n = 0",
    "try:\n    await run.step('a', f)\nfinally:\n    for x in value:\n        break",
    "for x in sorted({1, 2}):\n    print(x)",
    "names = {x.name for x in value}\nprint('a' in names, len(names), max(names))",
    "rows = sorted(x for x in set(value))\nlow = {x.lower() for x in set(value)}",
    "counts = {}\nfor x in value:\n    counts[x] = counts.get(x, 0) + 1",
    "names = set(value)\nnames = sorted(names)\nfor name in names:\n    print(name)",
    "got = []\nasync def go(run: Run, x):\n    mine = []\n    mine.append(x)\n    return mine\nawait run.gather(go)",
    "told = iter(value)\nasync def tell():\n    next(told)\nawait tell()",
    "await run.milestone('Reading')\nlabel = 'some'\nawait run.milestone(label)",
    "SEEN = []\nSEEN.append(value)",
    "open = value.open\nopen('a')",
    "id = value.id\nprint(id)",
    "now = datetime.now()  # runwire: ok - only printed for whoever debugs this",
    "# runwire: ok - only printed for whoever debugs this\nnow = datetime.now()",
    "text = '# runwire: ok'",
    "return await run.validate(value, [])",
]


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_each_forbidden_use_is_named_by_its_rule_at_its_line(bad: Bad) -> None:
    text = module(bad.body, bad.top)
    found = report(text).findings
    assert [(each.rule, each.line) for each in found] == [(bad.rule, line) for line in marked(text)], found
    [one] = found
    assert one.level == ("warning" if bad.rule == "broad-except" else "error")
    assert one.what
    assert one.instead, "a finding says what to write instead"


@pytest.mark.parametrize("body", GOOD)
def test_what_a_resumed_run_repeats_is_not_complained_of(body: str) -> None:
    text = module(body)
    assert report(text).findings == ()


def test_what_a_workflow_does_not_reach_is_its_own_business() -> None:
    top = (
        "def elsewhere():\n    return time.time()\n@tool()\nasync def search(query):\n    return await web.get(query)\n"
    )
    assert report(module("rows = await run.tool(search, query='a')", top)).findings == ()


def test_a_workflow_that_validates_nothing_is_told_so() -> None:
    text = f"{HEAD}\n{DECORATOR}async def w(run: Run, value):\n    return value\n"
    [found] = report(text).findings
    assert (found.rule, found.level) == ("not-validated", "error")


def test_the_assembler_of_partial_results_is_held_to_the_same_rules() -> None:
    text = module("pass", f"def best(view):\n    return time.time() {AT}\n").replace("partial=None", "partial=best")
    assert [(each.rule, each.line) for each in report(text).findings] == [("clock", marked(text)[0])]


def test_a_function_of_another_module_that_is_handed_the_run_is_workflow_code() -> None:
    text = f"import time\nfrom worker.run import Run\nasync def part(run: Run):\n    return time.time() {AT}\n"
    assert [each.rule for each in report(text).findings] == ["clock"]


@pytest.mark.parametrize(
    "call",
    ["from w.prompts import ask", "from .prompts import ask", "from . import prompts", "from a.w import prompts"],
)
def test_what_it_calls_in_the_other_modules_of_its_folder_is_seen(call: str) -> None:
    used = "ask()" if call.endswith("ask") else "prompts.ask()"
    sources = [
        Source("w/workflow.py", "w.workflow", "w", module(f"text = {used}", call + "\n").encode()),
        Source("w/prompts.py", "w.prompts", "w", f"import time\ndef ask():\n    return time.ctime() {AT}\n".encode()),
    ]
    assert [(each.path, each.rule, each.line) for each in check(sources).findings] == [("w/prompts.py", "clock", 3)]


def test_an_escape_that_hides_nothing_is_told_and_does_not_fail() -> None:
    found = report(module("now = 1  # runwire: ok - nothing is read here"))
    assert [(each.rule, each.level) for each in found.findings] == [("escape", "warning")]
    assert found.ok


def test_an_escape_without_its_reason_hides_nothing() -> None:
    assert sorted(each.rule for each in report(module("now = time.time()  # runwire: ok")).findings) == [
        "clock",
        "escape",
    ]


def test_a_finding_is_one_line_and_one_object() -> None:
    found = Finding("a.py", 3, 5, "clock", "error", "it reads a clock", "do it in a step")
    assert str(found) == "a.py:3:5: error [clock] it reads a clock; do it in a step"
    assert found.plain()["line"] == 3


@pytest.mark.parametrize("package", [agent, contract_review, drill])
def test_the_workflows_that_come_along_are_clean(package: object) -> None:
    folder = Path(str(getattr(package, "__file__", ""))).parent
    found = check_folder(folder)
    assert found.workflows == (folder.name,)
    assert found.findings == ()


def test_tests_and_caches_beside_a_workflow_are_not_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "workflow.py").write_text(module("pass"))
    for name in ("test_it.py", "conftest.py", ".hidden/a.py", "__pycache__/a.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(module("now = time.time()"))
    assert check_folder(tmp_path).findings == ()


@pytest.mark.parametrize(
    "content", [b"def (", b"x = '\xff'", b"\x00", b"\t x\n  y", b"(" * 5_000, b"-" * 50_000 + b"1"]
)
def test_what_python_cannot_read_is_a_finding(content: bytes) -> None:
    found = check([Source("a.py", "a.a", "a", content)]).findings
    assert [each.rule for each in found] in (["syntax"], []), found


def library() -> Iterator[Path]:
    """Some modules of the standard library, its tests of odd syntax among them."""
    root = Path(sysconfig.get_paths()["stdlib"])
    odd = [
        root / "test" / f"test_{name}.py" for name in ("grammar", "patma", "except_star", "named_expressions", "scope")
    ]
    yield from (path for path in odd if path.exists())
    yield from sorted(root.glob("*.py"))[::5]
    yield from sorted((root / "asyncio").glob("*.py"))[::2]


def test_it_reads_every_module_of_the_standard_library() -> None:
    paths = list(library())
    assert len(paths) > 40
    for path in paths:
        check_file(path)


def test_it_reads_every_function_of_the_standard_library_as_a_workflow() -> None:
    """Each function is made an entry, so that every rule goes through every construct."""
    count = 0
    for path in list(library())[::3]:
        try:
            tree = ast.parse(path.read_bytes())
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                node.decorator_list.insert(0, ast.parse("workflow('w')", mode="eval").body)
                count += 1
        try:
            text = ast.unparse(ast.fix_missing_locations(tree))
        except RecursionError:
            continue
        check([Source(str(path), f"lib.{path.stem}", "lib", text.encode())])
    assert count > 300


names = st.sampled_from(["run", "value", "time", "x", "SEEN", "open", "self", "datetime"])
atoms = st.one_of(names, st.sampled_from(["1", "'a'", "{1, 2}", "set(x)", "time.time()", "()", "[]", "..."]))
expressions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.tuples(inner, names).map(lambda each: f"({each[0]}).{each[1]}"),
        st.tuples(inner, inner).map(lambda each: f"({each[0]})({each[1]})"),
        st.tuples(inner, inner).map(lambda each: f"({each[0]} | {each[1]})"),
        st.tuples(inner, inner).map(lambda each: f"({each[0]})[{each[1]}]"),
        st.tuples(inner, names, inner).map(lambda each: f"[{each[0]} for {each[1]} in {each[2]}]"),
        inner.map(lambda each: f"(lambda x=({each}), *y: {each})"),
        inner.map(lambda each: f"run.step('a', {each})"),
        inner.map(lambda each: f"f(*{each}, **{{}})"),
    ),
    max_leaves=12,
)
simple = st.one_of(
    expressions,
    st.tuples(names, expressions).map(lambda each: f"{each[0]} = {each[1]}"),
    st.tuples(names, expressions).map(lambda each: f"{each[0]}.b[0] += {each[1]}"),
    names.map(lambda each: f"import {each} as y"),
    names.map(lambda each: f"from .{each} import *"),
    st.sampled_from(["pass", "return", "raise", "del x", "global SEEN", "from .. import a", "x: set[int]"]),
)
HEADS = ["def f(run, *x):", "async def g(run: Run):", "class A:", "if x:", "while x:", "try:", "for x in {1}:"]
TAILS = {"try:": ["except:\n    pass", "finally:\n    return", "except* BaseException as e:\n    raise e"]}


@st.composite
def blocks(draw: st.DrawFn, depth: int = 3) -> str:
    lines = []
    for _ in range(draw(st.integers(1, 3))):
        if depth and draw(st.booleans()):
            head = draw(st.sampled_from(HEADS))
            lines.append(head + "\n" + indent(draw(blocks(depth - 1)), "    "))
            lines += [draw(st.sampled_from(TAILS[head]))] if head in TAILS else []
        else:
            lines.append(draw(simple))
    return "\n".join(lines)


@given(blocks())
def test_no_module_that_python_reads_is_too_odd_for_it(body: str) -> None:
    text = f"{HEAD}\n{DECORATOR}async def w(run: Run, value):\n{indent(body, '    ')}\n"
    for content in (text, body):
        try:
            compile(content, "w.py", "exec", flags=ast.PyCF_ONLY_AST, dont_inherit=True)
        except SyntaxError:
            continue
        assert all(each.line <= content.count("\n") + 1 for each in report(content).findings)


def test_a_long_chain_of_operators_is_not_too_deep() -> None:
    body = "x = " + " + ".join(["time.time()"] * min(800, sys.getrecursionlimit()))
    assert {each.rule for each in report(module(body)).findings} == {"clock"}
