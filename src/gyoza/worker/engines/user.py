"""As whom a container runs: as nobody in particular, unless its image, its op or the worker's owner says otherwise."""

import os

from gyoza.models.errors import AttemptError
from gyoza.worker.engines.confinement import Host, nobody


def chosen_user(asked: str | None, of_image: str, host: Host) -> str:
    """What the op asks for (`execution.user`) before what its image says; `user` or `user:group`.

    An image that says nothing, or root, runs as nobody in particular. AttemptError `not_allowed` for an op that asks
    for root where the owner does not allow it.
    """
    if asked is not None and is_root(asked) and not host.may_be_root:
        text = f"The op asks for the user '{asked}', and this worker runs nothing as root"
        raise AttemptError("not_allowed", f"{text} (its owner may set GYOZA_ALLOW_ROOT=1)")
    if asked is not None:
        return asked
    if is_root(of_image) and not host.may_be_root:
        return nobody(host)
    return of_image


def is_root(user: str) -> bool:
    """Docker takes a number in any spelling, and no name at all for root."""
    name = user.partition(":")[0]
    try:
        return int(name) == 0
    except ValueError:
        return name in ("", "root")


def host_uid(user: str, host: Host) -> int | None:
    """The user's number on the host; None where it cannot be told from outside."""
    name = user.partition(":")[0]
    if host.remapped or not name.isdecimal():
        return None
    if host.rootless:
        return os.geteuid() if int(name) == 0 else None
    return int(name)
