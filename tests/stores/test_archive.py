"""Zip archives: what Python's zipfile finds in them is what we find, and no lie is believed."""

import errno
import io
import os
import pickle
import struct
import tracemalloc
import zipfile
import zlib
from dataclasses import replace

import numpy as np
import pytest

from epochal.errors import (
    ChangedError,
    DamageError,
    EpochalError,
    FileMissingError,
    FormatError,
    ScratchError,
    UnsafeError,
)
from epochal.stores import archive_directory
from epochal.stores.archive import ZipTree, members, open_member, packed
from epochal.stores.archive_copy import UnpackedCopy, temporary_folder
from epochal.stores.archive_inflate import Inflater
from epochal.stores.descriptor import Descriptor, Stamp
from epochal.stores.file import read_whole

NOISE = np.random.default_rng(0).bytes(5000)
TEXT = b"the same again and again; " * 40_000


def opened(path):
    return Descriptor(str(path), Stamp.at(path))


def zipped(path, *listed, method=zipfile.ZIP_STORED, comment=b""):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in listed:
            archive.writestr(name, data)
        archive.comment = comment
    return path


def everything(tree):
    return {name: read_whole(tree.file(name), 1 << 30) for name, _ in tree.sizes()}


class Pipe(io.RawIOBase):
    """A file that cannot seek: the sizes of members follow them."""

    def __init__(self):
        super().__init__()
        self.data = b""

    def writable(self):
        return True

    def write(self, data):
        self.data += bytes(data)
        return len(data)


class CountedReads:
    """A file that notes what is read of it."""

    in_flight = 1

    def __init__(self, file):
        self.file, self.name, self.size_bytes = file, file.name, file.size_bytes
        self.reads = []

    def checked(self):
        read = self.file.checked()

        def counted(parts, offset):
            self.reads.append((offset, sum(map(len, parts))))
            return read(parts, offset)

        return counted


