"""The writer against an array: whatever it is given, in whatever pieces, is what is put."""

from __future__ import annotations

import zlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal.errors import BudgetError, MismatchError, RowError
from epochal.writing.container import Progress
from epochal.writing.spec import SourceSpec, chunk_rows_for
from epochal.writing.writer import Writer


class Kept:
    """A container in memory that notes what was done."""

    def __init__(self, specs, fail_at: int | None = None):
        self.specs = {spec.name: spec for spec in specs}
        self.chunks: dict[tuple[str, int], np.ndarray] = {}
        self.order: list[tuple[str, int]] = []
        self.saved: list[tuple[Progress, bool]] = []
        self.abandoned = False
        self.fail_at = fail_at

    def encoder(self, source):
        return lambda rows: rows.reshape(-1).view(np.uint8).copy()

    def put(self, source, chunk, stored):
        if self.fail_at is not None and len(self.order) == self.fail_at:
            raise OSError(28, "No space left on device")
        self.order.append((source, chunk))
        self.chunks[source, chunk] = stored

    def get(self, source, chunk, out):
        flat = out.reshape(-1).view(np.uint8)
        flat[:] = self.chunks[source, chunk][: len(flat)]

    def save(self, progress, *, final):
        self.saved.append((progress, final))

    def abandon(self):
        self.abandoned = True

    def array(self, name):
        spec = self.specs[name]
        mine = sorted((c, b) for (n, c), b in self.chunks.items() if n == name)
        assert [c for c, _ in mine] == list(range(len(mine)))
        raw = np.concatenate([b for _, b in mine]) if mine else np.empty(0, np.uint8)
        return raw.view(spec.dtype).reshape(-1, *spec.row_shape)


class Ending:
    def __init__(self):
        self.told = []

    def publish(self):
        self.told.append("published")

    def give_up(self, *, keep=False):
        self.told.append("kept" if keep else "given up")


def writer_of(specs, *, rows=None, progress=None, memory_bytes=1 << 20, threads=2, **how):
    container, ending = how.pop("container", None) or Kept(specs), Ending()
    writer = Writer(
        container,
        specs,
        ending,
        rows=rows,
        progress=progress or Progress(),
        memory_bytes=memory_bytes,
        threads=threads,
        **how,
    )
    return writer, container, ending


X = SourceSpec("X", (3,), np.dtype("u1"), 4)
Y = SourceSpec("y", (), np.dtype("i8"), 7)


def rows_from(start, n):
    numbers = np.arange(start, start + n)
    return {"X": (numbers[:, None] * 3 + np.arange(3)).astype("u1"), "y": numbers}


@given(st.lists(st.integers(0, 20), max_size=8), st.booleans())
def test_appends_of_any_size(sizes, declared):
    total = sum(sizes)
    writer, container, ending = writer_of([X, Y], rows=total if declared else None)
    with writer:
        at = 0
        for n in sizes:
            block = rows_from(at, n)
            writer.append(block)
            for each in block.values():
                each[:] = 0  # ours to change: the writer has its copy
            at += n
    due = rows_from(0, total)
    assert container.array("X").tolist() == due["X"].tolist()
    assert container.array("y").tolist() == due["y"].tolist()
    assert ending.told == ["published"]
    progress, final = container.saved[-1]
    assert final
    assert progress.rows == total
    for name in ("X", "y"):
        mine = [b for (n, _), b in sorted(container.chunks.items()) if n == name]
        assert progress.sums[name].tolist() == [zlib.crc32(b) for b in mine]


@settings(max_examples=200)
@given(st.data())
def test_writes_in_any_order_and_twice(data):
    total = data.draw(st.integers(1, 40))
    edges = sorted(data.draw(st.sets(st.integers(1, total), max_size=8)) | {0, total})
    pieces = list(pairwise(edges))
    order = data.draw(st.permutations(pieces))
    again = data.draw(st.lists(st.sampled_from(pieces), max_size=3))
    specs = [X, Y]
    least = sum(s.chunk_bytes for s in specs) + 3 * max(s.chunk_bytes for s in specs)
    declared = data.draw(st.sampled_from([None, total]))
    writer, container, _ = writer_of(specs, rows=declared, memory_bytes=least)
    oracle = rows_from(0, total)
    with writer:
        for k, (a, b) in enumerate([*order, *again]):
            block = rows_from(a, b - a)
            if k >= len(order):
                block = {"X": block["X"] ^ 1, "y": -block["y"]}
            for name in oracle:
                oracle[name][a:b] = block[name]
            writer.write(a, block)
    assert container.array("X").tolist() == oracle["X"].tolist()
    assert container.array("y").tolist() == oracle["y"].tolist()


def test_appends_put_each_chunk_once_and_in_order():
    writer, container, _ = writer_of([X])
    with writer:
        for at in range(0, 40, 5):
            writer.append(X=rows_from(at, 5)["X"])
    assert container.order == [("X", c) for c in range(10)]


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_the_order_of_puts_does_not_depend_on_threads(threads):
    writer, container, _ = writer_of([X, Y], threads=threads)
    with writer:
        writer.append(rows_from(0, 50))
    other, twin, _ = writer_of([X, Y], threads=3)
    with other:
        other.append(rows_from(0, 50))
    assert container.order == twin.order


