"""Work that is done once, however many wait for it, and broken off only when nobody does any more."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from gyoza.worker.engines import Say
from gyoza.worker.engines.cleanup import to_the_end

T = TypeVar("T")


class Shared(Generic[T]):
    """By key. What the work says of its progress is told to everyone who waits."""

    def __init__(self) -> None:
        self._under_way: dict[str, _Work[T]] = {}

    async def once(self, key: str, doing: Callable[[Say], Coroutine[Any, Any, T]], say: Say) -> T:
        """Begin the work, or join what is under way: its result, or its error, is everybody's."""
        work = self._under_way.get(key)
        if work is None:
            work = self._under_way[key] = _Work(doing)
        try:
            return await work.joined(say)
        finally:
            if work.is_over and self._under_way.get(key) is work:
                del self._under_way[key]
            if not work.ears:
                await to_the_end(work.broken_off())

    def __len__(self) -> int:
        return len(self._under_way)


class _Work(Generic[T]):
    def __init__(self, doing: Callable[[Say], Coroutine[Any, Any, T]]):
        self.ears: list[Say] = []
        self._said: str | None = None
        self._task = asyncio.create_task(doing(self._say))

    @property
    def is_over(self) -> bool:
        """Nobody may join it any more."""
        return self._task.done() or not self.ears

    async def joined(self, say: Say) -> T:
        """Who joins late is told first what was said last."""
        self.ears.append(say)
        if self._said is not None:
            say(self._said)
        try:
            await asyncio.wait({self._task})
            return self._task.result()
        finally:
            self.ears.remove(say)

    async def broken_off(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _say(self, text: str) -> None:
        self._said = text
        for say in self.ears:
            say(text)