def of_zip64(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in CONTENT.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(data)


def of_a_pipe(path):
    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in CONTENT.items():
            archive.writestr(name, data)
    path.write_bytes(pipe.data)


def behind_a_program(path):
    zipped(path, *CONTENT.items())
    path.write_bytes(b"#!/bin/sh\nexit\n" + path.read_bytes())


def with_folders(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/", b"")
        for name, data in CONTENT.items():
            archive.writestr(name, data)


CONTENT = {"a/noise": NOISE, "text": TEXT, "leer": b"", "grün/Ω": b"names", "a..b": b"dots"}
WRITERS = {
    "stored": lambda path: zipped(path, *CONTENT.items()),
    "deflated": lambda path: zipped(path, *CONTENT.items(), method=zipfile.ZIP_DEFLATED),
    "comment": lambda path: zipped(path, *CONTENT.items(), comment=b"PK\x05\x06 of a kind" * 99),
    "zip64": of_zip64,
    "pipe": of_a_pipe,
    "program": behind_a_program,
    "folders": with_folders,
}


@pytest.mark.parametrize("how", WRITERS)
def test_a_tree_holds_what_was_written(tmp_path, how):
    WRITERS[how](tmp_path / "a.zip")
    tree = ZipTree(opened(tmp_path / "a.zip"))
    assert everything(tree) == CONTENT
    assert dict(tree.sizes("a")) == {"a/noise": len(NOISE), "a..b": 4}
    again = pickle.loads(pickle.dumps(tree))
    tree.close()
    assert everything(again) == CONTENT
    with pytest.raises(FileMissingError, match=r"a\.zip: has no member 'nothing'"):
        again.file("nothing")
    again.close()
    with pytest.raises(FormatError, match="was closed"):
        again.file("text")


def test_parts_of_a_member(tmp_path):
    zipped(tmp_path / "a.zip", ("text", TEXT), method=zipfile.ZIP_DEFLATED)
    read = ZipTree(opened(tmp_path / "a.zip")).file("text").checked()
    one, two = bytearray(7), bytearray(20)
    assert read([memoryview(one), memoryview(two)], len(TEXT) - 10) == 10
    assert bytes(one + two[:3]) == TEXT[-10:]
    assert read([memoryview(one)], len(TEXT) + 5) == 0


def test_more_members_than_sixteen_bits_count(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(65_600):
            archive.writestr(zipfile.ZipInfo(f"c/{number}"), b"")
    file = CountedReads(opened(tmp_path / "a.zip"))
    assert list(members(file)) == [f"c/{number}" for number in range(65_600)]
    assert len(file.reads) == 3  # the end, the record of zip64, the list


def test_the_list_is_read_at_once(tmp_path):
    zipped(tmp_path / "a.zip", *((f"{n}", NOISE) for n in range(200)))
    file = CountedReads(opened(tmp_path / "a.zip"))
    tracemalloc.start()
    found = members(file)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 400 * len(found)
    assert len(file.reads) == 1
    file.reads.clear()
    assert read_whole(open_member(file, found["7"]), 5000) == NOISE
    assert len(file.reads) == 2


def patched(data, signature, field, value, number=0):
    """An archive with another value in a field of the record of that signature."""
    at = -1
    for _ in range(number + 1):
        at = data.index(signature, at + 1)
    return data[: at + field] + value + data[at + field + len(value) :]


LIST, LOCAL, END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"
u16, u32 = struct.Struct("<H").pack, struct.Struct("<I").pack

LIES = {
    "the same place": (LIST, 42, u32(0), "overlaps the next one"),
    "beyond the end": (LIST, 42, u32(1 << 31), "runs into the list of members"),
    "too long": (LIST, 20, u32(9_000), "runs into the list of members"),
    "a bomb": (LIST, 24, u32(1 << 31), "more than deflate can hold"),
    "encrypted": (LIST, 8, u16(1), "'two' is encrypted; unpack the archive first"),
    "no entry": (LIST, 0, b"PK\x07\x07", "no entry where one is due"),
    "a cut entry": (LIST, 32, u16(60_000), "its last entry is cut off"),
    "another name": (LIST, 46, b"owt", "is not where the list of members says"),
    "another method": (LIST, 10, u16(0), "is not where the list of members says"),
    "extra fields": (LOCAL, 28, u16(60_000), "overlaps the next one"),
    "no local header": (LOCAL, 0, b"PK\x07\x07", "is not where the list of members says"),
    "many members": (END, 10, u16(60_000), "60000 members in 98 bytes"),
    "a long list": (END, 12, u32(1 << 31), "its list of members cannot be read"),
    "a far list": (END, 16, u32(1 << 31), "its list of members cannot be read"),
    "one of several": (END, 4, u16(3), "one part of several"),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_refused(tmp_path, lie):
    """Of the second member of two."""
    path = zipped(tmp_path / "a.zip", ("one", NOISE), ("two", TEXT), method=zipfile.ZIP_DEFLATED)
    signature, field, value, why = LIES[lie]
    number = 0 if signature == END else 1
    path.write_bytes(patched(path.read_bytes(), signature, field, value, number))
    with pytest.raises(FormatError, match=why):
        everything(ZipTree(opened(path)))


@pytest.mark.parametrize("name", ["../up", "a/../../up", "/etc/x", "\\x", "C:\\x", "..\\up", ".."])
def test_names_that_lead_out_are_refused(tmp_path, name):
    zipped(tmp_path / "a.zip", (name, b""))
    with pytest.raises(UnsafeError, match="a place outside of the archive"):
        members(opened(tmp_path / "a.zip"))


def test_names_that_come_twice_are_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        zipped(tmp_path / "a.zip", ("x", b"1"), ("x", b"2"))
    with pytest.raises(FormatError, match="member 'x' comes twice: which is meant"):
        members(opened(tmp_path / "a.zip"))


def test_files_that_are_cut_off(tmp_path):
    path = zipped(tmp_path / "a.zip", ("one", NOISE), ("two", TEXT))
    data = path.read_bytes()
    path.write_bytes(data[:-30])
    with pytest.raises(FormatError, match="was cut off"):
        members(opened(path))
    path.write_bytes(data[1000:])  # offsets are too large for what is there
    with pytest.raises(FormatError, match="its list of members cannot be read"):
        members(opened(path))


def test_other_methods_are_named(tmp_path):
    zipped(tmp_path / "a.zip", ("x", TEXT), method=zipfile.ZIP_LZMA)
    with pytest.raises(FormatError, match="zip method 14; only deflate is read"):
        ZipTree(opened(tmp_path / "a.zip")).file("x")


def test_no_damage_does_more_than_raise(tmp_path):
    """Any byte of the list wrong: an error of ours, or what the archive now says."""
    rng = np.random.default_rng(5)
    path = zipped(tmp_path / "a.zip", *CONTENT.items(), method=zipfile.ZIP_DEFLATED)
    data = path.read_bytes()
    listed = data.index(LIST)
    raised = 0
    tracemalloc.start()
    for _ in range(400):
        wrong = bytearray(data)
        for at in rng.integers(listed, len(data), rng.integers(1, 4)):
            wrong[at] = rng.integers(256)
        path.write_bytes(wrong)
        try:
            everything(ZipTree(opened(path)))
        except EpochalError:
            raised += 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert raised > 100
    assert peak < 40 << 20


def deflated(tmp_path, data):
    zipped(tmp_path / "a.zip", ("x", data), method=zipfile.ZIP_DEFLATED)
    file = opened(tmp_path / "a.zip")
    member = members(file)["x"]
    return packed(file, member), member


@pytest.mark.parametrize("data", [TEXT, NOISE * 50, b"\0" * 5_000_000, b"x"])
def test_states_go_on_where_they_were_made(tmp_path, data):
    inside, member = deflated(tmp_path, data)
    first = Inflater(inside, member)
    states = []
    while first.position < len(data):
        states.append(first.copy())
        first.skip(min(len(data) // 7 + 1, len(data) - first.position))
    for state in reversed(states):
        out = bytearray(len(data) - state.position)
        at = state.position
        state.read_into(memoryview(out))
        assert out == data[at:]
        assert state.position == len(data)
    with pytest.raises(DamageError, match="asked for more than its"):
        first.skip(1)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"size_bytes": len(TEXT) - 1, "crc32": zlib.crc32(TEXT[:-1])}, "it goes on after its"),
        ({"size_bytes": len(TEXT) + 1}, rf"it ends after {len(TEXT)} of {len(TEXT) + 1} bytes"),
        ({"crc32": 1}, "its checksum is not the one in the archive"),
    ],
)
def test_a_member_that_is_not_what_the_list_says(tmp_path, change, why):
    inside, member = deflated(tmp_path, TEXT)
    with pytest.raises(DamageError, match=rf"a\.zip/x: does not unpack: {why}"):
        Inflater(inside, replace(member, **change)).skip(len(TEXT) + 1)


def test_a_device_that_fails_is_damage(tmp_path):
    inside, member = deflated(tmp_path, TEXT)

    class Failing:
        name, size_bytes, in_flight = inside.name, inside.size_bytes, 1

        def checked(self):
            def read(parts, offset):
                raise OSError(errno.EIO, os.strerror(errno.EIO))

            return read

    with pytest.raises(DamageError, match="cannot be read: Input/output error"):
        Inflater(Failing(), member).skip(1)


def test_a_network_is_asked_for_more_at_once(tmp_path):
    data = np.random.default_rng(1).bytes(3 << 20)
    inside, member = deflated(tmp_path, data)
    far = CountedReads(inside)
    far.in_flight = 16
    Inflater(far, member).skip(len(data))
    assert len(far.reads) == 4


def space(folder):
    """Bytes that this process holds in files without a name."""
    total = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            if str(folder) in os.readlink(f"/proc/self/fd/{fd}"):
                total += os.stat(f"/proc/self/fd/{fd}").st_size
        except OSError:
            continue
    return total


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("EPOCHAL_SCRATCH", str(folder))
    return folder


def test_a_copy_is_made_once_and_given_back(tmp_path, scratch):
    copy = UnpackedCopy(*deflated(tmp_path, TEXT))
    assert space(scratch) == 0
    assert read_whole(copy, 1 << 30) == TEXT
    assert space(scratch) == len(TEXT)
    read = copy.checked()
    pid = os.fork()
    if not pid:  # reads what its parent unpacked
        os._exit(read_whole(copy, 1 << 30) != TEXT or space(scratch) > len(TEXT))
    assert os.waitpid(pid, 0)[1] == 0
    again = pickle.loads(pickle.dumps(copy))
    assert read_whole(again, 1 << 30) == TEXT
    del again
    copy.close()
    assert space(scratch) == len(TEXT)  # whoever reads may go on
    out = bytearray(3)
    assert read([memoryview(out)], 4) == 3
    assert out == TEXT[4:7]
    del read
    assert space(scratch) == 0
    assert os.listdir(scratch) == []
    with pytest.raises(FormatError, match="a store that was closed"):
        copy.checked()


def test_a_copy_that_does_not_fit(tmp_path, scratch, monkeypatch):
    copy = UnpackedCopy(*deflated(tmp_path, TEXT))
    assert copy.fits()

    def full(fd, data, at):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("os.pwrite", full)
        with pytest.raises(
            ScratchError, match=r"a\.zip/x: cannot be unpacked .* No space left .*EPOCHAL_SCRATCH"
        ):
            copy.checked()
    assert space(scratch) == 0
    scratch.rmdir()
    assert not copy.fits()
    with pytest.raises(ScratchError, match="No such file"):
        copy.checked()
    scratch.mkdir()
    assert read_whole(copy, 1 << 30) == TEXT


def test_a_copy_of_a_file_that_changed(tmp_path, scratch):
    copy = UnpackedCopy(*deflated(tmp_path, TEXT))
    copy.checked()
    with open(tmp_path / "a.zip", "ab") as file:
        file.write(b"more")
    with pytest.raises(ChangedError):
        copy.checked()


def test_where_copies_go(monkeypatch, tmp_path):
    monkeypatch.delenv("EPOCHAL_SCRATCH", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert temporary_folder() == str(tmp_path)
    monkeypatch.delenv("TMPDIR")
    assert temporary_folder() == "/var/tmp"
    monkeypatch.setattr("os.access", lambda *_: False)
    assert os.path.isdir(temporary_folder())


def test_how_many_members_are_read(tmp_path, monkeypatch):
    path = zipped(tmp_path / "a.zip", ("one", b""), ("two", b""))
    monkeypatch.setattr(archive_directory, "MAX_MEMBERS", 1)
    with pytest.raises(FormatError, match="2 members in 98 bytes; at most 1 are read"):
        members(opened(path))


def test_members_too_large_to_unpack_whole(tmp_path, monkeypatch):
    path = zipped(tmp_path / "a.zip", ("x", TEXT), method=zipfile.ZIP_DEFLATED)
    monkeypatch.setattr("epochal.stores.archive.MAX_WHOLE_BYTES", 1000)
    with pytest.raises(FormatError, match="1040000 bytes unpacked; not more than 1000"):
        ZipTree(opened(path)).file("x")
