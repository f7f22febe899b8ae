"""Markdown: blocks between markers within a page written by hand, and the tables that stand in them."""

import re
from collections.abc import Iterable, Mapping, Sequence

_BLOCK = re.compile(r"(<!-- generated: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(page: str, blocks: Mapping[str, str]) -> str:
    """`page` with its blocks as they should be; a KeyError names a block that nothing fills."""
    found = {match["name"] for match in _BLOCK.finditer(page)}
    if missing := set(blocks) - found:
        raise KeyError(f"no block <!-- generated: {' or '.join(sorted(missing))} --> in the page")
    return _BLOCK.sub(lambda match: f"{match[1]}\n{blocks[match['name']].strip()}\n\n{match[3]}", page)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *([str(cell).replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def code(text: object) -> str:
    return f"`{text}`"


def codes(texts: Iterable[object]) -> str:
    return ", ".join(map(code, texts))
