"""Tables, folders of images and MATLAB's files: what comes out, from any row on."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
import scipy.io
from PIL import Image

import epochal
from epochal.converting.inputs import open_input
from epochal.converting.inputs.images import ImageFolder
from epochal.errors import (
    BudgetError,
    FileMissingError,
    FormatError,
    MismatchError,
    SourceNameError,
)


def everything(given, start=0):
    blocks = list(given.blocks(start))
    if not blocks:
        return {}
    return {name: np.concatenate([block[name] for block in blocks]) for name in given.sources}


def check(given, due):
    """What is declared is what comes, from the first row and from any other."""
    assert list(given.sources) == list(due)
    for name, rows in due.items():
        source = given.sources[name]
        assert (source.row_shape, source.dtype) == (rows.shape[1:], rows.dtype)
    n = len(next(iter(due.values())))
    assert given.rows in (n, None)
    for start in sorted({0, min(1, n - 1), n // 2, n - 1}):
        found = everything(given, start)
        for name, rows in due.items():
            assert found[name].dtype == rows.dtype
            np.testing.assert_array_equal(found[name], rows[start:])
    assert everything(given, n) == {} or all(len(v) == 0 for v in everything(given, n).values())


# CSV ------------------------------------------------------------------------------------------

CSV = """a,b,c,d,e,f
1,0.5,cat,true,,7
2,,é,FALSE,,
-3,1e3,"x, y",true,,9
"""


def test_csv(tmp_path):
    (tmp_path / "x.csv").write_text(CSV)
    check(
        open_input(tmp_path / "x.csv"),
        {
            "a": np.array([1, 2, -3]),
            "b": np.array([0.5, np.nan, 1000]),
            "c": np.array([b"cat", "é".encode(), b"x, y"]),
            "d": np.array([True, False, True]),
            "e": np.array([b"", b"", b""], "S1"),
            "f": np.array([7, np.nan, 9]),
        },
    )


def test_types_that_only_the_end_tells(tmp_path):
    # Whole numbers for megabytes, and then a fraction, and a word.
    n = 400_000
    lines = [f"{k},{k},{k}" for k in range(n)]
    (tmp_path / "x.csv").write_text("a,b,c\n" + "\n".join(lines) + "\n1,2.5,word\n")
    given = open_input(tmp_path / "x.csv")
    assert [s.dtype.str for s in given.sources.values()] == ["<i8", "<f8", "|S6"]
    assert given.rows == n + 1
    assert len(list(given.blocks())) > 1
    found = everything(given, n - 2)
    assert found["b"].tolist() == [n - 2, n - 1, 2.5]
    assert found["c"].tolist() == [b"399998", b"399999", b"word"]


def test_whole_numbers_past_int64(tmp_path):
    # Those that make it unsigned come megabytes after the first.
    n = 400_000
    lines = [*map(str, range(n)), str(2**64 - 1), str(2**64 - 2)]
    (tmp_path / "x.csv").write_text("a\n" + "\n".join(lines) + "\n")
    given = open_input(tmp_path / "x.csv")
    assert given.sources["a"].dtype == np.uint64
    assert everything(given, n - 1)["a"].tolist() == [n - 1, 2**64 - 1, 2**64 - 2]
    (tmp_path / "x.csv").write_text(f"a,b\n{2**64 - 1},{2**64}\n0,0.5\n")
    check(
        open_input(tmp_path / "x.csv"),
        {"a": np.array([2**64 - 1, 0], "u8"), "b": np.array([2.0**64, 0.5])},
    )


def test_an_index_without_a_name_is_left_out(tmp_path):
    (tmp_path / "x.csv").write_text(",a\n0,5\n1,6\n")
    check(open_input(tmp_path / "x.csv", sources=["a"]), {"a": np.array([5, 6])})


def test_tsv_packed_and_without_header(tmp_path):
    with gzip.open(tmp_path / "x.tsv.gz", "wt") as file:
        file.write("1\t2\n3\t4\n")
    check(
        open_input(tmp_path / "x.tsv.gz", header=False),
        {"c0": np.array([1, 3]), "c1": np.array([2, 4])},
    )


def test_stack(tmp_path):
    (tmp_path / "x.csv").write_text("a,b,label,c\n1,2,cat,0.5\n3,4,dog,1.5\n")
    check(
        open_input(tmp_path / "x.csv", stack={"X": "*"}),
        {"X": np.array([[1, 2, 0.5], [3, 4, 1.5]]), "label": np.array([b"cat", b"dog"])},
    )
    check(
        open_input(tmp_path / "x.csv", stack={"X": ["b", "a"]}),
        {
            "X": np.array([[2, 1], [4, 3]]),
            "label": np.array([b"cat", b"dog"]),
            "c": np.array([0.5, 1.5]),
        },
    )
    with pytest.raises(MismatchError, match="joins columns of numbers; 'label'"):
        open_input(tmp_path / "x.csv", stack={"X": ["a", "label"]})
    with pytest.raises(SourceNameError, match="no column 'z'"):
        open_input(tmp_path / "x.csv", stack={"X": ["z"]})
    with pytest.raises(MismatchError, match=r"which .* has a column of"):
        open_input(tmp_path / "x.csv", stack={"c": ["a"]})


LARGE = 2**53 + 1  # the first whole number that a float64 does not hold


def test_stack_of_numbers_that_it_would_round(tmp_path):
    (tmp_path / "x.csv").write_text(f"a,b,c\n{LARGE},0.5,1\n")
    whole = open_input(tmp_path / "x.csv", stack={"X": ["a", "c"]}, sources=["X"])
    check(whole, {"X": np.array([[LARGE, 1]])})
    with pytest.raises(MismatchError, match="column 'a' of int64 to 'X' of float64, which does"):
        everything(open_input(tmp_path / "x.csv", stack={"X": "*"}))
    columns = {"u": np.array([2**63 + 1], "u8"), "i": np.array([-1])}
    pa.parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(MismatchError, match="column 'u' of uint64 to 'X' of float64"):
        everything(open_input(tmp_path / "x.parquet", stack={"X": "*"}))


@pytest.mark.parametrize("form", ["csv", "parquet", "arrow"])
def test_stack_of_which_sources_are_chosen(tmp_path, form):
    path = tmp_path / f"x.{form}"
    rows = {"a": np.array([1, 3]), "t": np.array([5, 6]), "b": np.array([2, 4])}
    if form == "csv":
        path.write_text("a,t,b\n1,5,2\n3,6,4\n")
    elif form == "parquet":
        lists = pa.array([[1], [2, 3]])  # which has no form, and is not asked for
        pa.parquet.write_table(pa.table({**rows, "lists": lists}), path)
    else:
        pa.feather.write_feather(pa.table(rows), path)
    X = np.array([[1, 2], [3, 4]])
    stack = {"X": ["a", "b"]}
    check(open_input(path, stack=stack, sources=["t", "X"]), {"t": rows["t"], "X": X})
    check(open_input(path, stack=stack, sources=["X"]), {"X": X})
    check(open_input(path, stack=stack, sources=["t", "a"]), {"t": rows["t"], "a": rows["a"]})
    assert dict(open_input(path, stack=stack, sources=["t"]).attrs) == {}
    with pytest.raises(SourceNameError, match=r"no column 'nope' in .*: there are a, t, b"):
        open_input(path, stack=stack, sources=["t", "nope"])
    with pytest.raises(SourceNameError, match=r"no column 'aa' in .*: did you mean 'a'"):
        open_input(path, stack=stack, sources=["X", "aa"])
    if form != "parquet":
        check(open_input(path, stack={"X": "*"}, sources=["t", "X"]), {"t": rows["t"], "X": X})


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("a,b\n1,2\n3\n", FormatError, "Expected 2 columns, got 1"),
        ("", FormatError, "not a table in text"),
        ("a,a\n1,2\n", FormatError, "two columns are called 'a'"),
        (",a\n0,1\n", MismatchError, "column 1 has no name in the first line, as an index"),
        (f"a\n{2**60}\n\nNA\n", MismatchError, "a float does not hold exactly"),
        (f"a\n{2**64 - 1}\nNA\n", MismatchError, "a float does not hold exactly"),
        (f"a\n{2**63}\n-1\n", MismatchError, "from -1 to 9223372036854775808, which neither"),
        (f"a\n{10**30}\n1\n", MismatchError, "which neither int64 nor uint64 holds"),
    ],
)
def test_csv_that_is_wrong(tmp_path, text, error, match):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(error, match=match):
        open_input(tmp_path / "x.csv")


ENDLESS = {"text": "x" * (9 << 20), "quote": '"x' + "\n1,2" * (3 << 20)}


@pytest.mark.parametrize("value", ENDLESS.values(), ids=ENDLESS)
def test_csv_of_a_line_without_end(tmp_path, value):
    (tmp_path / "x.csv").write_text(f"a,b\n1,{value}\n")
    match = r"x\.csv: a line longer than the 4\.0 MiB that are read at once: .* close a quote"
    with pytest.raises(FormatError, match=match):
        open_input(tmp_path / "x.csv")


# Parquet and Arrow ----------------------------------------------------------------------------


def table(n=1000):
    at = np.arange(n)
    due = {
        "i": at.astype("i4"),
        "f": at / 8,
        "t": at % 3 == 0,
        "s": np.array([f"w{k % 13}".encode() for k in at]),
        "v": (at[:, None] + np.arange(3)).astype("f4"),
        "m": np.where(at % 5 == 0, np.nan, at),
        "d": at * 10,
    }
    columns = {
        "i": pa.array(due["i"]),
        "f": pa.array(due["f"]),
        "t": pa.array(due["t"]),
        "s": pa.array([f"w{k % 13}" for k in at]).dictionary_encode(),
        "v": pa.FixedSizeListArray.from_arrays(pa.array(due["v"].ravel()), 3),
        "m": pa.array([None if k % 5 == 0 else int(k) for k in at]),
        "d": pa.array(at * 10, pa.timestamp("ms")),
    }
    return pa.table(columns), due


def test_parquet(tmp_path):
    columns, due = table()
    pa.parquet.write_table(columns, tmp_path / "x.parquet", row_group_size=130)
    given = open_input(tmp_path / "x.parquet")
    assert given.attrs == {"d_unit": "ms"}
    check(given, due)


def test_parquet_in_parts(tmp_path):
    columns, due = table()
    for number, (a, b) in {2: (0, 400), 10: (400, 1000)}.items():
        pa.parquet.write_table(
            columns.slice(a, b - a), tmp_path / f"part-{number}.parquet", row_group_size=90
        )
    check(open_input(tmp_path), due)
    files = [tmp_path / "part-10.parquet", tmp_path / "part-2.parquet"]
    assert everything(open_input(files))["i"][0] == 400
    pa.parquet.write_table(columns.select(["i"]), tmp_path / "part-11.parquet")
    with pytest.raises(MismatchError, match=r"part-11.parquet has other columns .* 'f' is missing"):
        open_input(tmp_path)


@pytest.mark.parametrize("form", ["file", "stream", "feather"])
def test_arrow(tmp_path, form):
    columns, due = table()
    path = tmp_path / "x.arrow"
    if form == "feather":
        pyarrow.feather.write_feather(columns, str(path), compression="uncompressed")
    else:
        new = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
        with new(str(path), columns.schema) as writer:
            writer.write_table(columns, max_chunksize=170)
    check(open_input(path), due)


@pytest.mark.parametrize(
    ("column", "match"),
    [
        (pa.array([[1], [2, 3]]), "lists of any length; cast them"),
        (pa.array([{"a": 1}, {"a": 2}]), "has no form as numbers"),
        (pa.array([True, None]), "has missing values, for which bool has no form"),
        (pa.array([2**60, None]), "has missing values, for which int64 has no form"),
        (
            pa.array([1577836800000000001, 1577836800000000002, None], pa.timestamp("ns"))[1:],
            "timestamp.ns. has missing values, for which int64 has no form",
        ),
        (pa.array([2**63 - 1, None], pa.duration("ns")), "for which int64 has no form"),
        (pa.array([(1, 2, 3)], pa.month_day_nano_interval()), "has no form as numbers"),
    ],
)
def test_columns_without_a_form(tmp_path, column, match):
    columns = pa.table({"x": column, "y": np.arange(len(column))})
    pa.feather.write_feather(columns, tmp_path / "x.feather", compression="uncompressed")
    with pytest.raises(MismatchError, match=match):
        open_input(tmp_path / "x.feather")
    check(open_input(tmp_path / "x.feather", sources=["y"]), {"y": np.arange(len(column))})


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_times_of_which_some_are_missing(tmp_path, form):
    second = 1577836800
    kinds = {
        "date": (pa.date32(), 18262),
        "short": (pa.time32("ms"), 5),
        "long": (pa.time64("us"), 5),
        "time": (pa.timestamp("ms"), second * 1000),
        "whole": (pa.timestamp("ns"), second * 10**9),  # past 2**53, but an exact float
        "took": (pa.duration("us"), 3),
    }
    columns = {
        name: pa.array([value, None], pa.int32() if kind.bit_width == 32 else pa.int64()).cast(kind)
        for name, (kind, value) in kinds.items()
    }
    if form == "parquet":
        pa.parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
    else:
        pa.feather.write_feather(pa.table(columns), tmp_path / "x.arrow")
    given = open_input(tmp_path / f"x.{form}")
    check(given, {name: np.array([value, np.nan]) for name, (_, value) in kinds.items()})
    assert given.attrs["whole_unit"] == "ns"


def test_what_is_missing_in_lists(tmp_path):
    columns = pa.table({"x": pa.array([[1, None], [3, 4]], pa.list_(pa.int64(), 2))})
    pa.parquet.write_table(columns, tmp_path / "x.parquet")
    with pytest.raises(MismatchError, match="column 'x' has missing values: fill them"):
        everything(open_input(tmp_path / "x.parquet"))


def test_a_parquet_file_that_was_cut_off(tmp_path):
    columns, _ = table()
    pa.parquet.write_table(columns, tmp_path / "x.parquet")
    data = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "x.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError, match=r"x.parquet: cannot be read"):
        open_input(tmp_path / "x.parquet")


# Images ---------------------------------------------------------------------------------------


def image_folder(folder, n=7, size=(5, 4)):
    rng = np.random.default_rng(0)
    due = []
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for k in range(n):
            pixels = rng.integers(0, 255, (*size, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{k}.png")
            due.append(pixels)
    (folder / "cat" / ".hidden").write_text("")
    (folder / "cat" / "notes.txt").write_text("")
    return np.stack(due), np.repeat([0, 1], n)


def test_images(tmp_path):
    images, labels = image_folder(tmp_path, n=12)
    given = open_input(tmp_path)
    assert given.attrs == {"label_names": ["cat", "dog"]}
    check(given, {"images": images, "labels": labels})
    check(open_input(tmp_path / "cat"), {"images": images[:12][[0, 1, *range(2, 12)]]})


def test_images_of_other_kinds(tmp_path):
    deep = np.arange(20, dtype=np.uint16).reshape(4, 5) * 3000
    Image.fromarray(deep).save(tmp_path / "x.png")
    check(open_input(tmp_path), {"images": deep[None, ..., None]})


def test_images_are_scaled(tmp_path):
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:, 3:] = 200  # the right half
    Image.fromarray(pixels).save(tmp_path / "x.png")
    given = open_input(tmp_path, size=(2, 2))
    assert given.sources["images"].row_shape == (2, 2, 3)
    [image] = everything(given)["images"]
    assert (image[:, 0] < 60).all()
    assert (image[:, 1] > 140).all()


def test_images_that_differ(tmp_path):
    image_folder(tmp_path)
    Image.new("RGB", (9, 9)).save(tmp_path / "dog" / "9.png")
    with pytest.raises(MismatchError, match=r"9.png is 9x9 pixels, .*0.png is 5x4: give size="):
        everything(open_input(tmp_path))
    found = everything(open_input(tmp_path, size=(3, 3), mode="L"))
    assert found["images"].shape == (15, 3, 3, 1)


def pixels_of(mode, value):
    if mode == "L":
        return Image.new("L", (5, 4), value)
    dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
    return Image.fromarray(np.full((4, 5), value, dtype))


@pytest.mark.parametrize(
    ("first", "second", "value", "match"),
    [
        ("L", "I;16", 1000, r"1\.tif is of mode 'I;16', .*0\.tif made the mode of all 'L'"),
        ("L", "I", 70000, r"1\.tif is of mode 'I', .*0\.tif made the mode of all 'L'"),
        ("L", "F", 0.5, r"1\.tif is of mode 'F', .*0\.tif made the mode of all 'L'"),
        ("I;16", "I", 70000, r"1\.tif is of mode 'I', with values from 70000 to 70000; .*'I;16'"),
        ("I;16", "I", -1, "values from -1 to -1"),
        ("I;16", "F", 0.5, r"1\.tif is of mode 'F', .*0\.tif made the mode of all 'I;16'"),
        ("I", "L", 1, None),
        ("I;16", "I", 65535, None),
        ("I;16", "L", 255, None),
    ],
)
@pytest.mark.parametrize("size", [None, (4, 5)])
def test_images_deeper_than_the_first(tmp_path, first, second, value, match, size):
    pixels_of(first, 7).save(tmp_path / "0.tif")
    pixels_of(second, value).save(tmp_path / "1.tif")
    given = open_input(tmp_path, size=size)
    if match is None:
        assert everything(given)["images"].reshape(2, -1)[:, 0].tolist() == [7, value]
    else:
        with pytest.raises(MismatchError, match=match):
            everything(given)
    asked = open_input(tmp_path, mode="L", size=size)  # then they are cut
    assert everything(asked)["images"].dtype == np.uint8


def test_images_of_floats(tmp_path):
    pixels_of("F", 0.5).save(tmp_path / "0.tif")
    with pytest.raises(FormatError, match=r"0\.tif is of mode 'F': its pixels are floats"):
        open_input(tmp_path)
    assert everything(open_input(tmp_path, mode="L"))["images"].shape == (1, 4, 5, 1)


@pytest.mark.parametrize("mode", [None, "RGB"])
def test_images_too_large_are_told_before_any_is_scaled(tmp_path, monkeypatch, mode):
    image_folder(tmp_path)
    monkeypatch.setattr(ImageFolder, "_decode", lambda *_: pytest.fail("it would take terabytes"))
    with pytest.raises(BudgetError, match=r"cannot hold some images of 2\.7 TiB"):
        open_input(tmp_path, size=(1_000_000, 1_000_000), mode=mode)


@pytest.mark.parametrize("size", ["5x4", 5, (5,), (5, 0), (5, 4.0), (5, 4, 3)])
def test_a_size_that_is_none(tmp_path, size):
    image_folder(tmp_path)
    with pytest.raises(MismatchError, match=r"size=.*: give \(height, width\)"):
        open_input(tmp_path, size=size)


def test_images_are_in_a_folder(tmp_path):
    image_folder(tmp_path)
    with pytest.raises(FormatError, match=r"0\.png is a file: of images a folder is read"):
        open_input(tmp_path / "cat" / "0.png", format="images")
    with pytest.raises(FileMissingError, match="there is no such folder"):
        open_input(tmp_path / "none", format="images")
    with pytest.raises(MismatchError, match="of several files only Parquet is read"):
        open_input([tmp_path / "cat", tmp_path / "dog"], format="images")


def test_images_that_are_none(tmp_path):
    image_folder(tmp_path)
    (tmp_path / "cat" / "3.png").write_bytes(b"no image")
    with pytest.raises(FormatError, match=r"3.png: no image that can be read"):
        everything(open_input(tmp_path))
    data = (tmp_path / "dog" / "2.png").read_bytes()
    (tmp_path / "cat" / "3.png").write_bytes(data[:60])
    with pytest.raises(FormatError, match=r"3.png: no image that can be read"):
        everything(open_input(tmp_path))
    with pytest.raises(MismatchError, match="mode='XYZ' is not one of"):
        open_input(tmp_path, mode="XYZ")
    with pytest.raises(BudgetError, match="cannot hold some images"):
        open_input(tmp_path, memory_bytes=100)
    Image.new("RGB", (5, 4)).save(tmp_path / "stray.png")
    with pytest.raises(FormatError, match="whether folders are labels is not clear"):
        open_input(tmp_path)


# MATLAB ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["5", "4"])
def test_mat(tmp_path, form):
    X, y = np.arange(60.0).reshape(20, 3), np.arange(20.0)[None]
    scipy.io.savemat(tmp_path / "x.mat", {"X": X, "y": y, "other": np.zeros((3, 3))}, format=form)
    check(open_input(tmp_path / "x.mat"), {"X": X, "y": np.arange(20.0)})


def test_mat_with_rows_last(tmp_path):
    # As SVHN has its images: height, width, colours, examples.
    X = np.arange(2 * 2 * 3 * 5, dtype=np.uint8).reshape(2, 2, 3, 5)
    y = np.arange(5, dtype=np.uint8)[:, None]
    scipy.io.savemat(tmp_path / "x.mat", {"X": X, "y": y})
    check(
        open_input(tmp_path / "x.mat", axis={"X": -1}),
        {"X": np.moveaxis(X, -1, 0), "y": y[:, 0]},
    )


@pytest.mark.parametrize("axis", ["x", 1.0, True, None, {"X": "x"}])
def test_an_axis_that_is_none(tmp_path, axis):
    scipy.io.savemat(tmp_path / "x.mat", {"X": np.zeros((5, 3))})
    with pytest.raises(MismatchError, match=r"axis=.*: give a whole number"):
        open_input(tmp_path / "x.mat", axis=axis)


def test_the_axis_of_a_variable_that_is_not_there(tmp_path):
    scipy.io.savemat(tmp_path / "x.mat", {"X": np.zeros((5, 3))})
    with pytest.raises(SourceNameError, match=r"axis= of 'zz': .*x\.mat has X"):
        open_input(tmp_path / "x.mat", axis={"zz": 1})
    check(open_input(tmp_path / "x.mat", axis={"X": 1}), {"X": np.zeros((3, 5))})


def test_mat_that_is_wrong(tmp_path):
    scipy.io.savemat(tmp_path / "x.mat", {"X": np.zeros((9, 3)), "s": {"a": 1}, "y": np.zeros(4)})
    with pytest.raises(BudgetError, match=r"SciPy reads a variable whole"):
        open_input(tmp_path / "x.mat", sources=["X"], memory_bytes=100)
    with pytest.raises(SourceNameError, match="'s' is a struct, not an array of numbers"):
        open_input(tmp_path / "x.mat", sources=["s"])
    with pytest.raises(MismatchError, match="X has 9, y has 4"):
        open_input(tmp_path / "x.mat", sources=["X", "y"])
    with pytest.raises(MismatchError, match=r"shape \(9, 3\) has no axis 7"):
        open_input(tmp_path / "x.mat", axis=7)
    data = (tmp_path / "x.mat").read_bytes()
    (tmp_path / "x.mat").write_bytes(data[:200])
    with pytest.raises(FormatError, match=r"x.mat: cannot be read"):
        open_input(tmp_path / "x.mat")


# All ------------------------------------------------------------------------------------------


def test_what_is_for_a_store(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(3))
    assert open_input(tmp_path / "x.npy") is None
    assert open_input(tmp_path / "missing.csv") is None
    assert open_input("https://example.org/x.csv") is None
    with pytest.raises(MismatchError, match="are for tables and images"):
        open_input(tmp_path / "x.npy", size=(3, 3))
    with pytest.raises(MismatchError, match="format='xml' is not one of: csv"):
        open_input(tmp_path / "x.npy", format="xml")


@pytest.mark.parametrize(
    ("package", "name", "extra"),
    [("pyarrow", "x.csv", "arrow"), ("PIL", "x", "images"), ("scipy", "x.mat", "matlab")],
)
def test_a_package_that_is_missing(tmp_path, package, name, extra):
    if name == "x":
        image_folder(tmp_path / name)
    elif name == "x.mat":
        scipy.io.savemat(tmp_path / name, {"X": np.eye(3)})
    else:
        (tmp_path / name).write_text("a\n1\n")
    program = (
        "import sys\n"
        f"sys.modules[{package!r}] = None\n"
        "from epochal.cli import main\n"
        "main(['convert', sys.argv[1], sys.argv[2]])\n"
    )
    words = [sys.executable, "-c", program, tmp_path / name, tmp_path / "out.h5"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"pip install 'epochal[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", ["csv", "parquet", "images", "mat"])
def test_converted(tmp_path, kind):
    src, due = tmp_path / f"x.{kind}", None
    if kind == "csv":
        src.write_text("a,b\n" + "".join(f"{k},{k / 2}\n" for k in range(100)))
        due = {"a": np.arange(100), "b": np.arange(100) / 2}
    elif kind == "parquet":
        columns, due = table(100)
        pa.parquet.write_table(columns, src)
    elif kind == "images":
        images, labels = image_folder(src)
        due = {"images": images, "labels": labels}
    else:
        scipy.io.savemat(src, {"X": np.eye(9)})
        due = {"X": np.eye(9)}
    done = epochal.convert(src, tmp_path / "out.h5")
    assert done.rows == len(next(iter(due.values())))
    with epochal.open(tmp_path / "out.h5") as ds:
        for name, rows in due.items():
            np.testing.assert_array_equal(ds[name][:], rows)
    left = sorted(os.listdir(tmp_path))
    assert left == sorted(["out.h5", src.name])
