"""The contest: every pair of recipes on the same test images, the controls, and one verdict."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from headstart.analysis.statistics import (
    RESAMPLES,
    Estimate,
    holm,
    mcnemar_exact,
    paired_difference,
    paired_permutation,
)
from headstart.records import Booleans, Kind

_ALIKE_SECONDS = 1.1
"""Chosen: training times within a tenth of each other count as the same. By less they differ from run to run."""

PairVerdict = Literal["better", "worse", "not_distinguishable"]


@dataclass(frozen=True)
class Competitor:
    """One recipe's trials: `correct` is `(S, n) bool` on the test images, `train_seconds` what one trial cost."""

    name: str
    kind: Kind
    control: bool
    correct: Booleans
    train_seconds: float
    deterministic: bool
    backbone: str | None

    @property
    def accuracy(self) -> float:
        """Mean over trials and images."""
        return float(self.correct.mean())

    @property
    def is_transfer(self) -> bool:
        """Whether it reuses pretrained weights."""
        return self.kind in ("probe", "finetune")


@dataclass(frozen=True)
class McNemar:
    """One pair of trials: images that only one of them got right, and the exact p."""

    seed_a: int
    seed_b: int
    only_a: int
    only_b: int
    p: float


@dataclass(frozen=True)
class Pair:
    """Two recipes compared; see docs/results.md, `comparisons[]`."""

    a: str
    b: str
    difference: Estimate
    mcnemar: tuple[McNemar, ...]
    p: float
    p_holm: float
    verdict: PairVerdict
    within_margin: bool
    purpose: Literal["contest", "control"]
    images: int
    seeds: int


@dataclass(frozen=True)
class ControlCheck:
    """Whether a recipe beats a control, and by how much."""

    recipe: str
    control: str
    beats: bool
    difference: Estimate


@dataclass(frozen=True)
class Comparison:
    """Pairs and verdict; see docs/results.md, `verdict`."""

    pairs: tuple[Pair, ...]
    best: str | None
    code: str
    runner_up: str | None
    difference: Estimate | None
    p_holm: float | None
    decided_by: Literal["accuracy", "cost", "alone"]
    best_scratch: str | None
    best_transfer: str | None
    scratch_against_transfer: PairVerdict | None
    scratch_transfer_difference: Estimate | None
    cost_ratio: float | None
    controls: tuple[ControlCheck, ...]


