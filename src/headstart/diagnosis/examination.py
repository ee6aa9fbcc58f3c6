"""What an examination found: findings, the pipeline that was made again, controls."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from headstart.analysis.diagnosis import Cell, Finding, Interaction, ranked
from headstart.analysis.statistics import Estimate
from headstart.diagnosis.arrival import Arrival
from headstart.diagnosis.copies import Copies
from headstart.diagnosis.pipeline import Pipeline, Repairs
from headstart.diagnosis.prove import MeasuredCell, SizeProbe
from headstart.diagnosis.prove_predictions import Classes
from headstart.records import Booleans, Indices, Logits


@dataclass(frozen=True)
class Control:
    """A control run: its accuracy against another's, and what that says (`diagnosis_control_says.<code>`)."""

    name: str
    accuracy: Estimate | None
    against: Estimate | None
    says: str


@dataclass(frozen=True)
class Remade:
    """A pipeline made again from what was measured of it, and what it reaches on a sample of train.

    `pipeline` can be run with any set of its faults, the `factors`; `cells` has the accuracy with each on the `sample`, `(n,) int64`
    places in the data; `repaired` are the pixels without the proved faults, those that are no more than suspected left as they are.
    """

    arrival: Arrival
    pipeline: Pipeline
    factors: tuple[int, ...]
    cells: Mapping[Cell, MeasuredCell]
    sample: Indices
    repaired: Repairs


@dataclass(frozen=True)
class Examination:
    """Everything that was seen and measured.

    `remade` is the pipeline; `None` where only its predictions are there. `predictions` are the network's own, on
    test. `relabelled` says which of them are right, `(1, n) bool`, once the order of the classes is repaired that was proved to be
    another (15); `None` where it was not. `meant` is what each predicted class means, `(C,) int64`, where that is proved, whether of
    the network's own predictions or of those that its owner kept. `tuned` says that the network itself was trained further than its
    pretraining, and not only its head, as far as that can be seen. `sizes` are probes at other input sizes, where the size was proved
    to be at fault. `copies` are those of test images in the rest of the data; `None` where nothing is known of test.
    """

    findings: tuple[Finding, ...]
    remade: Remade | None
    predictions: Logits | None
    look_seconds: float
    prove_seconds: float
    found_interactions: tuple[Interaction, ...] = ()
    controls: tuple[Control, ...] = ()
    relabelled: Booleans | None = None
    meant: Classes | None = None
    tuned: bool = False
    sizes: tuple[SizeProbe, ...] = ()
    copies: Copies | None = None

    @property
    def factors(self) -> tuple[int, ...]:
        """The suspected causes that the pipeline was made again without."""
        return () if self.remade is None else self.remade.factors

    @property
    def cells(self) -> Mapping[Cell, MeasuredCell]:
        """What was measured with each set of faults."""
        return {} if self.remade is None else self.remade.cells

    def with_findings(self, changed: list[Finding]) -> "Examination":
        """The same with some findings known better."""
        known = {finding.cause: finding for finding in changed}
        return replace(self, findings=tuple(ranked([known.get(finding.cause, finding) for finding in self.findings])))
