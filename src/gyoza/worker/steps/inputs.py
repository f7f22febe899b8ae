"""The run's inputs as the op sees them: `inputs.json`, and the files that it names."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from gyoza.client.errors import DownloadBroken, NotFound
from gyoza.models.errors import AttemptError
from gyoza.worker.patience import patiently
from gyoza.worker.work import Work

_SCHEME = "gyoza://files/"


@asynccontextmanager
async def inputs(work: Work) -> AsyncGenerator[None]:
    """Members go as they were received; a file is fetched, and named by its path as the program sees it."""
    members: dict[str, Any] = dict(work.assignment.inputs)
    for name, spec in work.assignment.input_specs.items():
        if spec.type == "file" and name in members:
            uri = msgspec.json.decode(members[name])
            if uri is not None:
                members[name] = await _fetched(work, name, uri)
    await asyncio.to_thread((work.io_dir / "inputs.json").write_bytes, msgspec.json.encode(members))
    yield


async def _fetched(work: Work, name: str, uri: str) -> str:
    if not uri.startswith(_SCHEME):
        raise AttemptError("not_allowed", f"Input '{name}': this worker fetches {_SCHEME}<id> only, not '{uri}'")
    relative = Path("inputs") / name / _last_part(uri)
    (work.io_dir / relative).parent.mkdir(parents=True)
    try:
        await patiently(lambda: work.place.client.download_file(uri, work.io_dir / relative))
    except NotFound as error:
        raise AttemptError("not_allowed", f"Input '{name}': the server has no file '{uri}'") from error
    except DownloadBroken as error:
        raise AttemptError("start_failed", f"Input '{name}' did not arrive whole: {error.detail}") from error
    (work.io_dir / relative).chmod(0o644)
    return f"{work.place.engine.io_path(work.io_dir)}/{relative}"


def _last_part(uri: str) -> str:
    return uri.rsplit("/", 1)[-1]
