"""Stopping: no thread, no descriptor and no lock is left behind, whatever ended an iteration."""

import gc
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
from itertools import chain

import numpy as np
import pytest

from epochal.dataset import Dataset
from epochal.errors import DamageError
from epochal.plan.machine import Machine, Rates
from epochal.planning import Settings
from epochal.testing.stores import ChunkedArrays, SlowSource, SourceStore, TornSource

N = 600
QUIET = "ignore::DeprecationWarning"  # of forks while threads run: Python 3.12 warns
Y = np.arange(N, dtype="<u2")
Y.flags.writeable = False
BUDGETS = {"stream": 60_000, "resident": 100_000, "rescan": 8_000, "spool": 100_000}


def source(chunk_rows=10):
    return ChunkedArrays({"y": (Y, chunk_rows)}).sources["y"]


def made(strategy, wrapped=None, *, function=None, budget_bytes=None, threads=2, scratch=None):
    store = SourceStore({"y": source() if wrapped is None else wrapped})
    ds = Dataset(store, store.sources)
    if function is not None:
        ds = ds.map(function)
    rates = {"y": Rates(decode_bytes_per_s=1e5)}  # slow to decode: it pays to roll
    settings = Settings(
        budget_bytes or BUDGETS[strategy],
        threads,
        scratch,
        (strategy,),
        Machine(threads=threads, rates=rates, scratch_free_bytes=1 << 40),
    )
    scheme = "sequential" if strategy == "stream" else "shuffled_sequential"
    return ds._batches(dict(ds._sources), settings, scheme, mix_bytes=100, batch_size=8, seed=5)


def pool_threads():
    """Threads of pools that are still there a moment later: a closed pool's end by themselves."""
    left = [t for t in threading.enumerate() if t.name.startswith("epochal")]
    for thread in left:
        thread.join(2)
    return [t for t in left if t.is_alive()]


def descriptors():
    """Open files that have no name any more: scratch is."""
    links = {(fd, _link(fd)) for fd in os.listdir("/proc/self/fd")}
    return {(fd, link) for fd, link in links if "(deleted)" in link}


