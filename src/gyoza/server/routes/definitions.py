"""Definitions: deployed, looked at, run."""

from typing import Annotated

from fastapi import Query, Request, Response

from gyoza.control import deploy, submit
from gyoza.control.once import Reply
from gyoza.models.definition import OpDefinition
from gyoza.models.errors import DefinitionDisabled, DefinitionNotFound, InputValidationError
from gyoza.models.strictjson import parse
from gyoza.server import submission
from gyoza.server.answers import DefinitionOut, RunOut
from gyoza.server.context import ADMIN, READ, SUBMIT, Routes, caller, context
from gyoza.server.repeats import answered, asked
from gyoza.server.schemas import CreateRunOfDefinition, Deploy
from gyoza.server.wire import Answer, checked, encode, members, read_body

router = Routes("definitions")

Version = Annotated[str | None, Query()]


@router.hot("POST", "/definitions", SUBMIT, body=Deploy, answer=DefinitionOut, status=(201, 200), repeats=True)
async def deploy_definition(request: Request) -> Response:
    """Deploy an op.

    201 with a new revision; 200 when this content was there already: it becomes the latest again.
    """
    body, server = await read_body(request), context(request)
    wanted = OpDefinition.from_dict(checked(Deploy, parse(body)).model_dump())
    return answered(await deploy.deploy(server.database, wanted, _shown, server.now(), asked(request, body)))


@router.call("GET", "/definitions", READ, answer=list[DefinitionOut])
async def list_definitions(request: Request) -> Response:
    """The newest revision of each name and version."""
    return Answer(await deploy.every(context(request).database))


@router.call("GET", "/definitions/{name}", READ, answer=DefinitionOut, refuses=(DefinitionNotFound,))
async def get_definition(request: Request, name: str, version: Version = None) -> Response:
    """The revision deployed last, of that version if given."""
    return Answer((await deploy.latest(context(request).database, name, version)).to_dict())


@router.call("GET", "/definitions/{name}/revisions", READ, answer=list[DefinitionOut], refuses=(DefinitionNotFound,))
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
    status=201,
    refuses=(DefinitionNotFound, DefinitionDisabled, InputValidationError),
    repeats=True,
)
async def create_run_of_definition(request: Request) -> Response:
    """Run a definition.

    The run stays pinned to the revision that is the latest now. Every input that does not fit is named.
    """
    body, server = await read_body(request), context(request)
    wanted = checked(CreateRunOfDefinition, parse(body))
    run = submission.of_definition(request.path_params["name"], wanted, members(body))
    by, once = caller(request).name, asked(request, body)
    return answered(await submit.submit(server.database, run, by, submission.one, server.now(), once))


@router.call("POST", "/definitions/{name}/disable", ADMIN, answer=DefinitionOut, refuses=(DefinitionNotFound,))
async def disable_definition(request: Request, name: str) -> Response:
    """It takes no new runs; those that are there go on."""
    server = context(request)
    return Answer((await deploy.disable(server.database, name, server.now())).to_dict())


@router.call("POST", "/definitions/{name}/enable", ADMIN, answer=DefinitionOut, refuses=(DefinitionNotFound,))
async def enable_definition(request: Request, name: str) -> Response:
    """It takes runs again."""
    return Answer((await deploy.enable(context(request).database, name)).to_dict())


@router.call("DELETE", "/definitions/{name}", ADMIN, status=204, refuses=(DefinitionNotFound,))
async def delete_definition(request: Request, name: str) -> Response:
    """Take it out of every list; its runs stay, and so does their history."""
    server = context(request)
    await deploy.delete(server.database, name, server.now())
    return Response(status_code=204)


def _shown(definition: OpDefinition, is_new: bool) -> Reply:
    return Reply(201 if is_new else 200, encode(definition.to_dict()))
