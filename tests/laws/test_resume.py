"""A position is a few integers: the batches that were left come bit for bit, wherever they are
asked for.
"""

import json
import pickle
import subprocess
import sys
import textwrap
from contextlib import closing

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import epochal
from epochal import schemes
from epochal.dataset import Dataset
from epochal.errors import MismatchError
from epochal.plan.machine import Machine, Rates
from epochal.planning import Settings
from epochal.testing.stores import ChunkedArrays, SourceStore

N = 173
ROLLING = {"X": Rates(decode_bytes_per_s=1e5), "y": Rates(decode_bytes_per_s=1e5)}
SETS = {  # strategy, and memory that makes it work in several windows or piles
    "stream": 45_000,
    "resident": 100_000,
    "rescan": 5_000,
    "spool": 28_000,
}
X = np.arange(N * 3, dtype="<f4").reshape(N, 3)
Y = np.arange(N, dtype="u1")
X.flags.writeable = Y.flags.writeable = False


def dataset():
    store = ChunkedArrays({"X": (X, 10), "y": (Y, 16)})
    return Dataset(store, store.sources)


def made(scheme="shuffled_sequential", strategies=None, ds=None, memory=60_000, **order):
    """Batches with a machine that is not measured, so that nothing depends on it."""
    ds = dataset() if ds is None else ds
    machine = Machine(threads=2, rates=ROLLING, scratch_free_bytes=1 << 40)
    order = {"batch_size": 10, "seed": 1, **order}
    return ds._batches(
        dict(ds._sources),
        Settings(memory, 2, None, strategies, machine),
        scheme,
        mix_bytes=500,
        **order,
    )


def plain(batches):
    return [tuple(array.tobytes() for array in batch) for batch in batches]


def through_json(state):
    return json.loads(json.dumps(state))


def extras(scheme):
    return {"num_batches": 9} if scheme.startswith("random") else {}


@pytest.mark.parametrize("strategy", SETS)
def test_after_any_batch_the_rest_comes_bit_for_bit(strategy):
    """And then the next epochs: also from before the first batch, and from after the last."""
    scheme = "sequential" if strategy == "stream" else "shuffled_sequential"
    options = {"strategies": (strategy,), "memory": SETS[strategy], "scheme": scheme}
    batches = made(**options)
    assert batches.plan.strategy == strategy
    states, epochs = [through_json(batches.state_dict())], []
    for _ in range(2):
        epochs.append([])
        for batch in batches:
            epochs[-1].append(tuple(array.tobytes() for array in batch))
            states.append(through_json(batches.state_dict()))
    assert [len(epoch) for epoch in epochs] == [18, 18]
    epochs.append(plain(batches))
    batches.close()
    for count, state in enumerate(states):
        epoch = int(count > 18)
        fresh = made(**options)
        fresh.load_state_dict(state)
        assert fresh.epoch == epoch
        assert plain(fresh) == epochs[epoch][count - 18 * epoch :]
        assert plain(fresh) == epochs[epoch + 1]
        fresh.close()


