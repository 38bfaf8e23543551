"""Scratch that is full, missing or not writable: the epoch goes on by another way, with the very
rows that were left.
"""

import subprocess
import sys
import textwrap
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import epochal
from epochal.dataset import Dataset
from epochal.errors import BudgetError, EpochalError, ScratchError
from epochal.execute import scratch
from epochal.execute.scratch import ScratchFile, scratch_folder
from epochal.plan.machine import Machine, Rates
from epochal.planning import Settings
from epochal.testing.stores import ChunkedArrays

N = 900
BOTH = ("spool", "rescan")
X = np.arange(N * 5, dtype="<u2").reshape(N, 5)
Y = np.arange(N, dtype="<u2")


def made(budget_bytes, strategies=BOTH, *, order="shuffled_sequential", folder=None, **more):
    store = ChunkedArrays({"X": (X, 20), "y": (Y, 50)})
    ds = Dataset(store, store.sources)
    slow = Rates(decode_bytes_per_s=1e5)  # it pays to deal rows again, not to decode them again
    machine = Machine(threads=2, rates={"X": slow, "y": slow}, scratch_free_bytes=1 << 40)
    made_settings = Settings(budget_bytes, 2, folder, strategies, machine)
    more = {"batch_size": 30, "seed": 1, **more}
    return ds._batches(dict(ds._sources), made_settings, order, mix_bytes=100, **more)


def kind(plan):
    """What the spool of a plan does with its piles."""
    feed = plan.feeds[0]
    if feed.kind != "spool":
        return feed.kind
    kept = "all" if feed.piles_kept == feed.n_piles else "some" if feed.piles_kept else "none"
    return f"{kept} kept, by {'position' if feed.by_position else 'key'}"


def budgets():
    """A budget for each kind of spool that there is."""
    found = {}
    for budget_bytes in range(40_000, 400_000, 3_000):
        try:
            plan = made(budget_bytes, ("spool",)).plan
        except BudgetError:
            continue
        if plan.feeds[0].roll:
            found.setdefault(kind(plan), budget_bytes)
    return found


SPOOLS = budgets()


def test_there_are_spools_of_every_kind():
    assert {"some kept, by position", "all kept, by position"} < set(SPOOLS)
    assert {"none kept, by key", "some kept, by key"} & set(SPOOLS)


def epochs(batches, n_epochs):
    return [[(b.X.tobytes(), b.y.tobytes()) for b in batches] for _ in range(n_epochs)]


@pytest.fixture(scope="module")
def expected():
    return epochs(made(1 << 20, ("resident",)), 5)


class Full:
    """Scratch takes so many bytes, then refuses so many writes: others may free space again."""

    def __init__(self, monkeypatch, room, refusals=1 << 30):
        self.room = room
        self.failed = 0
        append = ScratchFile.append

        def limited(file, buffers):
            n_bytes = sum(buffer.nbytes for buffer in buffers)
            if n_bytes > self.room and self.failed < refusals:
                self.failed += 1
                raise ScratchError("scratch is full: said by the test")
            self.room -= n_bytes
            return append(file, buffers)

        monkeypatch.setattr(ScratchFile, "append", limited)


@pytest.mark.parametrize("budget", SPOOLS, ids=str)
def test_wherever_scratch_gives_out_the_rows_are_right(budget, expected):
    """While the file is dealt, while piles are dealt again, while the next epoch's are."""
    seen = Counter()

    @settings(max_examples=40, deadline=None)
    @given(st.floats(0, 5.5), st.sampled_from([1, 2, 5, 1 << 30]))
    def law(times, refusals):
        with pytest.MonkeyPatch.context() as monkeypatch:
            batches = made(SPOOLS[budget])
            one_epoch = max(batches.plan.predicted.spilled_bytes, 1)
            full = Full(monkeypatch, int(times * one_epoch), refusals)
            for epoch in range(5):
                assert epochs(batches, 1) == expected[epoch : epoch + 1]
                seen[batches.stats.strategy] += 1
            batches.close()
            if "all" not in budget and times < 4:
                assert full.failed

    law()
    if "all" not in budget:
        assert seen["rescan"]
        assert seen["spool"]


