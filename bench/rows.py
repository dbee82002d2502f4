"""What is reported: a row per scenario, its figures, its target and whether that was met."""

from dataclasses import dataclass, field
from typing import Final, Literal

from bench.stats import median

HOLDFAST: Final = "holdfast"
MOSQUITTO: Final = "mosquitto"
CEILING: Final = "ceiling"
# Client libraries beside Holdfast's, in the order of the report.
OTHER_CLIENTS: Final = ("paho", "aiomqtt", "gmqtt")
RAW: Final = "raw"  # bytes without a client
# Above this share of the ceiling the generator may be what is measured.
CEILING_SHARE: Final = 0.7
# A generator that slept for a part of the time was waiting for the broker.
GENERATOR_BUSY: Final = 0.9
# Of a core, for everything but broker and generator. The kernel's threads that write to the disk
# stay below.
OTHERS_BUSY: Final = 0.3

Verdict = Literal["met", "missed", "failed", "not judged", ""]


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on the ratio of medians, or on the worst single figure where it is a limit."""

    bound: float
    kind: Literal["ratio at least", "ratio at most", "value at most"]

    def __str__(self) -> str:
        sign = "≥" if self.kind == "ratio at least" else "≤"
        return f"{sign} {self.bound:.3g}" + (" x" if self.kind.startswith("ratio") else "")


@dataclass(slots=True)
class Row:
    """One line of the report, filled while it is measured."""

    key: str
    title: str
    unit: str
    target: Target | None = None
    lower_is_better: bool = False
    # What the ratio compares with: Mosquitto, or else what ``reference`` holds.
    against: str = MOSQUITTO
    reference: list[float] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)
    raw: list[dict[str, object]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, broker: str, value: float, detail: dict[str, object]) -> None:
        """One repetition."""
        self.values.setdefault(broker, []).append(value)
        self.raw.append({"broker": broker, "value": value, **detail})

    def median_of(self, broker: str) -> float | None:
        """Over the repetitions, or None if there is none."""
        values = self.values.get(broker)
        return median(values) if values else None

    def figures(self, broker: str, name: str) -> list[float]:
        """What the repetitions tell beside the value, for instance ``generator_busy``."""
        return [
            value
            for entry in self.raw
            if entry["broker"] == broker and isinstance(value := entry.get(name), float)
        ]

    @property
    def ratio(self) -> float | None:
        """Holdfast's median over that of what it is compared with."""
        base = self.values.get(MOSQUITTO) if self.against == MOSQUITTO else self.reference
        ours = self.median_of(HOLDFAST)
        if ours is None or not base or median(base) == 0:
            return None
        return ours / median(base)

    @property
    def verdict(self) -> Verdict:
        """Whether the target was met; "failed" if Holdfast gave no figure."""
        ours = self.values.get(HOLDFAST)
        if not ours or any(text.startswith(HOLDFAST) for text in self.failures):
            return "failed"
        if self.target is None:
            return ""
        if self.target.kind == "value at most":
            return "met" if max(ours) <= self.target.bound else "missed"
        if self.ratio is None:
            return "not judged"
        if self.target.kind == "ratio at least":
            return "met" if self.ratio >= self.target.bound else "missed"
        return "met" if self.ratio <= self.target.bound else "missed"

    def note_disturbance(self) -> None:
        """Note how many repetitions had to share their cores with something else."""
        shares = [
            share for entry in self.raw if isinstance(share := entry.get("others_busy"), float)
        ]
        disturbed = sum(share > OTHERS_BUSY for share in shares)
        if disturbed:
            self.notes.append(
                f"{disturbed} of {len(shares)} repetitions disturbed: other processes used"
                f" up to {max(shares):.0%} of a core"
            )

    def note_ceiling(self) -> None:
        """Note which figures come near the ceiling, and whether the generator had time left."""
        ceiling = self.median_of(CEILING)
        if ceiling is None or self.lower_is_better:
            return
        for broker in (HOLDFAST, MOSQUITTO):
            value = self.median_of(broker)
            if value is None or value <= CEILING_SHARE * ceiling:
                continue
            busy = self.figures(broker, "generator_busy")
            share_text = f"{value / ceiling:.0%} of the ceiling"
            if busy and median(busy) < GENERATOR_BUSY:
                self.notes.append(
                    f"{broker}: {share_text}, generator busy {median(busy):.0%} of the time"
                )
            else:
                self.notes.append(f"{broker}: generator-bound, {share_text}")


@dataclass
class ClientRow(Row):
    """A line that compares client libraries: ``rivals`` has the ratio to reach over each."""

    rivals: dict[str, float] = field(default_factory=dict)

    @property
    def ratios(self) -> dict[str, float]:
        """Holdfast's median over that of each other library that gave a figure."""
        ours = self.median_of(HOLDFAST)
        if ours is None:
            return {}
        found = {name: self.median_of(name) for name in OTHER_CLIENTS}
        return {name: ours / theirs for name, theirs in found.items() if theirs}

    @property
    def verdict(self) -> Verdict:
        """As for any row; "missed" if one rival is too near."""
        plain = super().verdict
        if plain or not self.rivals:
            return plain
        ratios = self.ratios
        if any(ratios[name] < bound for name, bound in self.rivals.items() if name in ratios):
            return "missed"
        return "met" if all(name in ratios for name in self.rivals) else "not judged"
