"""What every command that asks a server has in common: its options, and the client they make."""

from typing import TYPE_CHECKING, Annotated

import typer

from gyoza.cli.output import Format

if TYPE_CHECKING:
    from gyoza.client import GyozaClient

ServerUrl = Annotated[
    str | None,
    typer.Option("--server-url", envvar="GYOZA_SERVER_URL", help="The server.", show_default="http://localhost:5555"),
]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", envvar="GYOZA_API_KEY", help="Its key.", show_default="a local server's own"),
]
Output = Annotated[Format, typer.Option("-o", "--output", help="json prints what the server answered.")]


def connect(server_url: str | None, api_key: str | None) -> "GyozaClient":
    from gyoza.client import GyozaClient

    return GyozaClient(server_url, api_key)
