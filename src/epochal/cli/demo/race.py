"""One classifier, trained in several orders of the same rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.batches import Batches
from epochal.cli.measure import run_epochs
from epochal.dataset import Dataset
from epochal.errors import EpochalError

__all__ = ["ORDERS", "Race", "Result"]

ORDERS = ("sequential", "batchwise_shuffled_sequential", "shuffled_sequential")
MOST_CLASSES = 1000
SAMPLE_ROWS, SAMPLE_PLACES = 1024, 32


@dataclass(frozen=True)
class Result:
    """What one order came to."""

    order: str
    accuracy: tuple[float, ...]
    rows_per_second: float
    later_rows_per_second: float
    peak_bytes: int | None
    strategy: str


class Race:
    """The same rows, classifier and budget for every order.

    Parameters
    ----------
    train, test
        Where rows to learn from and rows to be tested on come from; no row is in both.
    train_sources, test_sources
        Names of the inputs and of the labels in each.
    batch_size, memory_bytes, n_epochs
        What every order gets.
    """

    def __init__(
        self,
        train: Dataset,
        test: Dataset,
        train_sources: Sequence[str],
        test_sources: Sequence[str],
        *,
        batch_size: int,
        memory_bytes: int,
        n_epochs: int,
    ) -> None:
        self.train, self.train_sources = train, tuple(train_sources)
        self.test, self.test_sources = test, tuple(test_sources)
        self.batch_size, self.memory_bytes, self.n_epochs = batch_size, memory_bytes, n_epochs
        self.classes = self._find_classes()
        self.features = self._fit_features()

    def batches(self, order: str) -> Batches:
        """The training rows in one order."""
        return self.train.batches(
            order,
            batch_size=self.batch_size,
            sources=self.train_sources,
            seed=0,
            memory=self.memory_bytes,
        )

    def run(self, order: str, progress: Callable[[int], None]) -> Result:
        """Load in one order, twice, with nothing else to do; then train in it, and test after every
        epoch.

        Loading is measured alone because a classifier's own work and memory would hide it.
        `progress` is told of rows.
        """
        first, later = run_epochs(lambda: self.batches(order), n_epochs=2)
        progress(first.n_rows + later.n_rows)
        model, accuracy = _classifier(), []
        batches = self.batches(order)
        try:
            for _ in range(self.n_epochs):
                for inputs, labels in batches:
                    model.partial_fit(self.features(inputs), labels.ravel(), classes=self.classes)
                    progress(len(labels))
                accuracy.append(self._accuracy(model))
            strategy = batches.stats.strategy
        finally:
            batches.close()
        peaks = [epoch.peak_bytes for epoch in (first, later) if epoch.peak_bytes is not None]
        return Result(
            order,
            tuple(accuracy),
            first.rows_per_second,
            later.rows_per_second,
            max(peaks, default=None),
            strategy,
        )

    def _accuracy(self, model: Any) -> float:
        right = total = 0
        for inputs, labels in self._test_batches():
            right += int(np.count_nonzero(model.predict(self.features(inputs)) == labels.ravel()))
            total += len(labels)
        return right / max(total, 1)

    def _test_batches(self) -> Batches:
        return self.test.batches(
            batch_size=self.batch_size, sources=self.test_sources, memory=self.memory_bytes
        )

    def _find_classes(self) -> NDArray[Any]:
        """Every label there is, from one pass over the labels alone."""
        name = self.train_sources[1]
        view = self.train.sources[name]
        if view.dtype.kind not in "iubSU" or int(np.prod(view.shape[1:])) != 1:
            raise EpochalError(
                f"source {name!r} cannot be the target: it is {view.dtype} of shape "
                f"{view.shape}, and a classifier needs one integer a row; "
                "name another with --target"
            )
        classes: NDArray[Any] = np.empty(0, view.dtype)
        for dataset, source in ((self.train, name), (self.test, self.test_sources[1])):
            for (labels,) in dataset.batches(
                batch_size=8192, sources=(source,), memory=self.memory_bytes
            ):
                classes = np.union1d(classes, labels)
                if len(classes) > MOST_CLASSES:
                    raise EpochalError(
                        f"source {name!r} cannot be the target: it has more than {MOST_CLASSES} "
                        "different values; name another with --target"
                    )
        if len(classes) < 2:
            raise EpochalError(
                f"source {name!r} cannot be the target: it has {len(classes)} different value"
            )
        return classes

    def _fit_features(self) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
        """Rows flattened to float32 and brought to zero mean and unit deviation, by those of a
        sample of rows.
        """
        name = self.train_sources[0]
        view = self.train.sources[name]
        if view.dtype.kind not in "iufb":
            raise EpochalError(
                f"source {name!r} cannot be the input: it is {view.dtype}, and a classifier "
                "needs numbers; name another with --source"
            )
        length = min(SAMPLE_ROWS // SAMPLE_PLACES, len(self.train))
        starts = np.random.default_rng(0).integers(0, len(self.train) - length + 1, SAMPLE_PLACES)
        sample = np.stack([view[start : start + length] for start in starts.tolist()])
        mean, deviation = np.float32(sample.mean()), np.float32(sample.std() or 1)

        def features(inputs: NDArray[Any]) -> NDArray[np.float32]:
            return (inputs.reshape(len(inputs), -1).astype(np.float32) - mean) / deviation

        return features


def _classifier() -> Any:
    try:
        from sklearn.neural_network import MLPClassifier
    except ImportError as error:
        raise EpochalError(
            "epochal demo needs scikit-learn, for its classifier: pip install 'epochal[demo]'"
        ) from error
    return MLPClassifier((64,), random_state=0)
