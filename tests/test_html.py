"""What notebooks show: whatever a file says is text, never markup."""

import numpy as np

import epochal
from epochal.transforms import ZCA, Pipeline, Standardize


def test_datasets_and_plans():
    hostile = "<script>alert(1)</script>"
    ds = epochal.from_arrays({hostile: np.zeros((4, 3), "u1"), "y": np.arange(4)})
    shown = ds._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
    assert "<td>4 × 3</td><td>uint8</td>" in shown
    plan = ds.explain("shuffled_sequential", 2, seed=0)
    assert plan._repr_html_().startswith("<pre>")
    assert "shuffled_sequential" in plan._repr_html_()
    assert "<script>" not in plan._repr_html_()


def test_pipelines_show_their_stages():
    shown = Pipeline([Standardize(), ZCA(filter_bias=0.5)])._repr_html_()
    assert "Standardize" in shown
    assert "ZCA" in shown
    assert "filter_bias" in shown
