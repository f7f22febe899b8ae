"""Whether the server is up, and whether it can work."""

from fastapi import Request, Response

from gyoza.models.errors import NotReady
from gyoza.server.answers import HealthOut, ReadyOut
from gyoza.server.context import Routes, context
from gyoza.server.wire import Answer

router = Routes("health")


@router.call("GET", "/health", answer=HealthOut)
async def get_health(request: Request) -> Response:
    """Up; `cluster_id` names the cluster that this server belongs to."""
    return Answer({"status": "ok", "cluster_id": context(request).cluster_id})


@router.call("GET", "/health/ready", answer=ReadyOut, refuses=(NotReady,))
async def get_readiness(request: Request) -> Response:
    """Able to work: database and file store can be reached."""
    server = context(request)
    missing = [
        name
        for name, is_ready in (("database", await server.database.is_ready()), ("file store", server.files.is_ready()))
        if not is_ready
    ]
    if missing:
        raise NotReady(missing)
    return Answer({"status": "ready"})
