"""The run's inputs as the op sees them: `inputs.json`, and the files that it names."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from gyoza.client.errors import DownloadBroken, NotFound
from gyoza.models.errors import AttemptError
from gyoza.worker.engines.cleanup import to_the_end
from gyoza.worker.patience import patiently
from gyoza.worker.work import Work

_SCHEME = "gyoza://files/"
_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
"""Looser than the ids that servers give, but nothing that could lead out of its folder."""


@asynccontextmanager
async def inputs(work: Work) -> AsyncGenerator[None]:
    """Members go as they were received; a file is fetched, and named by its path as the program sees it."""
    if work.begun is None:
        await _write(work)
    yield


async def _write(work: Work) -> None:
    members: dict[str, Any] = dict(work.assignment.inputs)
    for name, spec in work.assignment.input_specs.items():
        if spec.type == "file" and name in members:
            uri = msgspec.json.decode(members[name])
            if uri is not None:
                members[name] = await _fetched(work, name, uri)
    await to_the_end(asyncio.to_thread((work.io_dir / "inputs.json").write_bytes, msgspec.json.encode(members)))


async def _fetched(work: Work, name: str, uri: str) -> str:
    """Its path as the program sees it: below `inputs`, under its id."""
    if not uri.startswith(_SCHEME):
        raise AttemptError("not_allowed", f"Input '{name}': this worker fetches {_SCHEME}<id> only, not '{uri}'")
    file_id = uri.removeprefix(_SCHEME)
    if not _ID.fullmatch(file_id):
        raise AttemptError("not_allowed", f"Input '{name}': '{file_id}' is not the id of a file")
    path = work.io_dir / "inputs" / file_id
    path.parent.mkdir(exist_ok=True)
    try:
        await patiently(lambda: work.place.client.download_file(uri, path))
    except NotFound as error:
        raise AttemptError("not_allowed", f"Input '{name}': the server has no file '{uri}'") from error
    except DownloadBroken as error:
        raise AttemptError("start_failed", f"Input '{name}' did not arrive whole: {error.detail}") from error
    return f"{work.place.engine.io_path(work.io_dir)}/inputs/{file_id}"
