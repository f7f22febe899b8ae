"""The page on the life of a run says what the code does."""

from pathlib import Path

from gyoza.models.lifecycle import TRANSITIONS
from gyoza.models.reasons import RULES, Rule

from .builders import S

PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "lifecycle.md"


def between(start: str, end: str) -> str:
    return PAGE.read_text().partition(f"<!-- {start}")[2].partition("-->\n")[2].partition(f"<!-- {end} -->")[0]


def diagram() -> str:
    """The transition table as a Mermaid state diagram; events that lead the same way share an arrow."""
    events: dict[tuple[str, str], list[str]] = {}
    for (state, event), after in TRANSITIONS.items():
        events.setdefault((state, after), []).append(event)
    arrows = [f"{state} --> {after}: {', '.join(names)}" for (state, after), names in events.items()]
    ends = [f"{state} --> [*]" for state in S if state not in {start for start, _ in TRANSITIONS}]
    lines = ["stateDiagram-v2", *(f"    {line}" for line in [f"[*] --> {S.PENDING}", *arrows, *ends])]
    return "\n".join(["```mermaid", *lines, "```", ""])


def tried_again(rule: Rule) -> str:
    return ("yes, elsewhere first" if rule.elsewhere else "yes") if rule.retried else "no"


def test_the_diagram_on_the_page_is_the_table():
    assert between("diagram", "end of diagram") == diagram(), f"Put this between the markers of {PAGE}:\n{diagram()}"


def test_the_reasons_on_the_page_are_the_rules():
    rows = between("reasons", "end of reasons").strip().splitlines()[2:]
    said = [(name, spends, again) for name, _, spends, again in (row.strip("| ").split(" | ") for row in rows)]
    assert said == [(f"`{reason}`", rule.spends, tried_again(rule)) for reason, rule in RULES.items()]
