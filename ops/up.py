"""Starts everything on one machine and keeps it going: servers, schema, keys, model, workers, API; stops in order."""

import http.client
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import redis
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from api.settings import ApiSettings
from eventstore.database import sync_engine
from eventstore.workflow_folders import SETTING, FolderError, workflow_folders
from migrations import schema
from migrations.waiting import WAIT_S
from ops import ports, seals
from ops.devkeys import ensure_keys
from ops.exits import FAILED, USAGE, Complaint
from ops.places import ServiceError, lock_data_dir, open_data_dir, service_user
from ops.running import Running
from ops.services import Endpoints, Services
from ops.supervisor import ChildSpec, Supervisor
from worker import workflows
from worker.llm.settings import ModelSettings
from worker.loading import NotTaken, known_workflows
from worker.settings import WorkerSettings

READY_S: Final = 60.0
WORKER_READY: Final = "worker ready"
SCRIPTED: Final = "scripted"
SEALER: Final = "sealer"
SEALER_ONLY: Final = "RUNWIRE_CHECKPOINT_"  # who does not seal needs no key to the bucket
LOOK_S: Final = 0.1

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What `up` was told."""

    host: str
    port: int
    data: Path
    workers: int


@dataclass(frozen=True, slots=True)
class Up:
    """Everything, running."""

    options: Options
    address: str
    keys: Mapping[str, str]
    model: str
    logs: Path
    supervisor: Supervisor
    ready: bool  # False when a signal to stop came during the start


@contextmanager
def everything(options: Options, say: Say) -> Iterator[Up]:
    """All of Runwire for the length of a block. What is wrong comes as a Complaint or a ServiceError."""
    if (other := Running.found(options.data)) is not None:
        raise Complaint(f"runwire already runs on {options.data}: {other.address} (process {other.pid})")
    if options.port == 0:
        options = replace(options, port=ports.free_port(options.host))
    ports.check_port(options.host, options.port)
    model = _checked_settings()
    _check_workflows()
    scripted_port = ports.free_port() if model is None else None
    with ExitStack() as stack:
        say(f"Starting on {options.data} …")
        services = stack.enter_context(_services(options.data, os.environ))
        Running.forget(options.data)  # of one that was killed
        stack.callback(Running.forget, options.data)
        _check_redis(services.endpoints.redis_url)
        migrate(services.endpoints.database_url)
        keys = _keys(options.data, services.endpoints)
        logs = options.data / "logs"
        logs.mkdir(mode=0o700, exist_ok=True)
        watch = _Watch(options, services, keys["operator"], logs, say)
        children = _children(options, services.endpoints, scripted_port, watch)
        supervisor = Supervisor(children, watch.heard, logs=logs, tend=watch.tend, ready_timeout_s=READY_S)
        stack.enter_context(supervisor)
        ready = supervisor.start() and watch.wait_for_workers(supervisor)
        if ready:
            watch.tell_others(supervisor, model or SCRIPTED, scripted_port)
        yield Up(options, watch.address, keys, model or SCRIPTED, logs, supervisor, ready)


def migrate(database_url: str, wait_s: float = WAIT_S) -> tuple[str | None, str]:
    """Bring the database to this release's version; (before, after)."""
    try:
        engine = sync_engine(database_url, application="runwire-migrate")
        try:
            return schema.upgrade(engine, wait_s=wait_s)
        finally:
            engine.dispose()
    except schema.SchemaError as error:
        raise Complaint(str(error), FAILED, error.hint) from error
    except SQLAlchemyError as error:
        raise database_complaint(error) from error


def database_complaint(error: SQLAlchemyError) -> Complaint:
    """What the database's driver said, on one line. It never says the password."""
    said = str(getattr(error, "orig", None) or error).strip().splitlines()
    return Complaint(f"the database: {said[0] if said else type(error).__name__}", FAILED)


def _checked_settings() -> str | None:
    """The model that answers, in words; None when we are to start the scripted one. A bad setting is a Complaint."""
    try:
        WorkerSettings()
        ApiSettings(database_url="postgresql:///", redis_url="redis://", host="127.0.0.1", port=0)
        settings = ModelSettings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        name = name if not name or name.startswith(("OPENAI_", "RUNWIRE_")) else f"RUNWIRE_{name}"
        raise Complaint(f"the settings do not fit: {name} {first['msg']}", USAGE) from error
    if settings.openai_api_key is None and settings.openai_base_url is None and settings.scripted_url is None:
        return None
    endpoint = settings.endpoint()
    return f"{endpoint.model} at {endpoint.base_url}"


def _check_workflows() -> None:
    """Each worker reads them by itself; here they are read so that what is wrong is told before anything is started."""
    try:
        known_workflows(os.environ.get(SETTING, ""))
    except (FolderError, NotTaken) as fault:
        raise Complaint(str(fault), USAGE) from fault


@contextmanager
def _services(data: Path, environ: Mapping[str, str]) -> Iterator[Services]:
    with Services.configured(data, environ) as services:
        if services.processes:
            yield services
            return
        # Both servers are the user's own, so nobody holds the folder yet: keys and logs are kept in it all the same.
        open_data_dir(data, service_user())
        lock = lock_data_dir(data)
        try:
            yield services
        finally:
            os.close(lock)


def _check_redis(url: str) -> None:
    """Runs go on without it once they run, but a wrong address should be told now and not wondered at later."""
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=3, socket_timeout=3) as client:
            client.ping()
    except (redis.RedisError, ValueError, OSError) as error:
        raise Complaint(f"Redis: {error}", FAILED, "RUNWIRE_REDIS_URL says where it is") from error


