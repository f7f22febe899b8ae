"""`gyoza definitions`: the ops that the server knows."""

from typing import Annotated, Any

import typer

from gyoza.cli.connect import ApiKey, Output, ServerUrl, connect
from gyoza.cli.output import Format, details, json_text, note, show, table

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The op's name.", show_default=False)]
COLUMNS = ("NAME", "VERSION", "REVISION", "INPUTS", "DESCRIPTION")


@app.command()
def ls(output: Output = Format.table, server_url: ServerUrl = None, api_key: ApiKey = None) -> None:
    """List ops, the newest revision of each."""
    from gyoza.client import calls

    with connect(server_url, api_key) as client:
        show(client, calls.list_definitions(), output, lambda found: table(COLUMNS, map(_row, found)))


@app.command("show")
def show_definition(
    name: Name,
    version: Annotated[str | None, typer.Option(help="This version of it.", show_default="the latest")] = None,
    output: Output = Format.table,
    server_url: ServerUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Show what an op takes, gives and needs."""
    from gyoza.client import calls

    with connect(server_url, api_key) as client:
        show(client, calls.get_definition(name, version), output, _draw)


@app.command()
def disable(name: Name, output: Output = Format.table, server_url: ServerUrl = None, api_key: ApiKey = None) -> None:
    """Take no new runs of an op; those that are there go on."""
    from gyoza.client import calls

    with connect(server_url, api_key) as client:
        show(client, calls.disable_definition(name), output, _draw_disabled)


@app.command()
def enable(name: Name, output: Output = Format.table, server_url: ServerUrl = None, api_key: ApiKey = None) -> None:
    """Take runs of an op again."""
    from gyoza.client import calls

    with connect(server_url, api_key) as client:
        show(client, calls.enable_definition(name), output, _draw_disabled)


@app.command()
def rm(name: Name, server_url: ServerUrl = None, api_key: ApiKey = None) -> None:
    """Take an op out of the list. Its runs and their history stay; deployed again, it is back."""
    with connect(server_url, api_key) as client:
        client.delete_definition(name)
    note(f"removed {name}")


def _draw_disabled(op: dict[str, Any]) -> None:
    typer.echo(f"{op['id']}  {'disabled' if op['disabled'] else 'enabled'}")


def _row(op: dict[str, Any]) -> tuple[Any, ...]:
    return op["id"], op["version"], op["revision"], ", ".join(op["input_specs"]) or "-", op.get("description")


def _draw(op: dict[str, Any]) -> None:
    bundle: dict[str, Any] = op.get("bundle") or {}
    details(
        {
            "name": op["id"],
            "version": op["version"],
            "revision": op["revision"],
            "digest": op["digest"],
            "description": op.get("description"),
            "image": op["image"],
            "bundle": bundle.get("digest"),
            "disabled": "yes" if op.get("disabled") else None,
            "max attempts": op["retry_policy"]["max_attempts"],
            **{name: value for name, value in op["constraints"].items() if value is not None},
            "tags": ", ".join(op.get("tags") or []),
            **{f"input {name}": _spec(spec) for name, spec in op["input_specs"].items()},
            **{f"output {name}": _spec(spec) for name, spec in op["output_specs"].items()},
        }
    )


def _spec(spec: dict[str, Any]) -> str:
    if spec.get("default") is not None:
        return f"{spec['type']}, default {json_text(spec['default'])}"
    return spec["type"] if spec.get("required", True) else f"{spec['type']}, optional"