@pytest.mark.parametrize("budget", [b for b in SPOOLS if "all" not in b], ids=str)
@pytest.mark.parametrize("times", [1.5, 2.5])
@pytest.mark.parametrize("refusals", [1, 1 << 30])
def test_abandoned_after_scratch_gave_out(monkeypatch, budget, times, refusals, expected):
    """An epoch that is started again has all its rows, though its spool could not roll."""
    batches = made(SPOOLS[budget])
    Full(monkeypatch, int(times * batches.plan.predicted.spilled_bytes), refusals)
    for epoch in range(4):
        for stop in (5, 20, 29):
            for count, _ in enumerate(batches, start=1):
                if count == stop:
                    break
        assert epochs(batches, 1) == expected[epoch : epoch + 1]
    batches.close()


def test_a_state_saved_after_scratch_gave_out(monkeypatch, expected):
    batches = made(SPOOLS["some kept, by position"])
    Full(monkeypatch, 0)
    iterator = iter(batches)
    for _ in range(7):
        next(iterator)
    fresh = made(1 << 20)
    fresh.load_state_dict(batches.state_dict())
    assert epochs(fresh, 1)[0] == expected[0][7:]
    fresh.close()
    batches.close()


def test_scratch_that_cannot_be_read_back(monkeypatch, expected):
    """The rows that are lost are decoded again."""
    read, left = ScratchFile.read, [40]

    def failing(file, buffer, at):
        left[0] -= 1
        if left[0] < 0:
            raise ScratchError("scratch cannot be read: said by the test")
        read(file, buffer, at)

    monkeypatch.setattr(ScratchFile, "read", failing)
    batches = made(SPOOLS["some kept, by position"])
    assert epochs(batches, 5) == expected
    assert left[0] < 0
    batches.close()


def test_nothing_else_to_turn_to(monkeypatch):
    batches = made(SPOOLS["some kept, by position"], ("spool",))
    Full(monkeypatch, 1000)
    with pytest.raises(EpochalError, match="scratch"):
        next(iter(batches))
    batches.close()


# Folders ----------------------------------------------------------------


WIDE = np.random.default_rng(0).integers(0, 256, (N, 200), np.uint8)


@pytest.fixture
def ds():
    """Rows that a hundred thousand bytes do not hold all at once."""
    store = ChunkedArrays({"X": (WIDE, 20), "y": (Y, 50)})
    return Dataset(store, store.sources)


def assert_right(batches):
    assert batches.plan.strategy == "rescan"
    whole = epochal.from_arrays(X=WIDE, y=Y)
    oracle = whole.batches("shuffled_sequential", 30, seed=1, scratch=False)
    assert epochs(batches, 2) == epochs(oracle, 2)
    batches.close()


@pytest.mark.parametrize("folder", ["missing", "file"])
def test_a_folder_that_takes_no_scratch(ds, tmp_path, folder):
    (tmp_path / "file").write_text("a file, no folder")
    batches = ds.batches(
        "shuffled_sequential", 30, seed=1, memory="100KiB", threads=2, scratch=tmp_path / folder
    )
    why = {c.strategy: c.why_not for c in batches.plan.candidates}["spool"]
    assert why.startswith(f"scratch in '{tmp_path / folder}' cannot be written: ")
    assert_right(batches)


def test_a_folder_that_went_missing_after_planning(tmp_path, expected):
    folder = tmp_path / "scratch"
    folder.mkdir()
    batches = made(SPOOLS["some kept, by position"], folder=folder)
    assert batches.plan.strategy == "spool"
    folder.rmdir()
    assert epochs(batches, 3) == expected[:3]
    assert batches.stats.strategy == "rescan"
    batches.close()


def test_no_scratch_wanted(ds, monkeypatch):
    def refused(folder):
        raise AssertionError("scratch was opened")

    monkeypatch.setattr(scratch, "open_scratch", refused)
    batches = ds.batches(
        "shuffled_sequential", 30, seed=1, memory="100KiB", threads=2, scratch=False
    )
    why = {c.strategy: c.why_not for c in batches.plan.candidates}["spool"]
    assert why == "no scratch is allowed"
    assert_right(batches)


def test_where_scratch_goes(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "b"))
    monkeypatch.setenv("EPOCHAL_SCRATCH", str(tmp_path / "a"))
    assert scratch_folder(tmp_path) == tmp_path
    assert scratch_folder(None) == tmp_path / "a"
    monkeypatch.delenv("EPOCHAL_SCRATCH")
    assert scratch_folder(None) == tmp_path / "b"
    monkeypatch.delenv("TMPDIR")
    assert scratch_folder(None).is_dir()


