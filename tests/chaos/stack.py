"""Everything that a chaos test needs, as processes that can be killed: servers, proxies, API, workers.

The model server and the webhook receiver live in the event loop of the test, so nothing here may block it.
"""

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import aiohttp
import asyncpg
import redis.asyncio as aioredis
from tests.chaos.proxy import Proxy, free_port
from tests.fakes.model_server import ModelServer, Reply
from tests.fakes.receiver import Receiver

from llm_service.devstack import Child, ChildSpec, start_servers
from llm_service.migrations import upgrade

SECRET = "canary-api-secret-5f1e9c"
CANARIES = (
    SECRET,
    "canary-db-password-77",
    "canary-model-key-41d0",
    "canary-webhook-secret-93",
    "canary-prompt-08",
)
HOOK_SECRET, PROMPT = CANARIES[3], CANARIES[4]
AUTH = {"X-API-Secret": SECRET}
TEMPLATE = "chaos_template"
SOURCE = Path(__file__).resolve().parents[2] / "src"
PLUGIN = Path(__file__).with_name("plugin")
BIN = Path(sys.executable).parent
FINAL = ("completed", "failed", "cancelled")

# Whatever changes a finished job, and every ending, is written down by the database itself.
WITNESS = """
CREATE TABLE chaos_endings (job_id uuid, status text, claims int, at timestamptz DEFAULT clock_timestamp());
CREATE TABLE chaos_violations (job_id uuid, what text, at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION chaos_witness() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status IN ('completed', 'failed', 'cancelled') THEN
        IF (OLD.status, OLD.result, OLD.error_code, OLD.error_message, OLD.completed_at)
           IS DISTINCT FROM (NEW.status, NEW.result, NEW.error_code, NEW.error_message, NEW.completed_at) THEN
            INSERT INTO chaos_violations (job_id, what) VALUES (OLD.id, OLD.status || ' -> ' || NEW.status);
        END IF;
    ELSIF NEW.status IN ('completed', 'failed', 'cancelled') THEN
        INSERT INTO chaos_endings (job_id, status, claims) VALUES (NEW.id, NEW.status, NEW.claims);
    ELSIF OLD.status = NEW.status AND OLD.lease_token IS DISTINCT FROM NEW.lease_token THEN
        INSERT INTO chaos_violations (job_id, what) VALUES (OLD.id, 'a lease changed hands without going back');
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_witness AFTER UPDATE ON llm_workflow_jobs FOR EACH ROW EXECUTE FUNCTION chaos_witness();
"""


