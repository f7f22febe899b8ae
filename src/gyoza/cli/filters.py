"""Which runs are meant: options that several commands share, and a change of all the runs that they find."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from gyoza.cli.output import Format, note, show

if TYPE_CHECKING:
    from gyoza.client import GyozaClient

State = Annotated[str | None, typer.Option(help="Only those in this state.")]
Op = Annotated[str | None, typer.Option(help="Only those of this op.")]
Image = Annotated[str | None, typer.Option(help="Only those with this image.")]
Tag = Annotated[list[str] | None, typer.Option(help="Only those with this tag. May be repeated: with all of them.")]
Reason = Annotated[str | None, typer.Option(help="Only those whose current attempt ended for this reason.")]
Worker = Annotated[str | None, typer.Option(metavar="NAME", help="Only those that this worker has, or had last.")]
By = Annotated[str | None, typer.Option(metavar="NAME", help="Only those asked for with the key of this name.")]
SomeRun = Annotated[
    str | None, typer.Argument(metavar="RUN_ID", help="The run's id; else options that say which.", show_default=False)
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say how many there are.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")]

NAMES = {
    "state": "state",
    "op": "op_definition",
    "image": "image",
    "tag": "tag",
    "reason": "reason",
    "worker": "worker_id",
    "by": "submitted_by",
}
"""What the API calls each option."""
DONE = {"cancel": "cancelled", "retry": "retried"}


def chosen(**options: Any) -> dict[str, Any]:
    """The options that were given, by their names; states may be written small."""
    given = {name: value for name, value in options.items() if value is not None and value != []}
    return {name: value.upper() if name == "state" else value for name, value in given.items()}


def as_filters(given: Mapping[str, Any]) -> dict[str, Any]:
    """For the client."""
    return {NAMES[name]: value for name, value in given.items()}


def as_words(given: Mapping[str, Any]) -> list[str]:
    """For the command line."""
    words: list[str] = []
    for name, value in given.items():
        several = cast("list[Any]", value) if isinstance(value, list) else [value]
        words += [word for each in several for word in (f"--{name}", str(each))]
    return words


def is_one(run_id: str | None, given: Mapping[str, Any], dry_run: bool) -> bool:
    """Whether a single run is meant, rather than all that the options find."""
    if run_id is None and not given:
        raise typer.BadParameter("Which run? Give its RUN_ID, or options that find some, such as --tag")
    if run_id is not None and (given or dry_run):
        raise typer.BadParameter("Give a RUN_ID, or options that find some, and not both")
    return run_id is not None


def sweep(
    client: "GyozaClient", verb: str, given: Mapping[str, Any], *, dry_run: bool, yes: bool, output: Format
) -> None:
    """Cancel or retry all that the options find; without `yes` somebody is asked first."""
    from gyoza.client import calls

    call, filters = {"cancel": calls.cancel_runs, "retry": calls.retry_runs}[verb], as_filters(given)
    found = None if yes or dry_run else client.send(call(dry_run=True, **filters))
    if dry_run or (found and not found["matched"]):
        show(client, call(dry_run=True, **filters), output, lambda told: _draw_count(told, verb))
    elif found and not _agreed(f"This will {verb} {_runs(found)}. Go on? [y/N] "):
        note("Nothing was changed.")
    else:
        show(client, call(**filters), output, lambda told: _draw_done(told, verb))


def _agreed(question: str) -> bool:
    typer.echo(question, err=True, nl=False)
    answer = sys.stdin.readline()
    if not answer:
        raise typer.BadParameter("Nobody is there to answer: say --yes to go on without being asked")
    return answer.strip().lower() in ("y", "yes")


def _draw_count(told: Mapping[str, Any], verb: str) -> None:
    typer.echo(f"{_runs(told)} would be {DONE[verb]}")


def _draw_done(told: Mapping[str, Any], verb: str) -> None:
    typer.echo(f"{told['changed']} {DONE[verb]}")
    if others := told["matched"] - told["changed"]:
        note(f"{others} had gone on by themselves meanwhile.")
    if told["has_more"]:
        note("There are more: say it again.")


def _runs(told: Mapping[str, Any]) -> str:
    more = " and more" if told["has_more"] else ""
    return f"{told['matched']} run{'' if told['matched'] == 1 else 's'}{more}"
