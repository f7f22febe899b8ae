"""Logins for private registries: Docker's own, in each of its forms, against a registry that wants one."""

import base64
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gyoza.models.errors import AttemptError
from gyoza.worker.engines import Job, Owner
from gyoza.worker.engines.credentials import login
from gyoza.worker.engines.docker import Docker
from gyoza.worker.engines.references import HUB

from .registry import PASSWORD, USER, Registry, unique

pytestmark = pytest.mark.timeout(60)
MakeJob = Callable[..., Job]
Object = dict[str, Any]
Write = Callable[[Object], None]
HUB_KEY = "https://index.docker.io/v1/"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write Docker's configuration."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return lambda content: (tmp_path / "config.json").write_text(json.dumps(content)) and None


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a credential helper on the PATH: a shell text that may use `$asked`."""

    def write(name: str, text: str) -> None:
        program = tmp_path / f"docker-credential-{name}"
        program.write_text(f'#!/bin/sh\n[ "$1" = get ] || exit 9\nasked=$(cat)\n{text}\n')
        program.chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return write


def auth(password: str, user: str = USER) -> Object:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def given(header: str) -> Object:
    return json.loads(base64.urlsafe_b64decode(header))


async def found(host: str) -> Object | None:
    known = await login(host)
    return given(known.header) if known else None


async def fails(reason: str, doing: Awaitable[Any]) -> str:
    with pytest.raises(AttemptError) as caught:
        await doing
    assert caught.value.reason == reason, caught.value.detail
    return caught.value.detail


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (auth("a:b"), {"username": USER, "password": "a:b"}),
        ({"username": "me", "password": "x"}, {"username": "me", "password": "x"}),
        ({"identitytoken": "t", **auth("x")}, {"identitytoken": "t"}),
        ({}, None),
    ],
)
async def test_a_login_that_docker_wrote_down_is_found(config: Write, entry: Object, expected: Object | None) -> None:
    config({"auths": {"other.example.com": auth("wrong"), "r.example.com:5000": entry}})
    assert await found("r.example.com:5000") == (expected and {**expected, "serveraddress": "r.example.com:5000"})


@pytest.mark.parametrize(
    ("host", "key"),
    [("r.example.com", "https://r.example.com/v1/"), ("r.example.com", "r.example.com"), (HUB, HUB_KEY)],
)
async def test_it_is_found_under_each_form_of_its_registrys_name(config: Write, host: str, key: str) -> None:
    config({"auths": {key: auth("x"), "r.example.com.evil.org": auth("wrong")}})
    assert (await found(host) or {})["password"] == "x"


async def test_without_a_configuration_there_is_no_login(config: Write) -> None:
    assert await login("r.example.com") is None
    config({"auths": {"other.example.com": auth("x")}})
    assert await login("r.example.com") is None


@pytest.mark.parametrize("how", [{"credHelpers": {"r.example.com": "ours"}}, {"credsStore": "ours"}])
async def test_a_helper_is_asked_for_the_registry(
    config: Write, helper: Callable[[str, str], None], how: Object
) -> None:
    config({**how, "auths": {"r.example.com": auth("old")}})
    helper("ours", 'echo "{\\"Username\\": \\"u\\", \\"Secret\\": \\"for $asked\\"}"')
    assert await found("r.example.com") == {
        "username": "u", "password": "for r.example.com", "serveraddress": "r.example.com"
    }  # fmt: skip


async def test_a_helper_may_answer_with_a_token(config: Write, helper: Callable[[str, str], None]) -> None:
    config({"credsStore": "ours"})
    helper("ours", """echo '{"Username": "<token>", "Secret": "t"}'""")
    assert await found(HUB) == {"identitytoken": "t", "serveraddress": HUB_KEY}


async def test_a_helper_that_knows_nothing_leaves_it_to_the_file(
    config: Write, helper: Callable[[str, str], None]
) -> None:
    config({"credsStore": "ours", "auths": {"r.example.com": auth("kept")}})
    helper("ours", "echo credentials not found in native keychain; exit 1")
    assert (await found("r.example.com") or {})["password"] == "kept"
    assert await found("other.example.com") is None


@pytest.mark.parametrize(
    ("text", "says"), [("echo secret-word; exit 2", "failed"), ("echo secret-word", "no answer"), (None, "on the PATH")]
)
async def test_a_helper_that_fails_is_named_and_not_quoted(
    config: Write, helper: Callable[[str, str], None], text: str | None, says: str
) -> None:
    config({"credHelpers": {"r.example.com": "ours"}})
    if text:
        helper("ours", text)
    detail = await fails("image_pull_failed", login("r.example.com"))
    assert "docker-credential-ours" in detail and says in detail and "secret-word" not in detail


async def test_a_helper_that_does_not_answer_is_given_up(
    config: Write, helper: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gyoza.worker.engines.credentials.HELPER_S", 0.2)
    config({"credsStore": "ours"})
    helper("ours", "exec sleep 600")
    assert "gave no answer" in await fails("image_pull_failed", login("r.example.com"))


@pytest.mark.parametrize(
    "content", ["{secret-word", '["secret-word"]', '{"auths": {"r.example.com": {"auth": "secret-word"}}}']
)
async def test_a_configuration_that_cannot_be_read_is_named_and_not_quoted(
    config: Write, tmp_path: Path, content: str
) -> None:
    (tmp_path / "config.json").write_text(content)
    detail = await fails("image_pull_failed", login("r.example.com"))
    assert str(tmp_path / "config.json") in detail and "secret-word" not in detail


@pytest.fixture
async def engine(docker_ready: None, owner: Owner) -> AsyncIterator[Docker]:
    engine = Docker(owner)
    yield engine
    await engine.close()


@pytest.mark.docker
@pytest.mark.parametrize("how", ["auths", "helper"])
async def test_a_private_image_is_pulled_with_dockers_login_and_no_log_shows_it(
    engine: Docker, job: MakeJob, private_registry: Registry, config: Write, helper: Callable[[str, str], None],
    how: str, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    name, host = unique("private"), private_registry.host
    image_id = await private_registry.push(name)
    helper("ours", f"""echo '{{"Username": "{USER}", "Secret": "{PASSWORD}"}}'""")
    config({"auths": {host: auth(PASSWORD)}} if how == "auths" else {"credHelpers": {host: "ours"}})
    made = job(image=f"{host}/{name}", bundle=None, archive=None)
    assert (await engine.ready(made, said.append)).name == image_id
    known = await login(host)
    assert known is not None
    for secret in (PASSWORD, known.header, auth(PASSWORD)["auth"]):
        assert secret not in caplog.text + "".join(said) + repr(known)


@pytest.mark.docker
@pytest.mark.parametrize(
    ("entry", "says"),
    [({}, "needs a login that this worker does not have"), (auth("guessed"), "refuses this worker's login")],
)
async def test_a_login_that_is_missing_or_wrong_is_said_so(
    engine: Docker, job: MakeJob, private_registry: Registry, config: Write, entry: Object, says: str
) -> None:
    name, host = unique("closed"), private_registry.host
    await private_registry.push(name)
    config({"auths": {host: entry}})
    made = job(image=f"{host}/{name}", bundle=None, archive=None)
    detail = await fails("image_pull_failed", engine.ready(made))
    assert says in detail and f"docker login {host}" in detail
    assert "guessed" not in detail and auth("guessed")["auth"] not in detail
