"""Whiten images that do not fit in memory, and train on them in exactly shuffled order.

    python examples/whiten_and_train.py train.h5 --memory 256MiB

The file has images ``X`` and labels ``y``; `make demo` leaves one in ``demo-data``. The pipeline is
fitted in one pass to nine tenths of the rows, and applied as batches are read; the other tenth says
how well it went.
"""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.neural_network import MLPClassifier

import epochal
from epochal.transforms import PCA, GlobalContrastNormalization, Pipeline


def main() -> None:
    words = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    words.add_argument("file")
    words.add_argument("--components", type=int, default=64)
    words.add_argument("--epochs", type=int, default=3)
    words.add_argument("--memory", default="256MiB")
    arguments = words.parse_args()

    with epochal.open(arguments.file, sources=["X", "y"]) as ds:
        train, test = ds.split(0.9, seed=0)
        pipe = Pipeline(
            [
                GlobalContrastNormalization(sqrt_bias=10, use_std=True),
                PCA(arguments.components, whiten=True),
            ]
        )
        pipe.fit(train, source="X", memory=arguments.memory)
        print(f"fitted in {pipe.n_passes_} pass: {pipe[1].explained_variance_ratio.sum():.1%} kept")

        model = MLPClassifier((256,), random_state=0)
        classes = np.unique(train["y"][:])
        batches = train.transform(pipe, "X").batches(
            "shuffled_sequential", 256, seed=0, memory=arguments.memory
        )
        for epoch in range(arguments.epochs):
            for X, y in batches:
                model.partial_fit(X, y, classes=classes)
            right = [
                model.predict(X) == y
                for X, y in test.transform(pipe, "X").batches("sequential", 1024)
            ]
            print(
                f"epoch {epoch}: {np.concatenate(right).mean():.1%} of the held-out rows are right"
            )


if __name__ == "__main__":
    main()
