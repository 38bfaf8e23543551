"""Every conversion against plain loops over single numbers; what is refused, and in which words."""

import pickle
import re
import sys
from dataclasses import FrozenInstanceError
from itertools import count, islice, permutations, product

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal.errors import MismatchError
from epochal.ragged import Ragged
from epochal.spaces import (
    CompositeSpace,
    Conv2DSpace,
    IndexSequenceSpace,
    IndexSpace,
    VectorSequenceSpace,
    VectorSpace,
    flat,
    nested,
)

ORDERS = list(permutations(("b", 0, 1, "c")))
IDS = ["".join(map(str, axes)) for axes in ORDERS]
DTYPES = ("uint8", "int64", "float32", "float64", "complex64")

SMALL = st.integers(1, 3)
EXAMPLES = st.integers(0, 3)  # of a batch: none, too


def refused(text):
    return pytest.raises(MismatchError, match=re.escape(text))


def read_only(array):
    array.flags.writeable = False
    return array


# The oracle: one number at a time, at named places.


def places(sizes, axes):
    """Every place along some axes, the last of them running fastest."""
    for at in product(*(range(sizes[axis]) for axis in axes)):
        yield dict(zip(axes, at, strict=True))


def at(place, axes):
    return tuple(place[axis] for axis in axes)


def sizes_of(space, n):
    return {"b": n, 0: space.shape[0], 1: space.shape[1], "c": space.num_channels}


def in_a_vector():
    """In which order the numbers of an image stand in its vector: the rule, stated once."""
    return [0, 1, "c"]


def turned_by_hand(batch, space, target):
    sizes = sizes_of(space, batch.shape[space.axes.index("b")])
    out = np.empty([sizes[axis] for axis in target.axes], batch.dtype)
    for place in places(sizes, ("b", 0, 1, "c")):
        out[at(place, target.axes)] = batch[at(place, space.axes)]
    return out


def vectors_by_hand(batch, space):
    sizes = sizes_of(space, batch.shape[space.axes.index("b")])
    return [
        [batch[at({**place, "b": b}, space.axes)] for place in places(sizes, in_a_vector())]
        for b in range(sizes["b"])
    ]


def images_by_hand(vectors, space):
    sizes = sizes_of(space, len(vectors))
    out = np.empty([sizes[axis] for axis in space.axes])
    for b, vector in enumerate(vectors):
        for number, place in zip(vector, places(sizes, in_a_vector()), strict=True):
            out[at({**place, "b": b}, space.axes)] = number
    return out


def one_hots_by_hand(labels, max_labels):
    """Concatenated and merged."""
    apart = [[float(k == label) for label in row for k in range(max_labels)] for row in labels]
    merged = [[float(k in row) for k in range(max_labels)] for row in labels]
    return apart, merged


def leaves(space, batch):
    """Simple spaces and their batches, from left to right."""
    if not isinstance(space, CompositeSpace):
        return [(space, batch)]
    assert isinstance(batch, tuple)
    pairs = zip(space.components, batch, strict=True)
    return [leaf for part in pairs for leaf in leaves(*part)]


def rows_by_hand(space, batch):
    """Vectors of the batch of any tree, as lists."""
    rows = None
    for leaf, part in leaves(space, batch):
        if isinstance(leaf, Conv2DSpace):
            more = vectors_by_hand(part, leaf)
        else:
            more = (part.toarray() if leaf.sparse else part).tolist()
        rows = more if rows is None else [a + b for a, b in zip(rows, more, strict=True)]
    return rows


# What the tests draw.


def numbered(space, n, numbers=None):
    """A batch in which every number is another one."""
    numbers = count(1) if numbers is None else numbers
    if isinstance(space, CompositeSpace):
        return tuple(numbered(each, n, numbers) for each in space.components)
    shape = space.batch_shape(n) if isinstance(space, Conv2DSpace) else (n, space.dim)
    size = n * space.get_total_dimension()
    array = read_only(np.array(list(islice(numbers, size)), "float32").reshape(shape))
    return scipy.sparse.csr_array(array) if getattr(space, "sparse", False) else array


images = st.builds(
    Conv2DSpace,
    st.tuples(SMALL, SMALL),
    num_channels=SMALL,
    axes=st.sampled_from(ORDERS),
)
vectors = st.builds(VectorSpace, SMALL, sparse=st.booleans())
dtypes = st.sampled_from([None, *DTYPES])
labels_dtypes = st.sampled_from([None, "uint8", "int64"])
simple = st.one_of(
    st.builds(VectorSpace, SMALL, sparse=st.booleans(), dtype=dtypes),
    st.builds(
        Conv2DSpace,
        st.tuples(SMALL, SMALL),
        num_channels=SMALL,
        axes=st.sampled_from(ORDERS),
        dtype=dtypes,
    ),
    st.builds(IndexSpace, SMALL, SMALL, dtype=labels_dtypes),
    st.builds(VectorSequenceSpace, SMALL, dtype=dtypes),
    st.builds(IndexSequenceSpace, SMALL, SMALL, dtype=labels_dtypes),
)


def trees(leaves):
    return st.recursive(
        leaves, lambda each: st.lists(each, max_size=3).map(CompositeSpace), max_leaves=5
    )


spaces = trees(simple)


# Images.


@pytest.mark.parametrize("axes", ORDERS, ids=IDS)
@settings(max_examples=30, deadline=None)
@given(st.tuples(SMALL, SMALL), SMALL, EXAMPLES, st.sampled_from(ORDERS))
def test_images_of_any_axis_order_become_those_of_any_other(axes, shape, channels, n, others):
    space = Conv2DSpace(shape, channels, axes=axes)
    target = Conv2DSpace(shape, channels, axes=others)
    batch = numbered(space, n)
    made = space.np_format_as(batch, target)
    target.np_validate(made)
    np.testing.assert_array_equal(made, turned_by_hand(batch, space, target), strict=True)
    np.testing.assert_array_equal(target.np_format_as(made, space), batch, strict=True)


@pytest.mark.parametrize("axes", ORDERS, ids=IDS)
def test_images_of_unlike_sizes_become_those_of_each_other_order(axes):
    space = Conv2DSpace((3, 4), 5, axes=axes)
    batch = numbered(space, 2)
    for others in ORDERS:
        target = Conv2DSpace((3, 4), 5, axes=others)
        made = space.np_format_as(batch, target)
        np.testing.assert_array_equal(made, turned_by_hand(batch, space, target), strict=True)


