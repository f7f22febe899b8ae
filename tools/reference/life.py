"""What can happen to a run: the diagram, the transitions, the events and the reasons."""

from gyoza.models.lifecycle import HOLDER_ALONE, SERVER_ALONE, TRANSITIONS, EventType, OpRunState
from gyoza.models.payloads import PAYLOADS, msg
from gyoza.models.reasons import MEANINGS, RULES, Rule

from .pages import code, table


def concept() -> dict[str, str]:
    return {"diagram": _diagram(), "reasons": _reasons()}


def reference() -> dict[str, str]:
    return {"transitions": _transitions(), "events": _events()}


def _diagram() -> str:
    """The transition table as a Mermaid state diagram; events that lead the same way share an arrow."""
    events: dict[tuple[str, str], list[str]] = {}
    for (state, event), after in TRANSITIONS.items():
        events.setdefault((state, after), []).append(event)
    arrows = [f"{state} --> {after}: {', '.join(names)}" for (state, after), names in events.items()]
    ends = [f"{state} --> [*]" for state in OpRunState if state not in {start for start, _ in TRANSITIONS}]
    lines = ["stateDiagram-v2", *(f"    {line}" for line in [f"[*] --> {OpRunState.PENDING}", *arrows, *ends])]
    return "\n".join(["```mermaid", *lines, "```"])


def _reasons() -> str:
    rows = [(code(reason), MEANINGS[reason], rule.spends, _tried_again(rule)) for reason, rule in RULES.items()]
    return table(("reason", "what happened", "spends", "tried again"), rows)


def _tried_again(rule: Rule) -> str:
    return ("yes, elsewhere first" if rule.elsewhere else "yes") if rule.retried else "no"


def _transitions() -> str:
    rows = [
        (code(state), code(event), code(after), _who(state, event)) for (state, event), after in TRANSITIONS.items()
    ]
    return table(("from", "event", "to", "who"), rows)


def _who(state: OpRunState, event: EventType) -> str:
    if (state, event) in SERVER_ALONE:
        return "the server alone"
    return "whoever holds the lease; without a lease, anyone who may" if event in HOLDER_ALONE else "anyone who may"


def _events() -> str:
    rows = [
        (code(kind), msg(kind).what, "; ".join(f"{code(name)} {check.what}" for name, check in members.items()))
        for kind, members in ((kind, PAYLOADS.get(kind, {})) for kind in EventType)
    ]
    return table(("type", "msg", "members of the payload that mean something"), rows)
