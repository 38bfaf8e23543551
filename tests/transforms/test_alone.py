"""BLAS has its threads back whoever leaves last; in processes of their own, since it is theirs."""

import subprocess
import sys
import textwrap

import pytest

HEAD = """
    import os, threading
    import numpy as np, scipy.linalg
    from threadpoolctl import ThreadpoolController, threadpool_limits
    import epochal
    from epochal.transforms import ZCA
    from epochal.transforms.alone import one_blas_thread

    every = ThreadpoolController()

    def blas_threads():
        return {each["num_threads"] for each in every.info() if each["user_api"] == "blas"}

    every.limit(limits=2, user_api="blas")  # whatever this machine has
    from threadpoolctl import OpenBLASController
    if hasattr(OpenBLASController, "clear_controlling_thread"):
        OpenBLASController.clear_controlling_thread(force=True)
    assert blas_threads() == {2}
"""
SEVERAL = """
    for _ in range(200):
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
        assert blas_threads() == {2}
"""
BATCHES = """
    x = np.random.default_rng(0).normal(size=(300, 8)).astype("f4")
    ds = epochal.from_arrays(X=x).transform(ZCA().fit(x))
    for _ in ds.batches("shuffled_sequential", 20, seed=0):
        pass
    assert blas_threads() == {2}
    try:
        with one_blas_thread():
            raise ValueError
    except ValueError:
        pass
    assert blas_threads() == {2}
"""
FORKED = """
    with one_blas_thread():
        pid = os.fork()
        if not pid:
            good = blas_threads() == {2}
            with one_blas_thread():
                good = good and blas_threads() == {1}
            os._exit(0 if good and blas_threads() == {2} else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert blas_threads() == {1}
    assert blas_threads() == {2}
"""
OTHERS = """
    with threadpool_limits(limits=1, user_api="blas"):
        with one_blas_thread():
            assert blas_threads() == {1}
        assert blas_threads() == {1}
    assert blas_threads() == {2}
    holding, leave = threading.Event(), threading.Event()

    def hold():
        with threadpool_limits(limits=1, user_api="blas"):
            holding.set()
            leave.wait()

    other = threading.Thread(target=hold)
    other.start()
    holding.wait()
    with one_blas_thread():
        leave.set()
        other.join()
        assert blas_threads() == {2}  # as the other left it: nothing of it is ours
    assert blas_threads() == {2}
"""
LEFT = """
    assert "epochal-blas-limit" not in {each.name for each in threading.enumerate()}
"""
WAYS = {"several": SEVERAL, "batches": BATCHES, "forked": FORKED, "others": OTHERS}


@pytest.mark.parametrize("way", list(WAYS))
def test_it_is_given_back(way):
    parts = (HEAD, WAYS[way], LEFT)
    script = "".join(textwrap.dedent(each) for each in parts)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