class Servers:
    """PostgreSQL (durable, fsync on) and Valkey, for all tests of a run. Each test gets a database of its own."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="chaos-", dir="/var/tmp"))
        self.home.chmod(0o755)
        self._running = start_servers(self.home / "state")
        (self.home / "state").chmod(0o755)
        self.url = self._running.database_url
        self.redis, self.postgres = self._running.children
        self.redis_socket = Path(self._running.redis_url.removeprefix("unix://").partition("?")[0])
        self.postgres_socket = self.redis_socket.with_name(".s.PGSQL.5432")
        # A restart of Redis loses everything: that is the worst case, and the one to survive.
        self.redis.spec = replace(self.redis.spec, argv=[*self.redis.spec.argv, "--appendonly", "no"])

    def database(self, name: str) -> str:
        return self.url.replace("/llm_service?", f"/{name}?")

    def make_template(self) -> None:
        asyncio.run(self.execute(f"CREATE DATABASE {TEMPLATE}"))
        before = os.environ.get("DATABASE_URL")
        upgrade(self.database(TEMPLATE))
        del os.environ["DATABASE_URL"]
        if before is not None:
            os.environ["DATABASE_URL"] = before
        asyncio.run(self.execute(WITNESS, TEMPLATE))

    async def execute(self, statement: str, name: str = "llm_service") -> None:
        connection = await asyncpg.connect(self.database(name))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def make_database(self) -> str:
        name = f"chaos_{uuid4().hex[:8]}"
        await self.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        return name

    async def drop_database(self, name: str) -> None:
        await self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def stop(self) -> None:
        self._running.stop()
        shutil.rmtree(self.home, ignore_errors=True)


@contextmanager
def open_servers() -> Iterator[Servers]:
    servers = Servers()
    try:
        servers.make_template()
        yield servers
    finally:
        servers.stop()


class Managed:
    """A process of the service, started again whenever it ends unless it was told to stay down."""

    def __init__(self, name: str, argv: list[str], env: dict[str, str], log: Path) -> None:
        spec = ChildSpec(name=name, argv=argv, env=env, log=log, parent_death_signal=signal.SIGKILL)
        self.name, self.log = name, log
        self.child = Child(spec)
        self.wanted = True
        self.starts = 0
        self.ends: list[int] = []
        self.unexpected: list[int] = []
        self._killed = False

    @property
    def env(self) -> dict[str, str]:
        return dict(self.child.spec.env or {})

    @env.setter
    def env(self, environment: dict[str, str]) -> None:
        self.child.spec = replace(self.child.spec, env=environment)

    @property
    def pid(self) -> int:
        assert self.child.pid is not None
        return self.child.pid

    def start(self) -> None:
        self.wanted, self._killed = True, False
        self.starts += 1
        self.child.start()

    def send(self, number: signal.Signals) -> None:
        if number in {signal.SIGKILL, signal.SIGTERM}:
            self._killed = True
        assert self.child.process is not None
        self.child.process.send_signal(
            number
        )  # to nobody, where it has ended: its pid may be another's by now

    def kill(self, *, again: bool = True) -> None:
        self.wanted = again
        self.send(signal.SIGKILL)

    def send_stop(self) -> None:
        self.send(signal.SIGTERM)

    def look_after(self) -> None:
        """Start it again if it is down. An end that nobody asked for is remembered."""
        if self.child.process is None or self.child.is_running:
            return
        code = self.child.exit_code()
        if code is not None and len(self.ends) < self.starts:
            self.ends.append(code)
            if not self._killed:
                self.unexpected.append(code)
        if self.wanted:
            self.start()

    async def wait_until_ended(self, within_s: float = 30.0) -> int:
        """How its present life ended; it may have begun another by then."""
        life = self.starts
        await until(lambda: len(self.ends) >= life, f"{self.name} ends", within_s)
        return self.ends[life - 1]

    async def wait_until_ready(self) -> None:
        """Until its present life has come up: a worker says so in its log."""
        await until(lambda: self.output().count('"worker ready"') >= self.starts, f"{self.name} is up", 30)

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Stack:
    """The whole service over proxies. `acked` holds every job that got a 202, `answers` every status seen."""

    def __init__(
        self,
        servers: Servers,
        folder: Path,
        *,
        apis: int = 1,
        workers: int = 2,
        lease_s: float | None = None,
        failpoints: str = "",
        settings: dict[str, str] | None = None,
    ) -> None:
        self.servers, self.folder = servers, folder
        self.lease_s = lease_s or 20.0
        self.model, self.receiver = ModelServer(), Receiver()
        self.latency_s = 0.05
        self.model.choose = self._choose
        self.pg: dict[str, Proxy] = {}
        self.redis = Proxy(servers.redis_socket)
        self.names = [f"api{n}" for n in range(apis)], [f"worker{n}" for n in range(workers)]
        self.processes: dict[str, Managed] = {}
        self.acked: dict[str, str] = {}
        self.keys: dict[str, str] = {}
        self.answers: Counter[int] = Counter()
        self.complaints: list[str] = []
        self.fault_log = folder / "faults"
        self._ports: dict[str, int] = {}
        self._extra = {"LLM_SERVICE_LEASE": str(lease_s)} if lease_s else {}
        self._extra |= settings or {}
        if failpoints:
            self._extra |= {
                "LLM_SERVICE_FAILPOINTS": failpoints,
                "LLM_SERVICE_FAILPOINTS_LOG": str(self.fault_log),
            }
        self._undo = AsyncExitStack()
        self.sql: asyncpg.Pool

    # --- start and stop ---------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._undo.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._undo.aclose()

    async def _start(self) -> None:
        await heal_servers(self.servers)
        undo = self._undo
        self.database = await self.servers.make_database()
        undo.push_async_callback(self._drop_database)
        await self._flush()
        await undo.enter_async_context(self.model)
        await undo.enter_async_context(self.receiver)
        await undo.enter_async_context(self.redis)
        self.http = await undo.enter_async_context(
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=20),
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=2),
            )
        )
        self._install_plugin()
        apis, workers = self.names
        for name in (*apis, *workers):
            self.pg[name] = await undo.enter_async_context(Proxy(self.servers.postgres_socket))
        undo.callback(self._kill_all)
        for name in apis:
            self._ports[name] = free_port()
            self.add(name, "api", PORT=str(self._ports[name]))
        for name in workers:
            self.add(name, "worker")
        supervisor = asyncio.create_task(self._supervise())
        undo.push_async_callback(_cancel, supervisor)
        await self.wait_until_healthy(len(workers))

    def add(self, name: str, command: str, **extra: str) -> Managed:
        managed = Managed(
            name,
            [str(BIN / "llm-service"), command],
            self.environment(name) | extra,
            self.folder / f"{name}.log",
        )
        self.processes[name] = managed
        managed.start()
        return managed

    def environment(self, name: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{SOURCE}:{PLUGIN}:{self.folder / 'installed'}",
            "DATABASE_URL": f"postgresql://llm:{CANARIES[1]}@127.0.0.1:{self.pg[name].port}/{self.database}",
            "REDIS_URL": f"redis://127.0.0.1:{self.redis.port}/0",
            "LLM_SERVICE_API_SECRET": SECRET,
            "LLM_SERVICE_MODEL": "openai:test",
            "OPENAI_API_KEY": CANARIES[2],
            "OPENAI_BASE_URL": self.model.url,
            "LLM_SERVICE_WEBHOOK_ALLOWED_HOSTS": "127.0.0.1",
            "LLM_SERVICE_LOG_FORMAT": "json",
            "LLM_SERVICE_SHUTDOWN_GRACE": "3",
            **self._extra,
        }

    def _install_plugin(self) -> None:
        """What `pip install` of a package with workflows leaves behind."""
        info = self.folder / "installed" / "chaos_workflows-1.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: chaos-workflows\nVersion: 1\n")
        names = {"steps": "STEPS", "poison": "POISON", "blocking": "BLOCKING"}
        lines = [f"{name} = chaos_workflows:{value}" for name, value in names.items()]
        (info / "entry_points.txt").write_text("\n".join(["[llm_service.workflows]", *lines, ""]))

    async def _supervise(self) -> None:
        while True:
            for managed in list(self.processes.values()):
                managed.look_after()
            await asyncio.sleep(0.1)

    def _kill_all(self) -> None:
        for managed in self.processes.values():
            managed.wanted = False
            managed.child.kill_group()

    async def _drop_database(self) -> None:
        await heal_servers(self.servers)
        await self.servers.drop_database(self.database)

    async def _flush(self) -> None:
        async with self.redis_client() as client:
            await client.config_set("maxmemory", "0")
            await client.flushall()

    async def wait_until_healthy(self, workers: int, within_s: float = 40.0) -> None:
        async def is_healthy() -> bool:
            for name in self.names[0]:
                try:
                    async with self.http.get(f"http://127.0.0.1:{self._ports[name]}/health") as answer:
                        found = await answer.json()
                except (aiohttp.ClientError, OSError, TimeoutError):
                    return False
                if found["status"] != "healthy" or found["workers"] < workers:
                    return False
            return True

        await until(is_healthy, f"healthy with {workers} workers", within_s)

    # --- the parts --------------------------------------------------------------------------------------

    @property
    def workers(self) -> list[Managed]:
        return [managed for name, managed in self.processes.items() if name.startswith("worker")]

    @property
    def apis(self) -> list[Managed]:
        return [managed for name, managed in self.processes.items() if name.startswith("api")]

    @asynccontextmanager
    async def redis_client(self) -> AsyncIterator[aioredis.Redis]:
        client = aioredis.Redis(unix_socket_path=str(self.servers.redis_socket), socket_timeout=5)
        try:
            yield client
        finally:
            await client.aclose()

    async def rows(self, query: str, *values: Any) -> list[asyncpg.Record]:
        """Ask the database on a connection of the test's own."""
        connection = await asyncpg.connect(self.servers.database(self.database))
        try:
            found: list[asyncpg.Record] = await connection.fetch(query, *values)
        finally:
            await connection.close()
        return found

    async def value(self, query: str, *values: Any) -> Any:
        rows = await self.rows(query, *values)
        return rows[0][0] if rows else None

    def fired(self) -> list[str]:
        """The fault points that have fired, in order, as `name action`."""
        lines = self.fault_log.read_text().splitlines() if self.fault_log.exists() else []
        return [" ".join(line.split()[:2]) for line in lines]

    # --- the caller -------------------------------------------------------------------------------------

    def _choose(self, body: dict[str, Any]) -> Reply | None:
        return Reply(latency_s=self.latency_s)

    def asked(self) -> Counter[str]:
        """How often the model was asked what: `<tag> step/<n>`."""
        return Counter(
            str(body["messages"][-1]["content"]).removeprefix(f"{PROMPT} ") for body in self.model.requests
        )

    async def call(
        self, method: str, path: str, api: int | None = None, **options: Any
    ) -> tuple[int, Any, Any]:
        """One request to one API. Raises what the connection does; a 5xx that is no good 503 is a complaint."""
        name = random.choice(self.names[0]) if api is None else self.names[0][api]
        url = f"http://127.0.0.1:{self._ports[name]}{path}"
        headers = AUTH | options.pop("headers", {})
        async with self.http.request(method, url, headers=headers, **options) as answer:
            text = await answer.text()
        self.answers[answer.status] += 1
        is_good = answer.status < 500 or (answer.status == 503 and "Retry-After" in answer.headers)
        if not is_good and not path.startswith("/health"):
            self.complaints.append(f"I10 {method} {path}: {answer.status} {text[:200]}")
        if any(canary in text for canary in (*CANARIES[:4], "Traceback", "postgresql://")):
            self.complaints.append(f"I12 {method} {path} shows what it must not: {text[:200]}")
        return answer.status, json.loads(text) if text[:1] in "{[" else text, answer.headers

    async def submit(
        self,
        tag: str,
        *,
        steps: int = 1,
        workflow: str = "steps",
        key: str | None = None,
        webhook: bool = False,
        api: int | None = None,
        timeout: aiohttp.ClientTimeout | None = None,  # noqa: ASYNC109 - that of the request
        **fields: Any,
    ) -> tuple[int, str | None]:
        """Submit once: the status and the job's id. What was acknowledged is remembered."""
        body = {
            "workflow_name": workflow,
            "input_data": {"tag": f"{PROMPT} {tag}", "steps": steps},
            "username": tag,
            **({"webhook_url": self.receiver.url, "webhook_secret": HOOK_SECRET} if webhook else {}),
            **fields,
        }
        headers = {"Idempotency-Key": key} if key else {}
        options = {"timeout": timeout} if timeout else {}
        status, answer, _ = await self.call(
            "POST", "/api/v1/workflow", api, json=body, headers=headers, **options
        )
        if status != 202:
            return status, None
        job_id = str(answer["job_id"])
        self.acked[job_id] = tag
        if key is not None and self.keys.setdefault(key, job_id) != job_id:
            self.complaints.append(f"I7 the key {key} led to {self.keys[key]} and to {job_id}")
        return status, job_id

    async def submit_surely(self, tag: str, *, within_s: float = 60.0, **options: Any) -> str:
        """Submit as a careful client does: with a key, again and again until it is acknowledged."""
        key, deadline = options.pop("key", None) or f"key-{tag}", time.monotonic() + within_s
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                status, job_id = await self.submit(tag, key=key, **options)
                if job_id is not None:
                    return job_id
                assert status == 503, f"{tag}: {status}"
            assert time.monotonic() < deadline, f"{tag} was not accepted within {within_s} s"
            await asyncio.sleep(0.1)

    async def submit_many(self, prefix: str, count: int, **options: Any) -> list[str]:
        found = await asyncio.gather(*(self.submit(f"{prefix}-{n}", **options) for n in range(count)))
        assert all(status == 202 for status, _ in found), Counter(status for status, _ in found)
        return [job_id for _, job_id in found if job_id is not None]

    async def job(self, job_id: str) -> asyncpg.Record:
        rows = await self.rows("SELECT * FROM llm_workflow_jobs WHERE id = CAST($1::text AS uuid)", job_id)
        assert rows, f"the job {job_id} is gone"
        return rows[0]

    async def wait_for(self, job_id: str, *states: str, within_s: float = 40.0) -> asyncpg.Record:
        seen: list[asyncpg.Record] = []

        async def is_there() -> bool:
            seen[:] = [await self.job(job_id)]
            return seen[0]["status"] in (states or FINAL)

        await until(
            is_there, lambda: f"{job_id} in {states or FINAL}, is {dict(seen[0]) if seen else None}", within_s
        )
        return seen[0]

    async def wait_for_all(self, within_s: float = 60.0) -> float:
        """Wait until no job is unfinished; the seconds that it took."""
        started = time.monotonic()

        async def is_drained() -> bool:
            left = await self.value(
                "SELECT count(*) FROM llm_workflow_jobs WHERE status IN ('pending', 'processing')"
            )
            return not left

        await until(is_drained, "all jobs finished", within_s)
        return time.monotonic() - started

    async def wait_for_model(self, count: int, within_s: float = 20.0) -> None:
        """Until the model has been asked so often."""
        await until(
            lambda: len(self.model.requests) >= count,
            lambda: f"the model asked {count} times, was {len(self.model.requests)}",
            within_s,
        )

    async def wait_for_fault(self, name: str, within_s: float = 40.0) -> None:
        await until(lambda: any(name in line for line in self.fired()), f"{name} fires", within_s)

    # --- faults of servers ------------------------------------------------------------------------------

    async def heal(self) -> None:
        """Everything back to normal, and everything that should run is running."""
        for proxy in (*self.pg.values(), self.redis):
            await proxy.heal()
        for managed in self.processes.values():
            if managed.child.is_running:
                managed.send(signal.SIGCONT)
        await heal_servers(self.servers)

    async def restart_redis(self, down_s: float = 0.0) -> None:
        """kill -9 and start again, empty."""
        self.servers.redis.kill_group()
        await asyncio.sleep(down_s)
        await heal_servers(self.servers)
        async with self.redis_client() as client:
            assert await client.dbsize() < 50, "the restart was to lose everything"

    async def stop_postgres(self, number: signal.Signals = signal.SIGINT) -> None:
        """SIGINT is a fast shutdown, SIGQUIT an immediate one: a crash."""
        child = self.servers.postgres
        assert child.process is not None
        child.process.send_signal(number)
        await until(lambda: not child.is_running, "PostgreSQL stopped", 30)

    async def restart_postgres(self, number: signal.Signals = signal.SIGINT, down_s: float = 0.0) -> None:
        await self.stop_postgres(number)
        await asyncio.sleep(down_s)
        await heal_servers(self.servers)

    async def crash_a_backend(self) -> int:
        """kill -9 one connection's process: PostgreSQL throws everybody out and recovers."""
        pid = await self.value(
            "SELECT pid FROM pg_stat_activity WHERE datname = $1 AND application_name LIKE 'llm-service%' LIMIT 1",
            self.database,
        )
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        return int(pid)