@pytest.mark.parametrize("axes", ORDERS, ids=IDS)
@settings(max_examples=30, deadline=None)
@given(st.tuples(SMALL, SMALL), SMALL, EXAMPLES)
def test_a_vector_has_its_numbers_in_the_order_of_the_axes(axes, shape, channels, n):
    space = Conv2DSpace(shape, channels, axes=axes)
    dim = space.get_total_dimension()
    batch = numbered(space, n)
    vectors = space.np_format_as(batch, VectorSpace(dim))
    assert vectors.shape == (n, dim)
    assert vectors.tolist() == vectors_by_hand(batch, space)
    np.testing.assert_array_equal(images_by_hand(vectors, space), batch)
    back = VectorSpace(dim).np_format_as(vectors, space)
    np.testing.assert_array_equal(back, batch, strict=True)


@pytest.mark.parametrize("axes", ORDERS, ids=IDS)
def test_a_vector_of_images_of_one_order_as_images_of_another(axes):
    space, vector = Conv2DSpace((2, 3), 4, axes=axes), VectorSpace(24)
    batch = numbered(space, 2)
    for others in ORDERS:
        target = Conv2DSpace((2, 3), 4, axes=others)
        made = vector.np_format_as(space.np_format_as(batch, vector), target)
        np.testing.assert_array_equal(made, images_by_hand(vectors_by_hand(batch, space), target))
        back = vector.np_format_as(target.np_format_as(made, vector), space)
        np.testing.assert_array_equal(back, batch, strict=True)
        np.testing.assert_array_equal(made, space.np_format_as(batch, target), strict=True)


def test_a_vector_of_images_with_channels_first():
    space = Conv2DSpace((1, 2), 2, axes=("c", 0, 1, "b"))
    batch = np.array([10, 11, 20, 21]).reshape(2, 1, 2, 1)  # (channels, rows, columns, batch)
    vector = space.np_format_as(batch, VectorSpace(4, dtype=None))
    assert vector.tolist() == [[10, 20, 11, 21]]


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (Conv2DSpace((3, 2), 4), "another size of images"),
        (Conv2DSpace((2, 3), 1), "another size of images"),
        (VectorSpace(23), "24 numbers, not 23"),
        (CompositeSpace([VectorSpace(9)]), "24 numbers, not 9"),
        (IndexSpace(10, 24), "Conv2DSpace(shape=(2, 3), num_channels=4, axes=('b', 0, 1, 'c')) "
         "cannot be formatted as IndexSpace(max_labels=10, dim=24)"),
    ],
)  # fmt: skip
def test_images_become_nothing_of_another_size(target, text):
    space = Conv2DSpace((2, 3), 4)
    with refused(text):
        space.np_format_as(space.get_origin_batch(2), target)


# Labels.


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(1, 4), SMALL, EXAMPLES, st.sampled_from(["uint8", "int16", "int64"]))
def test_labels_become_one_hots(data, max_labels, dim, n, dtype):
    label = st.integers(0, max_labels - 1)
    labels = data.draw(
        st.lists(st.lists(label, min_size=dim, max_size=dim), min_size=n, max_size=n)
    )
    batch = read_only(np.array(labels, dtype).reshape(n, dim))
    space = IndexSpace(max_labels, dim)
    apart, merged = one_hots_by_hand(labels, max_labels)
    for size, expected in [(max_labels * dim, apart), (max_labels, merged)]:
        made = space.np_format_as(batch, VectorSpace(size))
        assert (made.shape, made.dtype, made.tolist()) == ((n, size), np.float32, expected)
        sparse = space.np_format_as(batch, VectorSpace(size, sparse=True, dtype="uint8"))
        VectorSpace(size, sparse=True).np_validate(sparse)
        assert (sparse.dtype, sparse.toarray().tolist()) == (np.uint8, expected)
    if dim == 1:
        made = space.np_format_as(batch[:, 0], VectorSpace(max_labels))
        assert (made.shape, made.tolist()) == ((n, max_labels), apart)


def test_one_hots_without_a_dtype_are_floats():
    made = IndexSpace(3, 1).np_format_as(np.array([1]), VectorSpace(3, dtype=None))
    assert (made.dtype, made.tolist()) == (np.float32, [[0, 1, 0]])


def test_more_labels_than_their_dtype_counts():
    made = IndexSpace(300, 1).np_format_as(np.array([255], "uint8"), VectorSpace(300))
    assert made[0].nonzero()[0].tolist() == [255]


@pytest.mark.parametrize(
    ("labels", "named"),
    [([[0, 3]], 3), ([[2, 1], [-1, 0]], -1), (np.array([[0, 200]], "uint8"), 200)],
)
@pytest.mark.parametrize("dim", [6, 3])
def test_labels_out_of_range(labels, named, dim):
    with refused(f"label {named} is outside [0, 3): "):
        IndexSpace(3, 2).np_format_as(np.array(labels), VectorSpace(dim))


def test_labels_of_another_dtype():
    batch = np.array([[1], [0]], "uint8")
    made = IndexSpace(2, 1).np_format_as(batch, IndexSpace(2, 1, dtype="int32"))
    assert (made.dtype, made.tolist()) == (np.int32, [[1], [0]])
    assert IndexSpace(2, 1).np_format_as(batch, IndexSpace(2, 1, dtype=None)).dtype == np.uint8


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (VectorSpace(2), "VectorSpace(dim=2): its vectors have 3 or 6 numbers"),
        (VectorSpace(5, sparse=True), "VectorSpace(dim=5, sparse=True): its vectors have 3 or 6"),
        (IndexSpace(4, 2), "cannot be formatted as IndexSpace(max_labels=4, dim=2)"),
        (IndexSpace(3, 1), "cannot be formatted as IndexSpace(max_labels=3, dim=1)"),
        (Conv2DSpace((1, 2)), "cannot be formatted as Conv2DSpace(shape=(1, 2), num_channels=1"),
        (IndexSequenceSpace(3, 2), "cannot be formatted as IndexSequenceSpace(max_labels=3"),
    ],
)
def test_labels_become_nothing_else(target, text):
    with refused(text):
        IndexSpace(3, 2).np_format_as(np.zeros((1, 2), int), target)


def test_one_label_has_one_size_of_vectors():
    with refused("its vectors have 3 numbers"):
        IndexSpace(3, 1).np_format_as(np.zeros(1, int), VectorSpace(2))


@pytest.mark.parametrize(
    "target", [IndexSpace(4, 3), VectorSequenceSpace(3), IndexSequenceSpace(4, 3)], ids=str
)
def test_vectors_become_no_labels_and_no_sequences(target):
    with refused(f"VectorSpace(dim=3) cannot be formatted as {target}"):
        VectorSpace(3).np_format_as(np.zeros((1, 3)), target)


# Dtypes.


def kinds(found, wanted):
    """Whether a cast is allowed: neither fractions to whole numbers nor complex ones to real."""
    whole = ("uint8", "int64")
    if wanted in whole:
        return found in whole
    return wanted == "complex64" or found != "complex64"


