"""Definitions that are deployed, deployed again, disabled and deleted, beside a dictionary and many at once."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from gyoza.control import deploy
from gyoza.models.definition import OpDefinition
from gyoza.models.errors import DefinitionDisabled, DefinitionNotFound
from gyoza.store.database import Database

from .stage import COMPLETED, STARTED, Cluster, Still, failed
from .test_submit import ADD, ask_for

T = TypeVar("T")
Content = tuple[str, str | None, str]
"""Name, version and image: all that tells these definitions apart."""


def definition(content: Content) -> OpDefinition:
    name, version, image = content
    return replace(ADD, id=name, version=version, image=image)


@dataclass
class Named:
    """What is true of a name: its contents in the order of their revisions, and of their last deployments."""

    revisions: list[Content] = field(default_factory=list)
    deployed: list[Content] = field(default_factory=list)
    disabled: bool = False
    deleted: bool = False

    def newest(self) -> dict[str | None, Content]:
        return {content[1]: content for content in self.deployed}


class AnyDeployments(RuleBasedStateMachine):
    """`loop` and `cluster` are set by the test."""

    loop: asyncio.AbstractEventLoop
    cluster: Cluster

    def __init__(self) -> None:
        super().__init__()
        self.do(self.cluster.clear())
        self.truth: dict[str, Named] = {}

    def do(self, asked: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asked)

    @property
    def database(self) -> Database:
        return self.cluster.database

    def there(self) -> dict[str, Named]:
        return {name: named for name, named in self.truth.items() if not named.deleted}

    @rule(
        name=st.sampled_from(["a", "b"]),
        version=st.sampled_from([None, "1", "2"]),
        image=st.sampled_from("xyz"),
        backwards=st.booleans(),
    )
    def deploy(self, name: str, version: str | None, image: str, backwards: bool):
        """Also by a server whose clock lags behind."""
        self.cluster.later(-1 if backwards else 1)
        content, named = (name, version, image), self.truth.setdefault(name, Named())
        is_known = content in named.revisions
        found, is_new = self.do(self.cluster.deploy(definition(content)))
        named.revisions += [] if is_known else [content]
        named.deployed = [each for each in named.deployed if each != content] + [content]
        named.deleted = False
        assert (found.revision, is_new) == (named.revisions.index(content) + 1, not is_known)
        assert found.disabled == named.disabled

    @rule(name=st.sampled_from(["a", "b"]), change=st.sampled_from(["disable", "enable", "delete"]))
    def change(self, name: str, change: str):
        named = self.there().get(name)
        now = () if change == "enable" else (self.cluster.now,)
        changing = getattr(deploy, change)(self.database, name, *now)
        if named is None:
            with pytest.raises(DefinitionNotFound):
                self.do(changing)
            return
        self.do(changing)
        named.disabled, named.deleted = change == "disable", change == "delete"

    @rule(name=st.sampled_from(["a", "b"]), version=st.sampled_from([None, "1", "2"]))
    def run(self, name: str, version: str | None):
        named = self.there().get(name)
        known = named is not None and (version is None or version in named.newest())
        asking = ask_for(self.cluster, b'{"a": 1}', name=name, version=version)
        if named is None or not known or named.disabled:
            with pytest.raises(DefinitionDisabled if known else DefinitionNotFound):
                self.do(asking)
            return
        run = self.do(asking)
        wanted = named.deployed[-1] if version is None else named.newest()[version]
        assert (run.op_definition, run.version, run.image) == wanted
        assert run.revision == named.revisions.index(wanted) + 1

    @invariant()
    def the_list_holds_the_newest_of_each_version_of_what_is_there(self):
        shown = [msgspec.json.decode(msgspec.json.encode(each)) for each in self.do(deploy.every(self.database))]
        listed = [(each["id"], each["version"], each["image"], each["disabled"]) for each in shown]
        assert len(listed) == len(set(listed))
        assert set(listed) == {
            (*content, named.disabled) for named in self.there().values() for content in named.newest().values()
        }

    @invariant()
    def the_latest_and_the_history_are_in_the_order_of_deployments(self):
        for name, named in self.there().items():
            found = self.do(deploy.history(self.database, name))
            assert [(each.id, each.version, each.image) for each in found] == named.deployed[::-1]
            assert self.do(deploy.latest(self.database, name, None)) == found[0]
            for version, (*_, image) in named.newest().items():
                if version is not None:
                    assert self.do(deploy.latest(self.database, name, version)).image == image


@pytest.mark.timeout(300)
def test_any_deployments(stage_url: str):
    loop = asyncio.new_event_loop()
    database = Database(stage_url, clock=Still())
    loop.run_until_complete(database.__aenter__())
    AnyDeployments.loop, AnyDeployments.cluster = loop, Cluster(database)
    try:
        steps = settings(max_examples=25, stateful_step_count=25, deadline=None)
        run_state_machine_as_test(AnyDeployments, settings=steps)
    finally:
        loop.run_until_complete(database.__aexit__())
        loop.close()


NEWEST_ARE_RIGHT = """
    SELECT count(*) FILTER (WHERE newest), count(DISTINCT (name, version)), count(*) FILTER (WHERE newest AND EXISTS (
        SELECT FROM revisions o WHERE o.name = r.name AND o.version IS NOT DISTINCT FROM r.version
            AND o.deployed_at > r.deployed_at)), max(revision), count(*)
    FROM revisions r
    """


async def test_deployed_at_once_revisions_count_without_a_gap_and_one_of_each_version_is_the_newest(cluster: Cluster):
    wanted = [("busy", version, image) for version in (None, "1", "2") for image in "xyz"] * 3
    random.Random(7).shuffle(wanted)
    await asyncio.gather(*(cluster.deploy(definition(content)) for content in wanted))
    assert await cluster.ask(NEWEST_ARE_RIGHT) == [(3, 3, 0, 9, 9)]


async def test_deployed_and_deleted_and_disabled_at_once_there_is_one_truth(cluster: Cluster):
    ways: list[Callable[[], Awaitable[Any]]] = [
        *(partial(cluster.deploy, definition(("busy", "1", image))) for image in "xyz"),
        partial(deploy.delete, cluster.database, "busy", cluster.now),
        partial(deploy.disable, cluster.database, "busy", cluster.now),
        partial(deploy.enable, cluster.database, "busy"),
    ]

    async def change(way: Callable[[], Awaitable[Any]]) -> None:
        with suppress(DefinitionNotFound):
            await way()

    await cluster.deploy(definition(("busy", "1", "x")))
    await asyncio.gather(*(change(way) for way in random.Random(7).choices(ways, k=40)))
    newest, versions, wrong, highest, count = (await cluster.ask(NEWEST_ARE_RIGHT))[0]
    assert (newest, versions, wrong, highest) == (1, 1, 0, count)
    ((disabled, deleted),) = await cluster.ask(
        "SELECT disabled_at IS NOT NULL, deleted_at IS NOT NULL FROM definitions"
    )
    assert not (disabled and deleted), "what is deleted is not disabled: deployed again, it takes runs"


async def test_what_waits_for_another_s_change_of_a_definition_sees_it(cluster: Cluster):
    """What is deleted while somebody is about to disable it is not found, rather than disabled when it is back."""
    await cluster.deploy(ADD)

    async def deleting(connection: Any) -> "asyncio.Task[Any]":
        await deploy.definitions.lock(connection, "add")
        disabling = asyncio.create_task(deploy.disable(cluster.database, "add", cluster.now))
        while not await cluster.ask(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ):
            await asyncio.sleep(0.01)
        await deploy.definitions.delete(connection, "add", cluster.now)
        return disabling

    disabling = await cluster.database.transact(deleting)
    with pytest.raises(DefinitionNotFound):
        await disabling
    again, _ = await cluster.deploy(ADD)
    assert not again.disabled


async def test_what_waits_when_its_definition_goes_is_still_placed_and_run_with_its_revision(cluster: Cluster):
    await cluster.deploy(ADD)
    run = await ask_for(cluster, b'{"a": 1}')
    await cluster.deploy(replace(ADD, image="newer"))
    await deploy.disable(cluster.database, "add", cluster.now)
    await deploy.delete(cluster.database, "add", cluster.now)
    await cluster.beat()
    assert await cluster.place() == 1
    held = await cluster.handed()
    assert (held.run_id, held.image, held.op_definition) == (run.id, "adder", "add")
    assert (await cluster.tell(held, 1, STARTED, COMPLETED, settled=True)).ok
    shown = await cluster.run(run.id)
    assert (shown.state, shown.op_definition, shown.version, shown.revision) == ("COMPLETED", "add", "1", 1)


async def test_a_run_of_a_deleted_definition_is_tried_again_by_itself_and_by_hand(cluster: Cluster):
    await cluster.deploy(replace(ADD, retry_policy=replace(ADD.retry_policy, max_attempts=2)))
    run = await ask_for(cluster, b'{"a": 1}')
    await deploy.delete(cluster.database, "add", cluster.now)
    await cluster.beat()
    for attempt, state in ((1, "PENDING"), (2, "FAILED")):
        await cluster.place()
        held = await cluster.handed()
        assert (held.attempt, held.image) == (attempt, "adder")
        await cluster.tell(held, 1, STARTED, failed(), settled=True)
        assert (await cluster.run(run.id)).state == state
    await cluster.retry(run.id)
    assert await cluster.place() == 1
    assert (await cluster.handed()).attempt == 3
