"""`gyoza run`: submit a run of a deployed op, and follow it where asked."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gyoza.cli.connect import ApiKey, Output, ServerUrl, connect
from gyoza.cli.files import save_files
from gyoza.cli.follow import follow as follow_run
from gyoza.cli.inputs import gather
from gyoza.cli.output import Format, json_text, note, plain, show

if TYPE_CHECKING:
    from gyoza.client import GyozaClient
    from gyoza.client.call import Call

EXIT_CODES = {"COMPLETED": 0, "FAILED": 1, "CANCELLED": 3}

Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "-i",
        "--input",
        metavar="KEY=VALUE",
        help="An input: JSON, or text. KEY=@PATH uploads a file. May be repeated.",
    ),
]
InputsJson = Annotated[str | None, typer.Option(metavar="FILE", help="All inputs as one JSON object; - is stdin.")]
RunAt = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Not before this time: ISO-8601; without an offset, by this machine's clock."),
]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="To find it by. May be repeated.")]
IdempotencyKey = Annotated[
    str | None, typer.Option(metavar="KEY", help="Said again with the same key and inputs, it is the same run.")
]
Follow = Annotated[
    bool, typer.Option("--follow", "-f", help="Show its life and what it writes, and print its outputs at the end.")
]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Follow, and save the files it puts out here.")]


def run(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The op's name.", show_default=False)],
    inputs: Inputs = None,
    inputs_json: InputsJson = None,
    version: Annotated[str | None, typer.Option(help="This version of the op.", show_default="the latest")] = None,
    priority: Annotated[int, typer.Option(help="Higher goes first; one point is worth an hour of waiting.")] = 5,
    tags: Tags = None,
    run_at: RunAt = None,
    idempotency_key: IdempotencyKey = None,
    follow: Follow = False,
    out: Out = None,
    output: Output = Format.table,
    server_url: ServerUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Run an op, and print the run's id, alone on stdout.

    Exit codes with --follow: 0 COMPLETED, 1 FAILED, 3 CANCELLED.

    Always: 2 wrong usage or refused, 4 no server answers, 130 Ctrl-C (the run goes on).
    """
    from gyoza.client import calls

    with connect(server_url, api_key) as client:
        definition = client.get_definition(name, version)
        values = gather(client, definition["input_specs"], inputs or [], inputs_json)
        call = calls.create_run_from_definition(
            name,
            values,
            version=version,
            priority=priority,
            tags=tags,
            run_at=moment_of(run_at),
            idempotency_key=idempotency_key,
        )
        submit(client, call, follow=follow, output=output, out=out)


def moment_of(text: str | None) -> datetime | None:
    """A time that somebody typed, with its zone."""
    try:
        return None if text is None else datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(f"'{text}' is no time: write it like 2026-03-01T18:00 (--run-at)") from error


def submit(client: "GyozaClient", call: "Call[Any]", *, follow: bool, output: Format, out: Path | None = None) -> None:
    """Ask for a run, and follow it where that is wanted."""
    if follow or out:
        raise typer.Exit(watch(client, client.send(call)["id"], output, out))
    show(client, call, output, _submitted)


def watch(client: "GyozaClient", run_id: str, output: Format, out: Path | None = None) -> int:
    """Follow a run to its end, print what it put out; the exit code. Ctrl-C leaves the run alone."""
    try:
        note(f"Run {run_id}")
        run = follow_run(client, run_id)
    except KeyboardInterrupt:
        note(f"\nRun {run_id} goes on. Follow it: gyoza runs events {run_id} --follow")
        note(f"Cancel it: gyoza runs cancel {run_id}")
        return 130
    _print_ending(client, run, output)
    if out is not None and run["outputs"]:
        for path in save_files(client, run["outputs"], out):
            note(f"saved {path}")
    return EXIT_CODES[run["state"]]


def _print_ending(client: "GyozaClient", run: dict[str, Any], output: Format) -> None:
    from gyoza.client import RunFailed, calls

    completed = run["state"] == "COMPLETED"
    if completed or output is Format.json:
        show(client, calls.get_run(run["id"]), output, lambda run: typer.echo(json_text(run["outputs"], indent=2)))
    if not completed:
        note(f"gyoza: {plain(str(RunFailed(run)))}")


def _submitted(run: dict[str, Any]) -> None:
    typer.echo(run["id"])
    note(f"{run['state']}. Follow it: gyoza runs events {run['id']} --follow")
