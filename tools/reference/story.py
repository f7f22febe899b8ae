"""The examples of the OpenAPI document: one story that uses every call, told to a real server.

What is written down is what was asked and what was answered, with ids and times that do not change. A step is found by
its operation; `<name>` stands for what an earlier step kept.
"""

import json
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from gyoza.server import watching

Json = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """`keep`: names for members of the answer, by their way down. A step that is not shown is no example."""

    operation: str
    path: Mapping[str, Any] = field(default_factory=dict[str, Any])
    query: Mapping[str, Any] = field(default_factory=dict[str, Any])
    header: Mapping[str, str] = field(default_factory=dict[str, str])
    body: Any = None
    keep: Mapping[str, str] = field(default_factory=dict[str, str])
    shown: bool = True


PHOTO = {"photo": "gyoza://files/<file>"}
RUN, OTHER, WORKER = {"run_id": "<run>"}, {"run_id": "<other>"}, {"worker_id": "gpu-7"}
THUMBNAILS = {
    "id": "thumbnails",
    "version": "1.0",
    "image": "registry.example/thumbnails:1.0",
    "description": "Smaller pictures",
    "input_specs": {"photo": {"type": "file"}, "width": {"type": "int", "required": False, "default": 256}},
    "output_specs": {"thumbnail": {"type": "file"}},
    "constraints": {"cpu": 0.5, "ram_mb": 512},
    "retry_policy": {"max_attempts": 3},
    "timeouts": {"run_s": 600},
}
HEARTBEAT = {
    "instance": "f3a1",
    "seq": 1,
    "host_id": "host-1",
    "resources": {
        "cpu": 8,
        "ram_mb": 32768,
        "slots": 16,
        "gpus": [{"id": 0, "uuid": "GPU-5c2e", "name": "NVIDIA L4", "vram_mb": 23034, "foreign_mb": 0}],
    },
    "tags": ["vienna"],
    "engines": ["docker", "process"],
    "version": "0.1.0",
}
HELD = {"run_id": "<run>", "attempt": 1, "lease_token": "<lease>"}
REPORT = {
    **HELD,
    "seq": 1,
    "events": [
        {"type": "STARTED", "msg": "Started"},
        {"type": "PROGRESS", "msg": 50},
        {"type": "COMPLETED", "msg": "Done", "payload": {"outputs": {"thumbnail": {"uri": "gyoza://files/<file>"}}}},
    ],
    "summary": {"exit_code": 0, "peak_ram_mb": 118, "cpu_s": 0.7},
    "settled": True,
}

STORY: tuple[Step, ...] = (
    Step("get_health"),
    Step("get_readiness"),
    Step("get_metrics"),
    Step("upload_file", query={"name": "photo.jpg"}, body="the bytes of the photo", keep={"file": "id"}),
    Step("deploy_definition", body=THUMBNAILS),
    Step("list_definitions"),
    Step("get_definition", {"name": "thumbnails"}, query={"version": "1.0"}),
    Step("list_revisions", {"name": "thumbnails"}),
    Step(
        "create_run_of_definition",
        {"name": "thumbnails"},
        body={"inputs": PHOTO, "priority": 7},
    ),
    Step(
        "create_run",
        header={"Idempotency-Key": "5f0cd2f4-greeting"},
        body={"image": "alpine:3", "inputs": {"text": "hello"}, "constraints": {"cpu": 1}, "tags": ["greeting"]},
        keep={"other": "id"},
    ),
    Step("list_runs", query={"state": "PENDING", "limit": 1}),
    Step("update_run", OTHER, body={"priority": 9}),
    Step("add_event", OTHER, body={"type": "INFO", "msg": "looked at by Ada"}),
    Step("cancel_run", OTHER),
    Step("retry_run", OTHER),
    Step("cancel_run", OTHER, shown=False),
    Step("replay_run", OTHER, body={"tags": ["greeting", "again"]}),
    Step("create_runs", body={"runs": [{"image": "alpine:3"}, {"op_definition": "thumbnails", "inputs": PHOTO}]}),
    Step("cancel_runs", query={"image": "alpine:3", "state": "PENDING"}),
    Step("retry_runs", query={"tag": ["again"], "dry_run": True}),
    Step("cancel_runs", query={"op_definition": "thumbnails", "created[gte]": 0}, shown=False),
    Step(
        "create_run_of_definition",
        {"name": "thumbnails"},
        body={"inputs": PHOTO, "priority": 7},
        keep={"run": "id"},
        shown=False,
    ),
    Step("register_worker", WORKER, body=HEARTBEAT),
    Step(
        "claim_attempts",
        WORKER,
        body={"instance": "f3a1", "known": [], "max": 1, "wait_s": 20},
        keep={"lease": "assignments/0/lease_token"},
    ),
    Step(
        "append_log",
        {"run_id": "<run>", "attempt": 1},
        query={"offset": 0},
        header={"Gyoza-Lease": "<lease>"},
        body="reading photo.jpg\n",
    ),
    Step("report_attempts", WORKER, body={"instance": "f3a1", "reports": [REPORT]}),
    Step("get_run", RUN),
    Step("list_events", RUN, query={"after": 0}),
    Step("list_attempts", RUN),
    Step("read_log", RUN, query={"attempt": 1}),
    Step("wait_for_run", RUN, query={"timeout_s": 25}),
    Step("stream_run", RUN, query={"after": 1}),
    Step("stream_all", query={"type": ["INFO"], "after": 0}),
    Step("list_workers"),
    Step("get_worker", WORKER),
    Step("drain_worker", WORKER),
    Step("resume_worker", WORKER),
    Step("remove_worker", WORKER),
    Step("download_file", {"file_id": "<file>"}),
    Step("create_key", body={"name": "ci", "scopes": ["submit"], "expires_in_s": 86400}, keep={"key": "id"}),
    Step("list_keys"),
    Step("revoke_key", {"key_id": "<key>"}),
    Step("disable_definition", {"name": "thumbnails"}),
    Step("enable_definition", {"name": "thumbnails"}),
    Step("delete_definition", {"name": "thumbnails"}),
    Step("delete_file", {"file_id": "<file>"}),
)


