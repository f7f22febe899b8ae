"""Logins for registries, from Docker's own configuration: what `docker login` has left on this host serves Gyoza too.

`config.json` in the folder DOCKER_CONFIG (`~/.docker`): a helper for this registry (`credHelpers`) or for all
(`credsStore`) is asked, `docker-credential-NAME get`; else `auths` has it. Read anew for each pull, so that a login
needs no restart. What is found goes to the engine and nowhere else: no text of ours quotes a file or a helper.
"""

import asyncio
import base64
import binascii
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from gyoza.models.errors import AttemptError
from gyoza.worker.engines.cleanup import to_the_end
from gyoza.worker.engines.references import HUB

HELPER_S = 30.0
_HUB_KEY = f"https://index.{HUB}/v1/"
"""Under which Docker has always kept the login for its own registry."""
_TOKEN_USER = "<token>"

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Login:
    """`header`: what the engine is given as X-Registry-Auth. `source`: where it was found."""

    source: str
    header: str = field(repr=False)


async def login(host: str) -> Login | None:
    """What there is for a registry. AttemptError `image_pull_failed` where the configuration cannot be read."""
    path = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    key = _HUB_KEY if host == HUB else host
    try:
        config = await asyncio.to_thread(_config, path)
        helpers = _object(config.get("credHelpers"))
        helper = helpers.get(host) or helpers.get(key) or config.get("credsStore")
        if helper and (said := await _asked(str(helper), key)):
            return _login(said, key, f"docker-credential-{helper}")
        said = _kept(config, key)
    except (ValueError, UnicodeError, binascii.Error, OSError):
        raise _fault(f"{path} cannot be read: correct it, or log in anew (docker login {host})") from None
    return _login(said, key, str(path)) if said else None


def _login(said: Object, key: str, source: str) -> Login:
    return Login(source, base64.urlsafe_b64encode(json.dumps({**said, "serveraddress": key}).encode()).decode())


def _config(path: Path) -> Object:
    try:
        return _object(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return {}


def _object(value: object) -> Object:
    """A member that is absent counts as an empty one."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError
    return cast(Object, value)


def _kept(config: Object, key: str) -> Object:
    """The entry of this registry: older ones are kept with a scheme or a path."""
    auths = _object(config.get("auths"))
    found = [auths[name] for name in sorted(auths, key=lambda name: name != key) if _host(name) == _host(key)]
    entry = _object(found[0] if found else None)
    if entry.get("identitytoken"):
        return {"identitytoken": entry["identitytoken"]}
    if entry.get("auth"):
        user, _, password = base64.b64decode(entry["auth"]).decode().rstrip("\0").partition(":")
        return {"username": user, "password": password}
    return {name: entry[name] for name in ("username", "password") if entry.get(name)}


def _host(name: str) -> str:
    return name.rpartition("://")[2].partition("/")[0]


async def _asked(helper: str, key: str) -> Object:
    """What the helper says; empty where it knows nothing of this registry."""
    program = f"docker-credential-{helper}"
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(program, "get", stdin=pipe, stdout=pipe, stderr=nothing)
    except OSError:
        raise _fault(f"{program}, which Docker's configuration names, cannot be run: put it on the PATH") from None
    try:
        async with asyncio.timeout(HELPER_S):
            output, _ = await process.communicate(key.encode())
    except TimeoutError:
        raise _fault(f"{program} gave no answer for {key} within {HELPER_S:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await to_the_end(process.wait())
    return _answered(program, key, process.returncode, output)


def _answered(program: str, key: str, code: int | None, output: bytes) -> Object:
    if code != 0:
        if b"credentials not found" in output:
            return {}
        raise _fault(f"{program} failed for {key}: see on this worker what 'echo {key} | {program} get' says")
    try:
        answer = _object(json.loads(output))
        user, secret = answer["Username"], answer["Secret"]
    except (ValueError, LookupError):
        raise _fault(f"{program} gave no answer for {key} that can be read") from None
    return {"identitytoken": secret} if user == _TOKEN_USER else {"username": user, "password": secret}


def _fault(text: str) -> AttemptError:
    return AttemptError("image_pull_failed", f"This worker's logins for registries cannot be had. {text}")
