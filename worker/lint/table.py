"""Which names a workflow may not use between its calls, by rule; whoever wants another one allowed changes it here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from worker.lint.finding import Rule

IN_A_TOOL: Final = 'do it in a step or a tool, whose output is kept: await run.step("name", function, ...)'
IN_THE_INPUT: Final = "let the caller say it in the input, or read it in a step"
BESIDE: Final = "use run.gather or run.each for what may go on beside each other"


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


@dataclass(frozen=True, slots=True)
class Ban:
    """Why a name is not allowed, and what to write instead."""

    rule: Rule
    why: str
    instead: str


CLOCK: Final = Ban("clock", "reads a clock, which says something else when the run is resumed", "use run.now()")
CHANCE: Final = Ban(
    "chance", "gives something else each time, also when the run is resumed", "use run.random(name) or run.uuid(name)"
)
PROCESS: Final = Ban("chance", "differs from process to process", "use a field of the value, or hashlib")
ENVIRONMENT: Final = Ban("environment", "differs from worker to worker", IN_THE_INPUT)
OUTSIDE: Final = Ban("outside", "reaches outside the run, where things change until it is resumed", IN_A_TOOL)
TASKS: Final = Ban("tasks", "schedules on its own, which the log cannot repeat", BESIDE)
WAITING: Final = Ban("tasks", "waits outside the log, again after each resume", "wait in a step: its end is kept")
BOUNDING: Final = Ban("tasks", "cuts a call off by a clock", "limits.run_s bounds a run, timeout_s a step or a tool")
THREAD: Final = Ban("tasks", "leaves the run's order", "run.step runs a plain function in a thread by itself")

_CLOCKS = "time datetime.datetime.now datetime.datetime.utcnow datetime.datetime.today datetime.date.today"
_ENVIRONMENTS = """
os.environ os.environb os.getenv os.getenvb os.getpid os.getcwd os.getuid os.cpu_count os.uname sys.argv sys.version
sys.platform platform getpass locale socket.gethostname socket.getfqdn
"""
_OUTSIDES = """
builtins.open builtins.input io.open os shutil tempfile glob fileinput sys.stdin socket ssl select selectors subprocess
urllib.request http.client http.server httpx httpx2 requests aiohttp urllib3 websockets smtplib imaplib poplib ftplib
telnetlib xmlrpc sqlite3 dbm shelve psycopg psycopg2 asyncpg sqlalchemy redis boto3 botocore openai anthropic pymongo
grpc paramiko webbrowser pathlib.Path.cwd pathlib.Path.home importlib pkgutil.get_data asyncio.open_connection
asyncio.start_server asyncio.create_subprocess_exec asyncio.create_subprocess_shell
"""
_BOUNDS = "asyncio.timeout asyncio.timeout_at asyncio.wait_for anyio.fail_after anyio.move_on_after trio.move_on_after"
_BANS: Final[tuple[tuple[Ban, str], ...]] = (
    (CLOCK, _CLOCKS),
    (WAITING, "time.sleep asyncio.sleep anyio.sleep trio.sleep"),
    (CHANCE, "random secrets uuid uuid_utils os.urandom os.getrandom numpy.random"),
    (PROCESS, "builtins.hash builtins.id"),
    (ENVIRONMENT, _ENVIRONMENTS),
    (OUTSIDE, _OUTSIDES),
    (TASKS, "asyncio anyio trio signal sched"),
    (BOUNDING, _BOUNDS),
    (THREAD, "asyncio.to_thread anyio.to_thread threading multiprocessing concurrent.futures queue"),
)
_ALLOWED: Final = """
time.struct_time time.strptime uuid.UUID uuid.uuid3 uuid.uuid5 uuid.NAMESPACE_DNS uuid.NAMESPACE_URL uuid.NAMESPACE_OID
uuid.NAMESPACE_X500 uuid_utils.UUID asyncio.CancelledError asyncio.TimeoutError asyncio.iscoroutinefunction os.sep
os.linesep os.fspath os.PathLike os.path.join os.path.basename os.path.dirname os.path.split os.path.splitext
os.path.normpath os.path.isabs os.path.commonprefix os.path.commonpath os.path.sep
"""
BANS: Final[Mapping[str, Ban | None]] = {
    **{name: ban for ban, names in _BANS for name in names.split()},
    **dict.fromkeys(_ALLOWED.split()),
}
# Deterministic once it was given a seed, which the rule looks at.
SEEDED: Final = "random.Random"

# Methods whose names leave little doubt that a file is meant, whatever they are called on.
FILE_METHODS: Final = words(
    "read_text read_bytes write_text write_bytes iterdir rglob is_file is_dir is_symlink symlink_to hardlink_to"
)
# The methods of a path that look at no disk; the others do.
PURE_PATH: Final = words(
    "as_posix as_uri is_absolute is_relative_to is_reserved joinpath match relative_to with_name with_stem with_suffix "
    "with_segments full_match"
)

STOPS: Final = words(
    "builtins.BaseException asyncio.CancelledError asyncio.exceptions.CancelledError worker.stops.Stop "
    "worker.stops.Diverged"
)
BROAD: Final = "builtins.Exception"
MUTATORS: Final = words(
    "add append appendleft clear discard extend extendleft insert pop popitem popleft remove reverse rotate setdefault "
    "sort subtract update move_to_end __setitem__ __delitem__ put put_nowait"
)


def banned(dotted: str) -> Ban | None:
    """The ban on a name: that of its longest known beginning, so that exceptions stand beside what they are from."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        known = ".".join(parts[:length])
        if known in BANS:
            return BANS[known]
    return None
