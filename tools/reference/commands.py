"""The page of the command line: every command, by what it says of itself."""

from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from typing import Any

from gyoza.cli.app import COMMANDS, load

from .pages import code, codes, table

COMMON = ("--output", "--server-url", "--api-key")
"""Said once, at the top of the page."""


def blocks() -> dict[str, str]:
    return {"commands": "\n\n".join(_section(name, command) for name, command in commands())}


def commands() -> Iterator[tuple[str, Any]]:
    """Every command by its full name, ready to be asked for its options."""
    for name, command in COMMANDS.items():
        loaded = load(command)
        if hasattr(loaded, "commands"):
            yield from ((f"gyoza {name} {inner}", single) for inner, single in loaded.commands.items())
        else:
            yield f"gyoza {name}", loaded


def _section(name: str, command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and "--help" not in each.opts]
    own = [each for each in options if not set(each.opts) & set(COMMON)]
    usage = " ".join([name, *map(_placed, arguments), *(["[OPTIONS]"] if options else [])])
    told = [f"### {code(name)}", cleandoc(command.help or ""), f"```\n{usage}\n```"]
    if rows := [*map(_argument, arguments), *map(_option, own)]:
        told.append(table(("", "default", "meaning"), rows))
    if len(own) < len(options):
        told.append("And the [common options](#common-options).")
    return "\n\n".join(told)


def _placed(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return name if argument.required else f"[{name}]"


def _argument(argument: Any) -> tuple[str, str, str]:
    return code(argument.metavar or argument.name.upper()), _default(argument), argument.help or ""


def _option(option: Any) -> tuple[str, str, str]:
    names = codes([*option.opts, *option.secondary_opts])
    metavar = f" {code(option.metavar)}" if option.metavar else ""
    variable = f" ({code(option.envvar)})" if option.envvar else ""
    choices = [choice.value for choice in option.type_descriptor.choices or ()]
    meaning = f"{option.help or ''}{f' One of {codes(choices)}.' if choices else ''}{variable}"
    return f"{names}{metavar}", _default(option), meaning


def _default(parameter: Any) -> str:
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    default = parameter.default
    is_telling = isinstance(default, str | int | float | Path) and not isinstance(default, bool)
    return code(getattr(default, "value", default)) if is_telling else ""
