"""The reference says what there is: no more and no less."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gyoza.cli.app import COMMANDS, load
from gyoza.client.project import read_project
from gyoza.models.errors import ProjectError
from gyoza.server.app import ROUTERS

from .pages import REFERENCE, SOURCE, code_words, first_cells, section

CONFIGURATION = (REFERENCE / "configuration.md").read_text()
CONTRACT = (REFERENCE / "contract.md").read_text()
CLI = (REFERENCE / "cli.md").read_text()
PROJECT = (REFERENCE / "gyoza-yml.md").read_text()


def texts(path: Path) -> set[str]:
    """Every text in a module's code."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_every_variable_is_on_the_page_of_the_configuration_and_no_other():
    in_code = {text for path in SOURCE.rglob("*.py") for text in texts(path) if re.fullmatch(r"GYOZA_[A-Z_]+", text)}
    assert set(re.findall(r"GYOZA_[A-Z_]+", CONFIGURATION)) == in_code


def commands() -> Iterator[tuple[str, Any]]:
    """Every command by its full name, ready to be asked for its options."""
    for name, command in COMMANDS.items():
        loaded = load(command)
        if hasattr(loaded, "commands"):
            yield from ((f"gyoza {name} {inner}", single) for inner, single in loaded.commands.items())
        else:
            yield f"gyoza {name}", loaded


def test_the_command_line_page_has_a_section_for_each_command_and_no_other():
    assert sorted(re.findall(r"^### `(.+)`$", CLI, flags=re.MULTILINE)) == sorted(name for name, _ in commands())


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_a_command_s_section_names_its_options(name: str):
    command = dict(commands())[name]
    words = " ".join(code_words(section(CLI, f"### `{name}`") + section(CLI, "## Common options"))).split()
    options = {text for option in command.params for text in option.opts + option.secondary_opts if text[0] == "-"}
    assert options <= set(words) | {"--help"}


def test_the_contract_has_every_call_and_no_other():
    served = {
        (method, re.sub(r"{\w+}", "{}", route.path))
        for router in ROUTERS
        for route in router.routes
        for method in route.methods - {"HEAD"}
    }
    said = set(re.findall(r"^\| (GET|POST|PUT|PATCH|DELETE) `([^`?]+)", CONTRACT, flags=re.MULTILINE))
    assert {(method, re.sub(r"{\w+}", "{}", path)) for method, path in said} == served


def test_every_key_of_gyoza_yml_is_on_its_page_and_no_other(tmp_path: Path):
    (tmp_path / "gyoza.yml").write_text("zzzz: 1\n")
    with pytest.raises(ProjectError) as refused:
        read_project(tmp_path)
    keys = str(refused.value).partition("it may be ")[2].split(", ")
    assert [cell.strip("`") for cell in first_cells(PROJECT) if cell.startswith("`")] == keys
