"""What a container may not do, seen from inside of it."""

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiodocker
import pytest

from gyoza.models.errors import AttemptError
from gyoza.worker.engines import Exit, Job, Owner, Running
from gyoza.worker.engines.cleanup import remove_folder
from gyoza.worker.engines.docker import Docker
from gyoza.worker.engines.dockerd import connect, disconnect
from gyoza.worker.engines.network import NETWORK, have_network

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120), pytest.mark.usefixtures("docker_ready")]
BASE_IMAGE = os.environ.get("GYOZA_BASE_IMAGE", "gyoza-base:bookworm")
NOBODY = "65532" if os.geteuid() == 0 else str(os.geteuid())
MakeJob = Callable[..., Job]
MakeImage = Callable[[str], Awaitable[str]]

SAY_STATUS = (
    "import json; print(json.dumps(dict(l.strip().split(':\\t', 1) for l in open('/proc/self/status') if ':\\t' in l)))"
)
SAY_USER = "import os; print(os.getuid(), os.path.expanduser('~'))"
SERVE = """
import os, pathlib, socket
me = socket.create_server(('0.0.0.0', 7000))
socket.create_connection((socket.gethostbyname(socket.gethostname()), 7000)).close()
pathlib.Path(os.environ['GYOZA_IO_DIR'], 'ready').write_text(socket.gethostbyname(socket.gethostname()))
while True: me.accept()
"""
CALL = """
import json, os, socket
reached = []
for host, port in json.loads(os.environ['HOSTS']):
    try:
        socket.create_connection((host, port), timeout=2).close()
        reached.append(host)
    except OSError:
        pass
print(json.dumps(reached))
"""


@pytest.fixture
async def client() -> AsyncIterator[aiodocker.Docker]:
    client = await connect()
    yield client
    await disconnect(client)


@pytest.fixture
async def image_with(client: aiodocker.Docker) -> AsyncIterator[MakeImage]:
    """Images that somebody built by hand: they run the Python text in PROGRAM as the user that is named."""
    made: list[str] = []

    async def make(user: str) -> str:
        name = f"gyoza-test-{uuid4().hex[:12]}"
        program = "import os; exec(compile(os.environ['PROGRAM'], 'program', 'exec'))"
        config = {"Image": BASE_IMAGE, "Cmd": ["python3", "-c", program], "User": user}
        maker = await client.containers.create(config)
        await maker.commit(repository=name, tag="latest")
        await maker.delete(force=True)
        made.append(f"{name}:latest")
        return made[-1]

    yield make
    for name in made:
        await client.images.delete(name, force=True)


@asynccontextmanager
async def an_engine(owner: Owner, **settings: Any) -> AsyncIterator[Docker]:
    engine = Docker(owner, base_image=BASE_IMAGE, **settings)
    yield engine
    await engine.close()


@asynccontextmanager
async def begun(engine: Docker, job: Job) -> AsyncGenerator[Running]:
    async with engine.started(job, await engine.ready(job)) as running:
        yield running


async def ended(engine: Docker, job: Job) -> tuple[Exit, str]:
    """How it ended, and what it printed."""
    async with begun(engine, job) as running:
        return await running.wait(), await running.log_tail(20_000)


async def said(engine: Docker, job: Job) -> Any:
    end, log = await ended(engine, job)
    assert end.exit_code == 0, log
    return json.loads(log)


async def appears(path: Path) -> str:
    async with asyncio.timeout(30):
        while not path.exists() or not path.read_text():
            await asyncio.sleep(0.02)
    return path.read_text()


def alone(image: str, **more: Any) -> dict[str, Any]:
    return {"image": image, "bundle": None, "archive": None, **more}


def rights(status: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in status.items() if name.startswith("Cap")}


async def test_an_op_has_no_rights_and_can_get_none(docker: Docker, job: MakeJob) -> None:
    status = await said(docker, job(SAY_STATUS))
    assert set(rights(status)) == {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}
    assert set(rights(status).values()) == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


async def test_root_in_a_container_has_no_rights_either(owner: Owner, job: MakeJob, image_with: MakeImage) -> None:
    async with an_engine(owner, allow_root=True) as engine:
        status = await said(engine, job(SAY_STATUS, **alone(await image_with(""))))
    assert status["Uid"].split() == ["0"] * 4
    assert set(rights(status).values()) == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


async def test_nothing_of_the_host_is_shared(docker: Docker, job: MakeJob) -> None:
    kinds = ["cgroup", "ipc", "mnt", "net", "pid", "uts"]
    program = f"import json, os; print(json.dumps([os.readlink('/proc/self/ns/' + kind) for kind in {kinds}]))"
    host = [str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in kinds]
    for network in (True, False):
        inside = await said(docker, job(program, network=network))
        assert [kind for kind, here, there in zip(kinds, host, inside, strict=True) if here == there] == []