def compare(
    competitors: Sequence[Competitor],
    *,
    margin: float = 0.01,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare all recipes and choose.

    Args:
        competitors: at least one; all tested on the same images in the same order.
        margin: differences whose whole interval lies within it do not count.
        confidence, resamples, seed: of intervals and tests.

    Returns:
        The recommended recipe is the one with the highest mean accuracy; among those that cannot be distinguished from
        it, the cheapest to train, and of those that take at most a tenth longer than that the one with the highest mean accuracy. If it
        does not beat the majority class, nothing was learned.
    """
    contest, controls = _pairs(competitors, margin, confidence, resamples, seed)
    pairs = (*contest, *controls)
    checks = tuple(ControlCheck(pair.a, pair.b, pair.verdict == "better", pair.difference) for pair in controls)
    players = [competitor for competitor in competitors if not competitor.control]
    nobody = Comparison(pairs, None, "nothing-learned", None, None, None, "alone", None, None, None, None, None, checks)
    if not players:
        return nobody
    most_accurate = max(players, key=lambda player: player.accuracy)
    equals = [player for player in players if _equal(player, most_accurate, contest)]
    affordable = _ALIKE_SECONDS * min(player.train_seconds for player in equals)
    cheapest = [player for player in equals if player.train_seconds <= affordable]
    best = max(cheapest, key=lambda player: (player.accuracy, -player.train_seconds))
    rivals = sorted((player for player in players if player is not best), key=lambda player: -player.accuracy)
    rival = most_accurate if best is not most_accurate else (rivals[0] if rivals else None)
    pair = _find(contest, best.name, rival.name) if rival else None
    decided_by: Literal["accuracy", "cost", "alone"] = (
        "alone" if pair is None else "cost" if pair.verdict == "not_distinguishable" else "accuracy"
    )
    scratch = _most_accurate([player for player in players if player.kind == "scratch"])
    transfer = _most_accurate([player for player in players if player.is_transfer])
    against = _find(contest, scratch.name, transfer.name) if scratch and transfer else None
    learned = all(
        check.beats for check in checks if check.recipe == best.name and check.control in _majorities(competitors)
    )
    if not learned:
        code = "nothing-learned"
    elif against is None:
        code = "only-scratch" if scratch else "only-transfer"
    else:
        code = {"better": "scratch-better", "worse": "transfer-better"}.get(against.verdict, "not-distinguishable")
    return replace(
        nobody,
        best=best.name,
        code=code,
        runner_up=rival.name if rival else None,
        difference=pair.difference if pair else None,
        p_holm=pair.p_holm if pair else None,
        decided_by=decided_by,
        best_scratch=scratch.name if scratch else None,
        best_transfer=transfer.name if transfer else None,
        scratch_against_transfer=against.verdict if against else None,
        scratch_transfer_difference=_mirrored(against).difference if against else None,
        cost_ratio=rival.train_seconds / best.train_seconds if rival and best.train_seconds > 0 else None,
    )


def _pairs(
    competitors: Sequence[Competitor], margin: float, confidence: float, resamples: int, seed: int
) -> tuple[list[Pair], list[Pair]]:
    players = [competitor for competitor in competitors if not competitor.control]
    contest = list(itertools.combinations(players, 2))
    controls = [
        (player, control)
        for player in players
        for control in competitors
        if control.kind == "majority"
        or (control.kind == "random-features" and player.is_transfer and control.backbone == player.backbone)
    ]

    def judge(couples: list[tuple[Competitor, Competitor]], purpose: Literal["contest", "control"]) -> list[Pair]:
        raw = [_compare_two(a, b, purpose, confidence, resamples, seed) for a, b in couples]
        adjusted = holm([pair.p for pair in raw])
        return [_decide(pair, p, margin, confidence) for pair, p in zip(raw, adjusted, strict=True)]

    return judge(contest, "contest"), judge(controls, "control")


def _compare_two(
    a: Competitor,
    b: Competitor,
    purpose: Literal["contest", "control"],
    confidence: float,
    resamples: int,
    seed: int,
) -> Pair:
    difference = paired_difference(a.correct, b.correct, confidence=confidence, resamples=resamples, seed=seed)
    # Equal seeds face each other; a recipe with a single trial faces all of the other's.
    trials = max(len(a.correct), len(b.correct))
    tables = []
    for number in range(trials):
        seed_a, seed_b = min(number, len(a.correct) - 1), min(number, len(b.correct) - 1)
        only_a = int((a.correct[seed_a] & ~b.correct[seed_b]).sum())
        only_b = int((~a.correct[seed_a] & b.correct[seed_b]).sum())
        tables.append(McNemar(seed_a, seed_b, only_a, only_b, mcnemar_exact(only_a, only_b)))
    p = tables[0].p if trials == 1 else paired_permutation(a.correct, b.correct, resamples=resamples, seed=seed)
    return Pair(
        a.name,
        b.name,
        difference,
        tuple(tables),
        p,
        p,
        "not_distinguishable",
        False,
        purpose,
        a.correct.shape[1],
        trials,
    )


def _decide(pair: Pair, p_holm: float, margin: float, confidence: float) -> Pair:
    low, high = pair.difference.low, pair.difference.high
    within = -margin <= low and high <= margin
    significant = p_holm < 1 - confidence and not low <= 0 <= high
    # A control is beaten by any real difference; between rivals a difference within the margin does not count.
    if not significant or (within and pair.purpose == "contest"):
        return replace(pair, p_holm=p_holm, within_margin=within)
    return replace(pair, p_holm=p_holm, within_margin=within, verdict="better" if low > 0 else "worse")


def _equal(player: Competitor, other: Competitor, contest: Sequence[Pair]) -> bool:
    if player is other:
        return True
    pair = _find(contest, player.name, other.name)
    return pair is not None and pair.verdict == "not_distinguishable"


def _find(contest: Sequence[Pair], a: str, b: str) -> Pair | None:
    """The pair of two recipes, seen from `a`."""
    for pair in contest:
        if (pair.a, pair.b) == (a, b):
            return pair
        if (pair.a, pair.b) == (b, a):
            return _mirrored(pair)
    return None


def _mirrored(pair: Pair) -> Pair:
    difference = pair.difference
    turned: dict[PairVerdict, PairVerdict] = {"better": "worse", "worse": "better"}
    return replace(
        pair,
        a=pair.b,
        b=pair.a,
        difference=Estimate(-difference.mean, -difference.high, -difference.low, difference.method),
        mcnemar=tuple(McNemar(t.seed_b, t.seed_a, t.only_b, t.only_a, t.p) for t in pair.mcnemar),
        verdict=turned.get(pair.verdict, pair.verdict),
    )


def _most_accurate(players: Sequence[Competitor]) -> Competitor | None:
    return max(players, key=lambda player: player.accuracy) if players else None


def _majorities(competitors: Sequence[Competitor]) -> set[str]:
    return {competitor.name for competitor in competitors if competitor.kind == "majority"}
