"""Images for the Docker engine: had already, pulled, or built from a bundle; each once, however many runs wait."""

import asyncio
import io
import json
import re
import shutil
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import aiodocker
from aiodocker.exceptions import DockerError

from gyoza.models.bundle import Bundle, dockerfile
from gyoza.models.errors import AttemptError
from gyoza.worker.engines import Job, Owner, Ready
from gyoza.worker.engines.bundles import PARTS, REQUIREMENTS, broken, has_requirements, unpack
from gyoza.worker.engines.cleanup import remove_folder, to_the_end
from gyoza.worker.engines.container import labels
from gyoza.worker.engines.dockerd import TROUBLE, steps, why

ABSENT = re.compile(
    r"manifest unknown|manifest for .* not found|access .*denied|repository .* not found|unauthorized|"
    r"invalid reference|must be lower ?case|no such image",
    re.IGNORECASE,
)
REFERENCE = re.compile(r"[A-Za-z0-9][\w.-]*([/:@][A-Za-z0-9][\w.-]*)*")
"""Looser than the engine's own grammar, but nothing that could leave its place in the engine's URLs."""
BUILD_PATIENCE = 5
"""A build may be silent for this many times as long as a pull: pip says nothing while it installs."""


class Images:
    """`base_image`: on what bundles are built, whatever they name. `allowed`: glob patterns, empty for all images.

    A pull or build that says nothing for `stall_s` (a build: five times as long) is given up.
    """

    def __init__(self, owner: Owner, base_image: str | None, allowed: Sequence[str], stall_s: float):
        self._owner, self._base_image, self._allowed, self._stall_s = owner, base_image, allowed, stall_s
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def ready(self, client: aiodocker.Docker, job: Job) -> Ready:
        """`job.image` where it can be had, else its bundle, built.

        With both, what is on this machine already comes before asking a registry, so that an image which exists
        nowhere costs one failed pull and not one for each attempt.
        """
        if job.bundle is None or job.archive is None:
            return await self.have(client, job.image or "")
        if job.image is None or not REFERENCE.fullmatch(job.image) or not self._allows(job.image):
            return await self.built(client, job.bundle, job.archive)
        if local := await _local(client, job.image):
            return local
        if local := await self._built_before(client, job.bundle):
            return local
        try:
            return await self.have(client, job.image)
        except AttemptError:
            return await self.built(client, job.bundle, job.archive)

    async def have(self, client: aiodocker.Docker, image: str, *, trusted: bool = False) -> Ready:
        """AttemptError `not_allowed`, `image_not_found` or `image_pull_failed`. `trusted`: no allow-list."""
        if not REFERENCE.fullmatch(image):
            raise AttemptError("image_not_found", f"'{image}' is not the name of an image: correct it where it is set")
        if not trusted and not self._allows(image):
            raise AttemptError(
                "not_allowed",
                f"This worker may not run the image '{image}': its allow-list is {', '.join(self._allowed)}",
            )
        async with self._locks[image]:
            if local := await _local(client, image):
                return local
            await self._pull(client, image)
            if local := await _local(client, image):
                return local
        raise AttemptError("image_pull_failed", f"Pulling the image '{image}' was broken off: try again")

    def _allows(self, image: str) -> bool:
        names = (image, _with_tag(image))
        return not self._allowed or any(fnmatchcase(name, like) for like in self._allowed for name in names)

    async def _pull(self, client: aiodocker.Docker, image: str) -> None:
        try:
            async for _ in steps(client, "images/create", {"fromImage": _with_tag(image)}, self._stall_s):
                pass
        except TimeoutError as error:
            text = f"Pulling the image '{image}' stood still for {self._stall_s:g} s: see whether its registry answers"
            raise AttemptError("image_pull_failed", text) from error
        except (DockerError, *TROUBLE) as error:
            raise _pull_failure(image, error) from error

    async def built(self, client: aiodocker.Docker, bundle: Bundle, archive: Path) -> Ready:
        """AttemptError `bundle_broken`, or what `have` says of the base image."""
        base = await self.base(client, bundle.base_image)
        tag = _tag(bundle, base)
        async with self._locks[tag]:
            image = await _local(client, tag) or await self._build(client, bundle, archive, base, tag)
        return Ready(image.name, bundle.digest)

    async def base(self, client: aiodocker.Docker, named: str | None) -> Ready:
        """The worker's own base image wins: an operator without a registry must be able to say so."""
        image = self._base_image or named
        if image is None:
            text = "The bundle names no base image, and neither does this worker: set GYOZA_BASE_IMAGE for it"
            raise AttemptError("image_not_found", f"{text} (python:3.11-slim, say)")
        try:
            return await self.have(client, image, trusted=self._base_image is not None)
        except AttemptError as error:
            detail = f"The base image of the bundle cannot be had. {error.detail}; or set GYOZA_BASE_IMAGE"
            raise AttemptError(error.reason, detail) from error

    async def _built_before(self, client: aiodocker.Docker, bundle: Bundle) -> Ready | None:
        image = self._base_image or bundle.base_image
        base = await _local(client, image) if image and REFERENCE.fullmatch(image) else None
        found = await _local(client, _tag(bundle, base)) if base else None
        return Ready(found.name, bundle.digest) if found else None

    async def _build(self, client: aiodocker.Docker, bundle: Bundle, archive: Path, base: Ready, tag: str) -> Ready:
        folder = Path(tempfile.mkdtemp(prefix="gyoza-build-"))
        try:
            context = folder / "context.tar"
            await to_the_end(asyncio.to_thread(_pack, bundle, archive, base.name, folder / "bundle", context))
            await self._build_context(client, bundle, context, tag)
        finally:
            await to_the_end(asyncio.to_thread(remove_folder, folder))
        built = await _local(client, tag)
        if built is None:
            raise AttemptError("start_failed", "The bundle's image was not there after its build: Docker broke it off")
        return built

    async def _build_context(self, client: aiodocker.Docker, bundle: Bundle, context: Path, tag: str) -> None:
        said: list[str] = []
        marks = labels(self._owner) | {"gyoza.bundle": bundle.digest}
        how = {"t": tag, "labels": json.dumps(marks), "forcerm": "1", "networkmode": "none"}
        try:
            with context.open("rb") as file:
                async for step in steps(client, "build", how, self._stall_s * BUILD_PATIENCE, file):
                    said.append(str(step.get("stream", "")))
        except TimeoutError as error:
            raise AttemptError("start_failed", "The build of the bundle's image stood still: try again") from error
        except (DockerError, *TROUBLE) as error:
            raise _build_failure(bundle, error, "".join(said)) from error


