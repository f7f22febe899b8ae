"""The reference says what there is: no more and no less."""

import ast
import re
from pathlib import Path

import pytest

from gyoza.client.project import read_project
from gyoza.models.errors import ProjectError
from gyoza.server.app import ROUTERS

from .pages import REFERENCE, SOURCE, first_cells

CONFIGURATION = (REFERENCE / "configuration.md").read_text()
CONTRACT = (REFERENCE / "contract.md").read_text()
PROJECT = (REFERENCE / "gyoza-yml.md").read_text()


def texts(path: Path) -> set[str]:
    """Every text in a module's code."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_every_variable_is_on_the_page_of_the_configuration_and_no_other():
    in_code = {text for path in SOURCE.rglob("*.py") for text in texts(path) if re.fullmatch(r"GYOZA_[A-Z_]+", text)}
    assert set(re.findall(r"GYOZA_[A-Z_]+", CONFIGURATION)) == in_code


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
