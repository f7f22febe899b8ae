"""Which images a worker may run: names read as Docker reads them, compared with the owner's patterns."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from gyoza.worker.engines.references import HUB

_REGISTRY = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d+)?")
_PATH = re.compile(r"[a-z0-9]+((\.|_{1,2}|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_{1,2}|-+)[a-z0-9]+)*)*")
_END = re.compile(r":\w[\w.-]{0,127}|@[a-z0-9+._-]+:[0-9a-f]{32,}", re.ASCII)


@dataclass(frozen=True)
class ImageName:
    """`end` is `:tag` or `@digest`: beside a digest a tag says nothing, and is left out."""

    registry: str
    path: str
    end: str

    @classmethod
    def of(cls, image: str) -> "ImageName | None":
        """None for what is no name. An image's id is none either: it would say nothing of where the image is from."""
        name, at, digest = image.partition("@")
        head, slash, rest = name.partition("/")
        registry, path = (head.lower(), rest) if slash and _is_registry(head) else (HUB, name)
        path, colon, tag = path.partition(":")
        registry = HUB if registry == f"index.{HUB}" else registry
        path = f"library/{path}" if registry == HUB and "/" not in path else path
        found = cls(registry, path, at + digest if at else colon + tag or ":latest")
        return found if found._is_well_formed() else None

    def _is_well_formed(self) -> bool:
        parts = ((_REGISTRY, self.registry), (_PATH, self.path), (_END, self.end))
        return all(grammar.fullmatch(part) for grammar, part in parts)

    def __str__(self) -> str:
        return f"{self.registry}/{self.path}{self.end}"

    @property
    def at_home(self) -> Iterator[str]:
        """As it may be written without a registry; nothing where it is not Docker's own."""
        if self.registry == HUB:
            yield from self._ended(self.path)
            yield from self._ended(self.path.removeprefix("library/"))

    @property
    def with_registry(self) -> Iterator[str]:
        yield from self._ended(f"{self.registry}/{self.path}")
        if self.registry == HUB:
            yield from self._ended(f"{HUB}/{self.path.removeprefix('library/')}")

    def _ended(self, name: str) -> Iterator[str]:
        yield name + self.end
        if self.end == ":latest":
            yield name


def _is_registry(head: str) -> bool:
    """Docker's own rule for what stands before the first slash."""
    return "." in head or ":" in head or head == "localhost" or head != head.lower()


def allows(patterns: Iterable[str], image: str) -> bool:
    """Whether one of the glob patterns matches the name; `*` alone matches all.

    A pattern without a registry is of Docker's own, so that `python:*` lets no registry in that is called `python`.
    """
    name = ImageName.of(image)
    return name is not None and any(_matches(pattern, name) for pattern in patterns)


def _matches(pattern: str, name: ImageName) -> bool:
    head, slash, rest = pattern.partition("/")
    is_anywhere = pattern == "*" or bool(slash and re.search(r"[*?[]", head))
    if slash and _is_registry(head):
        return any(fnmatchcase(each, f"{head.lower()}/{rest}") for each in name.with_registry)
    spellings = [*name.at_home, *name.with_registry] if is_anywhere else name.at_home
    return any(fnmatchcase(each, pattern) for each in spellings)
