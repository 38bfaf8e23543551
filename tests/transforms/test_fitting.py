"""Learning from files: the same as from the array, after a kill, too; files stay what they are."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

import epochal
from epochal.errors import FormatError, MismatchError, SourceNameError
from epochal.identity import identity_of
from epochal.transforms import (
    PCA,
    ZCA,
    ExtractGridPatches,
    ExtractPatches,
    GlobalContrastNormalization,
    MakeUnitNorm,
    OneHot,
    Pipeline,
    ReassembleGridPatches,
    RemapInterval,
    Standardize,
    fitting,
    load,
    statistics,
)
from epochal.transforms.kept import read_state

N, SHAPE = 3000, (4, 4, 3)
PIPES = {
    "standardize": Standardize(),
    "remap": RemapInterval(),
    "zca": ZCA(),
    "pca": PCA(5),
    "wide": PCA(5, solver="randomized", n_iter=2),
    "pipeline": Pipeline([GlobalContrastNormalization(), Standardize(), ZCA()]),
    "two passes": Pipeline([Standardize(), MakeUnitNorm(), PCA(6)]),
}


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    smooth = rng.normal(size=(N, 6)) @ rng.normal(size=(6, 48)) * 30
    rows = np.clip(smooth + rng.normal(100, 10, (N, 48)), 0, 255)
    rows = rows.astype("u1").reshape(N, *SHAPE)
    rows.flags.writeable = False
    return rows


@pytest.fixture(scope="module")
def path(images, tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "images.h5"
    with epochal.create(path, {"X": (SHAPE, "u1"), "y": ((), "i8")}, chunk_rows=128) as writer:
        writer.append(X=images, y=np.arange(N))
    return str(path)


@pytest.fixture
def unchanged(path):
    before = (Path(path).read_bytes(), os.stat(path).st_mtime_ns)
    yield
    assert (Path(path).read_bytes(), os.stat(path).st_mtime_ns) == before


@pytest.fixture(params=list(PIPES))
def pipe(request):
    return clone(PIPES[request.param])


def close(found, expected, rtol=1e-6):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * scale)


def test_a_dataset_a_view_batches_and_an_array(pipe, images, path, unchanged):
    expected = clone(pipe).fit_transform(images)
    with epochal.open(path) as ds:
        for data in (ds, ds["X"], ds.batches("sequential", 100, sources="X")):
            close(clone(pipe).fit(data).transform(images), expected)
        close(
            clone(pipe).fit(ds.batches("sequential", 100), source="X").transform(images), expected
        )
        close(clone(pipe).fit(ds, memory="8MiB", threads=1).transform(images), expected)


def test_rows_of_a_split_and_of_several_files(images, path, tmp_path):
    with epochal.open(path) as ds:
        train, _ = ds.split(0.7, seed=3)
        chosen = images[train["y"][:]]
        close(Standardize().fit(train).mean_, chosen.reshape(-1, 48).mean(axis=0), 1e-12)
    for k in range(3):
        np.save(tmp_path / f"part-{k}.npy", images[k * 1000 : (k + 1) * 1000])
    with epochal.open(str(tmp_path / "part-*.npy")) as ds:
        close(Standardize().fit(ds).mean_, images.reshape(-1, 48).mean(axis=0), 1e-12)


def test_applied_as_rows_are_read(pipe, images, path, unchanged):
    with epochal.open(path) as ds:
        pipe.fit(ds)
        expected = pipe.transform(images)
        made = ds.transform(pipe)
        assert made["X"].shape == expected.shape
        assert made["X"].dtype == np.float32
        close(made["X"][10:20], expected[10:20])
        close(made["X"][[5, 2999, 5]], expected[[5, 2999, 5]])
        close(pipe.transform(ds["X"])[:7], expected[:7])
        for memory in ("64MiB", "2MiB"):
            for scheme in ("sequential", "shuffled_sequential"):
                rows = []
                for X, y in made.batches(scheme, 100, seed=0, memory=memory):
                    close(X, expected[y])
                    rows.append(y)
                assert sorted(np.concatenate(rows)) == list(range(N))
        _, test = made.split(0.9)
        close(test["X"][:], expected[test["y"][:]])
        batches = list(pipe.transform(ds.batches("sequential", 500)))
        assert [batch._fields for batch in batches] == [("X", "y")] * 6
        close(np.concatenate([batch.X for batch in batches]), expected)


def test_scratch_and_memory_hold_rows_as_they_are_stored(images, path):
    with epochal.open(path) as ds:
        made = ds.transform(Standardize().fit(ds))
        plain = ds.explain("shuffled_sequential", 100, memory="2MiB")
        through = made.explain("shuffled_sequential", 100, memory="2MiB")
        assert 0 < through.predicted.held_bytes <= 1.1 * plain.predicted.held_bytes


@pytest.mark.parametrize("name", ["standardize", "pipeline"])
def test_a_view_stays_what_it_is_when_its_transform_learns_anew(name, images, path):
    pipe = clone(PIPES[name])
    with epochal.open(path) as ds:
        made = ds.transform(pipe.fit(ds))
        before = made["X"][:20]
        pipe.fit(ds.part(0, 500))
        assert np.array_equal(made["X"][:20], before)
        pipe.partial_fit(images[500:900])
        pipe.transform(images)
        assert np.array_equal(made["X"][:20], before)
        assert not any(
            "statistics_" in vars(each) for each in [made["X"].source.function.transform]
        )


def test_map_and_spaces_come_after(images, path):
    with epochal.open(path) as ds:
        pipe = Standardize().fit(ds)
        made = ds.transform(pipe).map(lambda batch: batch.X.sum(axis=(1, 2, 3)))
        sums = np.concatenate(list(made.batches("sequential", 300)))
        close(sums, pipe.transform(images).sum(axis=(1, 2, 3)), 1e-4)


def test_datasets_of_several_sources(path):
    with epochal.open(path) as ds:
        one = Standardize().fit(ds, source="y")
        assert one.mean_ == pytest.approx((N - 1) / 2)
        made = ds.transform(one, "y")
        assert made["y"][0] == pytest.approx(-((N - 1) / 2) / (1e-4 + np.std(np.arange(N))))
        with pytest.raises(SourceNameError, match=r"no source 'Y'.*there are X, y"):
            Standardize().fit(ds, source="Y")
        with pytest.raises(MismatchError, match="batches of X, y: say with source="):
            Standardize().fit(ds.batches("sequential", 10))
    with pytest.raises(MismatchError, match=r"which of a, b\? Say with source="):
        Standardize().fit(epochal.from_arrays(a=np.eye(3), b=np.eye(3)))
    with pytest.raises(MismatchError, match="an array has no sources"):
        Standardize().fit(np.eye(3), source="X")


def test_copies_in_other_processes(path, images):
    import pickle

    with epochal.open(path) as ds:
        made = ds.transform(Standardize().fit(ds))
        with pickle.loads(pickle.dumps(made)) as again:
            assert np.array_equal(again["X"][:50], made["X"][:50])


# Kills ---------------------------------------------------------------------------------------


def run(path, pipe, moment, checkpoint, fitted):
    """Fit in a process of its own, which kills itself as it takes that block in."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    status = 1
    try:
        left = moment
        fitting.SECONDS, fitting._rows_of_block = 0.0, lambda *of: 200

        def killing(real):
            def add(self, piece):
                nonlocal left
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)
                real(self, piece)

            return add

        for kind in (statistics.Moments, statistics.Covariance, statistics.Sketch):
            kind.least_rows = 1
            kind.add = killing(kind.add)
        with epochal.open(path) as ds:
            clone(pipe).fit(ds, checkpoint=checkpoint).save(fitted)
        status = 0
    finally:
        os._exit(status)


