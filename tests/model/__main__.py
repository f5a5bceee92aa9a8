"""Prints the figures of the searches and a shortest double run for each dropped rule: `python -m tests.model`.

`--large` adds the searches that take minutes; `--markdown` prints the counterexamples as `docs/home-rule.md` has them.
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor

from tests.model.catalogue import LARGE_PROOFS, NEEDED, NOT_NEEDED, PROOFS, without
from tests.model.report import counterexample, described
from tests.model.rules import Setting
from tests.model.search import Outcome, Search


def main() -> int:
    """Run the searches; the exit status is 0 only if each found what it must."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--large", action="store_true", help="add the searches that take minutes and 1.5 GB")
    parser.add_argument("--markdown", action="store_true", help="print only the counterexamples, as Markdown")
    options = parser.parse_args()
    if options.markdown:
        print("".join(counterexample(rule, Search(without(rule)).run()) for rule in NEEDED), end="")
        return 0
    proofs = PROOFS + LARGE_PROOFS if options.large else PROOFS
    safe = [proof.setting for proof in reversed(proofs)]  # the longest first, so that two processes end together
    safe += [without(rule) for rule in NOT_NEEDED]
    wrong_count = 0
    with ProcessPoolExecutor(2) as pool:
        settings = safe + [without(rule) for rule in NEEDED]
        for setting, (outcome, took_s) in zip(settings, pool.map(_timed, settings), strict=True):
            wrong_count += _safe(outcome) != (setting in safe)
            _tell(setting, outcome, took_s)
    print("as expected" if wrong_count == 0 else f"{wrong_count} searches did not find what they must")
    return 1 if wrong_count else 0


def _timed(setting: Setting) -> tuple[Outcome, float]:
    started_s = time.perf_counter()
    outcome = Search(setting).run()
    return outcome, time.perf_counter() - started_s


def _tell(setting: Setting, outcome: Outcome, took_s: float) -> None:
    found = f"double run in {len(outcome.trace)} steps" if outcome.trace else "no double run"
    seen = "all" if outcome.exhausted else "first"
    print(
        f"{described(setting):<100} {found:<24} {seen:>5} {outcome.states_count:>9,} states {took_s:>6.1f} s",
        flush=True,
    )


def _safe(outcome: Outcome) -> bool:
    return outcome.exhausted and outcome.trace is None


if __name__ == "__main__":
    raise SystemExit(main())
