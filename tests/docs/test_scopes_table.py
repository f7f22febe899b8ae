"""The one table of all calls and their scopes says what the routes say."""

import re

from gyoza.server.app import ROUTERS

from .pages import REFERENCE

PAGE = (REFERENCE / "keys.md").read_text()


def test_the_page_of_keys_names_the_scopes_of_every_call():
    rows = [
        (f"{method} `{path}`", " or ".join(f"`{scope}`" for scope in scopes) or "none: open to all")
        for router in ROUTERS
        for (method, path), scopes in router.scopes.items()
    ]
    table = ["| call | scope |", "| --- | --- |", *(f"| {call} | {scopes} |" for call, scopes in rows)]
    said = re.search(r"<!-- scopes -->\n(.*)<!-- end -->", PAGE, flags=re.DOTALL)
    assert said is not None
    assert said[1].strip().splitlines() == table