@pytest.mark.parametrize("wanted", DTYPES)
@pytest.mark.parametrize("found", DTYPES)
def test_dtypes_are_cast_where_that_loses_no_kind_of_number(found, wanted):
    batch = np.array([[0, 1, 2, 3]], found)
    sparse = scipy.sparse.csr_array(batch)
    vector, image = VectorSpace(4, dtype=wanted), Conv2DSpace((2, 2), dtype=wanted)
    conversions = [
        (VectorSpace(4), batch, vector),
        (VectorSpace(4), batch, image),
        (VectorSpace(4), batch, VectorSpace(4, sparse=True, dtype=wanted)),
        (VectorSpace(4, sparse=True), sparse, VectorSpace(4, sparse=True, dtype=wanted)),
        (VectorSpace(4, sparse=True), sparse, vector),
        (Conv2DSpace((2, 2)), batch.reshape(1, 2, 2, 1), image),
        (Conv2DSpace((2, 2)), batch.reshape(1, 2, 2, 1), vector),
        (CompositeSpace([VectorSpace(4)]), (batch,), vector),
        (CompositeSpace([VectorSpace(4)]), (batch,), image),
        (VectorSequenceSpace(4), batch, VectorSequenceSpace(4, dtype=wanted)),
    ]
    for space, given_batch, target in conversions:
        if kinds(found, wanted):
            made = space.np_format_as(given_batch, target)
            assert made.dtype == wanted
            numbers = made.toarray() if scipy.sparse.issparse(made) else made
            assert numbers.ravel().tolist() == [0, 1, 2, 3]
        else:
            with refused(f"a batch of {found} cannot become {wanted} without loss"):
                space.np_format_as(given_batch, target)


@pytest.mark.parametrize("found", DTYPES)
def test_a_dtype_of_none_leaves_that_of_the_batch(found):
    batch = np.array([[0, 1, 2, 3]], found)
    image = batch.reshape(1, 2, 2, 1)
    vectors, images = VectorSpace(4, dtype=None), Conv2DSpace((2, 2), dtype=None)
    both = CompositeSpace([VectorSpace(1, dtype=None), VectorSpace(3, dtype=None)])
    assert VectorSpace(4).np_format_as(batch, vectors).dtype == found
    assert VectorSpace(4).np_format_as(batch, images).dtype == found
    assert Conv2DSpace((2, 2)).np_format_as(image, vectors).dtype == found
    assert Conv2DSpace((2, 2)).np_format_as(image, images).dtype == found
    assert [part.dtype for part in VectorSpace(4).np_format_as(batch, both)] == [found, found]


@pytest.mark.parametrize("found", ["int64", "float32"])
def test_numbers_do_not_become_true_or_false(found):
    with refused(f"a batch of {found} cannot become bool without loss"):
        VectorSpace(1).np_format_as(np.ones((1, 1), found), VectorSpace(1, dtype=bool))
    made = VectorSpace(1).np_format_as(np.ones((1, 1), bool), VectorSpace(1, dtype=found))
    assert (made.dtype, made.tolist()) == (found, [[1]])


def test_dtypes_that_a_space_names():
    assert VectorSpace(1, dtype="floatX").dtype == np.float32
    assert VectorSpace(1).dtype == Conv2DSpace((1, 1)).dtype == np.float32
    assert VectorSequenceSpace(1, dtype="floatX").dtype == np.float32
    assert VectorSpace(1, dtype=float).dtype == np.float64
    assert IndexSpace(2, 1).dtype == IndexSequenceSpace(2, 1).dtype == np.int64
    assert VectorSpace(1, dtype=None).dtype is None


# One number in an example: the axis may be left out.


def test_batches_of_one_number_each_may_have_one_axis():
    numbers = np.array([1, 2, 3], "float32")
    vector = VectorSpace(1)
    vector.np_validate(numbers)
    assert vector.np_batch_size(numbers) == 3
    assert vector.np_format_as(numbers, vector).shape == (3, 1)
    assert vector.np_format_as(numbers, Conv2DSpace((1, 1), axes="c01b")).shape == (1, 1, 1, 3)
    sparse = vector.np_format_as(numbers, VectorSpace(1, sparse=True))
    assert sparse.toarray().tolist() == [[1], [2], [3]]
    both = CompositeSpace([vector, IndexSpace(4, 1)])
    given_batch = (numbers, np.array([3, 0, 1]))
    both.np_validate(given_batch)
    made = both.np_format_as(given_batch, CompositeSpace([vector, IndexSpace(4, 1)]))
    assert [part.shape for part in made] == [(3, 1), (3, 1)]


def test_a_sparse_batch_of_one_axis():
    batch = scipy.sparse.coo_array(np.array([0, 5], "float32"))
    space = VectorSpace(1, sparse=True)
    assert space.np_format_as(batch, VectorSpace(1)).tolist() == [[0], [5]]
    assert space.np_format_as(batch, Conv2DSpace((1, 1))).ravel().tolist() == [0, 5]


# Sparse vectors.


@pytest.mark.parametrize("kind", ["csr_array", "csr_matrix", "csc_array", "coo_array"])
@settings(max_examples=40, deadline=None)
@given(EXAMPLES, st.tuples(SMALL, SMALL), SMALL, st.sampled_from(ORDERS))
def test_sparse_vectors_and_dense_ones_and_images(kind, n, shape, channels, axes):
    image = Conv2DSpace(shape, channels, axes=axes)
    dim = image.get_total_dimension()
    dense, sparse = VectorSpace(dim), VectorSpace(dim, sparse=True)
    array = np.array([k % 3 for k in range(n * dim)], "float32").reshape(n, dim)
    batch = getattr(scipy.sparse, kind)(array)
    sparse.np_validate(batch)
    assert sparse.np_batch_size(batch) == n

    made = sparse.np_format_as(batch, dense)
    assert (type(made), made.shape, made.tolist()) == (np.ndarray, (n, dim), array.tolist())
    pictures = sparse.np_format_as(batch, image)
    np.testing.assert_array_equal(pictures, images_by_hand(array, image))
    assert sparse.np_format_as(batch, sparse) is batch
    for space, each in [(dense, array), (image, pictures)]:
        back = space.np_format_as(each, sparse)
        sparse.np_validate(back)
        assert back.format == "csr"
        assert back.toarray().tolist() == array.tolist()
        assert back.nnz == np.count_nonzero(array)


def test_dtypes_that_scipy_has_no_sparse_batches_of():
    with refused("a batch of float16 cannot be sparse: scipy.sparse does not support"):
        VectorSpace(2).np_format_as(np.ones((1, 2), "f2"), VectorSpace(2, sparse=True, dtype=None))


def test_without_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    with refused("sparse batches are SciPy's: pip install scipy"):
        VectorSpace(2).np_format_as(np.ones((1, 2)), VectorSpace(2, sparse=True))


