"""`gyoza runs`: what was run, what became of it, and what to do about it."""

from typing import Annotated, Any

import typer

from gyoza.cli.connect import ApiKey, Output, ServerUrl, connect
from gyoza.cli.follow import line
from gyoza.cli.output import Format, details, moment, note, show, table
from gyoza.cli.run import watch

app = typer.Typer(no_args_is_help=True)

RunId = Annotated[str, typer.Argument(metavar="RUN_ID", help="The run's id.", show_default=False)]
COLUMNS = ("ID", "STATE", "OP", "PROGRESS", "ATTEMPT", "WORKER", "CREATED (UTC)")


@app.command()
def ls(
    state: Annotated[str | None, typer.Option(help="Only those in this state.")] = None,
    op: Annotated[str | None, typer.Option(help="Only those of this op.")] = None,
    image: Annotated[str | None, typer.Option(help="Only those with this image.")] = None,
    limit: Annotated[int, typer.Option(help="How many, 1 to 100.")] = 10,
    starting_after: Annotated[str | None, typer.Option(metavar="RUN_ID", help="Those older than this one.")] = None,
    ending_before: Annotated[str | None, typer.Option(metavar="RUN_ID", help="Those newer than this one.")] = None,
    output: Output = Format.table,
    server_url: ServerUrl = None,
    api_key: ApiKey = None,
) -> None:
    """List runs, newest first."""
    from gyoza.client import calls

    call = calls.list_runs(
        limit=limit,
        state=state and state.upper(),
        op_definition=op,
        image=image,
        starting_after=starting_after,
        ending_before=ending_before,
    )
    with connect(server_url, api_key) as client:
        show(client, call, output, _draw_page)


@app.command("show")
def show_run(
    run_id: RunId, output: Output = Format.table, server_url: ServerUrl = None, api_key: ApiKey = None
) -> None:
    """Show one run."""
    from gyoza.client import calls

    with connect(server_url, api_key) as client:
        show(client, calls.get_run(run_id), output, _draw)


@app.command()
def events(
    run_id: RunId,
    after: Annotated[int | None, typer.Option(help="Only those with a higher number.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the run has ended; then its outputs.")] = False,
    output: Output = Format.table,
    server_url: ServerUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Print a run's events. With --follow, exit codes are those of `gyoza run --follow`."""
    from gyoza.client import calls

    with connect(server_url, api_key) as client:
        if follow:
            raise typer.Exit(watch(client, run_id, output))
        show(client, calls.get_events(run_id, after), output, _draw_events)


@app.command()
def logs(
    run_id: RunId,
    attempt: Annotated[int | None, typer.Option(help="Of this attempt.", min=1, show_default="the current one")] = None,
    offset: Annotated[int, typer.Option(help="Without so many bytes at the start.", min=0)] = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until nothing comes any more.")] = False,
    server_url: ServerUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Print what an attempt wrote to stdout and stderr, byte for byte."""
    with connect(server_url, api_key) as client:
        where, out = (run_id, attempt, offset), typer.get_binary_stream("stdout")
        for part in client.follow_logs(*where) if follow else [client.get_logs(*where)]:
            out.write(part)
            out.flush()


@app.command()
def cancel(run_id: RunId, output: Output = Format.table, server_url: ServerUrl = None, api_key: ApiKey = None) -> None:
    """Cancel a run."""
    from gyoza.client import calls

    with connect(server_url, api_key) as client:
        show(client, calls.cancel_run(run_id), output, _draw_state)


@app.command()
def retry(run_id: RunId, output: Output = Format.table, server_url: ServerUrl = None, api_key: ApiKey = None) -> None:
    """Try a failed or cancelled run once more, whatever its budgets say."""
    from gyoza.client import calls

    with connect(server_url, api_key) as client:
        show(client, calls.retry_run(run_id), output, _draw_state)


def _draw_page(page: dict[str, Any]) -> None:
    table(COLUMNS, map(_row, page["data"]))
    if page["has_more"]:
        note(f"More: gyoza runs ls --starting-after {page['data'][-1]['id']}")


def _row(run: dict[str, Any]) -> tuple[Any, ...]:
    worker = run["execution_summary"]["worker_id"]
    what = run["op_definition"] or run["image"]
    return (
        run["id"],
        run["state"],
        what,
        f"{run['progress']} %",
        run["current_attempt"],
        worker,
        moment(run["created_at"]),
    )


def _draw(run: dict[str, Any]) -> None:
    summary = run["execution_summary"]
    duration_ms = summary["duration_ms"]
    details(
        {
            "id": run["id"],
            "state": run["state"],
            "reason": run.get("reason"),
            "error": summary["error_message"],
            "op": run["op_definition"],
            "version": run.get("version"),
            "image": run["image"],
            "progress": f"{run['progress']} %",
            "priority": run["priority"],
            "attempt": run["current_attempt"],
            "worker": summary["worker_id"],
            "duration": None if duration_ms is None else f"{duration_ms / 1000:.3f} s",
            "created (UTC)": moment(run["created_at"]),
            "updated (UTC)": moment(run["updated_at"]),
            "inputs": run["inputs"],
            "outputs": run["outputs"],
        }
    )


def _draw_events(page: dict[str, Any]) -> None:
    for event in page["events"]:
        typer.echo(f"{event['id']:>4}  {line(event)}")
    if page.get("has_more"):
        note(f"More: --after {page['events'][-1]['id']}")


def _draw_state(run: dict[str, Any]) -> None:
    typer.echo(f"{run['id']}  {run['state']}")
