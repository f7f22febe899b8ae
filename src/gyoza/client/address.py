"""Which server, and with which key: what the caller says, else the environment, else this host's own."""

import os
from dataclasses import dataclass, field
from ipaddress import ip_address

import httpx

from gyoza.client.errors import InvalidSetting
from gyoza.client.local import local_api_key

DEFAULT_URL = "http://localhost:5555"


@dataclass(frozen=True)
class Address:
    """`url` has no slash at its end. `local`: the server is on this host."""

    url: str
    local: bool
    api_key: str | None = field(repr=False)

    def headers(self) -> dict[str, str]:
        return {"X-API-Key": self.api_key} if self.api_key else {}


def resolve(base_url: str | None, api_key: str | None) -> Address:
    """The file with a local server's key is looked at only if the server is local: no other host is to see it."""
    text = base_url or os.environ.get("GYOZA_SERVER_URL") or DEFAULT_URL
    local = is_loopback(_host(text))
    key = api_key or os.environ.get("GYOZA_API_KEY") or (local_api_key() if local else None)
    if key and not (key.isascii() and key.isprintable()):
        raise InvalidSetting("The API key holds characters that no Gyoza key has: check GYOZA_API_KEY")
    return Address(text.rstrip("/"), local, key)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _host(text: str) -> str:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise InvalidSetting(f"'{text}' is not the URL of a server: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise InvalidSetting(f"'{text}' is not the URL of a server: write it like {DEFAULT_URL}")
    return url.host
