"""Patches along grids and from random places, against plain loops."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from sklearn.feature_extraction.image import extract_patches_2d

import epochal
from epochal.dataset import Dataset
from epochal.errors import MismatchError
from epochal.stores.concat import ConcatSource
from epochal.stores.patches import PatchSource, edges_of
from epochal.testing import ChunkedArrays, CountingSource, SourceStore
from epochal.transforms import (
    Downsample,
    ExtractGridPatches,
    ExtractPatches,
    Pipeline,
    ReassembleGridPatches,
    load,
)


def images(shape=(23, 6, 5, 3), dtype="u1"):
    return np.random.default_rng(3).integers(0, 256, shape).astype(dtype)


def grid_of(rows, patch, stride):
    """Image by image, then along each axis of the grid, the last one fastest."""
    places = [
        range(0, size - p + 1, s) for size, p, s in zip(rows.shape[1:], patch, stride, strict=False)
    ]
    found = []
    for image in rows:
        for steps in np.ndindex(*map(len, places)):
            corner = [each[k] for each, k in zip(places, steps, strict=True)]
            found.append(image[tuple(slice(c, c + p) for c, p in zip(corner, patch, strict=True))])
    return np.array(found)


def cut_of(rows, numbers, corners, patch):
    return np.array(
        [
            rows[n][tuple(slice(c, c + p) for c, p in zip(corner, patch, strict=True))]
            for n, corner in zip(numbers, corners, strict=True)
        ]
    )


def counting(rows, chunk_rows):
    source = CountingSource(ChunkedArrays({"X": (rows, chunk_rows)}).sources["X"])
    store = SourceStore({"X": source})
    return source, Dataset(store, store.sources)


# Along a grid ----------------------------------------------------------------


@st.composite
def grids(draw):
    axes = draw(st.integers(1, 3))
    patch = tuple(draw(st.integers(1, 4)) for _ in range(axes))
    size = tuple(p + draw(st.integers(0, 4)) for p in patch)
    stride = tuple(draw(st.integers(1, 5)) for _ in range(axes))
    channels = draw(st.sampled_from([(), (1,), (3,)]))
    return patch, size, stride, channels


@given(grid=grids(), n=st.integers(1, 4), dtype=st.sampled_from(["u1", "f4", ">i4"]))
@settings(max_examples=80, deadline=None)
def test_patches_along_a_grid(grid, n, dtype):
    patch, size, stride, channels = grid
    rows = images((n, *size, *channels), dtype)
    transform = ExtractGridPatches(patch, stride)
    expected = grid_of(rows, patch, stride)
    made = transform.transform(rows)
    assert_array_equal(made, expected)
    assert made.dtype == rows.dtype
    assert not np.shares_memory(made, rows)
    assert transform._factor(rows.shape[1:]) * n == len(expected)
    assert transform._out_shape(rows.shape[1:]) == made.shape[1:]


def test_a_stride_of_one_gives_all_patches_as_scikit_learn_does():
    rows = images((2, 7, 6, 3))
    made = ExtractGridPatches((3, 2), (1, 1)).transform(rows)
    assert_array_equal(made, np.concatenate([extract_patches_2d(each, (3, 2)) for each in rows]))


@given(
    n=st.integers(1, 4),
    patch=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    data=st.data(),
    channels=st.sampled_from([(), (3,)]),
)
@settings(max_examples=60, deadline=None)
def test_reassembling_undoes_it(n, patch, data, channels):
    size = [p * data.draw(st.integers(1, 3)) for p in patch]
    rows = images((n, *size, *channels), "f4")
    patches = ExtractGridPatches(patch, patch).transform(rows)
    transform = ReassembleGridPatches(size, patch)
    made = transform.fit(patches).transform(patches)
    assert_array_equal(made, rows)
    assert made.dtype == rows.dtype


def test_labels_are_those_of_the_image():
    rows, labels = images(), np.arange(23)
    transform = ExtractGridPatches((2, 3), (2, 2))
    expected = grid_of(rows, (2, 3), (2, 2))
    k = len(expected) // 23
    assert k == 6
    ds = epochal.from_arrays(X=rows, y=labels).transform(transform)
    assert len(ds) == len(expected)
    assert_array_equal(ds["X"][:], expected)
    assert_array_equal(ds["y"][:], np.repeat(labels, k))
    for scheme in ("sequential", "shuffled_sequential"):
        for batch in ds.batches(scheme, 7, seed=0 if scheme != "sequential" else None):
            for patch, label in zip(batch.X, batch.y, strict=True):
                assert (expected[label * k : label * k + k] == patch).all(axis=(1, 2, 3)).any()


def test_a_part_of_a_dataset_gives_the_patches_of_its_images():
    rows = images()
    part, _ = epochal.from_arrays(X=rows, y=np.arange(23)).split(0.5, seed=1)
    made = part.transform(ExtractGridPatches((2, 2), (2, 2)))
    assert_array_equal(made["X"][:], grid_of(rows[part["y"][:]], (2, 2), (2, 2)))
    assert_array_equal(made["y"][:], np.repeat(part["y"][:], 6))


def test_images_come_back_through_a_view_by_rows():
    rows = images((8, 4, 6, 3))
    patches = epochal.from_arrays(X=rows).transform(ExtractGridPatches((2, 2), (2, 2)))
    transform = ReassembleGridPatches((4, 6), (2, 2))
    assert_array_equal(transform.transform(patches["X"][12:24]), rows[2:4])
    made = list(transform.transform(patches.batches("sequential", 12)))
    assert_array_equal(np.concatenate([batch.X for batch in made]), rows)


def test_vectors_of_a_shape():
    rows = images()
    vectors = rows.reshape(23, -1)
    how = {"image_shape": [6, 5, 3]}
    made = ExtractGridPatches((2, 2), (1, 2), **how).fit(vectors).transform(vectors)
    assert_array_equal(made, grid_of(rows, (2, 2), (1, 2)))
    drawn = ExtractPatches((2, 2), 50, **how)
    assert_array_equal(drawn.transform(vectors), ExtractPatches((2, 2), 50).transform(rows))
    ds = epochal.from_arrays(X=vectors)
    assert_array_equal(drawn.transform(ds)["X"][:], drawn.transform(vectors))


@pytest.mark.parametrize(
    "transform",
    [
        ExtractGridPatches((2, 2), (2, 3)),
        ExtractPatches((2, 2), 9, seed=4),
        ReassembleGridPatches((6, 10), (6, 5)),
    ],
    ids=repr,
)
def test_saved_and_loaded(transform, tmp_path):
    rows = images((4, 6, 5, 3))
    transform.fit(rows).save(tmp_path / "kept.npz")
    again = load(tmp_path / "kept.npz")
    assert repr(again) == repr(transform)
    assert_array_equal(again.transform(rows), transform.transform(rows))


@pytest.mark.parametrize("seed", range(3))
def test_blocks_change_nothing(seed):
    rows = images()
    transform = ExtractGridPatches((2, 2), (1, 2))
    cuts = np.sort(np.random.default_rng(seed).integers(0, len(rows), 4))
    parts = [transform.transform(part) for part in np.split(rows, cuts) if len(part)]
    assert_array_equal(np.concatenate(parts), transform.transform(rows))


# From random places ----------------------------------------------------------------


@given(
    patch=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    more=st.integers(0, 3),
    channels=st.sampled_from([(), (1,), (3,)]),
    n=st.integers(1, 40),
    chunk_rows=st.integers(1, 9),
)
@settings(max_examples=60, deadline=None)
def test_patches_from_random_places(patch, more, channels, n, chunk_rows):
    size = [p + more for p in patch]
    rows = images((17, *size, *channels))
    transform = ExtractPatches(patch, n, seed=more)
    numbers, corners = transform.places(17, rows.shape[1:])
    assert numbers.dtype == corners.dtype == np.int64
    assert (np.diff(numbers) >= 0).all()
    expected = cut_of(rows, numbers, corners, patch)
    made = transform.transform(rows)
    assert_array_equal(made, expected)
    assert made.dtype == rows.dtype
    _, ds = counting(rows, chunk_rows)
    assert_array_equal(transform.transform(ds)["X"][:], expected)
    assert_array_equal(transform.transform(ds["X"])[:], expected)


def test_every_image_and_every_place_is_as_likely():
    numbers, corners = ExtractPatches((2, 3), 60_000).places(10, (4, 5, 3))
    for found, k in ((numbers, 10), (corners[:, 0], 3), (corners[:, 1], 3)):
        counts = np.bincount(found, minlength=k)
        assert len(counts) == k
        # Beyond five deviations once in a million.
        assert np.abs(counts - 60_000 / k).max() < 5 * np.sqrt(60_000 / k)
    # Places of one image are independent of it.
    first = np.bincount(corners[numbers == 0, 0], minlength=3)
    assert np.abs(first - first.sum() / 3).max() < 5 * np.sqrt(first.sum() / 3)


def test_a_seed_names_a_draw():
    rows = images()
    one = ExtractPatches((2, 2), 30, seed=1).transform(rows)
    assert_array_equal(ExtractPatches((2, 2), 30, seed=1).transform(rows), one)
    assert (ExtractPatches((2, 2), 30, seed=2).transform(rows) != one).any()


def test_each_chunk_of_images_is_decoded_once():
    rows = images((60, 64, 64, 3))
    transform = ExtractPatches((16, 16), 6_000)
    source, ds = counting(rows, 7)
    made = transform.transform(ds)
    layout = made["X"].layout
    assert layout.n_chunks > 2
    assert layout.chunk_bytes < 3 << 20
    assert_array_equal(made["X"][:], transform.transform(rows))
    assert set(source.chunks) == set(range(9))
    assert max(source.chunks.values()) == 1
    assert layout.stored_bytes == source.layout.stored_bytes


def test_only_chunks_that_hold_images_are_read():
    rows = images((1_000, 4, 4, 1))
    transform = ExtractPatches((2, 2), 5)
    source, ds = counting(rows, 10)
    made = transform.transform(ds)["X"][:]
    numbers, _ = transform.places(1_000, (4, 4, 1))
    assert set(source.chunks) == set((numbers // 10).tolist())
    assert_array_equal(made, transform.transform(rows))


def test_images_that_can_be_read_alone_are():
    rows = images((1_000, 4, 4, 1))
    source = CountingSource(epochal.from_arrays(X=rows).stored["X"])
    store = SourceStore({"X": source})
    transform = ExtractPatches((2, 2), 50)
    made = transform.transform(Dataset(store, store.sources))["X"][:]
    assert_array_equal(made, transform.transform(rows))
    assert not source.chunks
    numbers, _ = transform.places(1_000, (4, 4, 1))
    assert source.rows == len(set(numbers.tolist()))


def test_batches_of_patches_have_no_labels():
    rows = images((40, 8, 8, 3))
    ds = epochal.from_arrays(X=rows, y=np.arange(40))
    transform = ExtractPatches((3, 3), 500)
    made = transform.transform(ds)
    expected = transform.transform(rows)
    assert list(made.sources) == ["X"]
    assert not made.others
    assert len(made) == 500
    assert_array_equal(np.concatenate([b.X for b in made.batches("sequential", 64)]), expected)
    shuffled = np.concatenate([b.X for b in made.batches("shuffled_sequential", 64, seed=0)])
    assert (shuffled != expected).any()
    assert_array_equal(np.sort(shuffled.sum((1, 2, 3))), np.sort(expected.sum((1, 2, 3))))
    assert_array_equal(made["X"][[7, 3, 7]], expected[[7, 3, 7]])


@pytest.mark.parametrize("seed", [0, None])
def test_rows_of_a_part_are_rows_of_the_file(seed):
    rows = images((40, 8, 8, 3))
    _, ds = counting(rows, 6)
    _, part = ds.split(0.5, seed=seed)
    transform = ExtractPatches((3, 3), 100)
    assert_array_equal(transform.transform(part)["X"][:], transform.transform(part["X"][:]))
    upside_down = ds._view(np.arange(40)[::-1])  # numbers of the file that descend
    made = transform.transform(upside_down)
    assert_array_equal(made["X"][:], transform.transform(rows[::-1]))


def test_patches_of_what_was_transformed_and_transformed_patches():
    rows = images((20, 8, 8, 3))
    small, patches = Downsample((2, 2)), ExtractPatches((3, 2), 60)
    ds = epochal.from_arrays(X=rows, y=np.arange(20))
    expected = patches.transform(small.transform(rows))
    assert_array_equal(patches.transform(ds.transform(small))["X"][:], expected)
    twice = patches.transform(ds).transform(Downsample((3, 1)))
    assert_array_equal(twice["X"][:], Downsample((3, 1)).transform(patches.transform(rows)))


def test_patches_of_uneven_chunks():
    rows = images((20, 8, 8, 3))
    parts = [ChunkedArrays({"X": (each, 3)}).sources["X"] for each in (rows[:7], rows[7:])]
    store = SourceStore({"X": ConcatSource(parts)})
    transform = ExtractPatches((3, 3), 100)
    made = transform.transform(Dataset(store, store.sources))
    assert_array_equal(made["X"][:], transform.transform(rows))


def test_a_file_and_a_copy_of_the_dataset(tmp_path):
    rows = images((50, 8, 8, 3))
    np.save(tmp_path / "images.npy", rows)
    transform = ExtractPatches((4, 4), 200, seed=3)
    with epochal.open(tmp_path / "images.npy") as ds:
        (name,) = ds.sources
        made = transform.transform(ds)
        assert_array_equal(made[name][:], transform.transform(rows))
        with pickle.loads(pickle.dumps(made)) as again:
            assert_array_equal(again[name][:], transform.transform(rows))


@given(
    units=st.lists(st.integers(0, 9), min_size=1, max_size=60),
    n_rows=st.integers(1, 9),
    ascend=st.booleans(),
)
def test_chunks_of_patches_have_edges(units, n_rows, ascend):
    units = np.array(sorted(units) if ascend else units, dtype=np.int64)
    edges = edges_of(units, n_rows)
    assert edges[0] == 0
    assert edges[-1] == len(units)
    sizes = np.diff(edges)
    assert (sizes > 0).all()
    assert (sizes[:-1] >= n_rows).all()
    assert (sizes <= 8 * n_rows).all()


def test_one_image_of_many_patches_is_cut_into_chunks():
    rows = images((2, 40, 40, 3))
    source, ds = counting(rows, 1)
    transform = ExtractPatches((30, 30), 8_000)
    made = transform.transform(ds)["X"]
    assert isinstance(made.source, PatchSource)
    assert made.layout.chunk_bytes <= 8 << 20
    assert_array_equal(made[:], transform.transform(rows))
    assert max(source.chunks.values()) < 8


# Errors ----------------------------------------------------------------

BAD = [
    (ExtractGridPatches((7, 2), (1, 1)), (6, 5, 3), r"patch_shape=\(7, 2\) is larger than the im"),
    (ExtractGridPatches((2, 2), (1, 0)), (6, 5, 3), r"patch_stride=\(1, 0\): give whole numbers"),
    (ExtractGridPatches((2, 2), (1,)), (6, 5, 3), r"patch_stride=\(1,\): give whole numbers"),
    (ExtractGridPatches((2, 2), 2), (6, 5, 3), "patch_stride=2: give whole numbers"),
    (ExtractGridPatches((0, 2), (1, 1)), (6, 5, 3), r"patch_shape=\(0, 2\): give whole"),
    (ExtractGridPatches((2,) * 4, (1,) * 4), (6, 5, 3), "one an axis: 1, 2 or 3 of them"),
    (ExtractGridPatches((2, 2), (1, 1)), (90,), "say which images they are with image_shape="),
    (ExtractGridPatches((2, 2), (1, 1), (6, 5, 3)), (91,), r"\(6, 5, 3\), 90 .*does not match"),
    (ExtractPatches((7, 2), 3), (6, 5, 3), r"patch_shape=\(7, 2\) is larger than the image"),
    (ExtractPatches((2, 2), 0), (6, 5, 3), "num_patches=0: give a whole number from 1 on"),
    (ExtractPatches((2, 2), 2.5), (6, 5, 3), "num_patches=2.5: give a whole number from 1"),
    (ExtractPatches((2, 2), 2, seed=-1), (6, 5, 3), "seed=-1: give a whole number from 0 on"),
    (ExtractPatches((2, 2), 2, seed=0.5), (6, 5, 3), "seed=0.5: give a whole number from 0"),
    (ExtractPatches((2, 2), 2, seed=1 << 64), (6, 5, 3), "from 0 on, below 2"),
    (ExtractPatches((2, 2), 2), (90,), "say which images they are with image_shape="),
    (ReassembleGridPatches((6, 5), (2, 2)), (2, 2), r"\(2, 2\) does not tile orig_shape=\(6, 5\)"),
    (ReassembleGridPatches((2, 2), (4, 4)), (4, 4), "patches that overlap, or are oversized"),
    (ReassembleGridPatches((6,), (2, 2)), (2, 2), r"orig_shape=\(6,\): give whole numbers"),
    (ReassembleGridPatches((6, 6), (2, 2)), (2, 3), r"rows of shape \(2, 3\) are no patches"),
    (ReassembleGridPatches((6, 6), (2, 2)), (2, 2, 3, 1), "are no patches of patch_shape"),
]


@pytest.mark.parametrize(("transform", "row_shape", "message"), BAD)
def test_bad_arguments_are_refused(transform, row_shape, message):
    rows = np.zeros((9, *row_shape))
    with pytest.raises(MismatchError, match=message):
        transform.transform(rows)
    with pytest.raises(MismatchError, match=message):
        transform.fit(rows)
    if not isinstance(transform, ReassembleGridPatches):
        with pytest.raises(MismatchError, match=message):
            transform.transform(epochal.from_arrays(X=rows))


def test_patches_that_are_no_whole_images():
    with pytest.raises(MismatchError, match=r"8 patches are no whole images: 9 of \(2, 2\) make"):
        ReassembleGridPatches((6, 6), (2, 2)).transform(np.zeros((8, 2, 2)))


@pytest.mark.parametrize("chunk_rows", [1, 4, 7, 9, 20, 500])
def test_reassembled_as_rows_are_read(tmp_path, chunk_rows):
    images = np.random.default_rng(0).integers(0, 256, (20, 6, 6, 3)).astype("u1")
    patches = ExtractGridPatches((2, 2), (2, 2)).transform(images)
    labels = np.repeat(np.arange(20), 9)
    sources = {"X": ((2, 2, 3), "u1"), "y": ((), "i8")}
    with epochal.create(tmp_path / "a.h5", sources, chunk_rows=chunk_rows) as writer:
        writer.append(X=patches, y=labels)
    transform = ReassembleGridPatches((6, 6), (2, 2))
    with epochal.open(str(tmp_path / "a.h5")) as ds:
        made = ds.transform(transform)
        assert (len(made), made["X"].shape, made["X"].dtype) == (20, (20, 6, 6, 3), np.uint8)
        assert np.array_equal(made["X"][:], images)
        assert np.array_equal(made["X"][[3, 19, 3]], images[[3, 19, 3]])
        assert np.array_equal(made["y"][:], np.arange(20))
        for memory in ("64MiB", "4MiB"):
            for X, y in made.batches("shuffled_sequential", 6, seed=1, memory=memory):
                assert np.array_equal(X, images[y])
        part = ds.part(9, 90).transform(transform)
        assert np.array_equal(part["X"][:], images[1:10])
        with pytest.raises(MismatchError, match="not those of whole groups of 9"):
            ds.part(4, 94).transform(transform)
        with pytest.raises(MismatchError, match="not those of whole groups of 9"):
            ds.split(0.5)[0].transform(transform)
        assert np.array_equal(transform.transform(ds["X"])[:], images)
        made.save(tmp_path / "b.h5")
    with epochal.open(str(tmp_path / "b.h5")) as ds:
        assert np.array_equal(ds["X"][:], images)
    with pytest.raises(MismatchError, match="10 rows are no whole groups of 9: 1 are left"):
        epochal.from_arrays(X=np.zeros((10, 2, 2))).transform(transform)


def test_pipelines_with_stages_that_are_of_several_rows():
    images = np.random.default_rng(0).random((20, 6, 6)).astype("f4")
    pipe = Pipeline([ExtractGridPatches((2, 2), (2, 2)), ReassembleGridPatches((6, 6), (2, 2))])
    assert np.array_equal(pipe.fit(images).transform(images), images)
    ds = epochal.from_arrays(X=images)
    assert np.array_equal(pipe.transform(ds)["X"][:], images)
    with pytest.raises(MismatchError, match=r"take pipeline\.transform\(dataset\)"):
        ds.transform(pipe)


def test_what_random_patches_are_not_taken_of():
    ds = epochal.from_arrays(X=np.zeros((9, 4, 4)))
    transform = ExtractPatches((2, 2), 3)
    with pytest.raises(MismatchError, match=r"call its transform\(dataset\)"):
        ds.transform(transform)
    with pytest.raises(MismatchError, match="batches hold some: transform the dataset"):
        transform.transform(ds.batches("sequential", 3))
    with pytest.raises(MismatchError, match="there are 0 images"):
        transform.places(0, (4, 4))
    with pytest.raises(MismatchError, match="rows of complex128: ExtractPatches takes real"):
        transform.transform(epochal.from_arrays(X=np.zeros((9, 4, 4), "c16")))
