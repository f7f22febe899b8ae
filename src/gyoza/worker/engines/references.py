"""Names of images: as people write them, as the engine lists them, as a registry is asked."""

import re

REFERENCE = re.compile(r"[A-Za-z0-9][\w.-]*([/:@][A-Za-z0-9][\w.-]*)*")
"""Looser than the engine's own grammar, but nothing that could leave its place in the engine's URLs."""
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
HUB = "docker.io"
_HUBS = (f"{HUB}/", f"index.{HUB}/")


def with_tag(image: str) -> str:
    """As the registry is asked: without a tag the engine would fetch every one."""
    return image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"


def listed(image: str) -> str:
    """As the engine lists it: `docker.io/library/python` is `python:latest`."""
    image = with_tag(image)
    for hub in _HUBS:
        image = image.removeprefix(hub)
    return image.removeprefix("library/")


def repository(image: str) -> str:
    """As the engine lists it, without tag and digest."""
    head, slash, last = listed(image).partition("@")[0].rpartition("/")
    return head + slash + last.partition(":")[0]


def registry(image: str) -> str:
    """The host that has it; `docker.io` where the name says none."""
    host, slash, _ = image.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost") or f"{host}/" in _HUBS:
        return HUB
    return host