async def owner(stack: Stack, job_id: str) -> Managed:
    """The worker that runs the job."""
    name = (await stack.wait_for(job_id, "processing"))["worker"]
    return next(worker for worker in stack.workers if f":{worker.pid}:" in name)


async def submitted(stack: Stack, tag: str, **options: Any) -> str:
    status, job_id = await stack.submit(tag, **options)
    assert status == 202
    assert job_id is not None
    return job_id


def nobody_ended(stack: Stack) -> None:
    """No process may end because a server went away."""
    for name, managed in stack.processes.items():
        assert not managed.unexpected, f"{name} ended with {managed.unexpected}: {managed.output()[-4000:]}"


async def heal_servers(servers: Servers) -> None:
    """Start what is down and wait until it answers."""
    for child in (servers.redis, servers.postgres):
        attempts = 0
        deadline = time.monotonic() + 60
        while not (child.is_running and await asyncio.to_thread(child.spec.ready or bool)):
            if not child.is_running:
                assert attempts < 20, f"{child.spec.name} does not start"
                attempts += 1
                child.start()
            assert time.monotonic() < deadline, f"{child.spec.name} does not answer"
            await asyncio.sleep(0.05)


async def until(
    condition: Callable[[], bool | Awaitable[bool]], claim: str | Callable[[], str], within_s: float = 20.0
) -> None:
    """Look again until it is so. What can't be asked while a server is away is not so yet."""
    deadline = time.monotonic() + within_s
    while True:
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            found = condition()
            if found if isinstance(found, bool) else await found:
                return
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {claim() if callable(claim) else claim}")
        await asyncio.sleep(0.05)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