async def test_an_op_writes_into_its_own_folder_and_nowhere_that_counts(docker: Docker, job: MakeJob) -> None:
    program = """
import json, os
could = []
for path in ('/etc/passwd', '/usr/bin/x', '/gyoza/x', '/gyoza/io/x', '/tmp/x', '/proc/sys/kernel/core_pattern',
             '/sys/fs/cgroup/x', '/proc/sysrq-trigger', '/dev/kmsg', '/dev/mem'):
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
        could.append(path)
    except OSError:
        pass
print(json.dumps(could))
"""
    assert await said(docker, job(program)) == ["/gyoza/io/x", "/tmp/x"]


async def test_runs_do_not_reach_each_other(docker: Docker, owner: Owner, job: MakeJob) -> None:
    serving = job(SERVE)
    async with begun(docker, serving), an_engine(Owner("another", "here", "two")) as another:
        address = await appears(serving.io_dir / "ready")
        _, writer = await asyncio.open_connection(address, 7000)  # there is something to reach
        writer.close()
        hosts = [(address, 7000), (serving.name, 7000)]
        for engine in (docker, another):
            assert await said(engine, job(CALL, env={"PROGRAM": CALL, "HOSTS": json.dumps(hosts)})) == []


async def test_what_listens_on_the_host_alone_is_not_reached(
    docker: Docker, job: MakeJob, client: aiodocker.Docker
) -> None:
    await have_network(client)
    network = await (await client.networks.get(NETWORK)).show()
    gateway = network["IPAM"]["Config"][0]["Gateway"]
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        hosts = json.dumps([("127.0.0.1", port), (gateway, port)])
        assert await said(docker, job(env={"PROGRAM": CALL, "HOSTS": hosts})) == []


async def test_without_a_network_nothing_is_reached(docker: Docker, job: MakeJob) -> None:
    serving = job(SERVE)
    async with begun(docker, serving):
        hosts = json.dumps([(await appears(serving.io_dir / "ready"), 7000)])
        assert await said(docker, job(env={"PROGRAM": CALL, "HOSTS": hosts}, network=False)) == []


async def test_the_network_is_made_once_by_however_many(client: aiodocker.Docker) -> None:
    assert await asyncio.gather(*(have_network(client) for _ in range(8))) == [NETWORK] * 8
    named = await client.networks.list(filters={"name": [NETWORK]})
    assert [network["Options"]["com.docker.network.bridge.enable_icc"] for network in named] == ["false"]


