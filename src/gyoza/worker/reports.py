"""Reports to the server: batched by arrival, in order per attempt, tried again until they are judged."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import msgspec

from gyoza.client.call import Call, an_object, part
from gyoza.client.errors import ResponseError, TooLarge, Unprocessable
from gyoza.client.http import AsyncGyozaClient
from gyoza.worker.patience import patiently
from gyoza.worker.redaction import Redactor
from gyoza.worker.spool import Spool

MOST_IN_BATCH = 200
MOST_BYTES = 8 * 2**20
_LEAP = 2**20
"""How far beyond what is on disk a later process begins to count: a full disk may not have kept all that was told."""
UNREGISTERED_PAUSE_S = 1.0
"""The next heartbeat registers the worker anew; its reports wait for that."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verdict:
    """What the server made of a report; `code` says why when it is refused."""

    ok: bool
    code: str | None = None
    detail: str | None = None


@dataclass(frozen=True)
class Lease:
    run_id: str
    attempt: int
    token: str


Waiting = tuple[msgspec.Raw, "asyncio.Future[Verdict]"]


class Reports:
    """One sender for a whole worker. While a batch is under way the next one gathers."""

    def __init__(self, client: AsyncGyozaClient, worker: str, instance: str):
        self._client = client
        self._path = f"/workers/{part(worker)}/reports"
        self._instance = instance
        self._waiting: list[Waiting] = []
        self._arrived = asyncio.Event()
        self._is_over = False

    def send(self, report: Mapping[str, Any] | msgspec.Raw) -> "asyncio.Future[Verdict]":
        """The verdict to come; cancelled when there will be none."""
        verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        if self._is_over:
            verdict.cancel()
            return verdict
        self._waiting.append((msgspec.Raw(msgspec.json.encode(report)), verdict))
        self._arrived.set()
        return verdict

    async def run(self) -> None:
        """For ever; ends with the ResponseError that ends a worker (superseded, wrong key)."""
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while batch := self._batch():
                    await self._send(batch)
                    del self._waiting[: len(batch)]
        finally:
            self._is_over = True
            for _, verdict in self._waiting:
                verdict.cancel()

    def _batch(self) -> list[Waiting]:
        """The first ones that together stay below the server's bound."""
        sizes = accumulate(len(bytes(report)) for report, _ in self._waiting[:MOST_IN_BATCH])
        fitting = sum(size <= MOST_BYTES for size in sizes)
        return self._waiting[: max(1, fitting)]

    async def _send(self, batch: Sequence[Waiting]) -> None:
        """Judged together; where the server cannot read all of it, in halves, so that one fails none of the others."""
        try:
            verdicts = await self._judged([report for report, _ in batch])
        except (TooLarge, Unprocessable) as error:
            if len(batch) > 1:
                await self._send(batch[: len(batch) // 2])
                await self._send(batch[len(batch) // 2 :])
                return
            verdicts = [Verdict(False, error.code, error.detail)]
        for (_, future), verdict in zip(batch, verdicts, strict=True):
            if not future.done():
                future.set_result(verdict)

    async def _judged(self, reports: Sequence[msgspec.Raw]) -> list[Verdict]:
        while True:
            try:
                answer = await patiently(lambda: self._client.send(self._call(reports)))
                return [Verdict(each["ok"], each["code"], each.get("detail")) for each in answer["results"]]
            except ResponseError as error:
                if error.code != "not_registered":
                    raise
                await asyncio.sleep(UNREGISTERED_PAUSE_S)

    def _call(self, reports: Sequence[msgspec.Raw]) -> Call[dict[str, Any]]:
        """Encoded by msgspec: outputs go as the op wrote them."""
        content = msgspec.json.encode({"instance": self._instance, "reports": reports})
        return Call("POST", self._path, an_object, content=content, headers={"Content-Type": "application/json"})


class Telling:
    """What is told of one attempt: every report numbered and kept, and a refusal that means 'stop' passed on.

    What an earlier process had told and not heard judged is told again, first of all: under its number, so that it
    counts once.
    """

    def __init__(self, reports: Reports, lease: Lease, spool: Spool | None = None):
        self._reports = reports
        self._lease = lease
        self.spool = spool or Spool()
        self._seq = self.spool.seq and self.spool.seq + _LEAP
        self.redactor = Redactor(())
        """Takes secret values out of every event."""
        self.on_lost: Callable[[], object] = lambda: None
        """Called when the server says that this attempt is no longer this worker's."""
        self.last_word: asyncio.Task[Verdict] | None = None
        """The report that says `settled`, once there is one."""
        for seq, report in self.spool.waiting.items():
            self._send(seq, report, is_last=_is_last(report))

    def tell(
        self, *events: Mapping[str, Any], keep: Mapping[str, Any] | None = None, **more: Any
    ) -> asyncio.Task[Verdict]:
        """Events: `{type, msg, payload?, at?}`; more: summary, declined, settled. `keep`: what follows from it."""
        self._seq += 1
        report = {
            "run_id": self._lease.run_id,
            "attempt": self._lease.attempt,
            "lease_token": self._lease.token,
            "seq": self._seq,
            "events": [_redacted(event, self.redactor) for event in events],
            **more,
        }
        return self._send(self._seq, self.spool.add(report, keep or {}), is_last=more.get("settled", False))

    def _send(self, seq: int, report: msgspec.Raw, *, is_last: bool) -> asyncio.Task[Verdict]:
        told = asyncio.create_task(self._judged(seq, self._reports.send(report), is_last=is_last))
        self.last_word = told if is_last else self.last_word
        return told

    async def _judged(self, seq: int, future: "asyncio.Future[Verdict]", *, is_last: bool) -> Verdict:
        verdict = await future
        if not is_last:  # that one decides what becomes of the attempt: a later process must hear the verdict too
            self.spool.judged(seq)
        if not verdict.ok:
            _log.info("%s/%s: report refused: %s", self._lease.run_id, self._lease.attempt, verdict.code)
        if verdict.code in {"lease_lost", "run_not_found", "attempt_not_found"}:
            self.on_lost()
        return verdict


def _is_last(report: msgspec.Raw) -> bool:
    return bytes(msgspec.json.decode(report, type=dict[str, msgspec.Raw]).get("settled", b"")) == b"true"


def _redacted(event: Mapping[str, Any], redactor: Redactor) -> dict[str, Any]:
    """Its texts without secrets. Outputs are the op's own answer, and go as they are."""
    payload = event.get("payload")
    more = {"payload": _clean(payload, redactor)} if payload else {}
    return {**_clean(event, redactor), **more}


def _clean(said: Mapping[str, Any], redactor: Redactor) -> dict[str, Any]:
    texts = {name: said[name] for name in ("msg", "error_message") if isinstance(said.get(name), str)}
    return {**said, **{name: redactor.whole(text) for name, text in texts.items()}}
