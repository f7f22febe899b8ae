"""`gyoza files`: put files on the server and get them back."""

from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from gyoza.cli.connect import ApiKey, Output, ServerUrl, connect
from gyoza.cli.output import Format, json_text, note

if TYPE_CHECKING:
    from gyoza.client import GyozaClient

app = typer.Typer(no_args_is_help=True)

SCHEME = "gyoza://files/"


@app.command()
def put(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file.", show_default=False)],
    name: Annotated[str | None, typer.Option(help="What to call it.", show_default="its own name")] = None,
    output: Output = Format.table,
    server_url: ServerUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Upload a file and print its URI, which runs take as an input of type file."""
    with connect(server_url, api_key) as client:
        stored = client.upload_file(path, name=name)
    typer.echo(json_text(stored) if output is Format.json else stored["uri"])


@app.command()
def get(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The file's id or gyoza:// URI.", show_default=False)],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Where to save it.", show_default=False)],
    server_url: ServerUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Download a file. Nothing lies under PATH before all of it is there."""
    with connect(server_url, api_key) as client:
        note(f"saved {client.download_file(file, path)}")


def save_files(client: "GyozaClient", outputs: Any, folder: Path) -> Iterator[Path]:
    """Download every file that a run's outputs name into `folder`; where each is."""
    folder.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    for file in {file["uri"]: file for file in _files_in(outputs)}.values():
        name = _free_name(file, taken)
        yield client.download_file(file["uri"], folder / name, sha256=file.get("sha256"))


def _files_in(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        found = cast("dict[str, Any]", value)
        if str(found.get("uri", "")).startswith(SCHEME):
            yield found
        else:
            for item in found.values():
                yield from _files_in(item)
    elif isinstance(value, list):
        for item in cast("list[Any]", value):
            yield from _files_in(item)


def _free_name(file: dict[str, Any], taken: set[str]) -> str:
    """The file's own name, without any folder: an op chose it. Two of one name get numbers."""
    own = PurePath(str(file.get("name") or "")).name
    name = PurePath(own if own not in ("", "..") else file["uri"].removeprefix(SCHEME).replace("/", "_"))
    free, number = name.name, 2
    while free in taken:
        free, number = f"{name.stem}-{number}{name.suffix}", number + 1
    taken.add(free)
    return free
