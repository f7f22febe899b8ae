"""The decisions and the design name what is there."""

import re
import tomllib

from .pages import DOCS, ROOT, SOURCE, first_cells

DESIGN = (DOCS / "concepts" / "design.md").read_text()
LAYOUT = DESIGN.partition("src/gyoza/\n")[2].partition("```")[0]


def test_every_dependency_has_a_line_that_says_why():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = [
        project["project"]["dependencies"],
        *project["project"]["optional-dependencies"].values(),
        *project["dependency-groups"].values(),
    ]
    wanted = {re.split(r"[\[<>=!~; ]", line)[0].lower() for group in groups for line in group}
    lines = first_cells((DOCS / "decisions" / "dependencies.md").read_text())
    assert {line.strip("`") for line in lines} == wanted


def test_the_layout_names_every_folder_of_the_package():
    folders = {path.name for path in SOURCE.rglob("*") if path.is_dir() and next(path.glob("*.py"), None)}
    assert {name for name in folders if f"{name}/" not in LAYOUT} == set()


def test_every_module_that_the_layout_names_is_there():
    here, missing = SOURCE, []
    for line in LAYOUT.splitlines():
        if found := re.match(r"  (\w+)/", line):
            here = SOURCE / found[1]
        missing += [name for name in re.findall(r"\w+\.py\b", line) if not (here / name).is_file()]
    assert missing == []


def test_decisions_are_numbered_without_a_gap():
    numbers = sorted(int(path.name[:4]) for path in (DOCS / "decisions").glob("[0-9]*.md"))
    assert numbers == list(range(1, len(numbers) + 1))
