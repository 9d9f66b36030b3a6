"""The rules for the claims of the related works, on figures whose verdict is known."""

import pytest

from flows.report.findings.related.rules import any_of, beats, explains, in_order, saves, spreads
from unseen_core.judging.metrics import Interval


def about(value, half=0.1):
    """Return an interval about a value."""
    return Interval(value, value - half, value + half)


@pytest.mark.parametrize(("found", "expected"), [
    (any_of(["refuted", "confirmed"]), "confirmed"),
    (any_of(["refuted", "undecided"]), "undecided"),
    (any_of(["refuted", "refuted"]), "refuted"),
    (any_of([]), "undecided"),
    (beats(about(0.1), about(0.5)), "confirmed"),
    (beats(about(0.1), about(0.2)), "undecided"),
    (beats(about(0.5), about(0.1)), "refuted"),
    (explains(about(0.95, 0.01), about(0.5)), "confirmed"),
    (explains(about(0.95, 0.01), about(0.95)), "undecided"),
    (explains(about(0.8, 0.01), about(0.1)), "refuted"),
    (explains(about(0.92, 0.01), about(0.97, 0.01)), "refuted"),
    (saves([(0.1, False), (0.3, False), (0.6, True)]), "confirmed"),
    (saves([(0.1, True), (0.3, False)]), "refuted"),
    (saves([(0.3, True)]), "refuted"),
    (saves([(0.1, False)]), "undecided"),
    (spreads(about(0.5), 1.0, (0.9, 1.1)), "confirmed"),
    (spreads(about(1.2), 1.0, (0.9, 1.1)), "refuted"),
    (spreads(about(0.5), 0.5, (0.9, 1.1)), "refuted"),
    (spreads(about(0.85), 1.0, (0.9, 1.1)), "undecided"),
    (in_order([[about(3.0)], [about(2.0), about(2.1)], [about(1.0)]]), "confirmed"),
    (in_order([[about(2.0)], [about(2.1)]]), "undecided"),
    (in_order([[about(3.0)], [about(1.0)], [about(2.0)]]), "refuted"),
])
def test_a_rule_gives_the_known_verdict(found, expected):
    assert found == expected