# Sequences.


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(1, 4), SMALL, st.lists(EXAMPLES, max_size=3))
def test_sequences_of_labels_become_sequences_of_one_hots(data, max_labels, dim, lengths):
    label = st.integers(0, max_labels - 1)
    item = st.lists(label, min_size=dim, max_size=dim)
    rows = [data.draw(st.lists(item, min_size=size, max_size=size)) for size in lengths]
    items = [item for row in rows for item in row]
    values = np.array(items, "int64").reshape(len(items), dim)
    offsets = np.cumsum([0, *lengths])
    batch = Ragged(values, offsets)
    space = IndexSequenceSpace(max_labels, dim)
    space.np_validate(batch)
    assert space.np_batch_size(batch) == len(lengths)
    same_again = space.np_format_as(batch, space)
    assert (same_again.values.tolist(), same_again.offsets is offsets) == (items, True)
    for which, size in enumerate([max_labels * dim, max_labels]):
        target = VectorSequenceSpace(size)
        made = space.np_format_as(batch, target)
        assert isinstance(made, Ragged)
        target.np_validate(made)
        assert made.offsets is offsets
        assert made.values.dtype == np.float32
        for k, row in enumerate(rows):
            expected = one_hots_by_hand(row, max_labels)[which]
            assert made.values[offsets[k] : offsets[k + 1]].tolist() == expected
            alone = space.np_format_as(np.array(row, int).reshape(-1, dim), target)
            assert alone.tolist() == expected


def test_one_array_is_one_sequence():
    vectors = np.arange(6.0).reshape(3, 2)
    space = VectorSequenceSpace(2)
    space.np_validate(vectors)
    assert space.np_batch_size(vectors) == 1
    made = space.np_format_as(vectors, VectorSequenceSpace(2, dtype="float32"))
    assert (made.dtype, made.tolist()) == (np.float32, vectors.tolist())
    # A sequence and another one, of another length, are a batch of one.
    both = CompositeSpace([space, IndexSequenceSpace(4, 1)])
    both.np_validate((vectors, np.array([3, 1, 2, 0])))
    assert both.np_batch_size((vectors, np.array([3, 1, 2, 0]))) == 1


def test_sequences_of_vectors_in_another_dtype():
    batch = Ragged(np.arange(6).reshape(3, 2), np.array([0, 1, 3]))
    made = VectorSequenceSpace(2).np_format_as(batch, VectorSequenceSpace(2))
    assert (made.values.dtype, made.offsets.tolist()) == (np.float32, [0, 1, 3])
    assert made.values.tolist() == batch.values.tolist()


@pytest.mark.parametrize("wrap", [lambda array: array, lambda array: Ragged(array, [0, 1, 2])])
@pytest.mark.parametrize(
    ("space", "values", "target", "text"),
    [
        (VectorSequenceSpace(2), np.ones((2, 2)), VectorSpace(2),
         "VectorSequenceSpace(dim=2) cannot be formatted as VectorSpace(dim=2): sequences vary"),
        (VectorSequenceSpace(2), np.ones((2, 2)), VectorSequenceSpace(3),
         "as VectorSequenceSpace(dim=3): VectorSpace(dim=2) cannot be formatted as "
         "VectorSpace(dim=3): 2 numbers, not 3"),
        (VectorSequenceSpace(2), np.ones((2, 2)), IndexSequenceSpace(4, 2),
         "VectorSequenceSpace(dim=2) cannot be formatted as IndexSequenceSpace(max_labels=4"),
        (VectorSequenceSpace(2), np.ones((2, 2)), VectorSequenceSpace(2, dtype=int),
         "as VectorSequenceSpace(dim=2): a batch of float64 cannot become int64 without loss"),
        (IndexSequenceSpace(4, 1), np.array([[4], [0]]), VectorSequenceSpace(4),
         "as VectorSequenceSpace(dim=4): label 4 is outside [0, 4)"),
        (IndexSequenceSpace(4, 1), np.array([[1], [0]]), IndexSequenceSpace(5, 1),
         "IndexSpace(max_labels=4, dim=1) cannot be formatted as IndexSpace(max_labels=5, dim=1)"),
        (VectorSequenceSpace(2), np.ones((2, 3)), VectorSequenceSpace(2),
         "items of VectorSequenceSpace(dim=2): a batch of VectorSpace(dim=2) is (n, 2); "
         "found ndarray of shape (2, 3), float64"),
        (IndexSequenceSpace(4, 1), np.ones((2, 1)), VectorSequenceSpace(4),
         "items of IndexSequenceSpace(max_labels=4, dim=1): a batch of IndexSpace(max_labels=4, "
         "dim=1) is (n, 1) of integers; found ndarray of shape (2, 1), float64"),
    ],
)  # fmt: skip
def test_sequences_become_nothing_else(space, values, target, text, wrap):
    with refused(text):
        space.np_format_as(wrap(values), target)


# Several spaces.

dense_trees = trees(st.one_of(vectors, images)).filter(lambda space: space.get_total_dimension())


@settings(max_examples=200, deadline=None)
@given(dense_trees, EXAMPLES)
def test_a_tree_of_spaces_becomes_vectors_and_back(tree, n):
    batch = numbered(tree, n)
    tree.np_validate(batch)
    assert tree.np_batch_size(batch) == n
    dim = tree.get_total_dimension()
    expected = rows_by_hand(tree, batch)
    for vector in (VectorSpace(dim), VectorSpace(dim, sparse=True)):
        made = tree.np_format_as(batch, vector)
        vector.np_validate(made)
        assert (made.toarray() if vector.sparse else made).tolist() == expected
        back = vector.np_format_as(made, tree)
        tree.np_validate(back)
        same(tree, back, batch)


def same(space, left, right):
    pairs = zip(leaves(space, left), leaves(space, right), strict=True)
    for (leaf, mine), (_, theirs) in pairs:
        if getattr(leaf, "sparse", False):
            mine, theirs = mine.toarray(), theirs.toarray()
        np.testing.assert_array_equal(mine, theirs, strict=True)


def another(space, draw):
    """A space of as many numbers, in the same tree."""
    if isinstance(space, CompositeSpace):
        return CompositeSpace([another(each, draw) for each in space.components])
    if isinstance(space, Conv2DSpace) and draw(st.booleans()):
        return Conv2DSpace(space.shape, space.num_channels, axes=draw(st.sampled_from(ORDERS)))
    return VectorSpace(space.get_total_dimension(), sparse=draw(st.booleans()), dtype="float64")


@settings(max_examples=200, deadline=None)
@given(st.data(), dense_trees, EXAMPLES)
def test_a_tree_of_spaces_becomes_another_one_part_by_part(data, tree, n):
    target = another(tree, data.draw)
    batch = numbered(tree, n)
    made = tree.np_format_as(batch, target)
    target.np_validate(made)
    parts = zip(leaves(tree, batch), leaves(target, made), strict=True)
    for (space, part), (theirs, other) in parts:
        if isinstance(space, Conv2DSpace) and isinstance(theirs, Conv2DSpace):
            np.testing.assert_array_equal(other, turned_by_hand(part, space, theirs), strict=True)
        else:
            assert rows_by_hand(theirs, other) == rows_by_hand(space, part)


