"""Secrets of an op, from the worker's folder to the op and no further; told by real ops on a real server."""

import base64
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest

from gyoza.client.http import AsyncGyozaClient
from gyoza.worker.engines import Engine, Owner
from gyoza.worker.engines.docker import Docker
from gyoza.worker.engines.process import Process

from .cluster import Cluster, Line, working

BASE_IMAGE = os.environ.get("GYOZA_BASE_IMAGE", "gyoza-base:bookworm")
TOKEN = 'tok/en+"99% geheim" für dich'
KEY = "-----BEGIN KEY-----\nMIIBOgIBAAJBAKj34GkxFhD9\nzVRZz0uzFxk8xKsfV9aE1\n-----END KEY-----\n"
TOKEN_ALONE: dict[str, Any] = {"execution": {"secrets": ["token"]}}
BOTH: dict[str, Any] = {"execution": {"secrets": ["token", "key"]}}
HEAD = """
import base64, urllib.parse
folder = pathlib.Path(os.environ['GYOZA_SECRETS_DIR'])
token, key = ((folder / name).read_text() for name in ('token', 'key'))
forms = [token, key, json.dumps(token), urllib.parse.quote_plus(token), token.encode().hex()]
forms += [base64.b64encode((before + token).encode()).decode() for before in ('', 'u:', 'me:')]
def tell(**event):
    with open(io / 'events.ndjson', 'a') as events:
        print(json.dumps(event), file=events)
"""
TALKATIVE = (
    HEAD
    + """
for form in forms:
    print(form, flush=True)
    tell(type='INFO', msg='I know ' + form)
    tell(type='SHOUT', msg=form)
    tell(type='INFO', msg=[form])
open(io / 'events.ndjson', 'a').write('x' * 190 + token + '\\n')
open(io / 'events.ndjson', 'a').write(token[:5] * 20000 + '\\n')
"""
)


Kind = Callable[[Owner, Path], Engine]


@pytest.fixture(params=["process", pytest.param("docker", marks=pytest.mark.docker)])
def kind(request: pytest.FixtureRequest, owner: Owner) -> Kind:
    """Images are of this session's owner, and go with it."""
    if request.param == "process":
        return Process
    request.getfixturevalue("docker_ready")
    return lambda _, folder: Docker(owner, base_image=BASE_IMAGE)


@pytest.fixture
async def any_cluster(kind: Kind, line: Line, user: AsyncGyozaClient, tmp_path: Path) -> AsyncIterator[Cluster]:
    """A worker with two secrets, in plain processes or on Docker."""
    async with working(line, user, tmp_path / "worker", engine=kind) as cluster:
        cluster.keep_secret("token", TOKEN + "\n")
        cluster.keep_secret("key", KEY)
        yield cluster
    await cluster.place.engine.close()


def kept_out(line: Line) -> None:
    """Nothing of the secrets is in any byte that left this worker, uploads of outputs apart."""
    lines = [TOKEN, *(each for each in KEY.splitlines())]
    forms = [*lines, quote_plus(TOKEN), TOKEN.encode().hex(), base64.b64encode(TOKEN.encode()).decode()]
    forms += [json.dumps(form)[1:-1] for form in forms] + [json.dumps(json.dumps(TOKEN))[3:-3]]
    sent = b"".join(body for method, path, body in line.asked if path.startswith("/workers/") or "/logs" in path)
    assert b"***" in sent
    assert [form for form in forms if form.encode() in sent] == []


@pytest.mark.timeout(120)
async def test_what_an_op_says_goes_out_without_its_secrets(any_cluster: Cluster, line: Line) -> None:
    run = await any_cluster.python(TALKATIVE + "sys.exit(3)", **BOTH)
    told = await any_cluster.told(run["id"])
    assert (run["state"], run["execution_summary"]["exit_code"]) == ("FAILED", 3)
    assert ("INFO", "I know ***") in told and 'not "{\\"type\\": \\"SHOUT\\"' in str(told).replace("\\\\", "\\")
    assert "its last output:\n***" in run["execution_summary"]["error_message"]
    kept_out(line)


@pytest.mark.timeout(120)
async def test_what_an_op_says_of_its_failure_goes_out_without_its_secrets(any_cluster: Cluster, line: Line) -> None:
    program = HEAD + "said = 'x' * 7990 + token.strip()\n"
    program += "(io / 'error.json').write_text(json.dumps({'error_message': said})); sys.exit(1)"
    run = await any_cluster.python(program, **BOTH)
    assert run["execution_summary"]["error_message"] == "x" * 7990 + "***"
    kept_out(line)


@pytest.mark.timeout(120)
async def test_the_end_of_a_long_log_does_not_begin_within_a_secret(any_cluster: Cluster, line: Line) -> None:
    cut = 2000 - len(TOKEN.encode()) // 2  # so that the last 2,000 bytes would begin in the middle of it
    run = await any_cluster.python(HEAD + f"print('a' * 500 + token + 'b' * {cut}, end=''); sys.exit(1)", **BOTH)
    message = run["execution_summary"]["error_message"].partition("\n")[2]
    assert set(message) == set("a*\nb") and message.count("b") == cut


@pytest.mark.timeout(120)
async def test_outputs_are_the_ops_own_answer(any_cluster: Cluster) -> None:
    program = HEAD + "(io / 'outputs.json').write_text(json.dumps({'token': token}))"
    assert (await any_cluster.python(program, **BOTH))["outputs"] == {"token": TOKEN + "\n"}


@pytest.mark.timeout(120)
async def test_secrets_are_gone_with_the_attempt(any_cluster: Cluster) -> None:
    program = HEAD + "(io / 'outputs.json').write_text(json.dumps({'folder': str(folder)}))"
    run = await any_cluster.python(program, **BOTH)
    assert run["state"] == "COMPLETED"
    left = list(any_cluster.place.folder.rglob("token"))
    assert left == [any_cluster.place.folder / "secrets" / "token"]


async def test_a_secret_that_no_worker_has_ends_the_run_with_its_name(cluster: Cluster) -> None:
    run = await cluster.run(**TOKEN_ALONE)
    assert (run["state"], run["reason"], run["user_failures"]) == ("FAILED", "start_failed", 0)
    assert "no secret 'token'" in run["execution_summary"]["error_message"]


async def test_a_secret_of_another_definition_is_not_given(cluster: Cluster) -> None:
    cluster.keep_secret("other", "")
    (cluster.place.folder / "secrets" / "other").unlink()
    (cluster.place.folder / "secrets" / "other").mkdir(mode=0o700)
    cluster.keep_secret("other/token", TOKEN)
    run = await cluster.run("cat $GYOZA_SECRETS_DIR/token", **TOKEN_ALONE)
    assert (run["state"], run["reason"]) == ("FAILED", "start_failed")


async def test_an_op_gets_no_secret_that_it_does_not_name(cluster: Cluster) -> None:
    cluster.keep_secret("token", TOKEN)
    cluster.keep_secret("key", KEY)
    run = await cluster.run('[ "$(ls $GYOZA_SECRETS_DIR)" = token ]', **TOKEN_ALONE)
    assert run["state"] == "COMPLETED"
    assert (await cluster.run('[ -z "$GYOZA_SECRETS_DIR" ]'))["state"] == "COMPLETED"
