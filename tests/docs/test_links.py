"""Links between pages lead somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .pages import DOCS, ROOT, every_page, without_code


def links(page: Path) -> Iterator[tuple[str, str]]:
    """(file, anchor) of each link that stays within the project."""
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if "://" not in target:
            file, _, anchor = target.partition("#")
            yield file, anchor


def anchors(page: Path) -> set[str]:
    """As GitHub makes them from headings."""
    headings = re.findall(r"^#{1,6} (.+)$", without_code(page.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", every_page(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_page_and_its_heading(page: Path):
    for file, anchor in links(page):
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{file} does not exist"
        assert not anchor or anchor in anchors(target), f"{file} has no heading for #{anchor}"


def test_the_index_names_every_page_and_the_errors_name_theirs():
    index, errors = DOCS / "README.md", DOCS / "reference" / "errors.md"
    named = {(page.parent / file).resolve() for page in (index, errors) for file, _ in links(page)}
    assert {page for page in DOCS.rglob("*.md") if page != index} <= named
