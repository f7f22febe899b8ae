"""`gyoza runs`: what was run, what became of it, and what to do about it."""

import shlex
from typing import Annotated, Any

import typer

from gyoza.cli.connect import ApiKey, Output, ServerUrl, connect
from gyoza.cli.filters import (
    By,
    DryRun,
    Image,
    Op,
    Reason,
    SomeRun,
    State,
    Tag,
    Worker,
    Yes,
    as_filters,
    as_words,
    chosen,
    is_one,
    sweep,
)
from gyoza.cli.follow import line
from gyoza.cli.output import Format, details, moment, note, show, table
from gyoza.cli.run import Follow, RunAt, moment_of, submit, watch

app = typer.Typer(no_args_is_help=True)

RunId = Annotated[str, typer.Argument(metavar="RUN_ID", help="The run's id.", show_default=False)]
PAGE = 10
COLUMNS = ("ID", "STATE", "REASON", "OP", "PROGRESS", "ATTEMPT", "WORKER", "CREATED (UTC)")


@app.command()
def ls(
    state: State = None,
    op: Op = None,
    image: Image = None,
    tag: Tag = None,
    reason: Reason = None,
    worker: Worker = None,
    by: By = None,
    limit: Annotated[int, typer.Option(help="How many, 1 to 100.")] = PAGE,
    starting_after: Annotated[str | None, typer.Option(metavar="RUN_ID", help="Those older than this one.")] = None,
    ending_before: Annotated[str | None, typer.Option(metavar="RUN_ID", help="Those newer than this one.")] = None,
    output: Output = Format.table,
    server_url: ServerUrl = None,
    api_key: ApiKey = None,
) -> None:
    """List runs, newest first."""
    from gyoza.client import calls

    given = chosen(state=state, op=op, image=image, tag=tag, reason=reason, worker=worker, by=by)
    cursor = {"starting_after": starting_after, "ending_before": ending_before}
    again = [*as_words(given), *(["--limit", str(limit)] if limit != PAGE else [])]

    def draw(page: dict[str, Any]) -> None:
        table(COLUMNS, map(_row, page["data"]))
        if page["has_more"]:
            on = ("--ending-before", page["data"][0]) if ending_before else ("--starting-after", page["data"][-1])
            note("More: " + shlex.join(["gyoza", "runs", "ls", *again, on[0], on[1]["id"]]))

    with connect(server_url, api_key) as client:
        show(client, calls.list_runs(limit, **cursor, **as_filters(given)), output, draw)


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
def cancel(
    run_id: SomeRun = None,
    state: State = None,
    op: Op = None,
    image: Image = None,
    tag: Tag = None,
    reason: Reason = None,
    worker: Worker = None,
    by: By = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    output: Output = Format.table,
    server_url: ServerUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Cancel a run, or all runs that the options find."""
    from gyoza.client import calls

    given = chosen(state=state, op=op, image=image, tag=tag, reason=reason, worker=worker, by=by)
    one = is_one(run_id, given, dry_run)
    with connect(server_url, api_key) as client:
        if one:
            show(client, calls.cancel_run(run_id or ""), output, _draw_state)
        else:
            sweep(client, "cancel", given, dry_run=dry_run, yes=yes, output=output)


@app.command()
def retry(
    run_id: SomeRun = None,
    state: State = None,
    op: Op = None,
    image: Image = None,
    tag: Tag = None,
    reason: Reason = None,
    worker: Worker = None,
    by: By = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    output: Output = Format.table,
    server_url: ServerUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Try a failed or cancelled run once more, whatever its budgets say; or all such that the options find."""
    from gyoza.client import calls

    given = chosen(state=state, op=op, image=image, tag=tag, reason=reason, worker=worker, by=by)
    one = is_one(run_id, given, dry_run)
    with connect(server_url, api_key) as client:
        if one:
            show(client, calls.retry_run(run_id or ""), output, _draw_state)
        else:
            sweep(client, "retry", given, dry_run=dry_run, yes=yes, output=output)


@app.command()
def replay(
    run_id: RunId,
    priority: Annotated[int | None, typer.Option(help="Another priority.", show_default="as it was")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Other tags. May be repeated.")] = None,
    run_at: RunAt = None,
    follow: Follow = False,
    output: Output = Format.table,
    server_url: ServerUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Do a run again as a new one, with the same inputs. With --follow, exit codes are those of `gyoza run`."""
    from gyoza.client import calls

    call = calls.replay_run(run_id, priority=priority, tags=tag, run_at=moment_of(run_at))
    with connect(server_url, api_key) as client:
        submit(client, call, follow=follow, output=output)


@app.command()
def pin(
    run_id: RunId,
    off: Annotated[bool, typer.Option("--off", help="Let it go again.")] = False,
    output: Output = Format.table,
    server_url: ServerUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Keep a run, however old it becomes."""
    from gyoza.client import calls

    with connect(server_url, api_key) as client:
        show(client, calls.update_run(run_id, pinned=not off), output, _draw_pin)


def _row(run: dict[str, Any]) -> tuple[Any, ...]:
    worker = run["execution_summary"]["worker_id"]
    what = run["op_definition"] or run["image"]
    return (
        run["id"],
        run["state"],
        run.get("reason"),
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
            "tags": ", ".join(run.get("tags") or []),
            "submitted by": run.get("submitted_by"),
            "replay of": run.get("replay_of"),
            "pinned": "yes" if run.get("pinned") else None,
            "not before (UTC)": run.get("run_at") and moment(run["run_at"]),
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


def _draw_pin(run: dict[str, Any]) -> None:
    typer.echo(f"{run['id']}  {'pinned' if run['pinned'] else 'not pinned'}")


def _draw_state(run: dict[str, Any]) -> None:
    typer.echo(f"{run['id']}  {run['state']}")
