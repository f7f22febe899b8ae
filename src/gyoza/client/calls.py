"""Every call of the HTTP API, described once: definitions, runs, files, keys, workers.

`GyozaClient` and `AsyncGyozaClient` are these functions with a connection; whatever else speaks to a server can send
their values as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypedDict, Unpack

from gyoza.client.call import Call, Object, an_object, content, get, get_list, given, nothing, part, send

FILE_SCHEME = "gyoza://files/"
LONGEST_WAIT_S = 25.0
SILENCE_S = 15.0
"""How long a stream of events may be silent: then it says that it lives."""
LONG_S = 30.0
"""How much longer than others a call on thousands of runs may take."""
Time = datetime | str
"""With its zone; as a text, in ISO-8601."""


class Filters(TypedDict, total=False):
    """What runs are narrowed to, as in `list_runs`."""

    state: str
    status: str
    op_definition: str
    image: str
    created: Mapping[str, int]
    tag: str | Sequence[str]
    reason: str
    worker_id: str
    submitted_by: str


def upsert_definition(op_dict: Mapping[str, Any]) -> Call[Object]:
    return send("POST", "/definitions", op_dict)


def get_definition(name: str, version: str | None = None) -> Call[Object]:
    return get(f"/definitions/{part(name)}", version=version)


def list_definitions() -> Call[list[Object]]:
    return get_list("/definitions")


def get_revisions(name: str) -> Call[list[Object]]:
    return get_list(f"/definitions/{part(name)}/revisions")


def disable_definition(name: str) -> Call[Object]:
    """It takes no new runs; those that are there go on."""
    return Call("POST", f"/definitions/{part(name)}/disable", an_object)


def enable_definition(name: str) -> Call[Object]:
    return Call("POST", f"/definitions/{part(name)}/enable", an_object)


def delete_definition(name: str) -> Call[None]:
    """Its runs and their history stay."""
    return Call("DELETE", f"/definitions/{part(name)}", nothing)


def create_run(
    image: str,
    inputs: Mapping[str, Any],
    *,
    priority: int = 5,
    constraints: Mapping[str, Any] | None = None,
    retry_policy: Mapping[str, Any] | None = None,
    event_delivery: Mapping[str, Any] | None = None,
    tags: Sequence[str] | None = None,
    run_at: Time | None = None,
    timeouts: Mapping[str, Any] | None = None,
    delete_after_s: float | None = None,
    idempotency_key: str | None = None,
) -> Call[Object]:
    """Asked again with the same `idempotency_key`, it is the same run."""
    options = given(tags=tags, run_at=run_at, timeouts=timeouts, delete_after_s=delete_after_s)
    more = given(constraints=constraints, retry_policy=retry_policy, event_delivery=event_delivery)
    body = {"image": image, "inputs": inputs, "priority": priority, **more, **options}
    return send("POST", "/runs", body).once(idempotency_key)


def create_run_from_definition(
    name: str,
    inputs: Mapping[str, Any],
    *,
    version: str | None = None,
    priority: int = 5,
    tags: Sequence[str] | None = None,
    run_at: Time | None = None,
    timeouts: Mapping[str, Any] | None = None,
    retry_policy: Mapping[str, Any] | None = None,
    delete_after_s: float | None = None,
    idempotency_key: str | None = None,
) -> Call[Object]:
    """What is not said of `timeouts` and `retry_policy` is as the definition says; `tags` are added to its own."""
    options = given(
        tags=tags, run_at=run_at, timeouts=timeouts, retry_policy=retry_policy, delete_after_s=delete_after_s
    )
    body = {"inputs": inputs, "priority": priority, **given(version=version), **options}
    return send("POST", f"/definitions/{part(name)}/runs", body).once(idempotency_key)


def create_runs(items: Sequence[Mapping[str, Any]], *, idempotency_key: str | None = None) -> Call[Object]:
    """Up to 10,000 runs, all of them or none: `{object, count, ids}`.

    Each item is the body of a run, with an `image` or an `op_definition`.
    """
    return send("POST", "/runs/batch", {"runs": items}, wait_s=LONG_S).once(idempotency_key)


def replay_run(
    run_id: str,
    *,
    priority: int | None = None,
    tags: Sequence[str] | None = None,
    run_at: Time | None = None,
    timeouts: Mapping[str, Any] | None = None,
    retry_policy: Mapping[str, Any] | None = None,
    delete_after_s: float | None = None,
    idempotency_key: str | None = None,
) -> Call[Object]:
    """A new run of the same image or revision with the same inputs; what is given is to differ."""
    changed = given(
        priority=priority,
        tags=tags,
        run_at=run_at,
        timeouts=timeouts,
        retry_policy=retry_policy,
        delete_after_s=delete_after_s,
    )
    return send("POST", f"/runs/{part(run_id)}/replay", changed).once(idempotency_key)


def get_run(run_id: str) -> Call[Object]:
    return get(f"/runs/{part(run_id)}")


def list_runs(
    limit: int | None = None,
    *,
    starting_after: str | None = None,
    ending_before: str | None = None,
    state: str | None = None,
    status: str | None = None,
    op_definition: str | None = None,
    image: str | None = None,
    created: Mapping[str, int] | None = None,
    tag: str | Sequence[str] | None = None,
    reason: str | None = None,
    worker_id: str | None = None,
    submitted_by: str | None = None,
) -> Call[Object]:
    """One page, newest first. `created` bounds the time of creation: `{"gte" | "gt" | "lte" | "lt": UNIX seconds}`.

    Of several values of `tag`, all must be there.
    """
    return get(
        "/runs",
        limit=limit,
        starting_after=starting_after,
        ending_before=ending_before,
        state=state,
        status=status,
        op_definition=op_definition,
        image=image,
        **_bounds(created),
        tag=tag,
        reason=reason,
        worker_id=worker_id,
        submitted_by=submitted_by,
    )


def cancel_runs(*, dry_run: bool = False, **filters: Unpack[Filters]) -> Call[Object]:
    """Cancel all that the filters of `list_runs` find: `{matched, changed, has_more, dry_run}`.

    At least one is needed. `has_more`: ask again. `dry_run`: only say how many there are.
    """
    return _sweep("cancel", dry_run, filters)


def retry_runs(*, dry_run: bool = False, **filters: Unpack[Filters]) -> Call[Object]:
    """Retry all that the filters find and that FAILED or were CANCELLED, as `cancel_runs` cancels."""
    return _sweep("retry", dry_run, filters)


def update_run(
    run_id: str,
    *,
    state: str | None = None,
    outputs: Mapping[str, Any] | None = None,
    priority: int | None = None,
    pinned: bool | None = None,
) -> Call[Object]:
    """`pinned`: whether it is kept, however old it is."""
    changed = given(state=state, outputs=outputs, priority=priority, pinned=pinned)
    return send("PATCH", f"/runs/{part(run_id)}", changed)


def cancel_run(run_id: str) -> Call[Object]:
    return Call("POST", f"/runs/{part(run_id)}/cancel", an_object)


def retry_run(run_id: str) -> Call[Object]:
    return Call("POST", f"/runs/{part(run_id)}/retry", an_object)


def get_events(run_id: str, after: int | None = None, *, attempt: int | None = None) -> Call[Object]:
    return get(f"/runs/{part(run_id)}/events", after=after, attempt=attempt)


def add_event(run_id: str, event_type: str, msg: str | int, payload: Mapping[str, Any] | None = None) -> Call[Object]:
    body = {"type": event_type, "msg": msg, **given(payload=payload)}
    return send("POST", f"/runs/{part(run_id)}/events", body)


def get_attempts(run_id: str) -> Call[list[Object]]:
    return get_list(f"/runs/{part(run_id)}/attempts")


def wait_for_run(run_id: str, timeout_s: float = LONGEST_WAIT_S) -> Call[Object]:
    """The run once it is over, or as it is when the time is."""
    return replace(get(f"/runs/{part(run_id)}/wait", timeout_s=timeout_s), wait_s=timeout_s)


def stream_run(run_id: str, after: int | None = None) -> Call[None]:
    """Its events with a number above `after`, and those that come. The answer is server-sent events."""
    return _stream(f"/runs/{part(run_id)}/events/stream", after=after)


def stream_all(
    op_definition: str | None = None, types: Sequence[str] = (), tags: Sequence[str] = (), after: int | None = None
) -> Call[None]:
    """The events of all runs above the position `after`, or from now on. The answer is server-sent events."""
    return _stream("/events/stream", op_definition=op_definition, type=list(types), tag=list(tags), after=after)


def _stream(path: str, **params: Any) -> Call[None]:
    headers = {"Accept": "text/event-stream"}
    return Call("GET", path, nothing, params=given(**params), headers=headers, wait_s=SILENCE_S)


def get_logs(run_id: str, attempt: int | None = None, offset: int = 0) -> Call[bytes]:
    """What an attempt (by default the current one) has written so far, from `offset` on."""
    return Call("GET", f"/runs/{part(run_id)}/logs", content, params={**given(attempt=attempt), "offset": offset})


def stream_logs(run_id: str, attempt: int | None = None, offset: int = 0) -> Call[None]:
    """The same, and what is added to it. The answer is bytes, to be streamed; it may be silent for long."""
    params = {**given(attempt=attempt), "offset": offset, "follow": "true"}
    return Call("GET", f"/runs/{part(run_id)}/logs", nothing, params=params, wait_s=30.0)


def upload_file(name: str, content: Any, media_type: str, size: int | None) -> Call[Object]:
    """`content`: what the client at hand can stream. Without a `size` it goes in chunks."""
    headers = {"Content-Type": media_type} | ({} if size is None else {"Content-Length": str(size)})
    return Call("POST", "/files", an_object, params={"name": name}, content=content, headers=headers)


def download_file(file: str) -> Call[None]:
    """`file`: an id, or a `gyoza://files/<id>` URI. The answer is bytes, to be streamed."""
    return Call("GET", f"/files/{part(file.removeprefix(FILE_SCHEME))}", nothing)


def delete_file(file: str) -> Call[None]:
    return Call("DELETE", f"/files/{part(file.removeprefix(FILE_SCHEME))}", nothing)


def register_worker(worker_id: str, body: Mapping[str, Any]) -> Call[Object]:
    return send("PUT", f"/workers/{part(worker_id)}", body)


def claim(worker_id: str, body: Mapping[str, Any]) -> Call[Object]:
    """The answer may take `body["wait_s"]` longer than others."""
    path = f"/workers/{part(worker_id)}/claim"
    return send("POST", path, body, wait_s=float(body.get("wait_s", 0)))


def report(worker_id: str, body: Mapping[str, Any]) -> Call[Object]:
    return send("POST", f"/workers/{part(worker_id)}/reports", body)


def put_logs(run_id: str, attempt: int, data: bytes, *, offset: int, lease_token: str) -> Call[Object]:
    path = f"/runs/{part(run_id)}/attempts/{attempt}/logs"
    headers = {"Gyoza-Lease": lease_token, "Content-Type": "application/octet-stream"}
    return Call("PUT", path, an_object, params={"offset": offset}, content=data, headers=headers)


def create_key(
    name: str, *, scopes: Sequence[str] | None = None, worker: str | None = None, expires_in_s: float | None = None
) -> Call[Object]:
    """The answer holds the key's text, `key`: once. `worker`: whom a key with the scopes `["worker"]` is for."""
    more = given(scopes=scopes, worker=worker, expires_in_s=expires_in_s)
    return send("POST", "/keys", {"name": name, **more})


