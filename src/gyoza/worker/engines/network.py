"""The network of containers: one for an engine and all its workers, on which no container reaches another.

It is made where it is missing and never removed, as Docker's own bridge: so no worker takes it from another.
"""

import aiodocker
from aiodocker.exceptions import DockerError

from gyoza.models.errors import AttemptError

NETWORK = "gyoza"
BRIDGE = "gyoza0"
"""The interface on the host: what a firewall of the owner's can name."""
_APART = "com.docker.network.bridge.enable_icc"
_CONFIG = {
    "Name": NETWORK,
    "Driver": "bridge",
    "CheckDuplicate": True,
    "Options": {_APART: "false", "com.docker.network.bridge.name": BRIDGE},
    "Labels": {"gyoza.network": "true"},
}
_NO_NETWORK, _NAME_TAKEN, _BRIDGE_TAKEN = 404, 409, 403


async def have_network(client: aiodocker.Docker) -> str:
    """Its name. DockerError where the engine cannot make it; AttemptError where one of that name is another."""
    try:
        options = await _options(client)
    except DockerError as error:
        if error.status != _NO_NETWORK:
            raise
        await _make(client)
        options = await _options(client)
    if options.get(_APART) != "false":
        text = f"Docker has a network '{NETWORK}' on which containers reach each other: remove it (docker network rm)"
        raise AttemptError("start_failed", f"{text}, and the worker makes its own")
    return NETWORK


async def _options(client: aiodocker.Docker) -> dict[str, str]:
    network = await client.networks.get(NETWORK)  # pyright: ignore[reportUnknownMemberType]
    return (await network.show())["Options"] or {}


async def _make(client: aiodocker.Docker) -> None:
    """Another worker may be first, which is as good."""
    try:
        await client.networks.create(_CONFIG)  # pyright: ignore[reportUnknownMemberType]
    except DockerError as error:
        if error.status not in (_NAME_TAKEN, _BRIDGE_TAKEN):
            raise
