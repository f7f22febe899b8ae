"""What commands print: answers on stdout, everything else on stderr."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

import typer

if TYPE_CHECKING:
    from gyoza.client import GyozaClient
    from gyoza.client.call import Call

T = TypeVar("T")
COLOURS = {"RUNNING": "cyan", "COMPLETED": "green", "FAILED": "red", "CANCELLED": "yellow"}
CONTROLS = dict.fromkeys((*range(32), *range(127, 160)), "�") | {ord("\n"): " ", ord("\t"): " "}


class Format(StrEnum):
    table = "table"
    json = "json"


def show(client: "GyozaClient", call: "Call[T]", output: Format, draw: Callable[[T], None]) -> None:
    """Send `call`; print the server's own text, or what `draw` makes of the answer."""
    from gyoza.client.call import text

    if output is Format.json:
        typer.echo(client.send(call.read_by(text)))
    else:
        draw(client.send(call))


def note(text: str) -> None:
    """For the person at the terminal, not for the program that reads stdout."""
    typer.echo(text, err=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Columns as wide as their content, never cut: what is printed can be piped and copied."""
    from rich.cells import cell_len

    lines = [columns, *([plain(cell) for cell in row] for row in rows)]
    widths = [max(cell_len(cell) for cell in column) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = [_coloured(cell) + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)]
        typer.echo("  ".join(padded).rstrip())


def details(values: Mapping[str, Any]) -> None:
    """One thing, a line for each of its values; what is absent or empty is left out."""
    shown = {name: value for name, value in values.items() if value not in (None, "", [], {})}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        typer.echo(f"{name.ljust(width)}  {plain(value)}")


def plain(value: Any) -> str:
    """One line of text that no terminal obeys: ops and other programs wrote it."""
    if isinstance(value, dict | list):
        return json_text(value).translate(CONTROLS)
    return "-" if value is None else str(value).translate(CONTROLS)


def _coloured(cell: str) -> str:
    return typer.style(cell, fg=COLOURS[cell]) if cell in COLOURS else cell


def json_text(value: Any, indent: int | None = None) -> str:
    import json

    return json.dumps(value, ensure_ascii=False, indent=indent)


def moment(text: str | None) -> str:
    """An ISO-8601 UTC time, to the second."""
    return "-" if text is None else text[:19].replace("T", " ")
