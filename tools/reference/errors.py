"""The page of the errors, and one page for every code."""

import json

from gyoza.models.errors import HttpError
from gyoza.server.catalogue import ENTRIES, FAULTS, Entry
from gyoza.server.problems import document, status_of

from .pages import code, table

_MADE = "<!-- Made by `make docs` from src/gyoza/server/catalogue.py: change it there. -->"


def tables() -> dict[str, str]:
    rows = [
        (_status(entry), f"[`{name}`](errors/{name}.md)", entry.means, _from_above(entry.now))
        for entry in ENTRIES
        for name in [entry.example.code]
    ]
    faults = [(code(name), means) for name, means in FAULTS.items()]
    return {"codes": table(("status", "code", "means", "what now"), rows), "places": table(("code", "means"), faults)}


def pages() -> dict[str, str]:
    return {entry.example.code: _page(entry) for entry in ENTRIES}


def _page(entry: Entry) -> str:
    told = document(entry.example)
    return f"""\
{_MADE}

# {told["code"]}

**Status {_status(entry)}.** {entry.means}

**What now.** {entry.now}

```json
{json.dumps(told, indent=2)}
```

[All codes](../errors.md)
"""


def _status(entry: Entry) -> str:
    return "other" if isinstance(entry.example, HttpError) else str(status_of(entry.example))


def _from_above(text: str) -> str:
    """The same links, seen from the page of all errors, which is one folder higher."""
    return text.replace("](../", "](")
