import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

from epochal import schemes
from epochal.errors import SchemeError

STOCHASTIC = [name for name in schemes.NAMES if name not in ("sequential", "even_sequential")]


GOLDEN_SHUFFLED = [2, 11, 1, 0, 5, 10, 6, 3, 4, 8, 9, 7]
GOLDEN_UNIFORM = [7, 1, 9, 6, 11, 7, 3, 9, 4, 8, 6, 2]
GOLDEN_SLICE = [7, 8, 9, 0, 1, 2, 9, 10, 11, 9, 10, 11]
GOLDEN_BATCHWISE = [6, 7, 8, 9, 10, 11, 3, 4, 5, 0, 1, 2]
GOLDEN_SEQUENCES = [2, 11, 5, 0, 6, 3, 9, 8, 10, 4, 7, 1]
GOLDEN_CHUNKWISE = [6, 2, 5, 4, 3, 7, 11, 10, 1, 8, 9, 0]


def make(name, n_rows=100, **changed):
    arguments = {"batch_size": 8, "seed": 0}
    if name.startswith("random"):
        arguments["num_batches"] = 6
    if name.startswith("chunkwise"):
        arguments |= {"chunk_rows": 7, "mix_rows": 30}
    return schemes.make(name, n_rows, **(arguments | changed))


def listed(rows):
    return list(range(rows.start, rows.stop)) if isinstance(rows, slice) else rows.tolist()


def order(scheme):
    return listed(scheme.rows(0, scheme.n_positions))


def test_the_ten_names():
    assert set(schemes.NAMES) == {
        "sequential",
        "shuffled_sequential",
        "random_slice",
        "random_uniform",
        "batchwise_shuffled_sequential",
        "even_sequential",
        "even_shuffled_sequential",
        "even_batchwise_shuffled_sequential",
        "even_sequences",
        "chunkwise_shuffled_sequential",
    }


@pytest.mark.parametrize("name", schemes.NAMES)
def test_config_survives_json_and_makes_the_same_order(name):
    scheme = make(name, epoch=3, shard=(1, 2), seed=2**64 - 1)
    config = json.loads(json.dumps(scheme.config()))
    again = schemes.make(**config)
    assert again.config() == config
    assert order(again) == order(scheme)


@pytest.mark.parametrize("name", schemes.NAMES)
def test_pickles_as_its_arguments(name):
    scheme = make(name, 100_000, batch_size=1000)
    expected = order(scheme)
    blob = pickle.dumps(scheme)
    assert len(blob) < 2000
    again = pickle.loads(blob)
    assert order(again) == expected
    assert again.config() == scheme.config()


@pytest.mark.parametrize("name", STOCHASTIC)
def test_no_seed_draws_one_and_keeps_it(name):
    one, other = make(name, seed=None), make(name, seed=None)
    assert isinstance(one.seed, int)
    assert one.seed != other.seed
    assert one.at(4).seed == one.shard(0, 2).seed == one.seed
    assert order(schemes.make(**one.config())) == order(one)


@pytest.mark.parametrize("name", ["sequential", "even_sequential"])
def test_nothing_random_has_no_seed(name):
    assert make(name, seed=5).config() == make(name, seed=None).config()
    assert make(name).seed is None


@pytest.mark.parametrize("name", STOCHASTIC)
def test_seeds_and_epochs_change_the_order_and_nothing_else_does(name):
    base = order(make(name))
    assert order(make(name)) == base
    assert order(make(name, seed=1)) != base
    assert order(make(name, epoch=1)) != base
    assert order(make(name, seed=1)) != order(make(name, epoch=1))
    assert order(make(name).at(1)) == order(make(name, epoch=1))
    assert order(make(name, seed=np.uint64(0))) == base


@pytest.mark.parametrize("name", schemes.NAMES)
def test_numpys_global_generator_is_never_touched(name):
    before = pickle.dumps(np.random.get_state())  # noqa: NPY002
    order(make(name))
    order(make(name, seed=None))
    if not name.startswith("chunkwise"):
        order(make(name, seed=np.random.RandomState(1)).at(2))
    assert pickle.dumps(np.random.get_state()) == before  # noqa: NPY002