@st.composite
def interrupted(draw):
    name = draw(st.sampled_from(schemes.NAMES))
    order = {
        "batch_size": draw(st.integers(1, 60)),
        "epoch": draw(st.integers(0, 3)),
        **extras(name),
    }
    legacy = not name.startswith("chunkwise") and draw(st.booleans())
    order["seed"] = np.random.RandomState(7) if legacy else draw(st.integers(0, 2**64 - 1))
    if "num_batches" not in order and name != "even_sequences" and draw(st.booleans()):
        order["num_batches"] = draw(st.integers(1, N // order["batch_size"]))
        if draw(st.booleans()):
            order["batch_size"] = None
    ds = dataset()
    if draw(st.booleans()):
        ds, _ = ds.split(0.8, seed=2)
        order.pop("num_batches", None)
        order["batch_size"] = 7
        order |= extras(name)
    monotone = name in ("sequential", "even_sequential")
    strategy = draw(st.sampled_from(["resident", "rescan", "spool", *(["stream"] * monotone)]))
    return {"scheme": name, "ds": ds, "strategies": (strategy,), "memory": 1 << 20, **order}


@settings(max_examples=150, deadline=None)
@given(interrupted(), st.data())
def test_any_scheme_by_any_strategy_resumes(options, data):
    whole = made(**options)
    first, second = plain(whole), plain(whole)
    stop = data.draw(st.integers(0, len(first)))
    running = made(**options)
    iterator = iter(running)
    for _ in range(stop):
        next(iterator)
    state = through_json(running.state_dict())
    other = data.draw(st.sampled_from(["resident", "rescan", "spool"]))
    fresh = made(**{**options, "strategies": (other,)})
    fresh.load_state_dict(state)
    assert plain(fresh) == first[stop:]
    assert plain(fresh) == second
    for batches in (whole, running, fresh):
        batches.close()


@pytest.mark.parametrize("scheme", schemes.NAMES)
def test_a_state_is_small_and_json(scheme):
    batches = made(scheme, **extras(scheme))
    iterator = iter(batches)
    next(iterator)
    state = batches.state_dict()
    assert through_json(state) == state
    assert len(json.dumps(state)) < 700
    batches.close()


@pytest.mark.parametrize(
    "scheme", [n for n in schemes.NAMES if not n.startswith(("random", "even_seq"))]
)
def test_with_only_the_number_of_batches_given(scheme):
    order = {"batch_size": None, "num_batches": 7}
    batches = made(scheme, **order)
    iterator = iter(batches)
    for _ in range(3):
        next(iterator)
    fresh = made(scheme, **order)
    fresh.load_state_dict(through_json(batches.state_dict()))
    assert plain(fresh) == plain(iterator)


def test_batches_made_ahead_do_not_count():
    """The state says what was handed over, not what was read."""
    batches = made("sequential", memory=1 << 20)
    iterator = iter(batches)
    next(iterator)
    assert batches.plan.batches_ahead > 3
    assert batches.state_dict()["row"] == 10
    fresh = made("sequential", memory=1 << 20)
    fresh.load_state_dict(batches.state_dict())
    assert next(iter(fresh)).y.tolist() == list(range(10, 20))


# Abandoning ----------------------------------------------------------------


@pytest.mark.parametrize("strategy", SETS)
def test_an_abandoned_iteration_does_not_count(strategy):
    scheme = "sequential" if strategy == "stream" else "shuffled_sequential"
    options = {"strategies": (strategy,), "memory": SETS[strategy], "scheme": scheme}
    whole = made(**options)
    epochs = [plain(whole) for _ in range(3)]
    batches = made(**options)
    for epoch in range(3):
        for stop in (1, 5, 18):
            for count, _ in enumerate(batches, start=1):
                if count == stop:
                    break
            assert batches.epoch == epoch
            assert batches.state_dict()["row"] == 0
        assert plain(batches) == epochs[epoch]
    batches.close()


@pytest.mark.parametrize("strategy", SETS)
def test_abandoned_after_a_resume_it_starts_where_the_state_was(strategy):
    scheme = "sequential" if strategy == "stream" else "shuffled_sequential"
    options = {"strategies": (strategy,), "memory": SETS[strategy], "scheme": scheme}
    epochs = [plain(whole) for whole in [made(**options)] * 2]
    batches = made(**options)
    state = {**batches.state_dict(), "row": 70}
    batches.load_state_dict(state)
    for _ in range(2):
        next(iter(batches))
        assert batches.state_dict() == state
    assert plain(batches) == epochs[0][7:]
    assert plain(batches) == epochs[1]


def test_only_one_iteration_is_alive():
    batches = made()
    whole = plain(made())
    first = iter(batches)
    next(first)
    second = iter(batches)
    assert plain([next(second)]) == whole[:1]
    with pytest.raises(MismatchError, match="ended when another was started"):
        next(first)
    assert plain(second) == whole[1:]
    assert batches.epoch == 1
    assert next(first, None) is None


def test_two_iterators_made_before_either_is_used():
    """Whichever is used last is the one that is alive; none runs beside it."""
    batches = made()
    whole = plain(made())
    first, second = iter(batches), iter(batches)
    assert plain([next(second)]) == whole[:1]
    with pytest.raises(MismatchError, match="ended when another was started"):
        next(first)
    assert plain(second) == whole[1:]


def test_an_iterator_made_before_a_state_was_loaded_ends():
    batches = made()
    whole = plain(made())
    for used in (0, 1):
        iterator = iter(batches)
        for _ in range(used):
            next(iterator)
        batches.load_state_dict({**batches.state_dict(), "row": 50})
        with pytest.raises(MismatchError, match="ended when another was started"):
            next(iterator)
        assert batches.state_dict()["row"] == 50
        assert plain([next(iter(batches))]) == whole[5:6]


def test_length_repr_and_state_change_nothing():
    batches = made()
    iterator = iter(batches)
    next(iterator)
    before = batches.state_dict()
    len(batches), repr(batches), batches.explain(), str(batches.explain()), batches.stats
    assert batches.state_dict() == before
    assert plain(iterator) == plain(made())[1:]


# Ranks ----------------------------------------------------------------


def rows_left(scheme, batch_size, state, shard=(0, 1)):
    """The rows of each batch that a rank still yields of the epoch of a state."""
    with closing(made(scheme, batch_size=batch_size, shard=shard)) as batches:
        batches.load_state_dict(state)
        if batches.epoch != state["epoch"]:
            return []
        return [batch.y.tolist() for batch in batches]


def flat(batches):
    return sorted(row for batch in batches for row in batch)


ALL_ROWS = [name for name in schemes.NAMES if not name.startswith(("random", "even_seq"))]


@pytest.mark.parametrize("scheme", ALL_ROWS)
@pytest.mark.parametrize("batch_size", [11, 43])
def test_another_number_of_ranks_goes_on_with_the_same_rows(scheme, batch_size):
    """From every state that any rank may have saved: no row is lost, and none doubled."""
    world, group = 4, 4 * batch_size
    with closing(made(scheme, batch_size=group)) as single:
        whole = [batch.y.tolist() for batch in single]
    for saved_by in range(world):
        with closing(made(scheme, batch_size=batch_size, shard=(saved_by, world))) as rank:
            states = [rank.state_dict()]
            states += [through_json(rank.state_dict()) for _ in rank]
        # Global batches of which the rank has a part, and so hands over a batch.
        own = [i for i, rows in enumerate(whole) if own_part(rows, saved_by, world)]
        for count, state in enumerate(states):
            done = own[count - 1] + 1 if count else 0
            assert rows_left(scheme, group, state) == whole[done:], (saved_by, count)
            pair = [rows_left(scheme, 2 * batch_size, state, (half, 2)) for half in (0, 1)]
            assert flat(pair[0] + pair[1]) == flat(whole[done:])


def own_part(global_batch, rank, world):
    """Whether a rank has a batch of that global batch."""
    m = len(global_batch)
    return (rank + 1) * m // world > rank * m // world


@pytest.mark.parametrize("batch_size", [10, 5, 2, 30])
def test_another_batch_size_that_fits_goes_on(batch_size):
    state = {**made().state_dict(), "row": 90}
    fresh = made(batch_size=batch_size)
    fresh.load_state_dict(state)
    rows = [row for batch in fresh for row in batch.y.tolist()]
    assert rows == [row for batch in made() for row in batch.y.tolist()][90:]


# States that do not fit ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"seed": 2}, "the state is of another order: its seed is 2, here it is 1"),
        ({"scheme": "sequential"}, "its name is 'sequential', here it is 'shuffled_sequential'"),
        ({"seed": np.random.RandomState(1)}, "the state is of another order: its seed is"),
        ({"num_batches": 3}, "its num_batches is 3, here it is None"),
        ({"ds": "split"}, "its n_rows is 138, here it is 173"),
        ({"ds": "one"}, "the state is of the sources X; here they are X, y"),
    ],
    ids=lambda value: str(value).partition(" at 0x")[0],
)
def test_a_state_of_another_order_is_refused(other, told):
    if other.get("ds") == "split":
        other = {"ds": dataset().split(0.8)[0]}
    if other.get("ds") == "one":
        state = dataset().batches("shuffled_sequential", 10, seed=1, sources="X").state_dict()
    else:
        state = made(**other).state_dict()
    batches = made()
    with pytest.raises(MismatchError, match=told):
        batches.load_state_dict(through_json(state))
    assert plain(batches) == plain(made())  # a refused state has no effect


