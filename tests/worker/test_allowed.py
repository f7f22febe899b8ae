"""The allow-list of images: a name is read as Docker reads it, and no other spelling gets past."""

import pytest

from gyoza.worker.engines.allowed import ImageName, allows

DIGEST = "sha256:" + "ab" * 32
NAMES = {
    "python": "docker.io/library/python:latest",
    "python:3.11": "docker.io/library/python:3.11",
    "docker.io/python": "docker.io/library/python:latest",
    "index.docker.io/library/python": "docker.io/library/python:latest",
    "team/op": "docker.io/team/op:latest",
    "GHCR.io/team/op:1": "ghcr.io/team/op:1",
    "localhost/op": "localhost/op:latest",
    "python:5000/op": "python:5000/op:latest",
    "Team/op": "team/op:latest",
    f"python:3.11@{DIGEST}": f"docker.io/library/python@{DIGEST}",
    DIGEST: f"docker.io/library/{DIGEST}",
}


@pytest.mark.parametrize(("written", "full"), NAMES.items())
def test_a_name_is_read_as_docker_reads_it(written: str, full: str) -> None:
    assert str(ImageName.of(written)) == full


@pytest.mark.parametrize(
    "written",
    [
        "",
        "/",
        "a//b",
        "Python",
        "a/B",
        "ghcr.io/",
        "a/../b",
        "a:",
        "a@",
        "a@sha256:12",
        "a b",
        "a:1:2",
        "a\n",
        "ghcr.io:x/a",
    ],
)
def test_what_is_no_name_is_never_allowed(written: str) -> None:
    assert ImageName.of(written) is None
    assert not allows(["*"], written)


ALLOWED = [
    ("*", "ghcr.io/team/op:1"),
    ("*", DIGEST),
    ("python", "python:latest"),
    ("python:latest", "docker.io/library/python"),
    ("python:3.*", "docker.io/library/python:3.11"),
    ("library/*", "python:3.11"),
    ("docker.io/library/python:*", "python:3.11"),
    ("docker.io/python:*", "library/python:3.11"),
    ("docker.io/*", "team/op"),
    ("team/*", "docker.io/team/op:1"),
    ("ghcr.io/team/*", "GHCR.IO/team/op:1"),
    ("GHCR.io/team/*", "ghcr.io/team/op:1"),
    ("*.example.com/*", "registry.example.com/a/b:1"),
    ("*/team/*", "ghcr.io/team/op"),
    (f"python@{DIGEST}", f"python:3.11@{DIGEST}"),
    ("localhost:5000/*", "localhost:5000/op:1"),
]
REFUSED = [
    ("python", "python:3.11"),
    ("python:*", "python:5000/evil"),
    ("python*", "python.example.com/evil"),
    ("python:*", "ghcr.io/library/python:3"),
    ("team/*", "team.example.com/op"),
    ("team/*", "Team/op"),
    ("python:3.*", f"python:3.11@{DIGEST}"),
    ("python:*", DIGEST),
    ("python:*", "ab" * 6),
    ("ghcr.io/team/*", "ghcr.io/team-evil/op"),
    ("ghcr.io/team/*", "ghcr.io.example.com/team/op"),
    ("ghcr.io/team/*", "ghcr.io:8443/team/op"),
    ("docker.io/library/*", "evil/python"),
]


@pytest.mark.parametrize(("pattern", "image"), ALLOWED)
def test_every_spelling_of_what_is_allowed_is(pattern: str, image: str) -> None:
    assert allows(["other", pattern], image)


@pytest.mark.parametrize(("pattern", "image"), REFUSED)
def test_nothing_else_is(pattern: str, image: str) -> None:
    assert not allows([pattern], image)
