"""What the op gave: `outputs.json`, its files uploaded; or `error.json`, when it failed."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, cast

import msgspec

from gyoza.client.errors import ResponseError
from gyoza.models.errors import AttemptError, Malformed
from gyoza.models.strictjson import parse
from gyoza.worker.engines import Exit
from gyoza.worker.patience import patiently
from gyoza.worker.trust import Untrusted, open_regular, read_regular
from gyoza.worker.work import Work

LIMIT = 4 * 2**20
ERROR_LIMIT = 64 * 2**10
_FILE_FIELDS = ("uri", "name", "size", "sha256", "media_type")


async def collect(work: Work) -> Mapping[str, Any]:
    """The outputs, members as the op wrote them, file outputs uploaded; AttemptError `invalid_output`."""
    values, kept = await asyncio.to_thread(_read, work)
    for name, spec in work.assignment.output_specs.items():
        if spec.type == "file" and values.get(name) is not None:
            values[name] = kept[name] = await _uploaded(work, name, values[name])
    if faults := work.assignment.output_specs.faults_of_outputs(values):
        raise _invalid("; ".join(faults))
    return kept


def _read(work: Work) -> tuple[dict[str, Any], dict[str, Any]]:
    """The outputs decoded, and as they were written."""
    try:
        data = read_regular(work.io_dir, "outputs.json", LIMIT)
        values: Any = parse(data) if data is not None else {}
    except Untrusted as error:
        raise _invalid(str(error)) from error
    except Malformed as error:
        raise _invalid(f"outputs.json: {error.detail}") from error
    if not isinstance(values, dict):
        raise _invalid("outputs.json must hold one JSON object")
    kept = msgspec.json.decode(data, type=dict[str, msgspec.Raw]) if data is not None else {}
    return cast(dict[str, Any], values), dict[str, Any](kept)


async def _uploaded(work: Work, name: str, relative: object) -> dict[str, Any]:
    if not isinstance(relative, str):
        raise _invalid(f"'{name}' must be the path of a file, relative to GYOZA_IO_DIR")
    try:
        descriptor = open_regular(work.io_dir, relative)
    except Untrusted as error:
        raise _invalid(f"'{name}': {error}") from error
    if descriptor is None:
        raise _invalid(f"'{name}': there is no file '{relative}' in GYOZA_IO_DIR")
    with os.fdopen(descriptor, "rb") as file:

        async def upload() -> dict[str, Any]:
            file.seek(0)
            return await work.place.client.upload_file(file, name=PurePosixPath(relative).name)

        try:
            stored = await patiently(upload)
        except ResponseError as error:
            raise _invalid(f"'{name}': the server refused the file ({error.detail})") from error
    return {field: stored[field] for field in _FILE_FIELDS}


async def said_error(work: Work, end: Exit) -> tuple[str, bool | None]:
    """Why the op failed, by its own word or by the end of its log; and whether it said that trying again helps."""
    said = await asyncio.to_thread(_error_json, work)
    message, retryable = said.get("error_message"), said.get("retryable")
    if not isinstance(message, str) or not message:
        assert work.running is not None
        how = f"by signal {end.signal}" if end.signal else f"with exit code {end.exit_code}"
        tail = (await work.running.log_tail()).strip()
        message = f"The op ended {how}" + (f"; its last output:\n{tail}" if tail else "")
    return message, retryable if isinstance(retryable, bool) else None


def _error_json(work: Work) -> dict[str, Any]:
    try:
        data = read_regular(work.io_dir, "error.json", ERROR_LIMIT)
        said: Any = parse(data) if data is not None else {}
    except (Untrusted, Malformed):
        return {}
    return cast(dict[str, Any], said) if isinstance(said, dict) else {}


def _invalid(detail: str) -> AttemptError:
    return AttemptError("invalid_output", f"The op's outputs are invalid: {detail}")