def test_a_state_inside_a_global_batch_is_refused():
    batches = made(batch_size=20)
    state = {**made().state_dict(), "row": 30}
    with pytest.raises(MismatchError, match=r"lies at row 30 of the order, inside a global batch"):
        batches.load_state_dict(state)


def test_orders_of_batches_resume_with_their_own_batch_size_only():
    state = made("batchwise_shuffled_sequential").state_dict()
    with pytest.raises(MismatchError, match="batch"):
        made("batchwise_shuffled_sequential", batch_size=5).load_state_dict(state)


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_a_state_of_another_version_is_refused(version):
    with pytest.raises(MismatchError, match="no state that can be loaded: version"):
        made().load_state_dict({**made().state_dict(), "version": version})


@pytest.mark.parametrize("state", [{}, {"version": 1}, {"version": 1, "epoch": 0}])
def test_what_is_no_state_is_refused(state):
    with pytest.raises(MismatchError):
        made().load_state_dict(state)


@pytest.mark.parametrize(
    "wrong", [{"row": -7}, {"row": -20}, {"row": 10_000_000}, {"epoch": -1}], ids=str
)
def test_positions_that_are_none_are_refused(wrong):
    batches = made()
    with pytest.raises(epochal.EpochalError):
        batches.load_state_dict({**batches.state_dict(), **wrong})


