"""The generated parts of docs/reference, drawn from the code: `make docs` writes them, a test compares them."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from . import commands, errors, http_api, life
from .pages import filled

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
EXAMPLES = ROOT / "src" / "gyoza" / "server" / "examples.json"


@cache
def wanted() -> Mapping[Path, str]:
    """Each page that is generated, in whole or in part, and the text that it should have."""
    parts = {
        DOCS / "concepts" / "lifecycle.md": life.concept(),
        DOCS / "reference" / "events.md": life.reference(),
        DOCS / "reference" / "http-api.md": http_api.blocks(),
        DOCS / "reference" / "cli.md": commands.blocks(),
        DOCS / "reference" / "errors.md": errors.tables(),
    }
    pages = {DOCS / "reference" / "errors" / f"{code}.md": text for code, text in errors.pages().items()}
    return {**{path: filled(path.read_text(), blocks) for path, blocks in parts.items()}, **pages}


def stale() -> set[Path]:
    """Pages of what is not there any more."""
    return set((DOCS / "reference" / "errors").glob("*.md")) - set(wanted())
