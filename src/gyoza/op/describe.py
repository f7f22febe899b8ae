"""What an op's signature says, without its dependencies.

To deploy an op is to read its signature, on a machine that may have neither its packages nor its platform: wheels for
Linux do not import on a laptop, and importing an op may load a model or ask for a GPU. So the module is not imported.
Its text is cut down to the signature and what that names (types, defaults, and what these name in turn), and this slice
is run: what an annotation means is then still decided in one place, `specs`, for a deployment as for a run.
"""

import ast
import sys
import types
from pathlib import Path
from typing import Any, Dict, Iterator, Set

from gyoza.op.specs import Misuse, input_specs, output_specs


def describe(entry: str) -> Dict[str, Any]:
    """`{"description", "input_specs", "output_specs"}` of `module:function`, looked for in the working directory."""
    module_name, _, name = entry.partition(":")
    path = _source(module_name)
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except SyntaxError as error:
        raise Misuse(f"{path}:{error.lineno}: {error.msg}") from error
    function = _run_slice(_slice(tree, _definition(tree, path, name)), path, module_name, name)
    lines = (function.__doc__ or "").strip().splitlines()
    return {
        "description": lines[0] if lines else None,
        "input_specs": input_specs(function),
        "output_specs": output_specs(function),
    }


def _source(module_name: str) -> Path:
    stem = Path(*module_name.split("."))
    for path in (stem.with_name(stem.name + ".py"), stem / "__init__.py"):
        if path.is_file():
            return path
    raise Misuse(f"There is no module '{module_name}' in {Path.cwd()}")


def _definition(tree: ast.Module, path: Path, name: str) -> ast.FunctionDef:
    for statement in reversed(tree.body):
        if isinstance(statement, ast.FunctionDef) and statement.name == name:
            return statement
    raise Misuse(f"{path} has no plain function '{name}' at its top level")


def _slice(tree: ast.Module, function: ast.FunctionDef) -> ast.Module:
    """The function with an empty body, after the statements that its signature depends on, in their order."""
    docstring = ast.get_docstring(function)
    function.body = [ast.Expr(ast.Constant(docstring))] if docstring else [ast.Pass()]
    function.decorator_list = []
    known, todo = {function.name}, _used(function)
    kept: Set[ast.stmt] = {function}
    while todo - known:
        name = sorted(todo - known)[0]
        known.add(name)
        for statement in (each for each in tree.body if name in _bound(each) and each not in kept):
            kept.add(statement)
            todo |= _used(statement)
    future = [each for each in tree.body if isinstance(each, ast.ImportFrom) and each.module == "__future__"]
    body = future + [_only(each, known) for each in tree.body if each in kept and each not in future]
    return ast.Module(body=body, type_ignores=[])


def _bound(statement: ast.stmt) -> Set[str]:
    """The names that a statement at a module's top level gives a meaning to."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name}
    names: Set[str] = set()
    for node in ast.walk(statement):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {_bound_by(alias) for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def _used(node: ast.AST) -> Set[str]:
    names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load)}
    for text in _quoted(node):
        try:
            names |= _used(ast.parse(text, mode="eval"))
        except SyntaxError:
            continue  # A Literal's text, not a type in quotes.
    return names


def _quoted(node: ast.AST) -> Iterator[str]:
    """Annotations, or parts of them, that are written in quotes."""
    for each in ast.walk(node):
        annotation = getattr(each, "annotation", None) or getattr(each, "returns", None)
        for part in ast.walk(annotation) if annotation is not None else ():
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.value


def _only(statement: ast.stmt, names: Set[str]) -> ast.stmt:
    """An import without the names that nobody asked for: they may not be there."""
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        statement.names = [alias for alias in statement.names if _bound_by(alias) in names]
    return statement


def _bound_by(alias: ast.alias) -> str:
    return alias.asname or alias.name.split(".")[0]


def _run_slice(tree: ast.Module, path: Path, module_name: str, name: str) -> Any:
    module = types.ModuleType(module_name)
    sys.modules[module_name] = module
    module.__file__ = str(path)
    module.__package__ = module_name if path.name == "__init__.py" else module_name.rpartition(".")[0]
    sys.path.insert(0, str(Path.cwd()))
    try:
        exec(compile(ast.fix_missing_locations(tree), str(path), "exec"), module.__dict__)  # noqa: S102
    except ModuleNotFoundError as error:
        raise Misuse(
            f"{path}: {name}() names '{error.name}' in its signature, which must do without the op's dependencies"
        ) from error
    except (NameError, TypeError, ImportError, AttributeError, ValueError, LookupError) as error:
        raise Misuse(f"{path}: the signature of {name}() cannot be read: {error}") from error
    return getattr(module, name)
