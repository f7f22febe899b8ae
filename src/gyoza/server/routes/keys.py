"""Keys: an administrator makes, lists and revokes them."""

from fastapi import Request, Response

from gyoza.control import keys
from gyoza.models.errors import KeyNotFound
from gyoza.models.strictjson import parse
from gyoza.server.answers import KeyMade, KeyOut
from gyoza.server.context import ADMIN, Routes, caller, context
from gyoza.server.schemas import CreateKey
from gyoza.server.wire import Answer, checked, read_body

router = Routes("keys")


@router.hot("POST", "/keys", ADMIN, body=CreateKey, answer=KeyMade, status=201)
async def create_key(request: Request) -> Response:
    """Make a key.

    Its text, `key`, is in this answer and nowhere else.
    """
    said = checked(CreateKey, parse(await read_body(request)))
    wanted, server = keys.Wanted(said.name, said.scopes, said.worker, said.expires_in_s), context(request)
    key, text = await keys.create(server.database, wanted, caller(request).name, server.now())
    return Answer({**key.to_dict(), "key": text}, 201, headers={"Cache-Control": "no-store"})


@router.call("GET", "/keys", ADMIN, answer=list[KeyOut])
async def list_keys(request: Request) -> Response:
    """Every key, oldest first, the expired and revoked ones too; no texts."""
    return Answer([key.to_dict() for key in await keys.every(context(request).database)])


@router.call("DELETE", "/keys/{key_id}", ADMIN, status=204, refuses=(KeyNotFound,))
async def revoke_key(request: Request, key_id: str) -> Response:
    """Revoke a key: all servers refuse it from now on."""
    server = context(request)
    await keys.revoke(server.database, key_id, server.now())
    return Response(status_code=204)