async def test_a_network_on_which_runs_would_meet_is_refused(
    docker: Docker, job: MakeJob, client: aiodocker.Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"gyoza-test-{uuid4().hex[:12]}"
    monkeypatch.setattr("gyoza.worker.engines.network.NETWORK", name)
    network = await client.networks.create({"Name": name})
    try:
        with pytest.raises(AttemptError) as caught:
            await ended(docker, job())
        assert (caught.value.reason, name in caught.value.detail) == ("start_failed", True)
        assert await ended(docker, job(network=False))
    finally:
        await network.delete()


# As whom


async def test_an_image_that_names_nobody_runs_as_nobody(docker: Docker, job: MakeJob, image_with: MakeImage) -> None:
    for user in ("", "root", "0:0"):
        assert (await ended(docker, job(SAY_USER, **alone(await image_with(user)))))[1] == f"{NOBODY} /tmp\n"


async def test_an_image_that_names_a_user_runs_as_that(docker: Docker, job: MakeJob, image_with: MakeImage) -> None:
    made = job(
        "import os; os.mkdir(os.environ['GYOZA_IO_DIR'] + '/d', 0o700); " + SAY_USER, **alone(await image_with("games"))
    )
    assert (await ended(docker, made))[1] == "5 /usr/games\n"
    remove_folder(made.io_dir)


@pytest.mark.parametrize(("user", "uid"), [("1234", 1234), ("1234:77", 1234), ("games", 5), ("games:nogroup", 5)])
async def test_an_op_says_as_whom_it_runs(
    docker: Docker, job: MakeJob, image_with: MakeImage, user: str, uid: int
) -> None:
    for more in ({}, alone(await image_with("daemon"))):
        assert (await ended(docker, job(SAY_USER, user=user, **more)))[1].split()[0] == str(uid)


@pytest.mark.parametrize("user", ["root", "0", "0:0", "00", "root:games"])
async def test_root_is_for_the_owner_to_allow(docker: Docker, owner: Owner, job: MakeJob, user: str) -> None:
    with pytest.raises(AttemptError) as caught:
        await ended(docker, job(user=user))
    assert (caught.value.reason, "GYOZA_ALLOW_ROOT" in caught.value.detail) == ("not_allowed", True)
    async with an_engine(owner, allow_root=True) as engine:
        assert (await ended(engine, job(SAY_USER, user=user)))[1].split()[0] == "0"


async def test_where_root_is_allowed_an_image_runs_as_it_says_itself(
    owner: Owner, job: MakeJob, image_with: MakeImage
) -> None:
    async with an_engine(owner, allow_root=True) as engine:
        assert (await ended(engine, job(SAY_USER, **alone(await image_with("")))))[1] == "0 /root\n"
        assert (await ended(engine, job(SAY_USER)))[1] == f"{NOBODY} /tmp\n"


async def test_a_user_that_the_image_does_not_know_is_the_ops_fault(docker: Docker, job: MakeJob) -> None:
    with pytest.raises(AttemptError) as caught:
        await ended(docker, job(user="stranger"))
    assert (caught.value.reason, "execution.user" in caught.value.detail) == ("op_error", True)


# Limits


async def test_a_fork_bomb_ends_in_its_own_failure(
    docker: Docker, job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gyoza.worker.engines.confinement.PIDS", 64)
    bomb = job("import os\nwhile True: os.fork()")
    async with begun(docker, bomb) as running:
        end = await running.wait()
        assert (end.exit_code, end.oom_killed) == (1, False)
        assert "BlockingIOError" in await running.log_tail()
    assert (await ended(docker, job("print('well')")))[1] == "well\n"


async def test_memory_has_no_swap_beyond_it(docker: Docker, job: MakeJob) -> None:
    program = """
import json, os
found = {}
for path in ('memory/memory.limit_in_bytes', 'memory/memory.memsw.limit_in_bytes', 'memory.max', 'memory.swap.max'):
    if os.path.exists('/sys/fs/cgroup/' + path):
        found[path] = open('/sys/fs/cgroup/' + path).read().strip()
print(json.dumps(found))
"""
    limit = str(64 * 2**20)
    found = await said(docker, job(program, ram_mb=64))
    assert found in (
        {"memory/memory.limit_in_bytes": limit, "memory/memory.memsw.limit_in_bytes": limit},
        {"memory/memory.limit_in_bytes": limit},  # a kernel that does not account for swap
        {"memory.max": limit, "memory.swap.max": "0"},
    )


# Secrets


@pytest.fixture
def secrets_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "attempt" / "secrets"
    folder.mkdir(mode=0o700, parents=True)
    folder.parent.chmod(0o700)
    (folder / "token").write_text("the-value-of-it")
    (folder / "token").chmod(0o600)
    return folder


READ = """
import json, os
path = os.environ['GYOZA_SECRETS_DIR'] + '/token'
could = []
for writing in (path, path + '2'):
    try:
        open(writing, 'w')
        could.append(writing)
    except OSError:
        pass
mode = os.stat(path)
print(json.dumps([open(path).read(), path, mode.st_uid == os.getuid(), mode.st_mode & 0o777, could]))
"""


@pytest.mark.parametrize("user", [None, "1234"])
async def test_a_secret_is_read_by_the_ops_user_alone(
    docker: Docker, job: MakeJob, secrets_dir: Path, user: str | None
) -> None:
    is_known = user is None or os.geteuid() == 0
    seen = await said(docker, job(READ, secrets_dir=secrets_dir, user=user))
    assert seen == ["the-value-of-it", "/gyoza/secrets/token", is_known, 0o400 if is_known else 0o444, []]


async def test_a_user_whose_number_is_the_images_affair_reads_it_too(
    docker: Docker, job: MakeJob, secrets_dir: Path
) -> None:
    seen = await said(docker, job(READ, secrets_dir=secrets_dir, user="games"))
    assert (seen[0], seen[3:]) == ("the-value-of-it", [0o444, []])


async def test_a_secret_is_nowhere_in_what_the_engine_shows(
    docker: Docker, job: MakeJob, secrets_dir: Path, client: aiodocker.Docker
) -> None:
    made = job("import time; time.sleep(600)", secrets_dir=secrets_dir)
    async with begun(docker, made):
        shown = json.dumps(await (await client.containers.get(made.name)).show())
    assert "the-value-of-it" not in shown
    assert "GYOZA_SECRETS_DIR=/gyoza/secrets" in shown


async def test_who_names_no_secret_has_no_folder_of_them(docker: Docker, job: MakeJob) -> None:
    program = "import os; print('GYOZA_SECRETS_DIR' in os.environ, os.path.exists('/gyoza/secrets'))"
    assert (await ended(docker, job(program)))[1] == "False False\n"
