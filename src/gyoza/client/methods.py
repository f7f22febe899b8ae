"""A described call as a method: what the two clients need said once for every call."""

import inspect
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from gyoza.client.call import Call

P = ParamSpec("P")
T = TypeVar("T")


def waiting(describe: Callable[P, Call[T]]) -> Callable[Concatenate[Any, P], T]:
    """The method of a client whose `send` returns the answer."""

    @wraps(describe)
    def method(self: Any, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.send(describe(*args, **kwargs))

    return _signed(method)


def awaited(describe: Callable[P, Call[T]]) -> Callable[Concatenate[Any, P], Awaitable[T]]:
    """The method of a client whose `send` is awaited."""

    @wraps(describe)
    async def method(self: Any, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.send(describe(*args, **kwargs))

    return _signed(method)


def _signed(method: Callable[..., Any]) -> Any:
    """With the signature that `help()` shows: the call's own, after `self`, and what the method returns."""
    described = inspect.signature(method)
    self = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    answer = getattr(described.return_annotation, "__args__", (Any,))[0]
    vars(method)["__signature__"] = inspect.Signature([self, *described.parameters.values()], return_annotation=answer)
    return method
