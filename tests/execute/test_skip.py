"""Damage that is skipped: the rest of the rows, in order, of all sources alike."""

import pickle
import warnings

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import epochal
from epochal import schemes
from epochal.dataset import Dataset
from epochal.errors import DamageError, DamageWarning, MismatchError
from epochal.stores.memory import ArraySource
from epochal.stores.ragged import RaggedSource
from epochal.testing.stores import ChunkedArrays, SourceStore, TornSource

N, CHUNK = 200, 7
X, Y = np.arange(N * 3).reshape(N, 3), np.arange(N)


class TornRows(ArraySource):
    """Some of whose rows cannot be read alone."""

    def __init__(self, array, bad):
        super().__init__(array)
        self.bad = bad

    def read_rows(self, rows, out):
        if np.isin(rows, self.bad).any():
            raise DamageError("rows that are torn")
        super().read_rows(rows, out)

    def read(self, start, stop, out):
        if len(self.bad):  # only a probe comes this way
            raise DamageError("rows that are torn")
        super().read(start, stop, out)


def torn(chunks, alone=False):
    if alone:
        bad = np.flatnonzero(np.isin(np.arange(N) // CHUNK, chunks))
        source = TornRows(X, bad)
    else:
        source = ChunkedArrays({"X": (X, CHUNK)}).sources["X"]
        for chunk in chunks:
            source = TornSource(source, chunk)
    sources = {"X": source, "y": ArraySource(Y, 11)}
    return Dataset(SourceStore(sources), sources)


@pytest.mark.parametrize("strategy", ["stream", "resident", "gather", "rescan", "spool"])
def test_the_rest_of_the_rows_in_order(strategy):
    names = [n for n in schemes.NAMES if n != "even_sequences"]
    if strategy == "stream":
        names = ["sequential", "even_sequential", "random_slice"][:2]

    @settings(max_examples=40, deadline=None)
    @given(
        st.sets(st.integers(0, N // CHUNK), max_size=4),
        st.sampled_from(names),
        st.integers(1, 40),
        st.sampled_from([(0, 1), (1, 2)]),
        st.booleans(),
    )
    def law(chunks, scheme, batch_size, shard, split):
        ds = torn(sorted(chunks), alone=strategy == "gather")
        rows = np.arange(N)
        if split:
            ds, _ = ds.split(0.7, seed=3)
            rows = np.sort(ds._selection)
        more = {"num_batches": 4} if scheme.startswith("random") else {}
        batches = ds.batches(
            scheme, batch_size, seed=1, shard=shard, memory="40KiB", on_error="skip", **more
        )
        batches._planner.constrain(strategies=(strategy,))
        try:
            batches.plan  # noqa: B018
        except epochal.EpochalError:
            return
        bad = np.isin(np.arange(N) // CHUNK, sorted(chunks))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DamageWarning)
            for epoch in range(3):
                made = list(batches)
                order = batches.scheme.at(epoch)
                assert len(made) == len(order)
                left = 0
                for number, batch in enumerate(made):
                    asked = rows[order.batch(number)]
                    wanted = asked[~bad[asked]]
                    assert batch.y.tolist() == wanted.tolist()
                    assert batch.X.tolist() == X[wanted].tolist()
                    left += len(asked) - len(wanted)
                assert batches.stats.rows_skipped == left
                assert batches.stats.rows == order.n_positions - left
        batches.close()

    law()


def test_rows_of_varying_length():
    lengths = np.arange(N) % 9
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = np.arange(offsets[-1])
    column = TornSource(ChunkedArrays({"v": (values, 50)}).sources["v"], 3)
    sources = {"X": RaggedSource("X", {"values": column}, offsets), "y": ArraySource(Y)}
    ds = Dataset(SourceStore(sources), sources)
    touched = (offsets[1:] > 150) & (offsets[:-1] < 200)
    batches = ds.batches("shuffled_sequential", 16, seed=0, on_error="skip")
    with pytest.warns(DamageWarning, match="cannot be read and are left out"):
        made = list(batches)
    rows = np.concatenate([batch.y for batch in made])
    order = np.concatenate([batches.scheme.at(0).batch(n) for n in range(len(batches))])
    assert rows.tolist() == order[~touched[order]].tolist()
    for batch in made:
        expected = [values[offsets[r] : offsets[r + 1]] for r in batch.y]
        assert (batch.X.values == np.concatenate([values[:0], *expected])).all()


@pytest.fixture
def damaged(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("X", data=X, chunks=(10, 3), fletcher32=True)
        at = file["X"].id.get_chunk_info(4).byte_offset
    data = bytearray(path.read_bytes())
    data[at + 5] ^= 1
    path.write_bytes(data)
    return path


def test_it_is_named_once_and_listed(damaged):
    ds = epochal.open(damaged)
    batches = ds.batches("sequential", 50, on_error="skip")
    with pytest.warns(DamageWarning, match=r"rows 40 to 49 .*a\.h5: source 'X', chunk 4") as found:
        sizes = [len(batch.X) for _ in range(2) for batch in batches]
    assert len(found) == 1
    assert sizes == [40, 50, 50, 50] * 2
    [skipped] = batches.stats.skipped
    assert (skipped.source, skipped.first_row, skipped.stop_row) == ("X", 40, 50)
    assert batches.stats.rows_skipped == 10
    with pytest.warns(DamageWarning):
        assert [len(batch.X) for batch in pickle.loads(pickle.dumps(batches))] == sizes[:4]


def test_batches_may_be_empty(damaged):
    with pytest.warns(DamageWarning):
        made = list(epochal.open(damaged).batches("sequential", 10, on_error="skip"))
    assert [len(batch.X) for batch in made] == [10] * 4 + [0] + [10] * 15


def test_resuming_counts_positions(damaged):
    ds = epochal.open(damaged)
    batches = ds.batches("shuffled_sequential", 30, seed=0, on_error="skip")
    with pytest.warns(DamageWarning):
        whole = [batch.X for batch in batches]
    again = ds.batches("shuffled_sequential", 30, seed=0, on_error="skip")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamageWarning)
        iteration = iter(again)
        next(iteration), next(iteration)
        state = again.state_dict()
        resumed = ds.batches("shuffled_sequential", 30, seed=0, on_error="skip")
        resumed.load_state_dict(state)
        rest = [batch.X for batch in resumed]
    assert all((a == b).all() for a, b in zip(rest, whole[2:], strict=True))


def test_damage_is_raised_unless_asked_otherwise(damaged):
    ds = epochal.open(damaged)
    with pytest.raises(DamageError, match="chunk 4"):
        list(ds.batches("sequential", 50))
    with pytest.raises(DamageError, match="chunk 4"):
        ds["X"][:]
    with pytest.raises(MismatchError, match="on_error='ignore' is not one of: raise, skip"):
        ds.batches("sequential", 50, on_error="ignore")


def test_another_error_is_still_raised(damaged):
    ds = epochal.open(damaged)
    damaged.write_bytes(b"")
    with pytest.raises(epochal.EpochalError, match="no longer the file"):
        list(ds.batches("sequential", 50, on_error="skip"))


def test_chunks_go_straight_to_their_batches_but_for_the_damaged_one(tmp_path, monkeypatch):
    path, rows = tmp_path / "wide.h5", np.arange(600 * 10_000, dtype="u4").reshape(600, -1)
    with h5py.File(path, "w") as file:
        file.create_dataset("X", data=rows, chunks=(20, 10_000), fletcher32=True)
        at = file["X"].id.get_chunk_info(4).byte_offset
    with path.open("r+b") as file:
        file.seek(at + 5)
        file.write(b"\xff")
    with epochal.open(path) as ds:
        source = type(ds.stored["X"])
        plain = source.read
        alone = []

        def read(self, start, stop, out):
            alone.append((start, stop))
            plain(self, start, stop, out)

        batches = ds.batches("sequential", 45, memory="16MiB", on_error="skip")
        assert batches.plan.strategy == "stream"
        monkeypatch.setattr(source, "read", read)
        with pytest.warns(DamageWarning, match="rows 80 to 99"):
            made = np.concatenate([batch.X for batch in batches])
        assert (made == np.delete(rows, np.s_[80:100], axis=0)).all()
        assert set(alone) == {(4, 5)}


def test_rows_alone_by_few_calls(tmp_path, monkeypatch):
    path, rows = tmp_path / "X.npy", np.arange(1000 * 500).reshape(1000, 500)
    np.save(path, rows)
    with epochal.open(path) as ds:
        (source,) = ds.stored.values()
        batches = ds.batches("shuffled_sequential", 64, seed=0, memory="3MiB", on_error="skip")
        assert batches.plan.strategy == "gather"
        monkeypatch.setattr(type(source), "read_rows", lambda *_: pytest.fail("row by row"))
        order = batches.scheme.at(0).rows(0, 1000)
        assert (np.concatenate([batch[0] for batch in batches]) == rows[order]).all()
