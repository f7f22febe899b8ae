"""`gyoza keys`: who may ask the server, and for what."""

import re
from typing import Annotated, Any

import typer

from gyoza.cli.connect import ApiKey, Output, ServerUrl, connect
from gyoza.cli.output import Format, json_text, moment, note, show, table
from gyoza.models.keys import Scope
from gyoza.models.run import is_run_id

app = typer.Typer(no_args_is_help=True)

COLUMNS = ("ID", "NAME", "SCOPES", "WORKER", "HINT", "CREATED (UTC)", "EXPIRES", "REVOKED", "LAST USED")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Scopes = Annotated[
    list[Scope] | None,
    typer.Option("--scope", help="What it may do. May be repeated.", show_default="submit; with --worker, worker"),
]
Worker = Annotated[str | None, typer.Option(metavar="NAME", help="The worker that it is for.")]
ExpiresIn = Annotated[str | None, typer.Option(metavar="TIME", help="Such as 90d, 12h, 30m.", show_default="never")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who is to have it.", show_default=False)],
    scopes: Scopes = None,
    worker: Worker = None,
    expires_in: ExpiresIn = None,
    output: Output = Format.table,
    server_url: ServerUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Make a key and print it, alone on stdout. It is shown this once."""
    wanted = scopes or ([Scope.WORKER] if worker else None)
    expires_in_s = None if expires_in is None else _seconds(expires_in)
    with connect(server_url, api_key) as client:
        made = client.create_key(name, scopes=wanted, worker=worker, expires_in_s=expires_in_s)
    until = f", until {moment(made['expires_at'])} UTC" if made["expires_at"] else ""
    note(f"Key {made['id']} of {name} ({_scopes(made)}{until}). Keep it now: it is not shown again")
    typer.echo(json_text(made) if output is Format.json else made["key"])


@app.command()
def ls(output: Output = Format.table, server_url: ServerUrl = None, api_key: ApiKey = None) -> None:
    """List keys: not their texts, which nobody has but their owners."""
    from gyoza.client import calls

    with connect(server_url, api_key) as client:
        show(client, calls.list_keys(), output, lambda found: table(COLUMNS, map(_row, found)))


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Its id, or a name that one key has.", show_default=False)],
    server_url: ServerUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Revoke a key. Every server refuses it within seconds."""
    with connect(server_url, api_key) as client:
        key_id = key if is_run_id(key) else _only(client.list_keys(), key)
        client.revoke_key(key_id)
    note(f"revoked {key_id}")


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+)([smhd])", text)
    if found is None:
        raise typer.BadParameter(f"'{text}' is no time: write it like 90d, 12h, 30m or 45s (--expires-in)")
    return float(found[1]) * UNITS[found[2]]


def _only(keys: list[dict[str, Any]], name: str) -> str:
    """The id of the only key of that name that is not revoked; what is no name goes to the server as it is."""
    named = [key["id"] for key in keys if key["name"] == name and key["revoked_at"] is None]
    if len(named) > 1:
        raise typer.BadParameter(f"{len(named)} keys are named '{name}': say which by its id: {', '.join(named)}")
    return named[0] if named else name


def _row(key: dict[str, Any]) -> tuple[Any, ...]:
    times = (moment(key[name]) for name in ("created_at", "expires_at", "revoked_at", "last_used_at"))
    return key["id"], key["name"], _scopes(key), key["worker"], key["hint"], *times


def _scopes(key: dict[str, Any]) -> str:
    return ", ".join(key["scopes"])