async def record(api: httpx.AsyncClient) -> dict[str, Json]:
    """Each shown operation's request and answer, on a server in this process that nobody else talks to."""
    with _short_streams():
        return await _record(api)


@contextmanager
def _short_streams() -> Generator[None]:
    """A story has an end."""
    longest, watching.LONGEST_S = watching.LONGEST_S, 0.2
    try:
        yield
    finally:
        watching.LONGEST_S = longest


async def _record(api: httpx.AsyncClient) -> dict[str, Json]:
    paths = (await api.get("/openapi.json")).json()["paths"]
    calls = {call["operationId"]: (method, path) for path, item in paths.items() for method, call in item.items()}
    kept: dict[str, str] = {}
    plain, examples = _Plain(), dict[str, Json]()
    for step in STORY:
        asked = _put({"path": step.path, "query": step.query, "header": step.header, "body": step.body}, kept)
        method, path = calls[step.operation]
        answer = await _send(api, method, path.format(**asked["path"]), asked)
        told = _read(answer)
        kept.update({name: _found(told, way) for name, way in step.keep.items()})
        if step.shown:
            whole = {name: value for name, value in asked.items() if value} | {"status": answer.status_code}
            examples[step.operation] = plain.of(whole | ({} if told is None else {"answer": told}))
    return examples


async def _send(api: httpx.AsyncClient, method: str, path: str, asked: Json) -> httpx.Response:
    body = asked["body"]
    sent = {"content": body} if isinstance(body, str) else {"json": body}
    answer = await api.request(
        method, path, params=asked["query"], headers=asked["header"], **(sent if body is not None else {})
    )
    assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
    return answer


def _read(answer: httpx.Response) -> Any:
    if not answer.content:
        return None
    is_json = answer.headers["content-type"] == "application/json"
    return answer.json() if is_json else answer.text


def _put(value: Any, kept: Mapping[str, str]) -> Any:
    """`value` with what was kept in place of `<name>`."""
    text = json.dumps(value)
    for name, found in kept.items():
        text = text.replace(f"<{name}>", found)
    return json.loads(text)


def _found(told: Any, way: str) -> str:
    for part in way.split("/"):
        told = told[int(part) if isinstance(told, list) else part]
    return told


_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00")
_LEASE = "kJ0v8cZq4mQ"
_SAME = {
    "lease_token": _LEASE,
    "Gyoza-Lease": _LEASE,
    "key": "gyoza_T4o1kR7cW2vQ9sYb0nD8xLmE5uJ6hP3aGfZiKtVrNwM",
    "hint": "rNwM",
    "duration_ms": 1200,
}
"""What differs from one telling to the next, by its member's name."""


class _Plain:
    """Ids and times of one telling, as they are written down."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}

    def of(self, value: Any, name: str = "") -> Any:
        if name in _SAME and value is not None:
            return _SAME[name]
        if isinstance(value, dict):
            return {key: self.of(member, key) for key, member in value.items()}
        if isinstance(value, list):
            return [self.of(member) for member in value]
        if isinstance(value, str):
            return _TIME.sub("2026-01-31T12:00:00.000000+00:00", _UUID.sub(self._id, value))
        return value

    def _id(self, found: re.Match[str]) -> str:
        return self._ids.setdefault(
            found[0], f"019c1{len(self._ids):03x}-5e00-7000-8000-0000000000{len(self._ids):02x}"
        )
