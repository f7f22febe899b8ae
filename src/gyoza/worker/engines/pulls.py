"""Pulling an image: what it is told of meanwhile, when it counts as standing still, and why it failed."""

import re
from time import monotonic
from typing import Any

import aiodocker
from aiodocker.exceptions import DockerError

from gyoza.models.errors import AttemptError
from gyoza.worker.engines import Say
from gyoza.worker.engines.credentials import Login, login
from gyoza.worker.engines.dockerd import TROUBLE, steps, why
from gyoza.worker.engines.references import registry, with_tag

TELL_S = 5.0
"""Progress is told at most this often, and only when it has changed by a percent."""
NOT_LET_IN = re.compile(
    r"no basic auth credentials|authentication required|incorrect username or password|401 unauthorized", re.IGNORECASE
)
ABSENT = re.compile(
    r"manifest unknown|manifest for .* not found|access .*denied|repository .* not found|unauthorized|"
    r"invalid reference|must be lower ?case|no such image|not found: manifest",
    re.IGNORECASE,
)
_MB = 10**6


async def pull(client: aiodocker.Docker, image: str, stall_s: float, say: Say) -> None:
    """AttemptError `image_not_found`, `disk_full`, or `image_pull_failed`: also when nothing arrives for `stall_s`."""
    known = await login(registry(image))
    told = _Told(image, say)
    headers = {"X-Registry-Auth": known.header} if known else {}
    try:
        async for step in steps(client, "images/create", {"fromImage": with_tag(image)}, stall_s, headers=headers):
            told.saw(step)
    except TimeoutError as error:
        text = f"Pulling the image '{image}' stood still for {stall_s:g} s: see whether its registry answers"
        raise AttemptError("image_pull_failed", text) from error
    except (DockerError, *TROUBLE) as error:
        raise _failure(image, known, error) from error
    told.end()


class _Told:
    """The steps of a pull as a few sentences."""

    def __init__(self, image: str, say: Say):
        self._image, self._say = image, say
        self._layers: dict[str, tuple[int, int]] = {}
        self._unpacks = False
        self._began = self._told_at = monotonic()
        self._told: tuple[int, bool] = (0, False)
        say(f"Pulling the image '{image}'")

    def saw(self, step: dict[str, Any]) -> None:
        layer, status = str(step.get("id")), step.get("status")
        detail: dict[str, int] = step.get("progressDetail") or {}
        if status == "Downloading" and detail.get("total", 0) > 0:
            self._layers[layer] = detail.get("current", 0), detail["total"]
        elif status in ("Verifying Checksum", "Download complete") and layer in self._layers:
            self._layers[layer] = self._layers[layer][1], self._layers[layer][1]
        self._unpacks |= status == "Extracting"
        if monotonic() - self._told_at >= TELL_S and self._now != self._told:
            self._told, self._told_at = self._now, monotonic()
            self._say(f"Pulling the image '{self._image}': {self._progress}")

    def end(self) -> None:
        size = f", {self._total / _MB:.1f} MB" if self._total else ""
        self._say(f"Pulled the image '{self._image}' in {monotonic() - self._began:.1f} s{size}")

    @property
    def _done(self) -> int:
        return sum(done for done, _ in self._layers.values())

    @property
    def _total(self) -> int:
        """As far as is known: the sizes of layers are heard of one by one."""
        return sum(total for _, total in self._layers.values())

    @property
    def _now(self) -> tuple[int, bool]:
        """Percent, and whether all is there and is being unpacked."""
        return 100 * self._done // max(self._total, 1), self._unpacks and self._done == self._total

    @property
    def _progress(self) -> str:
        percent, unpacks = self._now
        text = f"{self._done / _MB:.1f} of {self._total / _MB:.1f} MB ({percent} %)"
        return f"{text}, unpacking" if unpacks else text


def _failure(image: str, known: Login | None, error: Exception) -> AttemptError:
    said = getattr(error, "message", str(error)).strip()
    if isinstance(error, DockerError) and NOT_LET_IN.search(said):
        return AttemptError("image_pull_failed", f"{_not_let_in(image, known)} ({said})")
    if isinstance(error, DockerError) and (error.status == 404 or ABSENT.search(said)):
        text = f"The image '{image}' does not exist, or this worker may not have it ({said}): check its name"
        return AttemptError("image_not_found", f"{text}, and on the worker 'docker pull {image}'")
    if is_full(said):
        return AttemptError("disk_full", f"The image '{image}' does not fit on this worker's disk: {said}")
    return AttemptError("image_pull_failed", f"The image '{image}' could not be pulled: {said or why(error)}")


def _not_let_in(image: str, known: Login | None) -> str:
    host = registry(image)
    advice = f"log in on this worker, as its user: docker login {host}"
    if known is None:
        return f"The image '{image}' needs a login that this worker does not have: {advice}"
    return f"The registry {host} refuses this worker's login for the image '{image}', from {known.source}: {advice}"


def is_full(text: str) -> bool:
    return "no space left" in text.lower()