def test_goes_on_where_another_stopped():
    specs = [X, Y]
    first, container, _ = writer_of(specs)
    first.append(rows_from(0, 10))
    first.checkpoint()
    progress = container.saved[-1][0]
    assert progress.rows == 10
    second, _, ending = writer_of(specs, progress=progress, container=container)
    with second:
        assert second.rows == 10
        second.append(rows_from(10, 9))
    assert container.array("X").tolist() == rows_from(0, 19)["X"].tolist()
    assert container.array("y").tolist() == list(range(19))
    assert ending.told == ["published"]
    sums = container.saved[-1][0].sums
    assert sums["y"].tolist() == [zlib.crc32(container.chunks["y", c]) for c in range(3)]


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"X": np.zeros((2, 3), "u1")}, "sources are X, y; given were no rows of y"),
        (
            {"X": np.zeros((2, 3), "u1"), "y": [1, 2], "z": [1, 2]},
            "given were rows of z, which is no source of it",
        ),
        ({"X": np.zeros((2, 4), "u1"), "y": [1, 2]}, r"'X' takes rows of shape \(3,\).*\(2, 4\)"),
        ({"X": np.zeros(3, "u1"), "y": [1]}, r"found an array of shape \(3,\)"),
        ({"X": np.full((2, 3), 300), "y": [1, 2]}, "uint8, which cannot hold int64 without loss"),
        ({"X": np.full((2, 3), 0.5), "y": [1, 2]}, "cannot hold float64 without loss"),
        ({"X": np.zeros((2, 3), "u1"), "y": [1.0, 2.0]}, "int64, which cannot hold float64"),
        ({"X": np.zeros((2, 3), "u1"), "y": [1]}, "equally many rows: X has 2, y has 1"),
        (
            {"X": np.zeros((2, 3), "u1"), "y": np.array([1, 2**63], "u8")},
            "int64, which cannot hold",
        ),
        ({"X": [[1, 2, 3], [1, 2]], "y": [1, 2]}, "source 'X'.*inhomogeneous"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(given, match):
    writer, container, _ = writer_of([X, Y])
    writer.append(rows_from(0, 3))
    with pytest.raises(MismatchError, match=match):
        writer.append(given)
    writer.append(rows_from(3, 2))  # it goes on
    writer.commit()
    assert container.array("y").tolist() == list(range(5))


def test_whole_numbers_that_fit_are_taken():
    # Python's ints come as int64.
    writer, container, _ = writer_of([X])
    with writer:
        writer.append(X=[[1, 2, 255]])
    assert container.array("X").tolist() == [[1, 2, 255]]


def test_whole_numbers_that_a_float_cannot_hold():
    # NumPy calls the cast of any int64 to float64 safe.
    writer, container, _ = writer_of([SourceSpec("z", (), np.dtype("f8"), 4)])
    with writer:
        writer.append(z=np.array([2**53, -1]))
        with pytest.raises(MismatchError, match="float64, which cannot hold int64 without loss"):
            writer.append(z=np.array([2**53 + 1]))
    assert container.array("z").tolist() == [2**53, -1]


def test_rows_that_were_never_written():
    writer, container, ending = writer_of([X], rows=10)
    writer.write(0, X=rows_from(0, 4)["X"])
    with pytest.raises(MismatchError, match=r"of 10 rows these were never written: 4 to 9"):
        writer.commit()
    assert ending.told == ["given up"]
    assert container.abandoned


def test_more_rows_than_declared():
    writer, _, _ = writer_of([X], rows=3)
    with pytest.raises(RowError, match=r"rows 0 to 3 were given, but .* rows=3"):
        writer.append(X=rows_from(0, 4)["X"])
    with pytest.raises(RowError, match="start=-1: give the number of a row"):
        writer.write(-1, X=rows_from(0, 1)["X"])


def test_an_exception_gives_up():
    writer, container, ending = writer_of([X])
    writer.append(X=rows_from(0, 9)["X"])
    with pytest.raises(ZeroDivisionError), writer:
        raise ZeroDivisionError
    assert ending.told == ["given up"]
    assert container.abandoned
    with pytest.raises(MismatchError, match="this writer has ended"):
        writer.append(X=rows_from(0, 1)["X"])


def test_a_full_disk_gives_up():
    writer, container, ending = writer_of([X], container=Kept([X], fail_at=2))
    with pytest.raises(OSError, match="No space"):
        writer.append(X=rows_from(0, 400)["X"])
    assert ending.told == ["given up"]
    assert container.abandoned


@pytest.mark.parametrize("resumable", [True, False])
def test_stopped_by_its_user(resumable):
    writer, _, ending = writer_of([X], resumable=resumable)
    with pytest.raises(KeyboardInterrupt), writer:
        raise KeyboardInterrupt
    assert ending.told == ["kept" if resumable else "given up"]


def test_a_budget_for_chunks():
    with pytest.raises(BudgetError, match="cannot hold a chunk of each source"):
        writer_of([SourceSpec("X", (1000,), np.dtype("u1"), 100)], memory_bytes=100_000)


def test_no_rows():
    writer, container, ending = writer_of([X, Y])
    with writer:
        writer.append(rows_from(0, 0))
    assert container.order == []
    assert ending.told == ["published"]


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"dtype": np.dtype("O")}, "dtype object has no fixed size"),
        ({"dtype": np.dtype("S0")}, "no fixed size in bytes"),
        ({"chunk_rows": 0}, "chunk_rows=0, at least 1"),
        ({"chunk_rows": 1 << 32}, "at most 4 GiB can be stored together"),
    ],
)
def test_sources_that_cannot_be_written(how, match):
    facts = {"row_shape": (3,), "dtype": np.dtype("u1"), "chunk_rows": 4, **how}
    with pytest.raises(MismatchError, match=match):
        SourceSpec("X", **facts)


def test_chunks_of_about_a_mebibyte():
    assert chunk_rows_for(3072) == 341
    assert chunk_rows_for(3072, rows=10) == 10
    assert chunk_rows_for(0) == 1 << 20
    assert chunk_rows_for(1, rows=0) == 1
