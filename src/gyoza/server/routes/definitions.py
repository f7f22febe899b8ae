"""Definitions: deployed, looked at, run."""

from typing import Annotated

from fastapi import Query, Request, Response

from gyoza.control import deploy, submit
from gyoza.models.definition import OpDefinition
from gyoza.models.strictjson import parse
from gyoza.server.answers import DefinitionOut, RunOut
from gyoza.server.context import READ, SUBMIT, Routes, context
from gyoza.server.schemas import CreateRunOfDefinition, Deploy
from gyoza.server.wire import JSON_LIMIT, Answer, checked, limited, members, read_body

router = Routes("definitions")

Version = Annotated[str | None, Query()]


@router.hot("POST", "/definitions", SUBMIT, body=Deploy, answer=DefinitionOut, statuses=(201, 200, 413, 422))
async def deploy_definition(request: Request) -> Response:
    """Deploy: a new revision, or the one with this content again."""
    wanted = checked(Deploy, parse(await read_body(request)))
    server = context(request)
    definition, is_new = await deploy.deploy(server.database, OpDefinition.from_dict(wanted.model_dump()), server.now())
    return Answer(definition.to_dict(), 201 if is_new else 200)


@router.call("GET", "/definitions", READ, answer=list[DefinitionOut])
async def list_definitions(request: Request) -> Response:
    """The newest revision of each name and version."""
    found = await deploy.every(context(request).database)
    return Answer([definition.to_dict() for definition in found])


@router.call("GET", "/definitions/{name}", READ, answer=DefinitionOut, refuses=(404,))
async def get_definition(request: Request, name: str, version: Version = None) -> Response:
    """The revision deployed last, of that version if given."""
    return Answer((await deploy.latest(context(request).database, name, version)).to_dict())


@router.call("GET", "/definitions/{name}/revisions", READ, answer=list[DefinitionOut], refuses=(404,))
async def list_revisions(request: Request, name: str) -> Response:
    """Every revision, the one deployed last first."""
    found = await deploy.history(context(request).database, name)
    return Answer([definition.to_dict() for definition in found])


@router.hot(
    "POST",
    "/definitions/{name}/runs",
    SUBMIT,
    body=CreateRunOfDefinition,
    answer=RunOut,
    statuses=(201, 400, 404, 413, 422),
)
async def create_run_of_definition(request: Request) -> Response:
    """Run a definition."""
    body = await read_body(request)
    wanted, raw = checked(CreateRunOfDefinition, parse(body)), members(body)
    inputs = members(limited(raw["inputs"], "inputs", JSON_LIMIT)) if "inputs" in raw else {}
    submission = submit.OfDefinition(
        request.path_params["name"], wanted.inputs, inputs, wanted.version, wanted.priority
    )
    server = context(request)
    run = await submit.submit_of_definition(server.database, submission, server.now())
    return Answer(run.to_dict(), 201)
