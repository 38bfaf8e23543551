"""What a `Batches` tells of itself: length, stats, plans before, reports after."""

import json
import sys
import threading

import numpy as np
import pytest

import epochal
from epochal.dataset import Dataset
from epochal.errors import MismatchError, SchemeError
from epochal.plan.machine import Machine
from epochal.planning import Settings
from epochal.testing.stores import ChunkedArrays, CountingSource, SlowSource, SourceStore

N = 250
X = np.arange(N * 40, dtype="<u2").reshape(N, 40)
Y = np.arange(N, dtype="u1")


def made(scheme="shuffled_sequential", *, sources=None, memory=1 << 20, **order):
    store = ChunkedArrays({"X": (X, 20), "y": (Y, 30)})
    store = SourceStore(store.sources if sources is None else sources)
    ds = Dataset(store, store.sources)
    machine = Machine(threads=2, scratch_free_bytes=1 << 40)
    order = {"batch_size": 20, "seed": 1, **order}
    return ds._batches(
        dict(ds._sources), Settings(memory, 2, None, None, machine), scheme, mix_bytes=9000, **order
    )


@pytest.mark.parametrize(
    ("scheme", "order", "length"),
    [
        ("sequential", {"batch_size": 100}, 3),
        ("even_sequential", {"batch_size": 100}, 2),
        ("sequential", {"batch_size": 250}, 1),
        ("sequential", {"batch_size": 1000}, 1),
        ("shuffled_sequential", {"batch_size": None, "num_batches": 7}, 7),
        ("random_uniform", {"batch_size": 10, "num_batches": 40}, 40),
        ("sequential", {"batch_size": 30, "shard": (1, 4)}, 3),
    ],
)
def test_the_length_is_known_before_anything_is_read(scheme, order, length):
    batches = made(scheme, **order)
    assert len(batches) == length
    assert len(list(batches)) == length


def test_a_batches_shows_itself():
    assert repr(made()) == (
        "<Batches X, y: <shuffled_sequential: 250 of 250 rows in 13 batches of 20, epoch 0, "
        "rank 0 of 1>>"
    )


def test_epochs_count_up_from_where_they_were_asked_to():
    batches = made(epoch=7)
    seen = []
    for _ in range(3):
        seen.append((batches.epoch, [batch.y.tolist() for batch in batches]))
    assert [epoch for epoch, _ in seen] == [7, 8, 9]
    assert seen[2][1] == [batch.y.tolist() for batch in made(epoch=9)]
    assert seen[0][1] != seen[1][1]


def test_stats_grow_as_batches_come():
    batches = made("sequential", memory=300_000)
    assert batches.stats.rows == 0
    rows, read = [], []
    for batch in batches:
        rows.append(batches.stats.rows)
        read.append(batches.stats.bytes_read)
        assert len(batch.y) <= 20
    assert rows == [*range(20, 250, 20), 250]
    assert read == sorted(read)
    stats = batches.stats
    assert stats.strategy == batches.plan.strategy
    assert 0 < stats.first_batch_seconds <= stats.seconds
    assert stats.seconds_decoding > 0
    assert 0 < stats.seconds_waited <= stats.seconds
    assert 0 < stats.peak_bytes <= 300_000


def test_waiting_is_counted_as_waiting():
    plain = ChunkedArrays({"X": (X, 20), "y": (Y, 30)}).sources
    batches = made(sources={name: SlowSource(source, 0.02) for name, source in plain.items()})
    for _ in batches:
        pass
    assert batches.stats.seconds_waited >= 0.02
    assert batches.stats.seconds_decoding >= 0.04
    assert batches.stats.first_batch_seconds >= 0.02


def test_a_report_says_what_was_predicted_and_what_came():
    batches = made()
    before = batches.explain()
    assert before.measured is None
    assert str(before) == str(batches.plan)
    assert json.loads(json.dumps(before.as_dict()))["measured"] is None
    for _ in batches:
        pass
    after = batches.explain()
    assert (after.predicted.rows, after.measured.rows) == (250, 250)
    assert after.predicted.read_bytes == after.measured.read_bytes > 0
    page = str(after)
    assert page.startswith(str(after.plan))
    assert "measured" in page
    assert json.loads(json.dumps(after.as_dict()))["measured"]["rows"] == 250
    for _ in batches:
        pass
    assert batches.explain().measured.read_bytes == 0  # resident
    batches.close()


def test_planning_reads_no_data_where_the_machine_is_known():
    plain = ChunkedArrays({"X": (X, 20), "y": (Y, 30)}).sources
    counted = {name: CountingSource(source) for name, source in plain.items()}
    batches = made(sources=counted)
    batches.plan, len(batches), repr(batches), batches.state_dict(), batches.explain()
    assert not any(source.chunks for source in counted.values())


def test_a_dataset_explains_what_batches_will_do():
    ds = epochal.from_arrays(X=X, y=Y)
    arguments = ("shuffled_sequential", 20)
    plan = ds.explain(*arguments, memory="8MiB", seed=0, threads=2, scratch=False)
    assert plan.predicted.rows == N
    assert plan.budget_bytes == 8 << 20
    batches = ds.batches(*arguments, memory="8MiB", seed=0, threads=2, scratch=False)
    assert batches.plan.strategy == plan.strategy
    assert str(plan).startswith(f"shuffled_sequential: {plan.strategy} - ")