@pytest.mark.parametrize("name", STOCHASTIC)
def test_the_order_is_the_same_in_another_process(name):
    code = (
        "import json, sys; from epochal import schemes\n"
        "s = schemes.make(**json.loads(sys.argv[1])); r = s.rows(0, s.n_positions)\n"
        "r = range(r.start, r.stop) if isinstance(r, slice) else r\n"
        "print(json.dumps([int(x) for x in r]))"
    )
    scheme = make(name, batch_size=3)
    got = subprocess.run(
        [sys.executable, "-c", code, json.dumps(scheme.config())],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(got.stdout) == order(scheme)


def test_orders_that_releases_must_not_change():
    """Golden orders: a run that is resumed with a later epochal must go on as it began."""
    golden = {
        "shuffled_sequential": GOLDEN_SHUFFLED,
        "random_uniform": GOLDEN_UNIFORM,
        "random_slice": GOLDEN_SLICE,
        "batchwise_shuffled_sequential": GOLDEN_BATCHWISE,
        "even_sequences": GOLDEN_SEQUENCES,
        "chunkwise_shuffled_sequential": GOLDEN_CHUNKWISE,
    }
    for name, expected in golden.items():
        changed = {"lengths": np.arange(12) % 3} if name == "even_sequences" else {}
        changed |= {"chunk_rows": 2, "mix_rows": 6} if name.startswith("chunkwise") else {}
        changed |= {"num_batches": 4} if name.startswith("random") else {}
        scheme = schemes.make(name, 12, batch_size=3, seed=2024, epoch=7, **changed)
        assert order(scheme) == expected, name


@pytest.mark.parametrize("name", [n for n in schemes.NAMES if not n.startswith("random")])
def test_no_rows_make_no_batches(name):
    for shard in ((0, 1), (1, 3)):
        scheme = make(name, 0, shard=shard)
        assert (len(scheme), scheme.n_positions, order(scheme)) == (0, 0, [])


@pytest.mark.parametrize("name", ["random_slice", "random_uniform"])
def test_nothing_can_be_drawn_from_no_rows(name):
    with pytest.raises(SchemeError, match="cannot draw from 0 rows"):
        make(name, 0)


def test_a_batch_larger_than_the_data():
    assert [listed(make("sequential", 5).batch(i)) for i in range(1)] == [[0, 1, 2, 3, 4]]
    assert len(make("sequential", 5)) == len(make("shuffled_sequential", 5)) == 1
    for name in ("even_sequential", "even_shuffled_sequential"):
        assert len(make(name, 5)) == 0
    with pytest.raises(SchemeError, match=r"slices of 8 rows .* of 5: ask for smaller"):
        make("random_slice", 5)
    with pytest.raises(SchemeError, match=r"slices of 16 rows \(batch_size=8 on 2 rank"):
        make("random_slice", 10, shard=(0, 2))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 was given; batch_size must be from 1 to"),
        ({"batch_size": -3}, "batch_size=-3 was given"),
        ({"batch_size": True}, "batch_size=True was given; batch_size is a whole number"),
        ({"batch_size": 2.0}, r"batch_size=2\.0 was given; batch_size is a whole number"),
        ({"batch_size": "8"}, "batch_size='8' was given"),
        ({"num_batches": 0}, "num_batches=0 was given"),
        ({"num_batches": False}, "num_batches=False was given"),
        ({"num_batches": 14}, "num_batches=14 was asked; 100 rows give only 13 batches"),
        ({"batch_size": None}, "neither batch_size nor num_batches is given"),
        ({"seed": -1}, "seed=-1 was given; seed must be from 0 to 18446744073709551615"),
        ({"seed": 2**64}, "seed=18446744073709551616 was given"),
        ({"seed": 1.5}, r"seed=1\.5 was given; seed is a whole number"),
        ({"seed": True}, "seed=True was given"),
        ({"seed": "abc"}, "seed='abc' was given"),
        ({"epoch": -1}, "epoch=-1 was given"),
        ({"epoch": 1.0}, r"epoch=1\.0 was given"),
        ({"shard": (2, 2)}, "rank=2 was given; rank must be from 0 to 1"),
        ({"shard": (0, 0)}, "world=0 was given"),
        ({"shard": (0, 1, 2)}, r"shard=\(0, 1, 2\) was given; it is two whole numbers"),
        ({"shard": 3}, "shard=3 was given"),
    ],
)
def test_what_makes_no_order_says_why(changed, message):
    with pytest.raises(SchemeError, match=message):
        make("shuffled_sequential", **changed)