@settings(max_examples=100, deadline=None)
@given(dense_trees, images, EXAMPLES)
def test_a_tree_of_spaces_becomes_images_of_as_many_numbers(tree, image, n):
    both = CompositeSpace([tree, image])
    wide = Conv2DSpace((1, both.get_total_dimension()), axes=image.axes)
    batch = numbered(both, n)
    made = both.np_format_as(batch, wide)
    np.testing.assert_array_equal(made, images_by_hand(rows_by_hand(both, batch), wide))
    same(both, wide.np_format_as(made, both), batch)


def test_a_part_may_become_several():
    space = CompositeSpace([VectorSpace(3), VectorSpace(1)])
    batch = (np.array([[1, 2, 3]], "float32"), np.array([[4]], "float32"))
    target = CompositeSpace([CompositeSpace([VectorSpace(1), VectorSpace(2)]), VectorSpace(1)])
    (one, two), three = space.np_format_as(batch, target)
    assert [one.tolist(), two.tolist(), three.tolist()] == [[[1]], [[2, 3]], [[4]]]
    back = target.np_format_as(((one, two), three), space)
    assert [part.tolist() for part in back] == [[[1, 2, 3]], [[4]]]


def test_parts_of_several_dtypes_take_that_of_the_vectors():
    space = CompositeSpace([VectorSpace(1), VectorSpace(1)])
    whole = (np.array([[1]], "uint64"), np.array([[-2]], "int64"))  # together, NumPy's float64
    made = space.np_format_as(whole, VectorSpace(2, dtype="int64"))
    assert (made.dtype, made.tolist()) == (np.int64, [[1, -2]])
    mixed = (np.array([[1]], "int16"), np.array([[0.5]], "float32"))
    assert space.np_format_as(mixed, VectorSpace(2)).dtype == np.float32
    made = space.np_format_as(mixed, VectorSpace(2, dtype=None))
    assert (made.dtype, made.tolist()) == (np.float32, [[1, 0.5]])
    with refused("a batch of float32 cannot become int64 without loss"):
        space.np_format_as(mixed, VectorSpace(2, dtype="int64"))


def test_labels_among_the_parts():
    space = CompositeSpace([VectorSpace(2), IndexSpace(3, 1)])
    batch = (np.array([[5, 6]]), np.array([2]))
    made = space.np_format_as(batch, CompositeSpace([VectorSpace(2), VectorSpace(3)]))
    assert [part.tolist() for part in made] == [[[5, 6]], [[0, 0, 1]]]
    with refused("IndexSpace(max_labels=3, dim=1) cannot be formatted as VectorSpace(dim=1)"):
        space.np_format_as(batch, VectorSpace(3))
    with refused("cannot be formatted as IndexSpace(max_labels=3, dim=1)"):
        VectorSpace(3).np_format_as(np.ones((1, 3)), space)
    # As many labels as an example has: the merged one-hot, whole numbers where those are asked for.
    pair = CompositeSpace([IndexSpace(2, 2), VectorSpace(1)])
    made = pair.np_format_as((np.array([[1, 1]]), np.array([7])), VectorSpace(3, dtype="int64"))
    assert (made.dtype, made.tolist()) == (np.int64, [[0, 1, 7]])


def test_a_tree_may_hold_nothing():
    nothing = CompositeSpace([])
    assert nothing.get_total_dimension() == nothing.np_batch_size(()) == 0
    assert nothing.np_format_as((), nothing) == ()
    space = CompositeSpace([nothing, VectorSpace(1)])
    batch = ((), np.array([[1], [2]], "float32"))
    space.np_validate(batch)
    assert space.np_batch_size(batch) == 2
    vector = space.np_format_as(batch, VectorSpace(1))
    assert vector.tolist() == [[1], [2]]
    same(space, VectorSpace(1).np_format_as(vector, space), batch)


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (VectorSpace(5), "CompositeSpace(VectorSpace(dim=2), VectorSpace(dim=1)) cannot be "
         "formatted as VectorSpace(dim=5): 3 numbers, not 5"),
        (Conv2DSpace((2, 2)), "3 numbers, not 4"),
        (CompositeSpace([VectorSpace(3)]), "2 parts, not 1"),
        (CompositeSpace([VectorSpace(1), VectorSpace(2)]), "2 numbers, not 1"),
        (CompositeSpace([VectorSpace(2), CompositeSpace([])]), "1 numbers, not 0"),
        (IndexSpace(2, 3), "cannot be formatted as IndexSpace(max_labels=2, dim=3)"),
        (VectorSequenceSpace(3), "cannot be formatted as VectorSequenceSpace(dim=3)"),
    ],
)  # fmt: skip
def test_a_tree_becomes_nothing_of_another_size(target, text):
    space = CompositeSpace([VectorSpace(2), VectorSpace(1)])
    with refused(text):
        space.np_format_as(space.get_origin_batch(2), target)


def test_sequences_among_the_parts_become_no_vectors():
    space = CompositeSpace([VectorSequenceSpace(2)])
    with refused("VectorSequenceSpace(dim=2) cannot be formatted as VectorSpace(dim=2)"):
        space.np_format_as(space.get_origin_batch(1), VectorSpace(2))


def test_some_of_the_parts():
    one, two, three = VectorSpace(1), VectorSpace(2), IndexSpace(3, 1)
    space = CompositeSpace([one, two, three])
    assert space.restrict([2, 0]) == CompositeSpace([three, one])
    assert space.restrict([1]) == two
    assert space.restrict([]) == CompositeSpace([])


# Spaces are values.


@settings(max_examples=300, deadline=None)
@given(spaces, spaces)
def test_spaces_are_equal_where_they_describe_the_same(one, other):
    assert (one == other) == (repr(one) == repr(other))
    if one == other:
        assert hash(one) == hash(other)


@settings(max_examples=200, deadline=None)
@given(spaces)
def test_spaces_are_copied_by_pickle_and_by_their_repr(space):
    names = {**globals(), "dtype": np.dtype}
    for copy in (pickle.loads(pickle.dumps(space)), eval(repr(space), names)):
        assert copy == space
        assert hash(copy) == hash(space)
        assert {space: 1}[copy] == 1
        assert repr(copy) == repr(space)
        assert str(copy) == str(space)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (VectorSpace(3, dtype="float64"), VectorSpace(3, dtype=None)),  # NumPy has these equal
        (VectorSpace(3), VectorSpace(3, dtype="float64")),
        (VectorSpace(3), VectorSpace(3, sparse=True)),
        (VectorSpace(3), VectorSequenceSpace(3)),
        (IndexSpace(3, 2), IndexSequenceSpace(3, 2)),
        (IndexSpace(3, 2), IndexSpace(2, 3)),
        (Conv2DSpace((2, 3), 1), Conv2DSpace((3, 2), 1)),
        (Conv2DSpace((2, 3), 1), Conv2DSpace((2, 3), 2)),
        (Conv2DSpace((2, 3), 1), Conv2DSpace((2, 3), 1, axes="c01b")),
        (CompositeSpace([VectorSpace(3)]), VectorSpace(3)),
        (CompositeSpace([VectorSpace(3)]), CompositeSpace([VectorSpace(2)])),
        (CompositeSpace([VectorSpace(3)]), (VectorSpace(3),)),
        (VectorSpace(3), 3),
    ],
)
def test_spaces_that_differ(one, other):
    assert one != other
    assert other != one
    assert len({one, other}) == 2