@pytest.mark.parametrize("name", ["standardize", "wide", "pipeline", "two passes"])
def test_killed_and_resumed_to_the_same_state(name, path, tmp_path):
    pipe = PIPES[name]
    assert run(path, pipe, -1, tmp_path / "none", tmp_path / "whole.npz") == 0
    assert not (tmp_path / "none").exists()
    for moment in (1, 2, 9, 17, 22):
        checkpoint, fitted = tmp_path / f"at-{moment}", tmp_path / f"fitted-{moment}.npz"
        killed = run(path, pipe, moment, checkpoint, fitted)
        if killed == 0:  # it has fewer blocks
            continue
        assert killed == signal.SIGKILL
        assert not fitted.exists()
        assert run(path, pipe, -1, checkpoint, fitted) == 0
        assert fitted.read_bytes() == (tmp_path / "whole.npz").read_bytes()
        assert not checkpoint.exists()


def test_checkpoints_go_on_where_they_were(path, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "SECONDS", 0.0)
    monkeypatch.setattr(fitting, "_rows_of_block", lambda *of: 256)
    reached = []

    class Stopped(Exception):
        pass

    def stop_at(moment):
        def collect(rows, through, n_rows, found, first, advance, kept):
            for at, (n, piece) in enumerate(rows.made_of(first, n_rows, through)):
                reached.append(first + at * n_rows)
                if len(reached) == moment:
                    raise Stopped
                found.add(piece)
                if kept.wanted:
                    kept.save(first + at * n_rows + n, n_rows, found)

        return collect

    checkpoint = tmp_path / "fit"
    with epochal.open(path) as ds:
        monkeypatch.setattr(fitting, "_collect", stop_at(8))
        with pytest.raises(Stopped):
            Standardize().fit(ds, checkpoint=checkpoint)
        monkeypatch.setattr(fitting, "_collect", stop_at(-1))
        fitted = Standardize().fit(ds, checkpoint=checkpoint)
        assert reached == [256 * k for k in (*range(8), *range(7, 12))]
        assert np.array_equal(fitted.mean_, Standardize().fit(ds).mean_)
        assert not checkpoint.exists()