@pytest.mark.parametrize("n_rows", [-1, 1.0, True, None])
def test_row_counts_are_whole(n_rows):
    with pytest.raises(SchemeError, match="n_rows"):
        make("sequential", n_rows)


def test_unknown_names_suggest_the_near_one():
    with pytest.raises(SchemeError, match="did you mean 'shuffled_sequential'"):
        schemes.make("shufled_sequential", 3, batch_size=1)
    with pytest.raises(SchemeError, match="the schemes are sequential, shuffled_sequential"):
        schemes.make("zzz", 3, batch_size=1)
    with pytest.raises(SchemeError, match="no scheme None"):
        schemes.make(None, 3, batch_size=1)


@pytest.mark.parametrize("name", ["random_slice", "random_uniform"])
@pytest.mark.parametrize("missing", ["batch_size", "num_batches"])
def test_random_kinds_need_both(name, missing):
    with pytest.raises(SchemeError, match="give both batch_size and num_batches"):
        make(name, **{missing: None})


def test_what_kinds_need_besides():
    with pytest.raises(SchemeError, match="needs chunk_rows"):
        make("chunkwise_shuffled_sequential", chunk_rows=None)
    with pytest.raises(SchemeError, match="give batch_size and no num_batches"):
        make("even_sequences", num_batches=3)
    for lengths in (np.zeros(99, int), np.zeros(100), np.zeros((100, 1), int)):
        with pytest.raises(SchemeError, match="lengths must be 100 whole numbers"):
            make("even_sequences", lengths=lengths)


def test_lengths_are_kept_as_a_digest():
    lengths = np.arange(100) % 4
    scheme = make("even_sequences", lengths=lengths)
    config = scheme.config()
    assert config["lengths"].startswith("sha256:")
    assert config["lengths"] != make("even_sequences", lengths=lengths[::-1]).config()["lengths"]
    assert config == make("even_sequences", lengths=lengths.astype(">u2")).config()
    with pytest.raises(SchemeError, match="stands for them in a config: pass the lengths"):
        schemes.make(**config)
    assert order(schemes.make(**{**config, "lengths": lengths})) == order(scheme)


def test_positions_and_batches_outside_are_index_errors():
    scheme = make("shuffled_sequential")
    for i in (-1, 13):
        with pytest.raises(IndexError, match=f"batch {i} was asked"):
            scheme.batch(i)
    for start, stop in ((-1, 3), (5, 101), (7, 6)):
        with pytest.raises(IndexError, match="positions"):
            scheme.rows(start, stop)


def test_what_each_kind_says_of_itself():
    assert [n for n in schemes.NAMES if make(n).monotone] == ["sequential", "even_sequential"]
    keyed = [n for n in schemes.NAMES if make(n).keys is not None]
    assert keyed == ["shuffled_sequential", "even_shuffled_sequential"]
    assert make("shuffled_sequential", seed=np.random.RandomState(0)).keys is None
    arithmetic = ["sequential", "random_slice", "random_uniform", "even_sequential"]
    assert [n for n in schemes.NAMES if make(n).order_bytes == 0] == arithmetic
    windowed = [n for n in schemes.NAMES if make(n).window_bounds() is not None]
    assert windowed == ["chunkwise_shuffled_sequential"]


def test_keys_sort_the_rows():
    scheme = make("shuffled_sequential", 5000, epoch=4)
    expected = np.argsort(scheme.keys.block(0, 5000), kind="stable")
    assert np.array_equal(scheme.rows(0, 5000), expected)


def test_the_default_mix_is_in_the_config():
    scheme = make("chunkwise_shuffled_sequential", mix_rows=None)
    assert scheme.config()["mix_rows"] == 16_384


def test_holding_less_changes_no_order():
    scheme = make("shuffled_sequential", 100_000, batch_size=999)
    assert scheme.n_piles == 1
    piled = scheme.holding(10_000)
    assert piled.n_piles > 9
    assert piled.order_bytes == 80_000
    assert order(piled) == order(scheme)
    assert order(piled.at(2).shard(1, 3)) == order(scheme.at(2).shard(1, 3))
    assert piled.at(2).n_piles == piled.n_piles
    assert listed(piled.pile(2)) == order(scheme)[piled.pile_starts[2] : piled.pile_starts[3]]
    with pytest.raises(SchemeError, match="has no piles"):
        make("shuffled_sequential", seed=np.random.RandomState(0)).n_piles  # noqa: B018