def test_two_ways_to_say_the_same():
    space = Conv2DSpace((2, 3), num_channels=4, axes=("b", 0, 1, "c"))
    assert Conv2DSpace([np.int64(2), 3], channels=4) == space
    assert Conv2DSpace(np.array([2, 3]), channels=4, num_channels=4, axes="b01c") == space
    assert Conv2DSpace((2, 3), 4, axes=["b", np.int64(0), "1", "c"]) == space
    assert VectorSpace(np.int32(3), dtype=np.float32) == VectorSpace(3, dtype="floatX")
    assert CompositeSpace((VectorSpace(1),)) == CompositeSpace(iter([VectorSpace(1)]))


def test_spaces_do_not_change():
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'dim'"):
        VectorSpace(3).dim = 4


@pytest.mark.parametrize(
    ("space", "shown", "in_full"),
    [
        (VectorSpace(3), "VectorSpace(dim=3)",
         "VectorSpace(dim=3, sparse=False, dtype=dtype('float32'))"),
        (VectorSpace(3, sparse=True, dtype=None), "VectorSpace(dim=3, sparse=True)",
         "VectorSpace(dim=3, sparse=True, dtype=None)"),
        (Conv2DSpace((2, 3), 4, axes="c01b"),
         "Conv2DSpace(shape=(2, 3), num_channels=4, axes=('c', 0, 1, 'b'))",
         "Conv2DSpace(shape=(2, 3), num_channels=4, axes=('c', 0, 1, 'b'), "
         "dtype=dtype('float32'))"),
        (IndexSpace(3, 2), "IndexSpace(max_labels=3, dim=2)",
         "IndexSpace(max_labels=3, dim=2, dtype=dtype('int64'))"),
        (VectorSequenceSpace(3), "VectorSequenceSpace(dim=3)",
         "VectorSequenceSpace(dim=3, dtype=dtype('float32'))"),
        (IndexSequenceSpace(3, 2, None), "IndexSequenceSpace(max_labels=3, dim=2)",
         "IndexSequenceSpace(max_labels=3, dim=2, dtype=None)"),
        (CompositeSpace([VectorSequenceSpace(1), CompositeSpace([])]),
         "CompositeSpace(VectorSequenceSpace(dim=1), CompositeSpace())",
         "CompositeSpace(components=(VectorSequenceSpace(dim=1, dtype=dtype('float32')), "
         "CompositeSpace(components=())))"),
    ],
)  # fmt: skip
def test_how_a_space_is_shown(space, shown, in_full):
    assert str(space) == shown
    assert repr(space) == in_full


# What is a batch, and what is none.


@settings(max_examples=200, deadline=None)
@given(spaces, EXAMPLES)
def test_a_batch_of_zeros_is_valid(space, n):
    batch = space.get_origin_batch(n)
    space.np_validate(batch)
    assert space.np_batch_size(batch) == (n if space.get_total_dimension() else 0)
    for leaf, part in leaves(space, batch):
        values = part.values if isinstance(part, Ragged) else part
        default = "int64" if hasattr(leaf, "max_labels") else "float32"
        assert values.dtype == (leaf.dtype or default)
        assert abs(values).sum() == 0
        assert leaf.np_batch_size(part) == n
    same_again = space.np_format_as(batch, space)
    space.np_validate(same_again)


def test_sizes_of_a_batch():
    image = Conv2DSpace((2, 3), 4, axes=(1, "b", "c", 0))
    assert image.get_batch_axis() == 1
    assert image.batch_shape(5) == image.get_origin_batch(5).shape == (3, 5, 4, 2)
    assert image.np_batch_size(np.zeros((3, 5, 4, 2))) == 5
    assert image.get_total_dimension() == 24
    assert IndexSpace(9, 2).get_total_dimension() == 2
    assert IndexSpace(9, 2).np_batch_size(np.zeros((5, 2), int)) == 5
    assert VectorSequenceSpace(7).get_total_dimension() == 7
    assert IndexSequenceSpace(9, 2).get_total_dimension() == 2
    assert CompositeSpace([image, CompositeSpace([VectorSpace(1)])]).get_total_dimension() == 25


CSR = scipy.sparse.csr_array(np.ones((2, 3), "float32"))


