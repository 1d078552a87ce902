"""What is known of the live rollouts and experiments while a batch of messages is taken in.

1. A device is believed about its arm only when its bucket, by its cohort key, says the same. Where the bucket is that
   of a label's value, which only the device knows, it is believed once: it stays in the arm that it told first.
2. Of slices, only the labels that were asked for are kept: others would make as many cells as a device has ideas.
3. The level of a compared metric is the mean of the control in the newest closed windows that have enough of it: the
   time of day, which is taken off every device's value.

Everything is read once a batch. Called by `ingest` and by what it calls.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from whimbrel.flows.device_records import Participation
from whimbrel.flows.ports import ModelsPort, TallyPort
from whimbrel.flows.records import Comparison
from whimbrel.flows.reports.proven import Admissions
from whimbrel.flows.versions import reference_of
from whimbrel.gate.guardrails import tested_means
from whimbrel.health.panel import LEAST_DEVICES
from whimbrel.health.report import ERROR_RATE, Role
from whimbrel.health.tally import Cell
from whimbrel.policy.bucket import bucket, device_key

_LEVEL_WINDOWS = 12  # windows back in which the control's level is looked for: an hour


class LiveComparisons:
    """The live rollouts and experiments of a namespace, by id."""

    def __init__(
        self,
        models: ModelsPort,
        fleet: TallyPort,
        comparisons: Sequence[Comparison],
        *,
        admissions: Admissions,
        weighs: bool,
        now: float,
    ) -> None:
        """`weighs`: whether some devices are unproven; else all are evidence."""
        self._models, self._fleet, self._now = models, fleet, now
        self._admissions, self._weighs = admissions, weighs
        self._by_id = {comparison.id: comparison for comparison in comparisons}
        records = {name: models.model(name) for name in sorted({each.model for each in comparisons})}
        self._salts = {name: model.salt for name, model in records.items()}
        self._slice_labels = {name: frozenset(model.settings.slice_labels) for name, model in records.items()}
        self._tested = {each.id: _tested_metrics(each) for each in comparisons}
        self._levels: dict[str, dict[str, float]] = {}
        self._bins: dict[tuple[str, int], int] = {}

    @property
    def ids(self) -> list[str]:
        """Of every comparison."""
        return list(self._by_id)

    def of_model(self, model: str) -> frozenset[str]:
        """The comparisons of a model."""
        return frozenset(each.id for each in self._by_id.values() if each.model == model)

    def get(self, identifier: str | None) -> Comparison | None:
        """One of them; None for one that ended meanwhile, or never was."""
        return self._by_id.get(identifier or "")

    def believes(
        self, comparison: Comparison, device_id: str, *, stage: int, role: Role, places: Iterable[Participation]
    ) -> bool:
        """Whether a device may say that it is in this arm. `places`: those that it has in all comparisons."""
        if comparison.bucket_label is not None:
            own = [place for place in places if place.rollout == comparison.id]
            return comparison.has_arm(stage) and all(
                place.role == role and (role == "control" or place.stage == stage) for place in own
            )
        salt = comparison.salt if comparison.salt is not None else self._salts[comparison.model]
        place = bucket(device_key(self._admissions.cohort_key(device_id)), salt=salt)
        return comparison.holds(place, stage=stage, role=role)

    def is_proven(self, comparison: Comparison, device_id: str) -> bool:
        """Whether what a device tells may move a comparison."""
        return not self._weighs or self._admissions.proves(device_id, began_at=comparison.created_at)

    def slices(self, comparison: Comparison, slices: Mapping[str, str]) -> dict[str, str]:
        """Those of `slices` that the model's settings ask for."""
        labels = self._slice_labels[comparison.model]
        return {label: value for label, value in slices.items() if label in labels}

    def tested_metrics(self, comparison: Comparison) -> frozenset[str]:
        """The metrics whose means a gate tests."""
        return self._tested[comparison.id]

    def levels(self, comparison: Comparison) -> dict[str, float]:
        """The control's level of every compared metric that has one yet."""
        if comparison.id not in self._levels:
            self._levels[comparison.id] = _levels(self._fleet, comparison, now=self._now)
        return self._levels[comparison.id]

    def prediction_bins(self, model: str, serial: int) -> int:
        """How many bins the reference of a version has; 0 without a reference."""
        if (model, serial) not in self._bins:
            reference = reference_of(self._models, model, serial)
            self._bins[model, serial] = len(reference.bin_shares) if reference else 0
        return self._bins[model, serial]


def _tested_metrics(comparison: Comparison) -> frozenset[str]:
    return frozenset().union(*(tested_means(plan) for plan in comparison.guard_plans))


def _levels(fleet: TallyPort, comparison: Comparison, *, now: float) -> dict[str, float]:
    if not comparison.compared_metrics:
        return {}
    window = comparison.window_at(now)
    cells = fleet.cells(comparison.id, before_window=window, from_window=max(0, window - _LEVEL_WINDOWS))
    newest_first: dict[int, list[Cell]] = defaultdict(list)
    for cell in cells:
        if cell.role == "control" and cell.stage == comparison.control_stage:
            newest_first[-cell.window].append(cell)
    sums = {metric: [0.0, 0.0] for metric in comparison.compared_metrics}
    for _, group in sorted(newest_first.items()):
        for metric, n_and_total in sums.items():
            if n_and_total[0] >= LEAST_DEVICES:
                continue
            for cell in group:
                if metric in cell.metrics:
                    n_and_total[0] += cell.metrics[metric].n
                    n_and_total[1] += cell.metrics[metric].sum
                elif metric == ERROR_RATE:
                    n_and_total[0] += cell.error_units
                    n_and_total[1] += cell.error_share
    return {metric: total / n for metric, (n, total) in sums.items() if n >= LEAST_DEVICES}