def test_checkpoints_of_other_fits(path, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "SECONDS", 0.0)
    checkpoint = tmp_path / "fit"

    def interrupted(self, piece):
        raise KeyboardInterrupt

    with epochal.open(path) as ds:
        with monkeypatch.context() as patched:
            patched.setattr(PCA, "learn", interrupted)
            with pytest.raises(KeyboardInterrupt):
                PCA(3).fit(ds, checkpoint=checkpoint)
        assert checkpoint.exists()
        for other in (PCA(4), Standardize()):
            with pytest.raises(MismatchError, match="is a checkpoint of another fit"):
                other.fit(ds, checkpoint=checkpoint)
        with pytest.raises(MismatchError, match="is a checkpoint of another fit"):
            PCA(3).fit(ds.split(0.5)[0], checkpoint=checkpoint)
        checkpoint.write_bytes(checkpoint.read_bytes()[:100])
        with pytest.raises(FormatError, match="holds no state of a transform"):
            PCA(3).fit(ds, checkpoint=checkpoint)


def test_checkpoints_of_other_rows(path, images, tmp_path, monkeypatch):
    def interrupted(self, piece):
        raise KeyboardInterrupt

    def stop(data, checkpoint):
        with monkeypatch.context() as patched:
            patched.setattr(Standardize, "learn", interrupted)
            patched.setattr(fitting, "SECONDS", 0.0)
            with pytest.raises(KeyboardInterrupt):
                Standardize().fit(data, checkpoint=checkpoint)

    other = images.copy()
    other[1234, 0, 0, 0] ^= 1
    stop(images, tmp_path / "array")
    with pytest.raises(MismatchError, match="is a checkpoint of another fit"):
        Standardize().fit(other, checkpoint=tmp_path / "array")
    Standardize().fit(images, checkpoint=tmp_path / "array")
    stop(epochal.from_arrays(X=images), tmp_path / "memory")
    with pytest.raises(MismatchError, match="is a checkpoint of another fit"):
        Standardize().fit(epochal.from_arrays(X=other), checkpoint=tmp_path / "memory")
    with epochal.open(path) as ds:
        stop(ds["X"], tmp_path / "view")  # which knows no file, and is read to be told apart
        with pytest.raises(MismatchError, match="is a checkpoint of another fit"):
            Standardize().fit(epochal.from_arrays(X=other)["X"], checkpoint=tmp_path / "view")
        Standardize().fit(ds["X"], checkpoint=tmp_path / "view")
        stop(ds, tmp_path / "file")
        assert "'y'" not in identity_of(ds, ["X"])  # what is not read may be damaged
    copy = tmp_path / "images.h5"
    copy.write_bytes(Path(path).read_bytes())
    with (
        epochal.open(str(copy)) as ds,
        pytest.raises(MismatchError, match="is a checkpoint of another fit"),
    ):
        Standardize().fit(ds, checkpoint=tmp_path / "file")


@pytest.mark.parametrize("moment", [2, 5])
def test_killed_in_the_pass_that_leaves_single_numbers_out(moment, images, tmp_path, monkeypatch):
    """That collects moments, after a pass for the covariance: one is not taken for the other."""
    monkeypatch.setattr(fitting, "SECONDS", 0.0)
    monkeypatch.setattr(fitting, "_rows_of_block", lambda *of: 512)
    rows = images.reshape(N, -1).astype("f4")
    rows[7, 3] = np.nan
    pipe = Pipeline([Standardize(nan="ignore"), ZCA(nan="ignore")])
    whole = clone(pipe).fit(rows)
    left = moment

    def counting(self, piece, real=statistics.Moments.add):
        nonlocal left
        left -= 1
        if not left:
            raise KeyboardInterrupt
        real(self, piece)

    with monkeypatch.context() as patched:
        patched.setattr(statistics.Moments, "add", counting)
        with pytest.raises(KeyboardInterrupt):
            clone(pipe).fit(rows, checkpoint=tmp_path / "fit")
    assert read_state(tmp_path / "fit")["under_way"]["statistics"]["kind"] == "moments"
    again = clone(pipe).fit(rows, checkpoint=tmp_path / "fit")
    for stage in (0, 1):
        assert np.array_equal(again[stage].mean_, whole[stage].mean_)
    assert np.array_equal(again[1].matrix_, whole[1].matrix_)