# The file itself ----------------------------------------------------------------


def test_what_was_appended_is_read_back(tmp_path):
    file = ScratchFile(tmp_path)
    blocks = [
        np.random.default_rng(k).integers(0, 256, n, np.uint8) for k, n in enumerate((5, 0, 70_000))
    ]
    at = [file.append([block, block[:3]]) for block in blocks]
    assert at == [0, 8, 8]
    for block, start in zip(blocks, at, strict=True):
        got = np.empty_like(block)
        file.read(got, start)
        assert got.tobytes() == block.tobytes()
    file.restart()
    assert file.append([np.ones(4, np.uint8)]) == 0
    got = np.empty(5, np.uint8)
    file.read(got, 0)
    assert got.tolist() == [1, 1, 1, 1, blocks[0][4]]
    assert list(tmp_path.iterdir()) == []
    file.close()
    file.close()


def test_a_file_that_was_cut_short(tmp_path):
    file = ScratchFile(tmp_path)
    file.append([np.ones(4, np.uint8)])
    with pytest.raises(ScratchError, match=r"ends at 4 B: it was cut short"):
        file.read(np.empty(5, np.uint8), 0)
    file.close()
    with pytest.raises(ScratchError, match="cannot be"):
        file.append([np.ones(4, np.uint8)])


def test_a_system_without_nameless_files(tmp_path, monkeypatch):
    opened = scratch.os.open

    def refusing(path, flags, *mode, **more):
        if flags & scratch.os.O_TMPFILE == scratch.os.O_TMPFILE:
            raise OSError(95, "Operation not supported")
        return opened(path, flags, *mode, **more)

    monkeypatch.setattr(scratch.os, "open", refusing)
    file = ScratchFile(tmp_path)
    assert file.append([np.ones(4, np.uint8)]) == 0
    assert list(tmp_path.iterdir()) == []
    file.close()


def test_a_limit_of_the_system():
    """A real full file: the kernel refuses to let it grow."""
    script = """
        import resource
        import numpy as np
        from epochal.planning import Settings
        from epochal.dataset import Dataset
        from epochal.errors import ScratchError
        from epochal.execute.scratch import ScratchFile, scratch_folder
        from epochal.plan.machine import Machine, Rates
        from epochal.testing.stores import ChunkedArrays

        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        try:
            ScratchFile(scratch_folder(None)).append([np.zeros(1_000_000, np.uint8)])
        except ScratchError as error:
            print(error)

        rows = np.arange(60_000, dtype="<u4")
        store = ChunkedArrays({"y": (rows, 100)})
        ds = Dataset(store, store.sources)
        slow = {"y": Rates(decode_bytes_per_s=1e6)}
        machine = Machine(threads=2, rates=slow, scratch_free_bytes=1 << 40)
        settings = Settings(1 << 20, 2, None, ("spool", "rescan"), machine)
        batches = ds._batches(
            dict(ds._sources), settings, "shuffled_sequential", mix_bytes=1, batch_size=500, seed=1
        )
        assert batches.plan.strategy == "spool"
        assert batches.plan.predicted.spilled_bytes > 300_000
        for _ in range(2):
            seen = np.concatenate([batch.y for batch in batches])
            assert batches.stats.strategy == "rescan"
            print(len(seen), np.array_equal(np.sort(seen), rows))
    """
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert child.stderr == ""
    lines = child.stdout.splitlines()
    assert "is full after" in lines[0]
    assert lines[1:] == ["60000 True"] * 2


def test_sampled_rows_go_by_spool_too(expected):
    """Rows drawn again and again are dealt as often; nothing is rolled."""
    store = ChunkedArrays({"X": (X, 20), "y": (Y, 50)})
    oracle = epochal.from_arrays(X=X, y=Y)
    for name in ("random_uniform", "random_slice"):
        order = {"batch_size": 30, "num_batches": 60, "seed": 4}
        machine = Machine(threads=2, scratch_free_bytes=1 << 40)
        ds = Dataset(store, store.sources)
        batches = ds._batches(
            dict(ds._sources),
            Settings(120_000, 2, None, ("spool",), machine),
            name,
            mix_bytes=1,
            **order,
        )
        assert epochs(batches, 2) == epochs(oracle.batches(name, **order), 2)
        batches.close()
