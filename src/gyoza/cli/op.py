"""`gyoza op`: from a folder to an op on the server."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from gyoza.cli.connect import ApiKey, Output, ServerUrl, connect
from gyoza.cli.output import Format, details, note

if TYPE_CHECKING:
    import httpx

    from gyoza.client import GyozaClient
    from gyoza.client.project import Project
    from gyoza.models.bundle import Bundle

app = typer.Typer(no_args_is_help=True)


class Deployed(NamedTuple):
    """`text`: the server's own; `new`: whether this is a revision that was not there before."""

    definition: dict[str, Any]
    text: str
    new: bool


@app.command()
def deploy(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where gyoza.yml is.", show_default="this folder")
    ] = Path(),
    output: Output = Format.table,
    server_url: ServerUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Pack a folder that has a gyoza.yml, and deploy it. The same content is the same revision."""
    with connect(server_url, api_key) as client:
        deployed = deploy_folder(client, folder)
    if output is Format.json:
        typer.echo(deployed.text)
        return
    op = deployed.definition
    details({"name": op["id"], "version": op["version"], "revision": op["revision"], "digest": op["digest"]})
    note("deployed" if deployed.new else "it was there already: nothing has changed")


def deploy_folder(client: "GyozaClient", folder: Path) -> Deployed:
    """Pack, upload, deploy."""
    from gyoza.client import calls
    from gyoza.client.project import definition_of, read_project

    project = read_project(folder)
    bundle = _uploaded(client, project) if project.argv else None
    return client.send(calls.upsert_definition(definition_of(project, bundle)).read_by(_deployed))


def _uploaded(client: "GyozaClient", project: "Project") -> "Bundle":
    from gyoza.client.bundle import pack
    from gyoza.models.bundle import Bundle

    with tempfile.TemporaryDirectory(prefix="gyoza-deploy-") as scratch:
        packed = pack(project, Path(scratch))
        stored = client.upload_file(packed.path, media_type="application/gzip")
    manifest = packed.manifest
    return Bundle(
        uri=stored["uri"],
        digest=packed.digest,
        size=packed.size,
        entry=manifest.entry,
        python=manifest.python,
        base_image=manifest.base_image,
    )


def _deployed(response: "httpx.Response") -> Deployed:
    from gyoza.client.call import an_object

    return Deployed(an_object(response), response.text, response.status_code == 201)
