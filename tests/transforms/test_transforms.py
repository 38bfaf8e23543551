"""Each transform against its formula in float64, on the whole array; and as an estimator."""

import numpy as np
import pytest
import scipy.linalg
import sklearn.decomposition
import sklearn.preprocessing
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

import epochal
from epochal.dataset import Dataset
from epochal.errors import MismatchError
from epochal.stores.memory import ArraySource, ArrayStore
from epochal.stores.ragged import RaggedSource
from epochal.transforms import (
    PCA,
    ZCA,
    GlobalContrastNormalization,
    MakeUnitNorm,
    OneHot,
    Pipeline,
    RemapInterval,
    RemoveMean,
    RemoveZeroColumns,
    Standardize,
    UnfittedError,
    load,
)

N, D = 400, 12
SHAPE = (2, 2, 3)


def numbers(dtype="f4", seed=0):
    """Correlated columns of other means and scales; one that is zero."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(N, D)) @ rng.normal(size=(D, D)) * np.arange(1, D + 1) + 40
    mixed[:, 3] = 0
    if np.dtype(dtype).kind in "iu":
        mixed = np.clip(mixed, 0, 255)
    return mixed.astype(dtype)


def whitened(x, bias, kept=None):
    values, vectors = scipy.linalg.eigh(np.cov(x.T, bias=True) + bias * np.eye(x.shape[1]))
    first = 0 if kept is None else len(values) - kept
    values, vectors = values[first:], vectors[:, first:]
    return (x - x.mean(axis=0)) @ (vectors / np.sqrt(values)) @ vectors.T


def contrast(x, divisor):
    centred = x - x.mean(axis=1, keepdims=True)
    return centred / divisor(centred)[:, None]


def remapped(x, low, high, to):
    return (x - low) / (high - low) * (to[1] - to[0]) + to[0]


FORMULAS = {
    "standardize": (Standardize(), lambda x: (x - x.mean(axis=0)) / (1e-4 + x.std(axis=0))),
    "of all": (
        Standardize(global_mean=True, global_std=True, std_eps=0),
        lambda x: (x - x.mean()) / x.std(),
    ),
    "mean of all": (RemoveMean(axis=None), lambda x: x - x.mean()),
    "mean of columns": (RemoveMean(), lambda x: x - x.mean(axis=0)),
    "mean of rows": (RemoveMean(axis=1), lambda x: x - x.mean(axis=1, keepdims=True)),
    "unit norm": (MakeUnitNorm(), lambda x: sklearn.preprocessing.normalize(x)),
    "contrast": (
        GlobalContrastNormalization(),
        lambda x: contrast(x, lambda c: np.linalg.norm(c, axis=1)),
    ),
    "contrast of Coates": (
        GlobalContrastNormalization(sqrt_bias=10, use_std=True, scale=3),
        lambda x: 3 * contrast(x, lambda c: np.sqrt(10 + x.var(axis=1, ddof=1))),
    ),
    "contrast about zero": (
        GlobalContrastNormalization(subtract_mean=False, use_std=True),
        lambda x: x / x.std(axis=1, ddof=1, keepdims=True),
    ),
    "remap": (RemapInterval((0, 255), (-1, 1)), lambda x: remapped(x, 0, 255, (-1, 1))),
    "remap learnt": (RemapInterval(), lambda x: remapped(x, x.min(), x.max(), (0, 1))),
    "zero columns": (RemoveZeroColumns(), lambda x: np.delete(x, 3, axis=1)),
    "zca": (ZCA(), lambda x: whitened(x, 0.1)),
    "zca of some": (ZCA(n_components=5, filter_bias=0), lambda x: whitened(x, 0, 5)),
    "zca but some": (ZCA(n_drop_components=4), lambda x: whitened(x, 0.1, D - 4)),
    "pipeline": (
        Pipeline([MakeUnitNorm(), Standardize(), ZCA(filter_bias=0.5)]),
        lambda x: whitened(
            (lambda u: (u - u.mean(axis=0)) / (1e-4 + u.std(axis=0)))(
                sklearn.preprocessing.normalize(x)
            ),
            0.5,
        ),
    ),
}
LEARNING = [name for name, (each, _) in FORMULAS.items() if each.learnt()]


@pytest.fixture(params=list(FORMULAS))
def case(request):
    transform, formula = FORMULAS[request.param]
    return clone(transform), formula


def close(found, expected, rtol=1e-6):
    """Relative to what a row is of: nearly zero is what it is by rounding."""
    assert found.shape == expected.shape
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * scale)


@pytest.mark.parametrize("dtype", ["f4", "f8", "u1", "i4", "f2", ">f4"])
def test_the_formula_on_the_whole_array(case, dtype):
    transform, formula = case
    x = numbers(dtype)
    found = transform.fit(x).transform(x)
    assert found.dtype == (np.float64 if dtype == "f8" else np.float32)
    close(found, formula(x.astype("f8")), 1e-10 if dtype == "f8" else 1e-6)


def test_rows_of_any_shape(case):
    transform, formula = case
    x = numbers()
    images = x.reshape(N, *SHAPE)
    found = transform.fit(images).transform(images)
    expected = formula(x.astype("f8"))
    close(found.reshape(expected.shape), expected)
    if found.shape[1:] != (D - 1,):
        assert found.shape == images.shape


@pytest.mark.parametrize("size", [1, 7, 64, N])
def test_batches_of_any_size_are_transformed_alike(case, size):
    transform, _ = case
    x = numbers()
    whole = transform.fit(x).transform(x)
    parts = [transform.transform(x[at : at + size]) for at in range(0, N, size)]
    close(np.concatenate(parts), whole)


@pytest.mark.parametrize("name", LEARNING)
@pytest.mark.parametrize("cuts", [(), (1,), (3, 50, 51), (200,)])
def test_learnt_by_parts_and_merged(name, cuts):
    transform, _ = FORMULAS[name]
    x = numbers()
    whole = clone(transform).fit(x).transform(x)
    parts = np.split(x, cuts)
    one = clone(transform)
    for part in parts:
        one.partial_fit(part)
    close(one.transform(x), whole)
    first, second = clone(transform).fit(x[:150]), clone(transform).fit(x[150:])
    assert first.merge(second) is first
    close(first.transform(x), whole)


@pytest.mark.parametrize(
    "name",
    ["standardize", "of all", "mean of all", "mean of columns", "remap", "remap learnt", "zca"],
)
def test_undone(name):
    transform, _ = FORMULAS[name]
    x = numbers("f8")
    made = clone(transform).fit(x)
    close(made.inverse_transform(made.transform(x)), x, 1e-8)


def test_undone_with_the_columns_that_were_zero():
    x = numbers("f8").reshape(N, *SHAPE)
    made = RemoveZeroColumns().fit(x)
    close(made.inverse_transform(made.transform(x)), x)
    pipe = Pipeline([RemoveMean(), RemoveZeroColumns()]).fit(x)
    close(pipe.inverse_transform(pipe.transform(x)), x, 1e-10)
    pca = PCA(whiten=True, num_components=D - 1).fit(x)
    close(pca.inverse_transform(pca.transform(x)), x, 1e-8)


@pytest.mark.parametrize("transform", [MakeUnitNorm(), RemoveMean(axis=1)])
def test_what_cannot_be_undone(transform):
    with pytest.raises(MismatchError, match="cannot be undone"):
        transform.inverse_transform(numbers())


# Principal components ------------------------------------------------------------------------


def aligned(components, like):
    return components * np.sign((components * like).sum(axis=1))[:, None]


@pytest.mark.parametrize("solver", ["exact", "randomized"])
@pytest.mark.parametrize("whiten", [False, True])
def test_pca_against_scikit_learn(solver, whiten):
    x = numbers("f8")
    found = PCA(4, whiten=whiten, solver=solver).fit(x)
    theirs = sklearn.decomposition.PCA(4, svd_solver="full").fit(x)
    close(found.components_, aligned(theirs.components_, found.components_), 1e-8)
    close(found.explained_variance_, theirs.explained_variance_ * (N - 1) / N, 1e-10)
    close(found.explained_variance_ratio, theirs.explained_variance_ratio_, 1e-10)
    expected = (x - x.mean(axis=0)) @ found.components_.T
    if whiten:
        expected /= np.sqrt(found.explained_variance_)
    close(found.transform(x), expected, 1e-10)


def test_wide_rows_take_passes_and_no_covariance():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5)) @ rng.normal(size=(5, 9000)) * 5 + rng.normal(size=(60, 9000))
    pca = PCA(5, exact_width=1000)
    pipe = Pipeline([MakeUnitNorm(), pca]).fit(x)
    assert pipe.n_passes_ == pca.n_iter + 1
    unit = sklearn.preprocessing.normalize(x)
    theirs = sklearn.decomposition.PCA(5, svd_solver="full").fit(unit)
    close(pca.explained_variance_, theirs.explained_variance_ * 59 / 60, 1e-8)
    close(pca.components_, aligned(theirs.components_, pca.components_), 1e-4)
    with pytest.raises(MismatchError, match="passes"):
        PCA(5, exact_width=1000).partial_fit(x)


def test_components_do_not_depend_on_signs_of_the_library():
    x = numbers("f8")
    components = PCA(4).fit(x).components_
    largest = np.abs(components).argmax(axis=1)
    assert (components[np.arange(4), largest] > 0).all()


# Passes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stages", "passes"),
    [
        ([MakeUnitNorm(), RemapInterval((0, 1))], 0),
        ([Standardize()], 1),
        ([GlobalContrastNormalization(), Standardize(), ZCA()], 1),
        ([RemoveZeroColumns(), RemoveMean(), RemapInterval(), Standardize(), PCA(3)], 1),
        ([Standardize(), GlobalContrastNormalization(), ZCA()], 2),
        ([ZCA(), Standardize()], 2),
        ([Standardize(), RemoveMean(axis=1), ZCA()], 2),
    ],
)
def test_as_few_passes_as_can_be(stages, passes):
    x = numbers("f8")
    pipe = Pipeline([clone(each) for each in stages]).fit(x)
    assert pipe.n_passes_ == passes
    expected = x
    for stage in stages:
        expected = clone(stage).fit_transform(expected)
    close(pipe.transform(x), expected, 1e-8)


def test_statistics_are_not_pushed_on_past_what_was_left_out():
    """Without the rows that hold NaN the covariance is of other rows than the means."""
    x = numbers("f8")
    x[7, 2] = np.nan
    stages = [Standardize(nan="ignore"), ZCA(nan="ignore")]
    pipe = Pipeline([clone(each) for each in stages]).fit(x)
    assert pipe.n_passes_ == 3  # what was to be one: its numbers were of other rows
    one = clone(stages[0]).fit(x)
    np.testing.assert_allclose(one.mean_, np.nanmean(x, axis=0))
    two = clone(stages[1]).fit(one.transform(x))
    found = pipe.transform(x)
    assert np.isnan(found[7]).all()
    close(np.delete(found, 7, 0), np.delete(two.transform(one.transform(x)), 7, 0), 1e-8)


def test_pipelines_of_several_passes_learn_at_once():
    pipe = Pipeline([Standardize(), MakeUnitNorm(), ZCA()])
    pipe.partial_fit(numbers())
    with pytest.raises(MismatchError, match=r"ZCA\(\) learns in a pass of its own.*call fit"):
        pipe.transform(numbers())


# Labels --------------------------------------------------------------------------------------


def test_one_hot():
    labels = np.array([2, 0, 1, 2], "i8")
    for shape in ((4,), (4, 1)):
        found = OneHot(4).fit(labels.reshape(shape)).transform(labels.reshape(shape))
        assert found.tolist() == np.eye(4)[labels].tolist()
        learnt = OneHot().fit(labels.reshape(shape))
        assert learnt.n_labels_ == 3
        back = learnt.inverse_transform(learnt.transform(labels.reshape(shape)))
        assert np.array_equal(back, labels.reshape(shape))
    with pytest.raises(MismatchError, match=r"label 4 is no whole number in \[0, 3\)"):
        learnt.transform(np.array([[4]]))
    with pytest.raises(MismatchError, match=r"label 2\.5 is no whole number"):
        learnt.transform(np.array([[2.5]]))
    with pytest.raises(MismatchError, match="label -1 is no whole number"):
        OneHot().fit(np.array([-1, 3]))
    with pytest.raises(MismatchError, match="one number a row"):
        OneHot().fit(numbers())


# As estimators -------------------------------------------------------------------------------

ESTIMATORS = [
    *(each for name, (each, _) in FORMULAS.items() if name not in ("zca of some", "zca but some")),
    Standardize(nan="ignore"),
    ZCA(nan="ignore"),
    PCA(),
    PCA(1, solver="randomized"),
]
# As scikit-learn's own pipeline, ours has its stages learn themselves.
EXCEPT = {"check_estimators_overwrite_params": "stages are fitted where they are"}


@pytest.mark.parametrize("transform", ESTIMATORS, ids=repr)
def test_scikit_learns_own_checks(transform):
    made = clone(transform)
    one_pass = not (isinstance(made, PCA) and made.solver == "randomized")
    excepted = EXCEPT if isinstance(made, Pipeline) else {}
    if not one_pass:
        why = "partial_fit is of one pass"
        excepted = {"check_fit_score_takes_y": why, "check_n_features_in_after_fitting": why}
    found = check_estimator(made, expected_failed_checks=excepted, on_skip=None, on_fail=None)
    failed = [each for each in found if each["status"] not in ("passed", "skipped", "xfail")]
    assert not [(each["check_name"], each["exception"]) for each in failed]
    assert sum(each["status"] == "passed" for each in found) > 30


def test_params(case):
    transform, _ = case
    twin = clone(transform)
    assert repr(twin) == repr(transform)
    assert twin.get_params(deep=False).keys() == transform.get_params(deep=False).keys()


# Kept ----------------------------------------------------------------------------------------


def test_saved_and_loaded(case, tmp_path):
    transform, _ = case
    x = numbers().reshape(N, *SHAPE)
    expected = transform.fit(x).transform(x)
    transform.save(tmp_path / "fitted.npz")
    again = load(tmp_path / "fitted.npz")
    assert repr(again) == repr(transform)
    assert np.array_equal(again.transform(x), expected)
    with np.load(tmp_path / "fitted.npz", allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)
    same = type(transform).load(tmp_path / "fitted.npz")
    assert np.array_equal(same.transform(x), expected)


@pytest.mark.parametrize("name", LEARNING)
def test_learning_goes_on_after_loading_where_statistics_were_kept(name, tmp_path):
    x = numbers()
    transform = clone(FORMULAS[name][0]).fit(x[:150])
    transform.save(tmp_path / "a.npz", statistics=True)
    again = load(tmp_path / "a.npz").partial_fit(x[150:])
    close(again.transform(x), clone(transform).fit(x).transform(x))
    transform.save(tmp_path / "b.npz")
    with pytest.raises(MismatchError, match=r"without its statistics.*statistics=True"):
        load(tmp_path / "b.npz").partial_fit(x)


def test_few_rows_are_told_until_there_are_more():
    x = numbers("f8")
    transform = ZCA(filter_bias=0, n_components=5).partial_fit(x[:3])
    for _ in range(2):
        with pytest.raises(MismatchError, match="3 of 5 directions have no variance"):
            transform.transform(x)
    close(transform.partial_fit(x[3:]).transform(x), whitened(x, 0, 5), 1e-8)


# What makes no sense -------------------------------------------------------------------------


def ragged():
    values, offsets = np.arange(6.0), np.array([0, 2, 6])
    columns = {"values": ArraySource(values)}
    store = ArrayStore({})
    store.sources = {"tokens": RaggedSource("tokens", columns, offsets, None)}
    return Dataset(store, store.sources)["tokens"]


BAD = {
    "unfitted": (lambda: Standardize().transform(numbers()), UnfittedError, "is not fitted yet"),
    "width": (
        lambda: ZCA().fit(numbers()).transform(numbers()[:, :5]),
        ValueError,
        "X has 5 features, but ZCA is expecting 12 features",
    ),
    "shape": (
        lambda: Standardize().fit(numbers()).transform(np.zeros((3, 2, 2))),
        MismatchError,
        r"rows of shape \(2, 2\), 4 numbers: Standardize was fitted to rows of shape \(12,\)",
    ),
    "width of a dataset": (
        lambda: epochal.from_arrays(X=np.zeros((4, 3))).transform(Standardize().fit(numbers())),
        MismatchError,
        r"rows of shape \(3,\), 3 numbers: Standardize was fitted",
    ),
    "constant": (
        lambda: Standardize(std_eps=0).fit(numbers()),
        MismatchError,
        "column 3 is constant, and std_eps=0 divides by zero",
    ),
    "constant columns": (
        lambda: Standardize(std_eps=0).fit(np.ones((5, 30))),
        MismatchError,
        r"columns 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 20 more are constant",
    ),
    "constant, whitened": (
        lambda: ZCA(filter_bias=0).fit(numbers()),
        MismatchError,
        "1 of 12 directions have no variance.*give filter_bias",
    ),
    "constant, pca": (
        lambda: PCA(whiten=True).fit(numbers()),
        MismatchError,
        "1 of 12 directions have no variance.*fewer num_components",
    ),
    "all zero": (
        lambda: RemoveZeroColumns().fit(np.zeros((4, 3))),
        MismatchError,
        "all 3 columns are zero",
    ),
    "nothing to map": (
        lambda: RemapInterval().fit(np.full((4, 3), 7.0)),
        MismatchError,
        r"all numbers are 7\.0: they span no interval",
    ),
    "components": (
        lambda: PCA(13).fit(numbers()),
        MismatchError,
        "num_components=13: rows of 12 numbers have 1 to 12",
    ),
    "few rows": (
        lambda: PCA(6).fit(numbers()[:5]),
        MismatchError,
        r"num_components=6: of 5 sample\(s\) that many cannot be learnt",
    ),
    "one row": (lambda: ZCA().fit(numbers()[:1]), MismatchError, r"of 1 sample\(s\)"),
    "half a component": (lambda: ZCA(2.5).fit(numbers()), MismatchError, r"n_components=2\.5"),
    "both": (lambda: ZCA(3, 3).fit(numbers()), MismatchError, "give one of both"),
    "none left": (
        lambda: ZCA(n_drop_components=12).fit(numbers()),
        MismatchError,
        "n_components=0",
    ),
    "solver": (lambda: PCA(2, solver="svd").fit(numbers()), MismatchError, "solver='svd'"),
    "eps": (lambda: Standardize(std_eps=-1).fit(numbers()), MismatchError, "std_eps=-1"),
    "nan=": (lambda: Standardize(nan="skip").fit(numbers()), MismatchError, "nan='skip'"),
    "axis": (lambda: RemoveMean(axis=2).fit(numbers()), MismatchError, "axis=2"),
    "interval": (
        lambda: RemapInterval((1, 1)).fit(numbers()),
        MismatchError,
        r"map_from=\(1, 1\): give two numbers",
    ),
    "scale": (
        lambda: GlobalContrastNormalization(scale=0).fit(numbers()),
        MismatchError,
        "scale=0",
    ),
    "no rows": (
        lambda: Standardize().fit(epochal.from_arrays(X=np.empty((0, 3)))),
        MismatchError,
        r"has 0 sample\(s\)",
    ),
    "no images": (lambda: Standardize().fit(np.empty((0, 2, 2))), MismatchError, "0 sample"),
    "strings": (
        lambda: Standardize().fit(epochal.from_arrays(X=np.array([["a"], ["b"]], "S1"))),
        MismatchError,
        r"takes real numbers",
    ),
    "complex": (
        lambda: Standardize().fit(epochal.from_arrays(X=np.ones((3, 2), complex))),
        MismatchError,
        "rows of complex128",
    ),
    "a path": (
        lambda: Standardize().fit("train.h5"),
        MismatchError,
        r"'train\.h5' is a path: give epochal\.open",
    ),
    "rows that vary in length": (
        lambda: Standardize().fit(ragged()),
        MismatchError,
        "rows of 'tokens' vary in length",
    ),
    "no stages": (lambda: Pipeline([]).fit(numbers()), MismatchError, r"stages=\[\]"),
    "no transform": (lambda: Pipeline([3]).fit(numbers()), MismatchError, r"stages=\[3\]"),
    "twice": (
        lambda: (lambda one: Pipeline([one, one]).fit(numbers()))(RemoveMean()),
        MismatchError,
        "comes twice",
    ),
    "merge": (
        lambda: Standardize().fit(numbers()).merge(Standardize(std_eps=1).fit(numbers())),
        MismatchError,
        "cannot be merged with",
    ),
    "merge widths": (
        lambda: Standardize().fit(numbers()).merge(Standardize().fit(numbers()[:, :4])),
        MismatchError,
        r"rows of shape \(4,\), 4 numbers",
    ),
}


@pytest.mark.parametrize("name", list(BAD))
def test_what_makes_no_sense(name):
    call, kind, why = BAD[name]
    with pytest.raises(kind, match=why):
        call()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_is_named_with_its_rows(bad):
    x = numbers()
    x[[5, 5, 77], [1, 2, 0]] = bad
    for transform in (Standardize(), ZCA(), PCA(3), RemapInterval(), RemoveZeroColumns()):
        with pytest.raises(MismatchError, match="2 of 400 rows hold NaN or infinity: 5, 77"):
            transform.fit(x)
    fitted = Standardize(nan="ignore").fit(x)
    assert fitted.statistics_.tally.n_bad == 2
    assert not np.isfinite(fitted.transform(x)[5, 1])
    with pytest.raises(MismatchError, match="2 of 400 rows hold NaN or infinity: 5, 77"):
        Standardize().fit(numbers()).transform(x)