@pytest.mark.parametrize(
    ("space", "batch", "text"),
    [
        (VectorSpace(3), np.ones((2, 4)),
         "a batch of VectorSpace(dim=3) is (n, 3); found ndarray of shape (2, 4), float64"),
        (VectorSpace(3), np.ones(3), "is (n, 3); found ndarray of shape (3,), float64"),
        (VectorSpace(3), np.ones((2, 3, 1)), "found ndarray of shape (2, 3, 1), float64"),
        (VectorSpace(1), np.float32(1), "is (n, 1); found float32 of shape (), float32"),
        (VectorSpace(3), np.ones((2, 3), object), "found ndarray of shape (2, 3), object"),
        (VectorSpace(3), np.full((2, 3), "a"), "found ndarray of shape (2, 3), <U1"),
        (VectorSpace(3), [[1, 2, 3]], "is (n, 3); found a list of 1"),
        (VectorSpace(3), (np.ones((2, 3)), np.ones(2)), "is (n, 3); found a tuple of 2"),
        (VectorSpace(3), None, "is (n, 3); found NoneType"),
        (VectorSpace(3), CSR, "is a dense matrix; found csr_array of shape (2, 3), float32"),
        (VectorSpace(3, sparse=True), np.ones((2, 3)),
         "a batch of VectorSpace(dim=3, sparse=True) is a sparse matrix; "
         "found ndarray of shape (2, 3), float64"),
        (VectorSpace(4, sparse=True), CSR, "is (n, 4); found csr_array of shape (2, 3), float32"),
        (IndexSpace(9, 2), np.ones((2, 3), int),
         "a batch of IndexSpace(max_labels=9, dim=2) is (n, 2) of integers; "
         "found ndarray of shape (2, 3), int64"),
        (IndexSpace(9, 2), np.ones(2, int), "found ndarray of shape (2,), int64"),
        (IndexSpace(9, 3), np.ones((2, 3)), "found ndarray of shape (2, 3), float64"),
        (IndexSpace(9, 3), np.ones((2, 3), bool), "found ndarray of shape (2, 3), bool"),
        (IndexSpace(9, 3), CSR.astype(int), "found csr_array of shape (2, 3), int64"),
        (Conv2DSpace((2, 3), 4), np.ones((5, 3, 2, 4)),
         "a batch of Conv2DSpace(shape=(2, 3), num_channels=4, axes=('b', 0, 1, 'c')) is "
         "(n, 2, 3, 4), its axes being ('b', 0, 1, 'c'); found ndarray of shape (5, 3, 2, 4)"),
        (Conv2DSpace((2, 3), 4, axes="c01b"), np.ones((5, 2, 3, 4)),
         "is (4, 2, 3, n), its axes being ('c', 0, 1, 'b'); found ndarray of shape (5, 2, 3, 4)"),
        (Conv2DSpace((2, 3), 4), np.ones((5, 24)), "found ndarray of shape (5, 24), float64"),
        (Conv2DSpace((2, 3), 4), np.ones((1, 5, 2, 3, 4)), "of shape (1, 5, 2, 3, 4), float64"),
        (Conv2DSpace((2, 3), 4), np.ones((5, 2, 3, 4), object), "(5, 2, 3, 4), object"),
        (Conv2DSpace((1, 3)), CSR, "is (n, 1, 3, 1), its axes being ('b', 0, 1, 'c'); found csr"),
        (Conv2DSpace((1, 3)), (1, 2), "found a tuple of 2"),
        (CompositeSpace([VectorSpace(3), VectorSpace(1)]), np.ones((2, 4)),
         "a batch of CompositeSpace(VectorSpace(dim=3), VectorSpace(dim=1)) is a tuple of 2; "
         "found ndarray of shape (2, 4), float64"),
        (CompositeSpace([VectorSpace(3), VectorSpace(1)]), (np.ones((2, 3)),),
         "is a tuple of 2; found a tuple of 1"),
        (CompositeSpace([VectorSpace(3), VectorSpace(1)]), (np.ones((2, 3)), np.ones((2, 2))),
         "a batch of VectorSpace(dim=1) is (n, 1); found ndarray of shape (2, 2), float64"),
        (CompositeSpace([VectorSpace(3), VectorSpace(1)]), (np.ones((2, 3)), np.ones(5)),
         "parts of a batch of CompositeSpace(VectorSpace(dim=3), VectorSpace(dim=1)) have "
         "[2, 5] examples"),
        (CompositeSpace([VectorSequenceSpace(2), VectorSpace(1)]),
         (Ragged(np.ones((4, 2)), np.array([0, 1, 4])), np.ones(4)), "have [2, 4] examples"),
        (VectorSequenceSpace(2), Ragged(np.ones((4, 3)), np.array([0, 1, 4])),
         "items of VectorSequenceSpace(dim=2): a batch of VectorSpace(dim=2) is (n, 2); "
         "found ndarray of shape (4, 3), float64"),
        (IndexSequenceSpace(9, 2), np.ones(4, int),
         "items of IndexSequenceSpace(max_labels=9, dim=2): a batch of IndexSpace(max_labels=9, "
         "dim=2) is (n, 2) of integers; found ndarray of shape (4,), int64"),
    ],
)  # fmt: skip
def test_what_is_no_batch(space, batch, text):
    with refused(text):
        space.np_validate(batch)
    with refused(text):
        space.np_format_as(batch, space)


def test_lists_of_parts_are_batches_too():
    space = CompositeSpace([VectorSpace(1), VectorSpace(2)])
    made = space.np_format_as([np.ones(3), np.ones((3, 2))], space)
    assert [part.shape for part in made] == [(3, 1), (3, 2)]


# What is no space.

NOT_SIZES = [0, -1, 2.0, "3", None, True, np.True_, np.float64(2), [2]]


@pytest.mark.parametrize("size", NOT_SIZES, ids=repr)
def test_sizes_are_whole_numbers_from_1_on(size):
    due = f"={size!r}: give a whole number from 1 on"
    makers = [
        ("dim", lambda: VectorSpace(size)),
        ("dim", lambda: VectorSequenceSpace(size)),
        ("dim", lambda: IndexSpace(3, size)),
        ("dim", lambda: IndexSequenceSpace(3, size)),
        ("max_labels", lambda: IndexSpace(size, 3)),
        ("max_labels", lambda: IndexSequenceSpace(size, 3)),
        ("shape", lambda: Conv2DSpace((size, 3))),
        ("shape", lambda: Conv2DSpace((3, size))),
    ]
    if size is not None:  # None leaves it to the other name
        makers.append(("num_channels", lambda: Conv2DSpace((3, 3), channels=size)))
        makers.append(("num_channels", lambda: Conv2DSpace((3, 3), num_channels=size)))
    for name, make in makers:
        with refused(name + due):
            make()


@pytest.mark.parametrize("shape", [3, (3,), (3, 3, 3), (), None, {3, 4}], ids=repr)
def test_shapes_are_two_sizes(shape):
    with refused(f"shape={shape!r}: give two sizes, rows and columns"):
        Conv2DSpace(shape)


def test_channels_have_two_names():
    assert Conv2DSpace((2, 2), 3) == Conv2DSpace((2, 2), num_channels=3)
    assert Conv2DSpace((2, 2)).num_channels == 1
    with refused("channels=3, num_channels=4: give one"):
        Conv2DSpace((2, 2), channels=3, num_channels=4)


@pytest.mark.parametrize(
    "axes",
    [
        ("b", 0, 1),
        ("b", 0, 1, 1),
        ("b", 0, 1, "c", "c"),
        ("b", 0, 2, "c"),
        ("b", 0.0, 1, "c"),
        ("b", False, True, "c"),
        ("b", [0], 1, "c"),
        ("B", 0, 1, "C"),
        (),
    ],
    ids=repr,
)
def test_axes_are_those_four_in_some_order(axes):
    with refused(f"axes={axes}: give 'b', 0, 1 and 'c' in some order"):
        Conv2DSpace((2, 2), axes=axes)


def test_axes_are_a_sequence():
    with refused("axes=5: give 'b', 0, 1 and 'c' in some order"):
        Conv2DSpace((2, 2), axes=5)


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        ("U3", "dtype='U3': a space holds numbers"),
        (object, "dtype=<class 'object'>: a space holds numbers"),
        ("M8[s]", "dtype='M8[s]': a space holds numbers"),
        ("f4,i4", "dtype='f4,i4': a space holds numbers"),
        ("(2,)f4", "dtype='(2,)f4': a space holds numbers"),
        ("nonsense", "dtype='nonsense': data type 'nonsense' not understood"),
        ("f4,,", "dtype='f4,,': "),  # NumPy's SyntaxError
        (("f4", -1), "dtype=('f4', -1): "),  # its ValueError
        (3, "dtype=3: "),
    ],
    ids=repr,
)
def test_dtypes_are_of_numbers(dtype, text):
    for make in (
        lambda: VectorSpace(1, dtype=dtype),
        lambda: Conv2DSpace((1, 1), dtype=dtype),
        lambda: IndexSpace(1, 1, dtype=dtype),
        lambda: VectorSequenceSpace(1, dtype=dtype),
        lambda: IndexSequenceSpace(1, 1, dtype=dtype),
    ):
        with refused(text):
            make()


