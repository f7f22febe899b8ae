"""The page of the errors, and one page for every code."""

import json
from collections.abc import Sequence

from gyoza.models.errors import HttpError
from gyoza.server.catalogue import ENTRIES, FAULTS, Entry
from gyoza.server.problems import document, status_of

from .http_api import occurrences
from .pages import code, table

_MANY = 20
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
    found = occurrences()
    return {entry.example.code: _page(entry, found.get(entry.example.code, [])) for entry in ENTRIES}


def _page(entry: Entry, calls: Sequence[str]) -> str:
    told = document(entry.example)
    return f"""\
{_MADE}

# {told["code"]}

**Status {_status(entry)}.** {entry.means}

**What now.** {entry.now}

```json
{json.dumps(told, indent=2)}
```
{_occurs(calls)}
[All codes](../errors.md)
"""


def _occurs(calls: Sequence[str]) -> str:
    if not calls:
        return ""
    if len(calls) > _MANY:
        return f"\n**Occurs** on nearly every call: {len(calls)} of them.\n"
    return "\n**Occurs** on these calls:\n\n" + "".join(f"- {call}\n" for call in calls)


def _status(entry: Entry) -> str:
    return "other" if isinstance(entry.example, HttpError) else str(status_of(entry.example))


def _from_above(text: str) -> str:
    """The same links, seen from the page of all errors, which is one folder higher."""
    return text.replace("](../", "](")