# What is kept ---------------------------------------------------------------------------------


def test_states_that_are_damaged_or_hostile(tmp_path):
    good = tmp_path / "good.npz"
    Standardize().fit(np.eye(4)).save(good)
    data = good.read_bytes()
    bad = tmp_path / "bad.npz"
    for at in range(0, len(data), 7):
        bad.write_bytes(data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :])
        try:
            again = load(bad)
        except (FormatError, MismatchError):
            continue
        assert np.array_equal(again.mean_, np.full(4, 0.25))  # a byte that nothing is read of
    np.savez(bad, state=np.array([{"class": "Standardize"}], object))
    with pytest.raises(FormatError, match="holds no state of a transform"):
        load(bad)
    bad.write_bytes(b"no zip")
    with pytest.raises(FormatError, match="holds no transform"):
        load(bad)
    with pytest.raises(epochal.errors.FileMissingError):
        load(tmp_path / "none.npz")
    with pytest.raises(MismatchError, match="holds a Standardize"):
        ZCA.load(good)


def test_nothing_is_half_written(tmp_path, monkeypatch):
    fitted = Standardize().fit(np.eye(4))
    fitted.save(tmp_path / "a.npz")
    before = (tmp_path / "a.npz").read_bytes()

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(epochal.errors.TargetError, match="the disk is full"):
        Standardize().fit(np.ones((3, 4))).save(tmp_path / "a.npz")
    assert (tmp_path / "a.npz").read_bytes() == before
    assert os.listdir(tmp_path) == ["a.npz"]


# Rows that are assigned to --------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["sequential", "shuffled_sequential"])
@pytest.mark.parametrize("kind", ["rows", "grid", "patches", "together"])
def test_epochs_see_rows_that_were_assigned_to_since(kind, scheme, images, path):
    stages = {
        "rows": Standardize(),
        "grid": ExtractGridPatches((2, 2), (2, 2)),
        "patches": ExtractPatches((2, 2), 500, seed=1),
        "together": ReassembleGridPatches((8, 8), (4, 4)),
    }
    transform = stages[kind].fit(images)
    with epochal.open(path, mode="c") as ds:
        made = ds.transform(transform) if kind != "patches" else transform.transform(ds)
        batches = made.batches(scheme, 64, sources=["X"], seed=3)
        before = np.concatenate([batch.X.copy() for batch in batches])
        ds["X"][0:40] = 255 - images[0:40]
        after = np.concatenate([batch.X.copy() for batch in batches])
        if scheme == "sequential":
            assert not np.array_equal(before, after)
            assert np.array_equal(after, made["X"][:])
        else:  # each epoch has its order
            assert np.array_equal(ordered(after), ordered(made["X"][:]))
            assert not np.array_equal(ordered(before), ordered(after))


def ordered(rows):
    vectors = rows.reshape(len(rows), -1)
    return vectors[np.lexsort(vectors.T)]


# Arguments, and stages that are applied one by one ---------------------------------------------


@pytest.mark.parametrize(
    "unfit",
    [PCA(2, n_iter=2.5), PCA(2, oversampling=1.5), PCA(2, exact_width=9.5), PCA(2, seed=0.5)],
    ids=str,
)
def test_whole_numbers_are_asked_for(unfit):
    with pytest.raises(MismatchError, match=r"\.5: give a whole number"):
        unfit.fit(np.eye(6))
    with pytest.raises(MismatchError, match=r"max_labels=2\.5: give a whole number"):
        OneHot(max_labels=2.5).fit(np.array([0, 1]))


def test_a_pipeline_transforms_nothing_for_nothing(images, monkeypatch):
    """Of the last stage nothing is made while it is fitted."""
    seen = []
    monkeypatch.setattr(
        ReassembleGridPatches,
        "transform",
        lambda self, X, real=ReassembleGridPatches.transform: seen.append(len(X)) or real(self, X),
    )
    stages = [ExtractGridPatches((2, 2), (2, 2)), ReassembleGridPatches((4, 4), (2, 2))]
    pipe = Pipeline(stages).fit(images)
    assert not seen
    assert np.array_equal(pipe.transform(images), images)
    assert seen == [4 * N]


def test_stages_of_a_pipeline_refuse_what_they_were_not_fitted_to(images):
    pipe = Pipeline([Standardize(), PCA(3)]).fit(images)
    with pytest.raises(ValueError, match="10 features, but Pipeline is expecting 48"):
        pipe.transform(np.ones((4, 10)))
    with pytest.raises(MismatchError, match="was fitted to rows of shape"):
        pipe.transform(np.ones((4, 2, 2, 5)))
