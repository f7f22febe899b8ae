"""An op's source as one content-addressed archive, so that a team needs no image registry.

A bundle is a gzipped tar whose bytes depend on its contents alone. Inside:

    bundle.json          {"format": 1, "entry": [...], "python": "3.11" | null, "base_image": ... | null}
    app/                 the op's files; the working directory of the entry command
    lib/gyoza/           `gyoza.op` (standard library only); put on PYTHONPATH when `python` is set
    requirements.lock    pinned with hashes; only when the op has dependencies
    wheels/*.whl         everything that requirements.lock names, so that a worker builds offline
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FORMAT = 1
IMAGE_HOME = "/op"
"""Where an image built from a bundle holds the unpacked archive; the environment is its folder `env`."""


@dataclass(frozen=True)
class BundleManifest:
    """What `bundle.json` says. `python`: the version (major.minor) that the wheels are for; null: no Python needed."""

    entry: Sequence[str]
    python: str | None = None
    base_image: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "entry": list(self.entry),
            "python": self.python,
            "base_image": self.base_image,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "BundleManifest":
        """ValueError, with what is wrong, unless `data` has this shape."""
        if data.get("format") != FORMAT:
            raise ValueError(f"its format {data.get('format')!r} is not {FORMAT}: deploy the op anew")
        words, python, base_image = data.get("entry"), data.get("python"), data.get("base_image")
        entry: list[object] = list(words) if isinstance(words, list) else []  # pyright: ignore[reportUnknownArgumentType]
        texts = [*entry, *(value for value in (python, base_image) if value is not None)]
        if not entry or not all(isinstance(text, str) and text for text in texts):
            raise ValueError("it needs entry (a list of words), and python and base_image as text or null")
        return cls(tuple(map(str, entry)), python, base_image)


@dataclass(frozen=True)
class Bundle:
    """What a definition keeps of its bundle: where the archive is and what it must hash to (`sha256:<hex>`)."""

    uri: str
    digest: str
    size: int
    entry: Sequence[str]
    python: str | None = None
    base_image: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "uri": self.uri,
            "digest": self.digest,
            "size": self.size,
            "entry": list(self.entry),
            "python": self.python,
            "base_image": self.base_image,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Bundle":
        return cls(
            uri=data["uri"],
            digest=data["digest"],
            size=data["size"],
            entry=tuple(data["entry"]),
            python=data.get("python"),
            base_image=data.get("base_image"),
        )


def dockerfile(base: str, python: bool, requirements: bool, labels: Mapping[str, str]) -> str:
    """The project's one Dockerfile text: dependencies before code, so that a change of code reuses their layer.

    Labels come first, so that every layer has them; they must be the same for all bundles of a worker.
    """
    lines = [f"FROM {base}", *(f"LABEL {name}={json.dumps(value)}" for name, value in labels.items())]
    if python:
        lines.append(f"RUN python3 -m venv {'' if requirements else '--without-pip '}{IMAGE_HOME}/env")
    if requirements:
        lines += [
            f"COPY requirements.lock {IMAGE_HOME}/",
            f"COPY wheels {IMAGE_HOME}/wheels",
            # The version comes first: where pip refuses the wheels, it says which Python they were refused for.
            f"RUN {IMAGE_HOME}/env/bin/python --version && {IMAGE_HOME}/env/bin/python -m pip install "
            f"--no-cache-dir --no-index --require-hashes --find-links {IMAGE_HOME}/wheels "
            f"-r {IMAGE_HOME}/requirements.lock && rm -r {IMAGE_HOME}/wheels",
        ]
    if python:
        lines += [
            f"COPY lib {IMAGE_HOME}/lib",
            f"ENV PATH={IMAGE_HOME}/env/bin:$PATH PYTHONPATH={IMAGE_HOME}/lib PYTHONUNBUFFERED=1",
        ]
    lines += [f"COPY app {IMAGE_HOME}/app", f"WORKDIR {IMAGE_HOME}/app", "USER 65532:65532"]
    return "\n".join(lines) + "\n"


def base_image(python: str | None) -> str:
    """On what a bundle is built where its author says nothing: small, official, with the Python of its wheels."""
    return "debian:stable-slim" if python is None else f"python:{python}-slim"