def _link(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:  # the descriptor by which the folder was listed
        return ""


@pytest.fixture(autouse=True)
def nothing_is_left():
    gc.collect()
    before = descriptors()
    yield
    assert pool_threads() == []
    assert descriptors() == before


@pytest.mark.parametrize("strategy", BUDGETS)
def test_an_abandoned_loop_stops_its_threads(strategy):
    batches = made(strategy)
    for epoch in range(3):
        for count, _ in enumerate(batches):
            if count == 3:
                break
        assert pool_threads() == []
        if epoch == 1:
            for _ in batches:
                pass
    batches.close()


@pytest.mark.parametrize("strategy", BUDGETS)
@pytest.mark.parametrize("served", [0, 1, 40, 75])
def test_closing_stops_threads_and_frees_scratch(strategy, served):
    """Also while an iterator is alive, and between epochs, when the next one is prepared."""
    before = descriptors()
    batches = made(strategy)
    iterator = iter(batches)
    for _ in range(served):
        next(iterator)
    if served == 75:
        assert next(iterator, None) is None
    batches.close()
    assert pool_threads() == []
    assert descriptors() == before
    assert len(list(batches)) == 75  # a closed Batches may be iterated again
    batches.close()


def test_spools_use_scratch_that_has_no_name(tmp_path):
    before = descriptors()
    batches = made("spool", scratch=tmp_path)
    next(iter(batches))
    iterator = iter(batches)
    next(iterator)
    new = {link for _, link in descriptors() - before}
    assert len(new) >= 1
    assert all(link.startswith(str(tmp_path)) for link in new)
    assert list(tmp_path.iterdir()) == []
    del iterator
    batches.close()


@pytest.mark.parametrize("strategy", BUDGETS)
def test_the_last_reference_takes_everything_with_it(strategy):
    """Without waiting for the garbage collector."""
    before = descriptors()
    gc.disable()
    try:
        batches = made(strategy)
        for _ in batches:
            pass
        iterator = iter(batches)
        next(iterator)
        del iterator, batches
        for thread in pool_threads():
            thread.join(10)
        assert pool_threads() == []
        assert descriptors() == before
    finally:
        gc.enable()
        gc.collect()


@pytest.mark.parametrize("lost", ["both", "the iterator alone"])
def test_garbage_is_collected_on_any_thread(lost):
    """The collector runs wherever it likes: on a pool thread too, which must not await itself."""
    slow, dropped, collected = threading.Event(), threading.Event(), threading.Event()

    def function(batch):
        if batch.y[0] and not slow.is_set():
            slow.set()
            assert dropped.wait(10)
            gc.collect()
            collected.set()
        return batch

    rows = np.arange(400, dtype="<u4").repeat(20_000).reshape(400, 20_000)
    store = ChunkedArrays({"y": (rows, 10)})
    ds = Dataset(store, store.sources).map(lambda batch: function(_FirstColumn(batch)))
    gc.disable()  # but for the one call above
    try:
        batches = ds.batches("sequential", 100, memory="256MiB", threads=1, scratch=False)
        assert batches.plan.batch_group == 1  # the first batch does not wait for the second
        iterator = iter(batches)
        next(iterator)
        assert slow.wait(10)
        cycle = [iterator]
        cycle.append(cycle)  # so that only the collector can free it
        if lost == "both":
            cycle.append(batches)
            del batches
        del iterator, cycle
        dropped.set()
        assert collected.wait(10)
        for thread in pool_threads() if lost == "both" else ():
            thread.join(10)
    finally:
        gc.enable()
    if lost != "both":
        assert len(list(batches)) == 4
        batches.close()


class _FirstColumn:
    def __init__(self, batch):
        self.y = batch.y[:, 0]


def test_an_iteration_in_a_cycle_is_collected_while_another_starts_threads():
    """In a process of its own, for what goes wrong here is a hang."""
    script = """
        import gc, threading
        import numpy as np, epochal

        gc.set_threshold(10, 2, 2)
        ds = epochal.from_arrays(y=np.arange(500))
        for round in range(150):
            batches = ds.batches("shuffled_sequential", 5, seed=1, memory="8MiB", threads=3)
            iterator = iter(batches)
            next(iterator)
            batches.itself = [batches, iterator]
            del batches, iterator
        gc.collect()
        print("done")
    """
    child = run(script, timeout=60)
    assert (child.stdout, child.stderr) == ("done\n", "")


def run(script, *arguments, timeout=60):
    return subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            "-c",
            textwrap.dedent(script),
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


# Errors on the way ----------------------------------------------------------------


def listed(batches, seen):
    """Run an epoch, noting each batch as it comes."""
    for batch in batches:
        seen.append(batch.y.tolist())
    return seen


@pytest.mark.parametrize("strategy", BUDGETS)
@pytest.mark.parametrize("threads", [1, 3])
def test_a_torn_chunk_surfaces_and_nothing_hangs(strategy, threads):
    batches = made(strategy, TornSource(source(), 30), threads=threads, budget_bytes=130_000)
    for _ in range(2):
        with pytest.raises(DamageError, match=r"chunk 30 \(rows 300 to 310\) does not decode"):
            listed(batches, [])
        assert pool_threads() == []
        assert batches.epoch == 0
    batches.close()


def test_batches_before_a_torn_chunk_come_in_order():
    batches = made("stream", TornSource(source(), 30))
    seen = []
    with pytest.raises(DamageError, match="chunk 30"):
        listed(batches, seen)
    rows = list(chain(*seen))
    assert rows == list(range(len(rows)))
    assert len(rows) <= 300
    batches.close()


@pytest.mark.parametrize("strategy", BUDGETS)
@pytest.mark.parametrize("at", [0, 1, 17, 74])
def test_a_function_that_raises_surfaces_at_its_own_batch(strategy, at):
    whole = made(strategy)
    expected = listed(whole, [])
    whole.close()

    def function(batch):
        if batch.y.tolist() == expected[at]:
            raise ZeroDivisionError("by the user")
        return batch

    batches = made(strategy, function=function)
    for _ in range(2):
        seen = []
        with pytest.raises(ZeroDivisionError, match="by the user"):
            listed(batches, seen)
        assert seen == expected[:at]
        assert pool_threads() == []
    batches.close()


def test_what_a_function_raises_keeps_its_trace():
    def function(batch):
        return batch.nothing_of_that_name

    batches = made("resident", function=function)
    with pytest.raises(AttributeError, match="nothing_of_that_name") as caught:
        next(iter(batches))
    assert any(entry.name == "function" for entry in caught.traceback)
    batches.close()


def test_a_stopped_load_stops_at_its_chunk():
    """An error ends the reading of the other threads too: they do not go on to the file's end."""
    reads = []

    class Noted(SlowSource):
        def read(self, start, stop, out):
            reads.append(start)
            super().read(start, stop, out)
            if len(reads) > 3:
                raise DamageError("enough")

    plain = ChunkedArrays({"y": (np.arange(6000, dtype="<u2"), 100)}).sources["y"]
    batches = made("resident", Noted(plain, 0.01), budget_bytes=80_000)
    with pytest.raises(DamageError, match="enough"):
        next(iter(batches))
    assert len(reads) <= 8
    batches.close()


def test_an_interrupt_stops_at_once():
    """SIGINT while rows are loaded: KeyboardInterrupt after the reads in hand, not after all."""
    script = """
        import os, signal, sys, threading, time
        import numpy as np
        from epochal.planning import Settings
        from epochal.dataset import Dataset
        from epochal.plan.machine import Machine
        from epochal.testing.stores import ChunkedArrays, SlowSource, SourceStore

        reads = []

        class Noted(SlowSource):
            def read(self, start, stop, out):
                reads.append(start)
                if len(reads) == 3:
                    os.kill(os.getpid(), signal.SIGINT)
                super().read(start, stop, out)

        plain = ChunkedArrays({"y": (np.arange(60_000, dtype="<u2"), 100)}).sources["y"]
        store = SourceStore({"y": Noted(plain, 0.1)})
        ds = Dataset(store, store.sources)
        settings = Settings(800_000, 2, None, (sys.argv[1],), Machine(scratch_free_bytes=1 << 40))
        batches = ds._batches(
            dict(ds._sources), settings, sys.argv[2], mix_bytes=1, batch_size=100, seed=1
        )
        try:
            for _ in batches:
                pass
        except KeyboardInterrupt:
            left = [t for t in threading.enumerate() if "epochal" in t.name]
            for thread in left:
                thread.join(2)
            left = [t.name for t in left if t.is_alive()]
            print("stopped", left, len(reads) <= 8 or reads)
    """
    for strategy, scheme in (("resident", "shuffled_sequential"), ("stream", "sequential")):
        child = run(script, strategy, scheme)
        assert child.stdout == "stopped [] True\n", (strategy, child.stderr)


@pytest.mark.parametrize("strategy", BUDGETS)
def test_closing_from_another_thread_ends_the_iteration(strategy):
    """In a process of its own, for what goes wrong here is a hang."""
    script = """
        import sys, threading
        import numpy as np
        from epochal.planning import Settings
        from epochal.dataset import Dataset
        from epochal.errors import EpochalError
        from epochal.plan.machine import Machine
        from epochal.testing.stores import ChunkedArrays, SlowSource, SourceStore

        strategy, scheme = sys.argv[1:]
        reading = threading.Semaphore(0)

        class Noted(SlowSource):
            def read(self, start, stop, out):
                reading.release()
                super().read(start, stop, out)

        plain = ChunkedArrays({"y": (np.arange(6000, dtype="<u2"), 10)}).sources["y"]
        store = SourceStore({"y": Noted(plain, 0.05)})
        ds = Dataset(store, store.sources)
        machine = Machine(threads=2, scratch_free_bytes=1 << 40)
        settings = Settings(300_000, 2, None, (strategy,), machine)
        batches = ds._batches(
            dict(ds._sources), settings, scheme, mix_bytes=1, batch_size=100, seed=1
        )

        def close():
            for _ in range(2):
                reading.acquire()
            batches.close()

        threading.Thread(target=close, daemon=True).start()  # one read may be all there is
        rows, right = np.arange(6000), True
        order = batches.scheme
        try:
            for number, batch in enumerate(batches):  # what comes before the end is right
                right &= bool((batch.y == rows[order.batch(number)]).all())
        except EpochalError:
            pass
        print(right)
    """
    scheme = "sequential" if strategy == "stream" else "shuffled_sequential"
    try:
        child = run(script, strategy, scheme, timeout=20)
    except subprocess.TimeoutExpired:
        pytest.fail("it hangs")
    assert (child.stdout, child.stderr) == ("True\n", "")


def test_a_killed_process_leaves_no_scratch(tmp_path):
    script = """
        import sys, time
        import numpy as np
        from epochal.planning import Settings
        from epochal.dataset import Dataset
        from epochal.plan.machine import Machine
        from epochal.testing.stores import ChunkedArrays

        store = ChunkedArrays({"y": (np.arange(60_000, dtype="<u2"), 100)})
        ds = Dataset(store, store.sources)
        machine = Machine(threads=2, scratch_free_bytes=1 << 40)
        settings = Settings(1 << 20, 2, sys.argv[1], ("spool",), machine)
        batches = ds._batches(
            dict(ds._sources), settings, "shuffled_sequential", mix_bytes=1, batch_size=10, seed=1
        )
        next(iter(batches))
        iterator = iter(batches)
        next(iterator)
        print(batches.stats.bytes_spilled, flush=True)
        time.sleep(60)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert int(child.stdout.readline()) > 0
        child.send_signal(signal.SIGKILL)
    assert list(tmp_path.iterdir()) == []


# Forks ----------------------------------------------------------------

FORK = """
    import os, signal, sys
    import numpy as np
    from epochal.planning import Settings
    from epochal.dataset import Dataset
    from epochal.plan.machine import Machine
    from epochal.testing.stores import ChunkedArrays

    # Batches of 48 KB, so that they are made as they are asked for and not all at once.
    rows = np.repeat(np.arange(600, dtype="<u4"), 1500).reshape(600, 1500)
    store = ChunkedArrays({"y": (rows, 10)})
    ds = Dataset(store, store.sources).map(lambda batch: batch._replace(y=batch.y[:, 0]))
    strategy, when = sys.argv[1:]
    scheme = "sequential" if strategy == "stream" else "shuffled_sequential"
    settings = Settings(
        6 << 20, 2, None, (strategy,), Machine(threads=2, scratch_free_bytes=1 << 40)
    )
    def made():
        return ds._batches(
            dict(ds._sources), settings, scheme, mix_bytes=100, batch_size=8, seed=5
        )
    epochs = []
    whole = made()
    for _ in range(3):
        epochs.append([batch.y.tolist() for batch in whole])
    whole.close()
    batches = made()
    iterator = iter(batches)
    if when == "between epochs":
        list(iterator)
        expected = epochs[1:]
    else:
        for _ in range(20):
            next(iterator)
        expected = epochs[:2]
    pid = os.fork()
    if not pid:
        signal.alarm(5)  # a child that hangs is killed
        if when == "the same iterator":
            try:
                rest = [batch.y.tolist() for batch in iterator]
                assert rest == epochs[0][20:]
            except Exception as error:
                assert "process" in str(error), error
        else:
            assert [[b.y.tolist() for b in batches] for _ in range(2)] == expected
        os._exit(7)
    status = os.waitpid(pid, 0)[1]
    if when == "between epochs":
        assert [[b.y.tolist() for b in batches] for _ in range(2)] == expected
    else:
        assert [b.y.tolist() for b in iterator] == epochs[0][20:]
        assert [b.y.tolist() for b in batches] == epochs[1]
    batches.close()
    print(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.parametrize("strategy", BUDGETS)
@pytest.mark.parametrize("when", ["between epochs", "in an epoch", "the same iterator"])
def test_rows_are_the_same_on_both_sides_of_a_fork(strategy, when):
    child = run(FORK, strategy, when)
    assert (child.stdout, child.stderr) == ("7\n", "")


def test_a_pickle_holds_no_thread_and_no_scratch():
    batches = made("spool")
    iterator = iter(batches)
    next(iterator)
    data = pickle.dumps(batches)
    assert len(data) < len(Y) * 2 + 5000
    del iterator
    batches.close()