@pytest.mark.parametrize("dtype", ["float32", "floatX", bool, "complex64"], ids=repr)
@pytest.mark.parametrize("space", [IndexSpace, IndexSequenceSpace])
def test_dtypes_of_labels_are_of_integers(space, dtype):
    with refused(f"dtype={dtype!r}: labels are integers"):
        space(3, 1, dtype=dtype)


def test_components_are_spaces():
    with refused("component 1 is 3: give spaces"):
        CompositeSpace([VectorSpace(1), 3])
    with refused("component 0 is 'X': give spaces"):
        CompositeSpace("X")
    with refused("components=VectorSpace(dim=1, sparse=False, dtype=dtype('float32')): give"):
        CompositeSpace(VectorSpace(1))


# Data specs.


def as_named(space, names):
    if isinstance(space, CompositeSpace):
        return tuple(as_named(each, names) for each in space.components)
    return next(names)


def each_leaf(space):
    if not isinstance(space, CompositeSpace):
        return [space]
    return [leaf for each in space.components for leaf in each_leaf(each)]


@settings(max_examples=100, deadline=None)
@given(spaces)
def test_data_specs_are_made_flat_and_nested_again(space):
    source = as_named(space, (f"source {k}" for k in count()))
    parts = flat((space, source))
    assert [each for each, _ in parts] == each_leaf(space)
    assert [name for _, name in parts] == [f"source {k}" for k in range(len(parts))]
    assert nested(space, (name for _, name in parts)) == source
    assert flat([space, source]) == parts


def test_a_source_may_be_alone_in_a_tuple():
    assert flat((VectorSpace(1), ("X",))) == flat((VectorSpace(1), [("X",)]))
    assert flat((VectorSpace(1), ("X",))) == [(VectorSpace(1), "X")]


def test_a_source_may_have_two_spaces():
    space = CompositeSpace([VectorSpace(1), Conv2DSpace((1, 1))])
    assert [name for _, name in flat((space, ("X", "X")))] == ["X", "X"]


BOTH = CompositeSpace([VectorSpace(1), CompositeSpace([VectorSpace(2), VectorSpace(3)])])


@pytest.mark.parametrize(
    ("specs", "text"),
    [
        (None, "data_specs=None: give a pair (space, source)"),
        (VectorSpace(1),
         "data_specs=VectorSpace(dim=1, sparse=False, dtype=dtype('float32')): give a pair"),
        ((VectorSpace(1),), "give a pair (space, source)"),
        ((VectorSpace(1), "X", "y"), "give a pair (space, source)"),
        (("X", VectorSpace(1)), "give a pair (space, source)"),
        ((VectorSpace(1), ("X", "y")),
         "data_specs: VectorSpace(dim=1) shapes one source, not ('X', 'y')"),
        ((VectorSpace(1), ()), "shapes one source, not ()"),
        ((VectorSpace(1), 3), "shapes one source, not 3"),
        ((BOTH, "X"), "VectorSpace(dim=3))) shapes 2 sources, not 'X'"),
        ((BOTH, "Xy"), "VectorSpace(dim=3))) shapes 2 sources, not 'Xy'"),
        ((BOTH, ("X",)), "shapes 2 sources, not ('X',)"),
        ((BOTH, ("X", "y")), "data_specs: CompositeSpace(VectorSpace(dim=2), VectorSpace(dim=3)) "
         "shapes 2 sources, not 'y'"),
        ((BOTH, ("X", ("y", "z", "w"))), "shapes 2 sources, not ('y', 'z', 'w')"),
        ((BOTH, ("X", ("y", None))), "VectorSpace(dim=3) shapes one source, not None"),
    ],
)  # fmt: skip
def test_data_specs_that_do_not_go_together(specs, text):
    with refused(text):
        flat(specs)


# No copy where none is needed.


@settings(max_examples=100, deadline=None)
@given(images, st.sampled_from(ORDERS), st.sampled_from([None, "float32"]), st.integers(1, 3))
def test_images_in_another_order_are_a_view(space, axes, dtype, n):
    batch = numbered(space, n)
    target = Conv2DSpace(space.shape, space.num_channels, axes=axes, dtype=dtype)
    assert np.shares_memory(space.np_format_as(batch, target), batch)


def test_images_in_the_order_of_vectors_are_vectors_without_a_copy():
    space, vector = Conv2DSpace((2, 3), 4), VectorSpace(24)
    batch = numbered(space, 2)
    assert np.shares_memory(space.np_format_as(batch, vector), batch)


@pytest.mark.parametrize("axes", ORDERS, ids=IDS)
def test_vectors_are_images_of_any_order_without_a_copy(axes):
    space, vector = Conv2DSpace((2, 3), 4, axes=axes), VectorSpace(24)
    batch = numbered(vector, 2)
    assert np.shares_memory(vector.np_format_as(batch, space), batch)


def test_vectors_labels_and_sequences_of_their_own_dtype_are_views():
    batch = numbered(VectorSpace(3), 2)
    for dtype in (None, "float32"):
        made = VectorSpace(3).np_format_as(batch, VectorSpace(3, dtype=dtype))
        assert np.shares_memory(made, batch)
        ragged = Ragged(batch, np.array([0, 2]))
        made = VectorSequenceSpace(3).np_format_as(ragged, VectorSequenceSpace(3, dtype=dtype))
        assert np.shares_memory(made.values, batch)
        assert made.offsets is ragged.offsets
    assert not np.shares_memory(
        VectorSpace(3).np_format_as(batch, VectorSpace(3, dtype=float)), batch
    )
    every_other = batch[:, ::2]
    assert np.shares_memory(VectorSpace(2).np_format_as(every_other, VectorSpace(2)), batch)
    labels = np.array([1, 0])
    assert np.shares_memory(IndexSpace(2, 1).np_format_as(labels, IndexSpace(2, 1)), labels)


def test_parts_of_vectors_are_views():
    batch = numbered(VectorSpace(5), 2)
    tree = CompositeSpace([VectorSpace(1), CompositeSpace([Conv2DSpace((2, 2), axes="c01b")])])
    made = VectorSpace(5).np_format_as(batch, tree)
    assert np.shares_memory(made[0], batch)
    parts = tree.np_format_as(made, tree)
    assert np.shares_memory(parts[0], batch)
    assert np.shares_memory(parts[1][0], made[1][0])