def list_keys() -> Call[list[Object]]:
    return get_list("/keys")


def revoke_key(key_id: str) -> Call[None]:
    return Call("DELETE", f"/keys/{part(key_id)}", nothing)


def list_workers() -> Call[list[Object]]:
    return get_list("/workers")


def get_worker(worker_id: str) -> Call[Object]:
    return get(f"/workers/{part(worker_id)}")


def drain_worker(worker_id: str) -> Call[Object]:
    return Call("POST", f"/workers/{part(worker_id)}/drain", an_object)


def resume_worker(worker_id: str) -> Call[Object]:
    return Call("POST", f"/workers/{part(worker_id)}/resume", an_object)


def remove_worker(worker_id: str) -> Call[None]:
    return Call("DELETE", f"/workers/{part(worker_id)}", nothing)


def _sweep(verb: str, dry_run: bool, filters: Filters) -> Call[Object]:
    """What is None goes as an empty value, which the server refuses: left out, it would widen what is changed."""
    named: dict[str, Any] = {**filters}
    params = {**_bounds(named.pop("created", None)), **named, **({"dry_run": "true"} if dry_run else {})}
    return Call("POST", f"/runs/{verb}", an_object, params=params, wait_s=LONG_S)


def _bounds(created: Mapping[str, int] | None) -> dict[str, int]:
    return {f"created[{bound}]": at for bound, at in (created or {}).items()}
