"""Building a bundle's image: our Dockerfile, the bundle's own parts, no network."""

import asyncio
import io
import json
import re
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import aiodocker
from aiodocker.exceptions import DockerError

from gyoza.models.bundle import Bundle, dockerfile
from gyoza.models.errors import AttemptError
from gyoza.worker.engines import Owner, Ready, Say
from gyoza.worker.engines.bundles import PARTS, REQUIREMENTS, broken, has_requirements, unpack
from gyoza.worker.engines.cleanup import remove_folder, to_the_end
from gyoza.worker.engines.confinement import labels
from gyoza.worker.engines.dockerd import TROUBLE, steps, why
from gyoza.worker.engines.pulls import is_full

PATIENCE = 5
"""A build may be silent for this many times as long as a pull: pip says nothing while it installs."""
REPOSITORY = "gyoza-bundle"
BUNDLE = "gyoza.bundle"
"""The label that bears the bundle's digest."""
BUILDER = "gyoza.builder"
"""The label of every layer, whose value is the owner's mark: so what a failed build leaves behind can be told apart. It
is not one of the owner's labels, which the containers of a build would inherit, and be taken for leftovers."""


def tag(bundle: Bundle, base: Ready) -> str:
    """The name of a bundle's image on this base."""
    digest, base_id = (text.rpartition(":")[2] for text in (bundle.digest, base.name))
    return f"{REPOSITORY}:{digest[:32]}-{base_id[:12]}"


@dataclass(frozen=True)
class Build:
    bundle: Bundle
    archive: Path
    base: Ready
    owner: Owner

    @property
    def name(self) -> str:
        return tag(self.bundle, self.base)

    async def run(self, client: aiodocker.Docker, stall_s: float, say: Say) -> None:
        """AttemptError `bundle_broken`, `disk_full` or `start_failed`."""
        began = monotonic()
        say("Building the bundle's image")
        folder = Path(tempfile.mkdtemp(prefix="build-", dir=self.archive.parent))
        try:
            context = folder / "context.tar"
            await to_the_end(asyncio.to_thread(self._pack, folder / "bundle", context))
            await self._send(client, context, stall_s * PATIENCE)
        finally:
            await to_the_end(asyncio.to_thread(remove_folder, folder))
        say(f"Built the bundle's image in {monotonic() - began:.1f} s")

    async def _send(self, client: aiodocker.Docker, context: Path, stall_s: float) -> None:
        said: list[str] = []
        marks = labels(self.owner) | {BUNDLE: self.bundle.digest}
        how = {"t": self.name, "labels": json.dumps(marks), "forcerm": "1", "networkmode": "none"}
        try:
            with context.open("rb") as file:
                async for step in steps(client, "build", how, stall_s, file):
                    said.append(str(step.get("stream", "")))
        except TimeoutError as error:
            raise AttemptError("start_failed", "The build of the bundle's image stood still: try again") from error
        except (DockerError, *TROUBLE) as error:
            raise _failure(self.bundle, error, "".join(said)) from error

    def _pack(self, folder: Path, context: Path) -> None:
        """The build's context: the bundle's own parts and our Dockerfile, nothing else that the archive may hold."""
        unpack(self.archive, folder, self.bundle)
        packages = has_requirements(folder)
        marks = {BUILDER: self.owner.mark}
        text = dockerfile(self.base.name, self.bundle.python is not None, packages, marks).encode()
        with tarfile.open(context, "w") as tar:
            entry = tarfile.TarInfo("Dockerfile")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
            for part in (*PARTS, *([REQUIREMENTS] if packages else [])):
                tar.add(folder / part, part, filter=_as_root)
        shutil.rmtree(folder)


def _failure(bundle: Bundle, error: Exception, said: str) -> AttemptError:
    fault = getattr(error, "message", str(error))
    if is_full(fault + said):
        return AttemptError("disk_full", f"The bundle's image does not fit on this worker's disk: {fault}")
    if not isinstance(error, DockerError) or error.status >= 500:
        return AttemptError("start_failed", f"The bundle's image could not be built: {why(error)}")
    found = re.search(r"^Python (\d+\.\d+)", said, re.MULTILINE)
    hint = ""
    if found and bundle.python not in (None, found[1]):
        hint = f" (it is for Python {bundle.python}, but the base image has Python {found[1]})"
    return broken(f"The bundle's image does not build{hint}. {fault}\n{said[-1500:].strip()}\n")


def _as_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Times and owners differ with every unpacking; without them Docker finds its cached layers again."""
    entry.mtime = entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