async def _local(client: aiodocker.Docker, image: str) -> Ready | None:
    try:
        found = await client.images.inspect(image)
    except DockerError as error:
        if error.status in (400, 404):
            return None
        raise AttemptError("image_pull_failed", why(error)) from error
    except TROUBLE as error:
        raise AttemptError("image_pull_failed", why(error)) from error
    digests: list[str] = found.get("RepoDigests") or [found["Id"]]
    return Ready(found["Id"], digests[0])


def _with_tag(image: str) -> str:
    """As the registry is asked: without a tag the engine would fetch every one."""
    return image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"


def _pull_failure(image: str, error: Exception) -> AttemptError:
    said = getattr(error, "message", str(error))
    if isinstance(error, DockerError) and (error.status == 404 or ABSENT.search(said)):
        text = f"The image '{image}' does not exist, or this worker may not have it ({said.strip()}): check its name"
        return AttemptError("image_not_found", f"{text}, and on the worker 'docker pull {image}'")
    if _is_full(said):
        return AttemptError("disk_full", f"The image '{image}' does not fit on this worker's disk: {said}")
    return AttemptError("image_pull_failed", f"The image '{image}' could not be pulled: {said.strip() or why(error)}")


def _build_failure(bundle: Bundle, error: Exception, said: str) -> AttemptError:
    fault = getattr(error, "message", str(error))
    if _is_full(fault + said):
        return AttemptError("disk_full", f"The bundle's image does not fit on this worker's disk: {fault}")
    if not isinstance(error, DockerError) or error.status >= 500:
        return AttemptError("start_failed", f"The bundle's image could not be built: {why(error)}")
    found = re.search(r"^Python (\d+\.\d+)", said, re.MULTILINE)
    hint = ""
    if found and bundle.python not in (None, found[1]):
        hint = f" (it is for Python {bundle.python}, but the base image has Python {found[1]})"
    return broken(f"The bundle's image does not build{hint}. {fault}\n{said[-1500:].strip()}\n")


def _is_full(text: str) -> bool:
    return "no space left" in text.lower()


def _tag(bundle: Bundle, base: Ready) -> str:
    digest, base_id = (text.rpartition(":")[2] for text in (bundle.digest, base.name))
    return f"gyoza-bundle:{digest[:32]}-{base_id[:12]}"


def _pack(bundle: Bundle, archive: Path, base: str, folder: Path, context: Path) -> None:
    """The build's context: the bundle's own parts and our Dockerfile, nothing else that the archive may hold."""
    unpack(archive, folder, bundle)
    packages = has_requirements(folder)
    text = dockerfile(base, bundle.python is not None, packages).encode()
    with tarfile.open(context, "w") as tar:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
        for part in (*PARTS, *([REQUIREMENTS] if packages else [])):
            tar.add(folder / part, part, filter=_as_root)
    shutil.rmtree(folder)


def _as_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Times and owners differ with every unpacking; without them Docker finds its cached layers again."""
    entry.mtime = entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