# Seeds ----------------------------------------------------------------


def test_a_seed_that_was_drawn_is_in_the_state():
    batches = made(seed=None)
    iterator = iter(batches)
    for _ in range(4):
        next(iterator)
    state = through_json(batches.state_dict())
    fresh = made(seed=state["scheme"]["seed"])
    fresh.load_state_dict(state)
    assert plain(fresh) == plain(iterator)
    assert plain(fresh) == plain(batches)


def test_drawn_seeds_differ():
    assert len({made(seed=None).state_dict()["scheme"]["seed"] for _ in range(20)}) == 20


# Pickles and processes ----------------------------------------------------------------


@pytest.mark.parametrize("strategy", SETS)
@pytest.mark.parametrize("stop", [0, 1, 7, 18])
def test_a_pickle_goes_on_where_it_was_made(strategy, stop):
    scheme = "sequential" if strategy == "stream" else "shuffled_sequential"
    options = {"strategies": (strategy,), "memory": SETS[strategy], "scheme": scheme}
    batches = made(**options)
    iterator = iter(batches)
    for _ in range(stop):
        next(iterator)
    copy = pickle.loads(pickle.dumps(batches))
    assert plain(copy) == plain(iterator)
    assert plain(copy) == plain(batches)
    copy.close()
    batches.close()


CHILD = """
    import json, pickle, sys
    import epochal

    path, scheme, state, memory = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), sys.argv[4]
    with epochal.open(path) as ds:
        extra = {"num_batches": 9} if scheme.startswith("random") else {}
        batches = ds.batches(scheme, 10, seed=1, memory=memory, threads=2, **extra)
        batches.load_state_dict(state)
        for _ in range(2):
            print([batch.y.tolist() for batch in batches])
"""


@pytest.mark.parametrize(
    ("scheme", "stop", "memory"),
    [
        ("shuffled_sequential", 0, "12MiB"),
        ("shuffled_sequential", 7, "12MiB"),
        ("shuffled_sequential", 18, "64MiB"),
        ("random_uniform", 5, "12MiB"),
    ],
)
def test_a_new_process_goes_on(tmp_path, scheme, stop, memory):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("X", data=X, chunks=(10, 3), compression="gzip")
        file.create_dataset("y", data=Y, chunks=(16,))
    with epochal.open(path) as ds:
        batches = ds.batches(scheme, 10, seed=1, memory="32MiB", threads=1, **extras(scheme))
        iterator = iter(batches)
        for _ in range(stop):
            next(iterator)
        state = json.dumps(batches.state_dict())
        rest = [[batch.y.tolist() for batch in iterator], [batch.y.tolist() for batch in batches]]
        batches.close()
    child = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(CHILD), path, scheme, state, memory],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert child.stderr == ""
    assert [json.loads(line) for line in child.stdout.splitlines()] == rest


def test_a_dataset_goes_to_another_process_with_its_position(tmp_path):
    """Pickled in the middle of an epoch, read by a process that has never seen the file."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("y", data=Y, chunks=(16,), compression="gzip")
    with epochal.open(path) as ds:
        batches = ds.batches("shuffled_sequential", 10, seed=3, memory="32MiB", threads=2)
        iterator = iter(batches)
        next(iterator)
        (tmp_path / "pickle").write_bytes(pickle.dumps(batches))
        rest = [batch.y.tolist() for batch in iterator]
        batches.close()
    script = """
        import pathlib, pickle, sys
        batches = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())
        print([batch.y.tolist() for batch in batches])
    """
    child = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script), tmp_path / "pickle"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (child.stderr, json.loads(child.stdout)) == ("", rest)


def test_empty_data_has_a_state_too():
    store = SourceStore(ChunkedArrays({"y": (Y[:0], 4)}).sources)
    ds = Dataset(store, store.sources)
    batches = made(ds=ds)
    batches.load_state_dict(through_json(batches.state_dict()))
    assert plain(batches) == []
    assert batches.epoch == 1
