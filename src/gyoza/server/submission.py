"""Bodies that ask for runs, as submissions: what users sent is kept as it was received."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from pydantic import BaseModel

from gyoza.control.once import Reply
from gyoza.control.submit import AdHoc, OfDefinition, Options, Wanted
from gyoza.models.definition import EventDelivery
from gyoza.models.errors import Fault, Malformed
from gyoza.models.resources import Constraints
from gyoza.models.run import OpRun
from gyoza.models.strictjson import parse, within
from gyoza.server.schemas import Batch, BatchItem, CreateRun, CreateRunOfDefinition, EventDeliveryBody, OptionsBody
from gyoza.server.wire import JSON_LIMIT, checked, encode, limited, members

Raw = Mapping[str, msgspec.Raw]


def ad_hoc(wanted: CreateRun, raw: Raw) -> AdHoc:
    return AdHoc(
        image=wanted.image,
        inputs=_inputs(raw),
        options=options(wanted),
        constraints=Constraints.from_dict(wanted.constraints.model_dump() if wanted.constraints else None),
        event_delivery=_delivery(wanted.event_delivery, raw),
    )


def of_definition(name: str, wanted: CreateRunOfDefinition | BatchItem, raw: Raw) -> OfDefinition:
    return OfDefinition(name, wanted.inputs, members(_inputs(raw)), wanted.version, options(wanted))


def batch(body: bytes) -> Sequence[Wanted]:
    """Every item of a batch; Malformed names each that is not in shape."""
    items = checked(Batch, parse(body)).runs
    slices = msgspec.json.decode(members(body)["runs"], type=list[dict[str, msgspec.Raw]])
    found: list[Wanted] = []
    faults: list[Fault] = []
    for index, (item, raw) in enumerate(zip(items, slices, strict=True)):
        try:
            found.append(_item(item, raw))
        except Malformed as refusal:
            faults += within(refusal.errors, "runs", index)
    if faults:
        raise Malformed(faults)
    return found


def options(wanted: OptionsBody) -> Options:
    return Options(
        priority=wanted.priority,
        tags=list(dict.fromkeys(wanted.tags)),
        run_at=wanted.run_at,
        timeouts=_given(wanted.timeouts),
        retry_policy=_given(wanted.retry_policy),
        delete_after_s=wanted.delete_after_s,
    )


def changed(wanted: OptionsBody) -> dict[str, Any]:
    """The options that a body names."""
    chosen = vars(options(wanted))
    return {name: chosen[name] for name in wanted.model_fields_set}


def one(runs: Sequence[OpRun]) -> Reply:
    """The answer to a request for one run."""
    return Reply(201, encode(runs[0].to_dict()))


def many(runs: Sequence[OpRun]) -> Reply:
    return Reply(201, encode({"object": "batch", "count": len(runs), "ids": [run.id for run in runs]}))


def _item(wanted: BatchItem, raw: Raw) -> Wanted:
    return ad_hoc(wanted, raw) if wanted.op_definition is None else of_definition(wanted.op_definition, wanted, raw)


def _given(part: BaseModel | None) -> dict[str, Any]:
    """The members that were sent: what was not is inherited."""
    return {} if part is None else part.model_dump(exclude_unset=True)


def _inputs(raw: Raw) -> msgspec.Raw:
    return limited(raw["inputs"], "inputs", JSON_LIMIT) if "inputs" in raw else msgspec.Raw(b"{}")


def _delivery(wanted: EventDeliveryBody | None, raw: Raw) -> EventDelivery | None:
    if wanted is None:
        return None
    return EventDelivery(wanted.topic, members(raw["event_delivery"]).get("attributes") or {})
