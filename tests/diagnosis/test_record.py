"""Which verdict follows from what was found."""

import pytest

from headstart.analysis.diagnosis import Finding, Status
from headstart.diagnosis.examination import Examination
from headstart.diagnosis.record import _verdict


@pytest.mark.parametrize(
    ("known", "verdict"),
    [
        ({1: "proved", 20: "suspected", 22: "suspected"}, "proved"),
        ({1: "cleared", 20: "suspected"}, "domain-gap"),
        ({20: "suspected", 22: "suspected"}, "suspected-only"),  # what else is suspected may be the reason
        ({13: "could-not-look", 22: "suspected"}, "suspected-only"),
        ({1: "cleared", 13: "could-not-look"}, "nothing-seen"),
    ],
)
def test_a_domain_gap_is_the_verdict_only_where_nothing_else_is_suspected(
    known: dict[int, Status], verdict: str
) -> None:
    findings = tuple(Finding(cause, status, "any", {}) for cause, status in known.items())
    assert _verdict(findings, Examination(findings, None, None, 0.0, 0.0)) == verdict