def _keys(data: Path, endpoints: Endpoints) -> dict[str, str]:
    try:
        return ensure_keys(data, endpoints.database_url)
    except SQLAlchemyError as error:
        raise database_complaint(error) from error


def _children(options: Options, endpoints: Endpoints, scripted_port: int | None, watch: "_Watch") -> list[ChildSpec]:
    """The processes in the order in which they are started; the API counts as ready when it can take a run.

    The sealer comes before all that write: it compares the database with the checkpoints that are kept outside it, and
    a database that is behind them takes nothing.
    """
    env = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "RUNWIRE_DATABASE_URL": endpoints.database_url,
        "RUNWIRE_REDIS_URL": endpoints.redis_url,
    }
    seal = seals.ensure(options.data).environ()
    children = [ChildSpec(SEALER, python("eventstore.sealing"), {**env, **seal}, ready=watch.sealer_is_ready)]
    env = {name: value for name, value in env.items() if not name.startswith(SEALER_ONLY)}
    if scripted_port is not None:
        env["RUNWIRE_SCRIPTED_URL"] = _scripted_url(scripted_port)
        # The port is fixed, so that it answers where the workers look for it when it is started again.
        scripted = python("worker.llm.scripted", "--port", str(scripted_port), "--scripts", *_scripts())
        children.append(ChildSpec("model", scripted, env))
    children += [
        ChildSpec(f"worker-{number}", python("worker"), {**env, **_own_metrics(env, number)})
        for number in range(1, options.workers + 1)
    ]
    own = {"RUNWIRE_HOST": options.host, "RUNWIRE_PORT": str(options.port)}
    children.append(ChildSpec("api", python("api"), {**env, **own}, ready=watch.api_is_ready))
    return children


def _scripts() -> list[str]:
    """What the scripted model says: to the workflows that come along, and to one's own."""
    own = workflow_folders(os.environ.get(SETTING, ""))
    return [str(folder) for folder in (Path(workflows.__file__).parent, *own)]


def _own_metrics(environ: Mapping[str, str], number: int) -> dict[str, str]:
    """Two workers cannot listen at one address: the second takes the next port, and so on."""
    address = environ.get("RUNWIRE_WORKER_METRICS")
    if not address:
        return {}
    host, _, port = address.rpartition(":")
    return {"RUNWIRE_WORKER_METRICS": f"{host}:{int(port) and int(port) + number - 1}"}


def _scripted_url(port: int) -> str:
    return f"http://127.0.0.1:{port}/v1"


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs one of our programs. -P: a folder `api` where a person stands is not ours."""
    return [sys.executable, "-P", "-m", module, *arguments]


class _Watch:
    """What goes on during and after the start: who is ready, who was replaced."""

    def __init__(self, options: Options, services: Services, key: str, logs: Path, say: Say) -> None:
        self.address = ports.address(options.host, options.port)
        self._options = options
        self._services = services
        self._key = key
        self._logs = logs
        self._say = say
        self._workers_wanted = {f"worker-{number}" for number in range(1, options.workers + 1)}
        self._workers_ready: set[str] = set()
        self._sealer_ready = False
        self._looked_at = 0.0
        self._supervisor: Supervisor | None = None
        self._running: Running | None = None

    def heard(self, name: str, line: str) -> None:
        """A line that a process wrote, or that the supervisor says of it."""
        if name in self._workers_wanted and WORKER_READY in line:
            self._workers_ready.add(name)
        if name == SEALER and seals.READY in line:
            self._sealer_ready = True
        if "starts again in" in line and line.startswith("ended with"):
            self._say(f"{name} {line}")

    def sealer_is_ready(self) -> bool:
        """Whether the database was compared with its checkpoints."""
        return self._sealer_ready

    def api_is_ready(self) -> bool:
        """Whether the API answers, finds its database and queue, and knows what the workers can run."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_S:
            return False
        self._looked_at = now
        return self._answers("/readyz") and self._answers("/v1/workflows", b'"name"')

    def wait_for_workers(self, supervisor: Supervisor) -> bool:
        """False when a signal to stop came first."""
        deadline = time.monotonic() + READY_S
        supervisor.run(until=lambda: self._workers_wanted <= self._workers_ready or time.monotonic() > deadline)
        if time.monotonic() > deadline:
            raise ServiceError(f"no worker was ready within {READY_S:.0f} s", f"more in {self._logs}")
        return self._workers_wanted <= self._workers_ready

    def tell_others(self, supervisor: Supervisor, model: str, scripted_port: int | None) -> None:
        """Write down where everything is."""
        self._supervisor = supervisor
        self._running = Running(
            address=self.address,
            pid=os.getpid(),
            processes=self._processes(supervisor),
            database_url=self._services.endpoints.database_url,
            redis_url=self._services.endpoints.redis_url,
            model=model,
            scripted_url=None if scripted_port is None else _scripted_url(scripted_port),
            logs=str(self._logs),
        )
        self._running.write(self._options.data)

    def tend(self) -> None:
        """Start servers again that ended by themselves, and keep what others are told true."""
        for name in self._services.tend():
            self._say(f"{name} ended by itself and was started again")
        if self._supervisor is None or self._running is None:
            return
        now = self._processes(self._supervisor)
        if now != self._running.processes:
            self._running = replace(self._running, processes=now)
            self._running.write(self._options.data)

    def _processes(self, supervisor: Supervisor) -> dict[str, int]:
        return {**self._services.processes, **supervisor.processes}

    def _answers(self, path: str, holding: bytes = b"") -> bool:
        parts = urlsplit(self.address)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=2)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self._key}"})
            response = connection.getresponse()
            return response.status == 200 and holding in response.read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
