"""Where the pages are, and what they say in code: the words between backticks."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "gyoza"
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"


def every_page() -> list[Path]:
    return sorted([*DOCS.rglob("*.md"), *(ROOT / "examples").rglob("*.md"), *ROOT.glob("*.md")])


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def code_words(text: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", without_code(text)))


def first_cells(text: str) -> list[str]:
    """The first column of every table, without its headings."""
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    return [cell for i, cell in enumerate(rows) if not cell.startswith("---") and rows[i + 1 : i + 2] != ["---"]]
