"""Names that files get once they are whole: what is there meanwhile, and after a kill."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import epochal
from epochal.errors import TargetError, TargetExistsError
from epochal.writing import target as target_module
from epochal.writing.target import InPlace, Target, partial_of


def made(target: Target, text: str = "new") -> Target:
    with open(target.partial, "w") as file:
        file.write(text)
    return target


def left_in(folder) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.fixture(params=["renameat2", "rename"])
def system(request, monkeypatch):
    """With the system call that does it in one step, and where there is none."""
    if request.param == "rename":
        monkeypatch.setattr(target_module, "_renameat2", lambda *_: False)
    return request.param


def test_it_appears_whole(tmp_path, system):
    target = made(Target(tmp_path / "out.h5"))
    assert not (tmp_path / "out.h5").exists()
    target.publish()
    assert (tmp_path / "out.h5").read_text() == "new"
    assert left_in(tmp_path) == ["out.h5"]


def test_what_is_there_is_not_replaced(tmp_path):
    (tmp_path / "out.h5").write_text("old")
    with pytest.raises(TargetExistsError, match=r"out\.h5 is there already: give overwrite=True"):
        Target(tmp_path / "out.h5")
    assert left_in(tmp_path) == ["out.h5"]


def test_what_appears_meanwhile_is_not_replaced_either(tmp_path, system):
    target = made(Target(tmp_path / "out.h5"))
    (tmp_path / "out.h5").write_text("of somebody else")
    with pytest.raises(TargetExistsError, match="is there already"):
        target.publish()
    target.give_up()
    assert (tmp_path / "out.h5").read_text() == "of somebody else"
    assert left_in(tmp_path) == ["out.h5"]


def test_overwrite_keeps_the_permissions(tmp_path):
    (tmp_path / "out.h5").write_text("old")
    (tmp_path / "out.h5").chmod(0o640)
    made(Target(tmp_path / "out.h5", overwrite=True)).publish()
    assert (tmp_path / "out.h5").read_text() == "new"
    assert (tmp_path / "out.h5").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("old", ["file", "folder"])
@pytest.mark.parametrize("new", ["file", "folder"])
def test_overwrite_of_any_kind_by_any(tmp_path, system, old, new):
    path = tmp_path / "out"
    if old == "file":
        path.write_text("old")
    else:
        path.mkdir()
        (path / "zarr.json").write_text("old")
    target = Target(path, overwrite=True)
    if new == "file":
        made(target)
    else:
        os.mkdir(target.partial)
        (tmp_path / target.partial / "piece").write_text("new")
    target.publish()
    assert (path if new == "file" else path / "piece").read_text() == "new"
    assert left_in(tmp_path) == ["out"]


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x.h5").write_text("old")
    (tmp_path / "link.h5").symlink_to(tmp_path / "real" / "x.h5")
    made(Target(tmp_path / "link.h5", overwrite=True)).publish()
    assert (tmp_path / "link.h5").is_symlink()
    assert (tmp_path / "real" / "x.h5").read_text() == "new"


def test_one_writer_at_a_time(tmp_path):
    with_lock = Target(tmp_path / "out.h5")
    with pytest.raises(TargetError, match="another process is writing it"):
        Target(tmp_path / "out.h5")
    with pytest.raises(TargetError, match="another process is writing it"):
        InPlace(str(tmp_path / "out.h5"))
    with_lock.give_up()
    InPlace(str(tmp_path / "out.h5")).publish()
    assert left_in(tmp_path) == []


def test_a_killed_writer_leaves_no_lock(tmp_path):
    path = tmp_path / "out.h5"
    program = (
        "import os, signal, sys\n"
        "from epochal.writing.target import Target\n"
        "target = Target(sys.argv[1])\n"
        "open(target.partial, 'w').write('half')\n"
        "open(target.partial + '-job', 'w').write('notes')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)]).returncode == -9
    assert not path.exists()
    again = Target(path)
    assert again.leftover
    again.clean()
    made(again).publish()
    assert left_in(tmp_path) == ["out.h5"]


def test_notes_of_a_writer_that_had_ended_are_removed(tmp_path):
    (tmp_path / "out.h5").write_text("whole")
    (tmp_path / (partial_of("out.h5") + "-job")).write_text("notes")
    with pytest.raises(TargetExistsError):
        Target(tmp_path / "out.h5")
    assert left_in(tmp_path) == ["out.h5"]


def test_no_folder(tmp_path):
    with pytest.raises(TargetError, match=r"there is no folder .*missing to write it to: make it"):
        Target(tmp_path / "missing" / "out.h5")


def test_giving_up_may_keep_what_there_is(tmp_path):
    made(Target(tmp_path / "out.h5")).give_up(keep=True)
    assert left_in(tmp_path) == [partial_of("out.h5")]
    Target(tmp_path / "out.h5").give_up()
    assert left_in(tmp_path) == []


def test_names_of_others_are_not_touched(tmp_path):
    # "out.h5" and "b.out.h5" are different targets, whatever their names share.
    (tmp_path / partial_of("b.out.h5")).write_text("theirs")
    (tmp_path / ".out.h5.epochal-partial-2").write_text("mine")
    Target(tmp_path / "out.h5").give_up()
    assert left_in(tmp_path) == [partial_of("b.out.h5")]


def test_no_name():
    for overwrite in (False, True):
        with pytest.raises(TargetError, match="'' is no name to write to: give a path"):
            Target("", overwrite=overwrite)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("within", [False, True])
def test_the_folder_that_is_worked_in_is_not_replaced(tmp_path, monkeypatch, overwrite, within):
    (tmp_path / "out" / "in").mkdir(parents=True)
    (tmp_path / "out" / "zarr.json").write_text("{}")
    monkeypatch.chdir(tmp_path / "out" / "in" if within else tmp_path / "out")
    with pytest.raises(TargetExistsError, match="is the folder that this process works in"):
        Target(".." if within else ".", overwrite=overwrite)
    assert left_in(tmp_path) == ["out"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_other_things_is_not_replaced(tmp_path, overwrite):
    path = tmp_path / "out"
    path.mkdir()
    (path / "thesis.txt").write_text("precious")
    with pytest.raises(TargetExistsError, match=r"did not write: it has no epochal\.json"):
        Target(path, overwrite=overwrite)
    assert left_in(path) == ["thesis.txt"]
    assert left_in(tmp_path) == ["out"]


def test_a_folder_that_others_put_files_in_is_not_replaced(tmp_path):
    path = tmp_path / "out"
    for _ in range(2):  # what it wrote itself it replaces: names with folders, sums, attributes
        sources = {"train/X": ((2,), "u1"), "y": ((), "i8")}
        with epochal.create(path, sources, flavour="npy", attrs={"a": 1}, overwrite=True) as writer:
            writer.append({"train/X": [[1, 2]], "y": [0]})
    (path / ".epochal-new-y.npy").write_text("left by a writer")
    Target(path, overwrite=True).release()
    (path / "train" / "notes.txt").write_text("precious")
    with pytest.raises(TargetExistsError, match=r"did not write: 'train/notes\.txt' is in it"):
        Target(path, overwrite=True)
    assert (path / "train" / "notes.txt").read_text() == "precious"


def test_a_folder_that_becomes_one_of_other_things_meanwhile(tmp_path, system):
    path = tmp_path / "out"
    target = made(Target(path, overwrite=True))
    path.mkdir()
    (path / "thesis.txt").write_text("precious")
    with pytest.raises(TargetExistsError, match="Such a folder is never replaced"):
        target.publish()
    target.give_up()
    assert left_in(path) == ["thesis.txt"]
    assert left_in(tmp_path) == ["out"]


@pytest.mark.parametrize("mark", ["zarr.json", ".zgroup", ".zarray"])
def test_what_zarr_wrote_is_replaced(tmp_path, system, mark):
    (tmp_path / "out.zarr").mkdir()
    (tmp_path / "out.zarr" / mark).write_text("{}")
    made(Target(tmp_path / "out.zarr", overwrite=True)).publish()
    assert (tmp_path / "out.zarr").read_text() == "new"
