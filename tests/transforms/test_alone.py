"""BLAS has its threads back whoever leaves last."""

import threading

import numpy as np

import epochal
from epochal.transforms import ZCA, alone
from epochal.transforms.alone import one_blas_thread


def blas_threads():
    libraries = alone._controller().info()  # those that multiply here; others may be loaded later
    return {each["num_threads"] for each in libraries if each["user_api"] == "blas"}


def test_the_last_that_leaves_gives_them_back():
    before = blas_threads()
    entered, leave = threading.Barrier(3), threading.Barrier(3)

    def hold():
        with one_blas_thread():
            entered.wait()
            leave.wait()

    others = [threading.Thread(target=hold) for _ in range(2)]
    for each in others:
        each.start()
    entered.wait()
    with one_blas_thread():
        assert blas_threads() == {1}
    assert blas_threads() == {1}
    leave.wait()
    for each in others:
        each.join()
    assert blas_threads() == before


def test_batches_and_errors_leave_it_as_it_was():
    before = blas_threads()
    x = np.random.default_rng(0).normal(size=(300, 8)).astype("f4")
    ds = epochal.from_arrays(X=x).transform(ZCA().fit(x))
    for _ in ds.batches("shuffled_sequential", 20, seed=0):
        pass
    x[200] = np.nan
    broken = epochal.from_arrays(X=x).transform(ZCA(nan="ignore").set_params(nan="ignore").fit(x))
    assert np.isnan(broken["X"][200]).all()
    assert blas_threads() == before
