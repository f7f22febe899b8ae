"""Users, who submit, cancel, retry and change runs all the while, and write down what they were answered."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Any

import httpx

from gyoza.client import GyozaClient

from .ops import OPS

TEMPER_S = 8.0
"""How long a user waits for an answer."""


@dataclass(frozen=True)
class Deed:
    """`was_done`: False where it was refused, for `why`; None where no answer came."""

    what: str
    run_id: str
    text: str
    was_done: bool | None
    why: str = ""


class Crowd:
    """`deeds` in the order of their answers. Every second a user does about `pace` things."""

    def __init__(self, clients: Callable[[], list[GyozaClient]], seed: int, most_runs: int):
        self.deeds: list[Deed] = []
        self.run_ids: list[str] = []
        self._numbers = count()
        self._most_runs = most_runs
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._live, args=(Random(f"{seed} {n}"), clients()), daemon=True) for n in range(3)
        ]

    def begin(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a user waits for ever"

    def _live(self, chance: Random, clients: list[GyozaClient]) -> None:
        names, shares = list(DEEDS), [share for share, _ in DEEDS.values()]
        while not self._is_over.wait(chance.uniform(0, 1.5)):
            (name,) = chance.choices(names, shares)
            DEEDS[name][1](self, chance, chance.choice(clients))
        for client in clients:
            client.close()

    def submit(self, chance: Random, client: GyozaClient) -> None:
        """Asked twice at times, by the same key: that is once."""
        if len(self.run_ids) >= self._most_runs:
            return
        (op,) = chance.choices(list(OPS), [op.share for op in OPS.values()])
        number = next(self._numbers)
        for _ in range(chance.choice((1, 1, 2))):
            self._do(
                "submit",
                lambda: client.create_run_from_definition(op, {"n": number}, idempotency_key=f"run-{number}"),
                text=str(number),
            )

    def cancel(self, chance: Random, client: GyozaClient) -> None:
        self._to_one(chance, "cancel", lambda run_id: client.cancel_run(run_id))

    def fail(self, chance: Random, client: GyozaClient) -> None:
        self._to_one(chance, "fail", lambda run_id: client.update_run(run_id, state="FAILED"))

    def retry(self, chance: Random, client: GyozaClient) -> None:
        self._to_one(chance, "retry", lambda run_id: client.retry_run(run_id))

    def hurry(self, chance: Random, client: GyozaClient) -> None:
        priority = chance.randint(-10, 10)
        self._to_one(chance, "hurry", lambda run_id: client.update_run(run_id, priority=priority))

    def note(self, chance: Random, client: GyozaClient) -> None:
        text = f"note {next(self._numbers)}"
        self._to_one(chance, "note", lambda run_id: client.add_event(run_id, "INFO", text), text)

    def race(self, chance: Random, client: GyozaClient) -> None:
        """A cancel and a retry of the same run at the same time."""
        if self.run_ids:
            run_id = chance.choice(self.run_ids[-12:])
            calls = {"cancel": lambda: client.cancel_run(run_id), "retry": lambda: client.retry_run(run_id)}
            racing = [threading.Thread(target=self._do, args=(what, do, run_id)) for what, do in calls.items()]
            for thread in racing:
                thread.start()
            for thread in racing:
                thread.join()

    def _to_one(self, chance: Random, what: str, do: Callable[[str], object], text: str = "") -> None:
        """To one of the younger runs, where there is any."""
        if self.run_ids:
            run_id = chance.choice(self.run_ids[-12:])
            self._do(what, lambda: do(run_id), run_id, text)

    def _do(self, what: str, do: Callable[[], Any], run_id: str = "", text: str = "") -> None:
        """An error of the server, or of the line, is no answer."""
        try:
            answer = do()
        except httpx.HTTPStatusError as error:
            was_done = False if error.response.status_code < 500 else None
            self.deeds.append(Deed(what, run_id, text, was_done, str(error)))
        except httpx.HTTPError as error:
            self.deeds.append(Deed(what, run_id, text, None, str(error)))
        else:
            self._note(Deed(what, run_id or answer["id"], text, True))

    def _note(self, deed: Deed) -> None:
        self.deeds.append(deed)
        if deed.run_id not in self.run_ids:
            self.run_ids.append(deed.run_id)


DEEDS: Mapping[str, tuple[int, Callable[[Crowd, Random, GyozaClient], None]]] = {
    "submit": (14, Crowd.submit),
    "cancel": (2, Crowd.cancel),
    "retry": (2, Crowd.retry),
    "fail": (1, Crowd.fail),
    "hurry": (1, Crowd.hurry),
    "note": (3, Crowd.note),
    "race": (1, Crowd.race),
}
"""What a user does -> how often beside the others, and how."""
