"""`-i key=value` and `--inputs-json`, read by the op's own input specs."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

if TYPE_CHECKING:
    from gyoza.client import GyozaClient


def gather(
    client: "GyozaClient", specs: Mapping[str, Any], pairs: Sequence[str], document: str | None
) -> dict[str, Any]:
    """The inputs to submit: those of the document, then those of `-i`. Files given as `@path` are uploaded."""
    inputs = {} if document is None else _read(document)
    for name, text in _split(pairs):
        value = value_of(name, text, specs.get(name, {}).get("type"))
        inputs[name] = client.upload_file(value)["uri"] if isinstance(value, Path) else value
    return inputs


def value_of(name: str, text: str, kind: str | None) -> Any:
    """`text` as a value of type `kind` (None: the op has no such input); a Path is a file to upload."""
    if kind in ("file", "any") and text.startswith("@"):
        return Path(text[1:])
    if kind == "file" and "://" not in text:
        raise typer.BadParameter(f"'{name}' is a file: write -i {name}=@{text} to upload it, or give a URI")
    if kind in ("string", "file"):
        return text
    return _json_or_text(text)


def _split(pairs: Sequence[str]) -> Iterator[tuple[str, str]]:
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"'{pair}' is no input: write -i key=value")
        yield name, text


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _read(document: str) -> dict[str, Any]:
    """`document`: a path, or `-` for stdin."""
    data = sys.stdin.buffer.read() if document == "-" else Path(document).read_bytes()
    try:
        inputs = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"--inputs-json: '{document}' is not JSON: {error}") from error
    if not isinstance(inputs, dict):
        raise typer.BadParameter(f"--inputs-json: '{document}' must hold one JSON object, key: value")
    return cast("dict[str, Any]", inputs)