@pytest.mark.parametrize("name", ["sequential", "shuffled_sequential", "random_uniform"])
def test_no_order_depends_on_how_it_is_run(name):
    ds = epochal.from_arrays(X=X, y=Y)
    more = {"num_batches": 15} if name == "random_uniform" else {}
    runs = [
        [b.y.tolist() for b in ds.batches(name, 20, seed=3, memory=memory, threads=threads, **more)]
        for memory in ("8MiB", "64MiB")
        for threads in (1, 2, 5)
    ]
    assert all(run == runs[0] for run in runs)


def test_chunkwise_mixes_whole_chunks_within_its_memory():
    ds = Dataset(ChunkedArrays({"X": (X, 20), "y": (Y, 30)}), {})
    store = ChunkedArrays({"X": (X, 20), "y": (Y, 30)})
    ds = Dataset(store, store.sources)
    batches = ds.batches("chunkwise_shuffled_sequential", 20, seed=0, memory="1MiB", scratch=False)
    config = batches.scheme.config()
    assert (config["chunk_rows"], config["mix_rows"]) == (20, (1 << 18) // 81)
    default = ds.batches("chunkwise_shuffled_sequential", 20, seed=0, scratch=False)
    assert default.scheme.config()["mix_rows"] == (64 << 20) // 81
    assert sorted(y for batch in batches for y in batch.y.tolist()) == Y.tolist()


def test_a_bar_is_shown_on_a_terminal_only(monkeypatch, capsys):
    ds = epochal.from_arrays(y=Y)
    for _ in ds.batches(batch_size=50, progress=True):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for _ in ds.batches(batch_size=50, progress=True):
        pass
    assert "epoch 0" in capsys.readouterr().err


def test_what_changes_one_batches_changes_no_other():
    ds = epochal.from_arrays(y=Y)
    one, two = (ds.batches("shuffled_sequential", 10, seed=2) for _ in range(2))
    rows = [batch.y.tolist() for batch in one]
    first = iter(two)
    assert next(first).y.tolist() == rows[0]
    assert (one.epoch, two.epoch) == (1, 0)
    assert [batch.y.tolist() for batch in first] == rows[1:]


def test_two_batches_run_side_by_side():
    ds = epochal.from_arrays(y=Y)
    train, valid = ds.split(0.8, seed=0)
    pairs = zip(
        train.batches("shuffled_sequential", 10, seed=0),
        valid.batches("sequential", 3, num_batches=10),
        strict=False,
    )
    seen = [(a.y.tolist(), b.y.tolist()) for a, b in pairs]
    assert len(seen) == 10
    assert not {y for a, _ in seen for y in a} & {y for _, b in seen for y in b}


def test_a_state_brings_its_seed_where_none_was_given():
    ds = epochal.from_arrays(X=np.arange(100))
    first = ds.batches("shuffled_sequential", 10)
    iteration = iter(first)
    next(iteration), next(iteration)
    state = json.loads(json.dumps(first.state_dict()))
    rest = [batch.X.tolist() for batch in iteration]
    again = ds.batches("shuffled_sequential", 10)
    assert again.scheme.seed != first.scheme.seed
    again.load_state_dict(state)
    assert [batch.X.tolist() for batch in again] == rest
    assert [batch.X.tolist() for batch in again] == [batch.X.tolist() for batch in first]
    with pytest.raises(MismatchError, match="its seed is"):  # it is not drawn any more
        again.load_state_dict(ds.batches("shuffled_sequential", 10).state_dict())
    with pytest.raises(MismatchError, match="its seed is"):
        ds.batches("shuffled_sequential", 10, seed=3).load_state_dict(state)
    legacy = ds.batches("shuffled_sequential", 10, seed=np.random.RandomState(3))
    with pytest.raises(MismatchError) as error:
        legacy.load_state_dict(state)
    assert len(str(error.value)) < 400
    taken = ds.batches("shuffled_sequential", 10)
    taken.load_state_dict(json.loads(json.dumps(legacy.state_dict())))
    assert [batch.X.tolist() for batch in taken] == [batch.X.tolist() for batch in legacy]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("row", value) for value in (50.7, "50", float("nan"), float("inf"), -10)),
        *(("epoch", value) for value in (1.9, True, "x", 2**70)),
        *((key, 3.5) for key in ("global_batch", "scheme", "sources")),
    ],
)
def test_a_damaged_state_is_none(key, value):
    batches = epochal.from_arrays(X=np.arange(100)).batches("shuffled_sequential", 10, seed=0)
    state = {**batches.state_dict(), key: value}
    with pytest.raises(MismatchError, match="this is no state of a Batches"):
        batches.load_state_dict(state)
    assert (batches.epoch, len(list(batches))) == (0, 10)


def test_more_threads_than_the_system_starts(monkeypatch):
    batches = epochal.from_arrays(X=np.arange(100)).batches("sequential", 10, threads=7)

    def start(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(SchemeError, match="threads=7: the system starts no more"):
        list(batches)
