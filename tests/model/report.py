"""Words for settings and traces, the same on the terminal and in `docs/home-rule.md`."""

import textwrap

from tests.model.rules import Rule, Setting
from tests.model.search import Outcome

LINE_WIDTH = 118  # of the Markdown in docs/


def described(setting: Setting) -> str:
    """One line: the bounds of the search and the dropped rule."""
    fences = " + ".join(str(count) for count in setting.fences_max)
    dropped = f", without {setting.dropped.name}" if setting.dropped else ""
    return f"{setting.policy.value}, {setting.placements_max} placements, {fences} fences{dropped}"


def counterexample(rule: Rule, outcome: Outcome) -> str:
    """A list item of Markdown: the rule, and the shortest double run without it."""
    assert outcome.trace is not None
    text = f"- **{rule.name}**: {rule.value}. *{len(outcome.trace)} steps:* {'; '.join(outcome.trace)}."
    return textwrap.fill(text, LINE_WIDTH, subsequent_indent="  ", break_on_hyphens=False) + "\n"
