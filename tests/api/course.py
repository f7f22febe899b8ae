"""What can happen to a cluster, one method each: the server is asked and the ledger too, and both must say the same."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import httpx

from control.stage import Cluster, Still

from . import actors
from .actors import refused, told
from .entry import Json, No, Run, Try, body_of
from .ledger import STATUSES, Ledger, Name, Worker
from .witness import assert_shows

T = TypeVar("T")
Answering = Coroutine[Any, Any, httpx.Response]

NO_RUN = "01900000-0000-7000-8000-000000000000"


class Course:
    """One server, its clock and its leader's turns in the test's hand, three workers, and the ledger beside it.

    A `pick` chooses among what there is, 0 the newest; what it chooses from may be empty, and then nothing happens.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, cluster: Cluster, clock: Still, api: httpx.AsyncClient):
        self._loop, self._cluster, self._clock, self.api = loop, cluster, clock, api
        self.do(cluster.clear())
        self.do(cluster.lead())
        self.later(0)
        self.ledger = Ledger({"w1": Worker(2, 2), "w2": Worker(3, 8), "w3": Worker(1, 8)})
        self._submitted: list[tuple[str, Json, str]] = []
        self._feed: list[tuple[Any, ...]] = []
        self.actors = {
            name: actors.Worker(api, name, cpu=worker.cpu, slots=worker.slots, instance=f"{name}-0")
            for name, worker in self.ledger.workers.items()
        }

    @property
    def now(self) -> datetime:
        return self._clock.at

    def do(self, asked: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(asked)

    def later(self, seconds: float) -> None:
        self._cluster.later(seconds)
        self._clock.at = self._cluster.now

    def submit(self, limits: Json, priority: int, delay_s: float | None) -> None:
        """Under a key, so that it can be asked again. `delay_s`: not to be placed before."""
        self.later(0.001)  # so that the order of ids, and with it the history, can be repeated
        run_at = delay_s and self.now + timedelta(seconds=delay_s)
        body = {"image": "alpine", "inputs": {"n": len(self.ledger.runs)}, "priority": priority}
        sent = {**body, **_asked_for(limits), "run_at": run_at and run_at.isoformat()}
        key = f"submit-{len(self._submitted)}"
        answer = self.do(self.api.post("/runs", json=sent, headers={"Idempotency-Key": key}))
        self._submitted.append((key, sent, answer.text))
        self._born(told(answer, 201), {**body, "op_definition": None, "revision": None}, limits, run_at)

    def submit_again(self, pick: int, other: bool) -> None:
        """Asking twice is asking once. `other`: something else under the same key."""
        key, sent, text = _picked(self._submitted, pick)
        body = {**sent, "image": "debian"} if other else sent
        answer = self.do(self.api.post("/runs", json=body, headers={"Idempotency-Key": key}))
        if other:
            refused(answer, 409, "idempotency_key_reused")
        else:
            assert (answer.status_code, answer.text) == (201, text)

    def deploy(self, limits: Json) -> None:
        """Runs of before stay pinned to what was deployed then."""
        self.later(0.001)
        body = {"id": "op", "image": f"op:{limits['attempts']}", "input_specs": {"x": {"type": "int"}}}
        answer = self.do(self.api.post("/definitions", json={**body, **_asked_for(limits)}))
        assert answer.status_code in (200, 201)
        self._pinned = {"op_definition": "op", **{name: answer.json()[name] for name in ("revision", "image")}}
        self._limits = limits

    def submit_of_definition(self, x: Any, priority: int) -> None:
        body = {"inputs": {"x": x}, "priority": priority}
        self.later(0.001)
        answer = self.do(self.api.post("/definitions/op/runs", json=body))
        if isinstance(x, int):
            self._born(told(answer, 201), {**body, **self._pinned}, self._limits)
        else:
            refused(answer, 400, "invalid_inputs")

    def replay(self, pick: int) -> None:
        run_id = self._a_run(pick)
        self.later(0.001)
        answer = self.do(self.api.post(f"/runs/{run_id}/replay", json={}))
        if run_id == NO_RUN:
            refused(answer, 404, "run_not_found")
        else:
            before = self.ledger.runs[run_id]
            self._born(told(answer, 201), {**before.fixed, "priority": before.priority}, before.limits)

    def _born(self, run: Json, said: Json, limits: Json, run_at: datetime | None = None) -> None:
        fixed = {**said, "id": run["id"], "created_at": self.now.isoformat(timespec="microseconds")}
        known = Run(run["id"], fixed, limits, fixed.pop("priority"), run_at or self.now, run_at)
        self.ledger.runs[run["id"]] = known
        assert_shows(run, known)

    def run_outside(self, pick: int, ending: str) -> None:
        """A program goes on with a run that no worker has: what it would say next."""
        idle = [run for run in self.ledger.runs.values() if not (run.current.worker or run.current.is_over)]
        for run in idle and [_picked(idle, pick)]:
            self._tell(run.id, "STARTED" if run.state == "PENDING" else ending, None)

    def tell(self, pick: int, event: str, attempt: int | None) -> None:
        """An event from outside."""
        self._tell(self._a_run(pick), event, attempt)

    def cancel(self, pick: int) -> None:
        run_id = self._a_run(pick)
        self._change(run_id, self.api.post(f"/runs/{run_id}/cancel"), partial(self.ledger.cancel, run_id, self.now))

    def retry(self, pick: int, ended: bool) -> None:
        """`ended`: one that has ended, if there is one."""
        over = [run.id for run in self.ledger.runs.values() if run.current.is_over]
        run_id = _picked(over, pick) if ended and over else self._a_run(pick)
        self._change(run_id, self.api.post(f"/runs/{run_id}/retry"), partial(self.ledger.retry, run_id, self.now))

    def sweep(self, word: str, state: str) -> None:
        """Cancel or retry all that a list's filter finds."""
        asked = self.api.post(f"/runs/{word}", params={"state": state})
        if found := self._ask(asked, partial(self.ledger.sweep, word, state, self.now)):
            swept = found[0].json()
            assert (swept["matched"], swept["changed"], swept["has_more"]) == (found[1], found[1], False)

    def update(self, pick: int, going: bool, wanted: Json) -> None:
        """`going`: one that is not over, if there is one."""
        live = [run.id for run in self.ledger.runs.values() if not run.current.is_over]
        run_id = _picked(live, pick) if going and live else self._a_run(pick)
        asked = self.api.patch(f"/runs/{run_id}", json=wanted)
        self._change(run_id, asked, partial(self.ledger.update, run_id, wanted, self.now))

    def turn_pages(self, limit: int, state: str | None) -> None:
        """Every run is on one of them, once."""
        found: list[str] = []
        query: Json = {"limit": limit, "state": state or ""}
        while query:
            page = told(self.do(self.api.get("/runs", params=query)))
            found += [run["id"] for run in page["data"]]
            query = {**query, "starting_after": found[-1]} if page["has_more"] else {}
        assert found == [run.id for run in reversed(self.ledger.runs.values()) if state in (None, run.state)]

    def pass_time(self, seconds: float, heard: Iterable[str]) -> None:
        """Whoever is not heard after it may be evicted."""
        self.later(seconds)
        for name in sorted(heard):
            self.beat(name, "all", 0)
        assert self.do(self._cluster.reap()) == self.ledger.reap(self.now)

    def hand_out(self, to: Iterable[str]) -> None:
        """The leader places what it can; these workers are there, and ask for it."""
        for name in sorted(to):
            self.beat(name, "all", 0)
        before = self._holding()
        placed = self.do(self._cluster.place())
        new = {name: worker for name, worker in self._holding().items() if name not in before}
        assert len(new) == placed
        self.ledger.place({run_id: worker for (run_id, _), worker in new.items()}, self.now)
        for name in sorted(to):
            self.claim(name, "all", 10)

    def publish(self) -> None:
        """Every event comes into the feed once, those of one run in their order, and what is there stays."""
        self.do(self._cluster.publish())
        feed = self.do(self._cluster.ask("SELECT run_id, n FROM feed ORDER BY pos"))
        assert feed[: len(self._feed)] == self._feed
        for run in self.ledger.runs.values():
            assert [n for run_id, n in feed if run_id == run.id] == list(range(len(run.story)))
        self._feed = feed

    def operate(self, name: str, word: str) -> None:
        asked = self.api.delete(f"/workers/{name}") if word == "remove" else self.api.post(f"/workers/{name}/{word}")
        must = {"drain": self.ledger.drain, "resume": self.ledger.resume, "remove": self.ledger.remove}[word]
        self._ask(asked, partial(must, name, self.now), 204 if word == "remove" else 200)

    def beat(self, name: str, holding: str, late: int) -> None:
        """Also how a worker comes, and comes back after it was evicted. `late`: so many others overtook it."""
        seq = max(1, self.actors[name].beats + 1 - late)
        self._beat_as(self.actors[name].instance, name, self._having(name, holding), seq)

    def restart(self, name: str, host: str, holding: str) -> None:
        """A new process under the same name; it may know of what the one before left."""
        instance = f"{name}-{len(self.ledger.workers[name].instances)}"
        if self._beat_as(instance, name, self._having(name, holding), 1, host):
            self.actors[name].instance = instance

    def speak_although_superseded(self, pick: int) -> None:
        """An older process of a worker that was started anew says what it would say."""
        replaced = [name for name, worker in self.ledger.workers.items() if len(worker.instances) > 1]
        for name in replaced and [_picked(replaced, pick)]:
            actor = self.actors[name]
            living, actor.instance = actor.instance, self.ledger.workers[name].instances[0]
            self._beat_as(actor.instance, name, set(), 1000)
            self.claim(name, "all", 10)
            self._send(name, [(self._report_of(each, [], settled=True), []) for each in self._told(name)])
            actor.instance = living

    def claim(self, name: str, known: str, most: int) -> None:
        """Nothing changes by it, and it may be repeated."""
        actor, knows = self.actors[name], self.ledger.workers[name].has if known == "all" else set[Name]()
        must = partial(self.ledger.claim, name, actor.instance, knows, most)
        if found := self._ask(actor.claim(*map(_named, sorted(knows)), most=most), must):
            claimed, wanted = found[0].json(), found[1]
            assert (claimed["drain"], _stops(claimed)) == (wanted["drain"], wanted["stop"])
            assert [(each["run_id"], each["attempt"]) for each in claimed["assignments"]] == wanted["assignments"]
            for each in claimed["assignments"]:
                self._hear(name, each)

    def go_on(self, steps: Sequence[tuple[int, str, bool]]) -> None:
        """What workers would report next of what they still have to do, or to stop."""
        for pick, ending, settled in steps:
            for run_id, attempt in self._a_told(2 * pick):
                run, tried = self.ledger.runs[run_id], self._try((run_id, attempt))
                said = ["STARTED"] if tried.state == "ASSIGNED" else [ending] if run.is_live(tried) else []
                self._report((run_id, attempt), said, settled=settled or not said)

    def report(self, pick: int, said: list[str], settled: bool, declined: bool) -> None:
        """In time or late: the run may have gone on, the worker may have been evicted or started anew."""
        for each in self._a_told(pick):
            self._report(each, said, settled=settled, declined=declined)

    def report_again(self, pick: int, said: list[str], behind: int) -> None:
        """A report whose number was taken already, or that a newer one overtook, whatever it says."""
        for run_id, attempt in self._a_told(pick):
            seq = self.ledger.runs[run_id].tries[attempt - 1].seq - behind
            if seq >= 1:
                self._report((run_id, attempt), said, seq=seq)

    def report_for_another(self, pick: int, by: str) -> None:
        """With the right lease, by a worker that may never have had it."""
        for each in self._a_told(pick):
            self._report(each, ["INFO"], by)

    def report_wrongly(self, pick: int, other: int, said: str, attempt: int | None) -> None:
        """With the lease of another attempt or none at all, or on an attempt that there is not."""
        for (run_id, number), of_other in zip(self._a_told(pick), self._a_told(other), strict=True):
            lease = self._try(of_other).lease if other % 2 else "none"
            self._report((run_id, attempt or number), [said], lease_token=lease, settled=True)

    def report_many(self, name: str, said: Sequence[tuple[int, str, bool, int]]) -> None:
        """In one request and not in order, several on one attempt or one run among them."""
        own, sent = self._told(name), list[tuple[Json, list[str]]]()
        for pick, event, settled, ahead in said if own else ():
            report = self._report_of(_picked(own, pick), [event], settled=settled)
            sent.append(({**report, "seq": report["seq"] + ahead}, [event]))
        self._send(name, sent)

    def _ask(self, asked: Answering, must: Callable[[], T], status: int = 200) -> tuple[httpx.Response, T] | None:
        """What the server answers and what the ledger does; None when both refuse, for the same reason."""
        answer = self.do(asked)
        try:
            wanted = must()
        except No as no:
            refused(answer, STATUSES[no.code], no.code)
            return None
        assert answer.status_code == status, f"{answer.status_code}: {answer.text}"
        return answer, wanted

    def _change(self, run_id: str, asked: Answering, must: Callable[[], None]) -> None:
        """It is answered with the run as it is then."""
        if found := self._ask(asked, must):
            assert_shows(found[0].json(), self.ledger.runs[run_id])

    def _tell(self, run_id: str, event: str, attempt: int | None) -> None:
        asked = self.api.post(f"/runs/{run_id}/events", json={**body_of(event), "attempt": attempt})
        self._change(run_id, asked, partial(self.ledger.tell, run_id, event, attempt, self.now))

    def _a_run(self, pick: int) -> str:
        """15 is one that there is not."""
        return NO_RUN if pick == 15 else _picked(list(self.ledger.runs), pick)

    def _told(self, worker: str | None = None) -> list[Name]:
        """What workers, or this one, were told to run; it may long be over."""
        found = [(run.id, tried) for run in self.ledger.runs.values() for tried in run.tries if tried.lease]
        return [(run_id, tried.number) for run_id, tried in found if worker in (None, tried.worker)]

    def _a_told(self, pick: int) -> list[Name]:
        """One at most; by an even pick one that is not settled, if there is one."""
        told, settled = self._told(), self.ledger.settled()
        unsettled = [each for each in told if each not in settled]
        found = (not pick % 2 and unsettled) or told
        return [_picked(found, pick // 2)] if found else []

    def _holding(self) -> dict[Name, str]:
        """Every attempt that is held, with its worker, as the server lists them."""
        listed = told(self.do(self.api.get("/workers")))
        return {(each["run_id"], each["attempt"]): worker["id"] for worker in listed for each in worker["holding"]}

    def _having(self, name: str, what: str) -> set[Name]:
        """What a worker says that it has; what it leaves out it has lost."""
        has = self.ledger.workers[name].has
        if what == "nothing":
            has.clear()
        if what == "one less" and has:
            has.remove(min(has))
        return has | set(self._told() if what == "others'" else ())

    def _beat_as(self, instance: str, name: str, holding: set[Name], seq: int, host: str | None = None) -> bool:
        host = host or self.ledger.workers[name].host
        must = partial(self.ledger.beat, name, instance, seq, host, holding, self.now)
        asked = self.actors[name].beat(*map(_named, sorted(holding)), instance=instance, seq=seq, host_id=host)
        if found := self._ask(asked, must):
            heard, wanted = found[0].json(), found[1]
            assert (heard["drain"], _stops(heard)) == (wanted["drain"], wanted["stop"])
        return found is not None

    def _hear(self, name: str, assigned: Json) -> None:
        run = self.ledger.runs[assigned["run_id"]]
        tried = run.tries[assigned["attempt"] - 1]
        assert tried.lease in (None, assigned["lease_token"])
        assert (assigned["inputs"], assigned["image"]) == (run.fixed["inputs"], run.fixed["image"])
        tried.lease = assigned["lease_token"]
        self.ledger.workers[name].has.add((run.id, tried.number))

    def _report(self, of: Name, said: list[str], by: str | None = None, **how: Any) -> None:
        """`by`: another worker than the one that was told."""
        self._send(by or self._try(of).worker or "w1", [(self._report_of(of, said, **how), said)])

    def _try(self, of: Name) -> Try:
        """The last one, where there is none of that number."""
        tries = self.ledger.runs[of[0]].tries
        return tries[min(of[1], len(tries)) - 1]

    def _report_of(self, of: Name, said: list[str], **how: Any) -> Json:
        tried = self._try(of)
        body = {**_named(of), "lease_token": tried.lease or "none", "seq": tried.seq + 1}
        return {**body, "events": [body_of(event) for event in said], **how}

    def _send(self, name: str, sent: Sequence[tuple[Json, list[str]]]) -> None:
        actor = self.actors[name]
        asked = actor.send(*(report for report, _ in sent))
        if found := self._ask(asked, partial(self.ledger.check_instance, name, actor.instance)):
            codes = [self.ledger.report(name, report, said, self.now) for report, said in sent]
            results = found[0].json()["results"]
            assert [(each["ok"], each["code"]) for each in results] == [(code is None, code) for code in codes]
            for result, (report, _) in zip(results, sent, strict=True):
                assert {part: report[part] for part in ("run_id", "attempt", "seq")}.items() <= result.items()
                assert result["state"] == self.ledger.runs[report["run_id"]].state
            self.ledger.workers[name].has -= self.ledger.settled()


def _picked(found: Sequence[T], pick: int) -> T:
    return found[-1 - pick % len(found)]


def _asked_for(limits: Json) -> Json:
    return {
        "constraints": {"cpu": limits["cpu"]},
        "retry_policy": {"max_attempts": limits["attempts"], "backoff_s": limits["backoff_s"]},
        "timeouts": {name: limits[name] for name in ("queue_s", "start_s", "run_s")},
    }


def _named(attempt: Name) -> Json:
    return {"run_id": attempt[0], "attempt": attempt[1]}


def _stops(answer: Json) -> set[tuple[str, int, str]]:
    return {(stop["run_id"], stop["attempt"], stop["reason"]) for stop in answer["stop"]}
