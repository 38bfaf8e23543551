"""What servers do wrong: what may pass is asked for again, the rest is one error that says what."""

import pickle
import time
import warnings

import h5py
import numpy as np
import pytest
import zarr
from http_server import Server

import epochal
from epochal.errors import ChangedError, FileMissingError, FormatError
from epochal.stores import open_store, remote_answer, remote_http

N_ROWS = 40_000
X = np.random.default_rng(0).integers(0, 256, (N_ROWS, 16), "u1")


LAYOUTS = {
    "contiguous": {},
    "gzip": {"chunks": (2000, 16), "compression": "gzip"},
}


@pytest.fixture(
    scope="module",
    params=list(LAYOUTS),
)
def content(request, tmp_path_factory):
    """An HDF5 file longer than what is kept of the first look."""
    path = tmp_path_factory.mktemp("faults") / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("X", data=X, **LAYOUTS[request.param])
    data = path.read_bytes()
    assert len(data) > 2 * remote_answer.HEAD_BYTES
    return data


@pytest.fixture
def url(server, content, impatient):
    """The file, on a server that may be told to fail."""
    server.files["/a.h5"] = content
    return f"{server.url}/a.h5"


@pytest.fixture
def source(url, server):
    """Its rows, of which none was read yet."""
    source = open_store(url).sources["X"]
    server.asked()
    return source


def read(source):
    """All rows."""
    out = np.empty(source.layout.shape, source.layout.dtype)
    source.read(0, source.layout.n_chunks, out)
    return out


STATUSES = [408, 429, 500, 502, 503, 504]


@pytest.mark.parametrize("status", STATUSES)
def test_a_refusal_that_passes_is_waited_for(source, server, status):
    server.faults.refuse, server.faults.refuse_status = 2, status
    assert (read(source) == X).all()
    assert [request.status for request in server.requests].count(status) == 2


def test_a_refusal_that_passes_when_it_is_opened(url, server):
    server.faults.refuse = 2
    assert (read(open_store(url).sources["X"]) == X).all()


def test_a_refusal_that_lasts_is_one_error(source, server):
    server.faults.refuse = 1000
    with pytest.raises(
        FormatError,
        match=r"http://127\.0\.0\.1:\d+/a\.h5: cannot be read: .*503.* 5 times in a row\. .*"
        r"resume from a state_dict",
    ):
        read(source)


def test_a_refusal_that_lasts_when_it_is_opened(url, server):
    server.faults.refuse = 1000
    with pytest.raises(FormatError, match=r"/a\.h5: cannot be read: .*503.* 5 times in a row"):
        open_store(url)
    assert len(server.requests) == 5


def test_reading_goes_on_after_an_error(source, server):
    server.faults.refuse = 1000
    with pytest.raises(FormatError):
        read(source)
    server.faults.refuse = 0
    assert (read(source) == X).all()


def test_an_error_surfaces_at_its_batch(server, tmp_path, impatient):
    """Not before, though it was met while reading ahead."""
    rows = np.arange(2000)[:, None] + np.zeros(2048)
    np.save(tmp_path / "X.npy", rows)
    server.files["/X.npy"] = tmp_path / "X.npy"
    with epochal.open(f"{server.url}/X.npy") as ds:
        batches = iter(ds.batches("sequential", batch_size=10, memory="16MiB", scratch=False))
        assert (rows[:10] == next(batches).X).all()
        server.faults.refuse = 1_000_000
        with pytest.raises(FormatError, match="5 times in a row"):
            list(batches)


@pytest.mark.parametrize("cut", [1, 2])
def test_a_body_that_breaks_off_is_asked_for_again(source, server, cut):
    server.faults.cut = cut
    assert (read(source) == X).all()


def test_a_body_that_breaks_off_when_it_is_opened(url, server):
    server.faults.cut = 1
    assert (read(open_store(url).sources["X"]) == X).all()


def test_bodies_that_always_break_off(source, server):
    server.faults.cut = 1000
    with pytest.raises(FormatError, match=r"/a\.h5: cannot be read: .*5 times in a row"):
        read(source)


def test_a_server_without_ranges(url, server):
    server.faults.no_ranges = True
    with pytest.raises(
        FormatError, match=r"/a\.h5: its server serves no parts of it.* open simplecache:: before"
    ):
        open_store(url)


def test_a_server_that_stops_serving_ranges(source, server):
    server.faults.no_ranges = True
    with pytest.raises(FormatError, match="its server serves no parts of it"):
        read(source)


def test_a_missing_object(server):
    with pytest.raises(FileMissingError, match=r"/b\.h5: there is no such object"):
        open_store(f"{server.url}/b.h5")


def test_an_object_that_is_gone(source, server):
    server.files.clear()
    with pytest.raises(FileNotFoundError, match=r"/a\.h5: there is no such object"):
        read(source)


def test_a_page_is_no_data(server):
    """Of a folder in which nothing is."""
    server.files["/folder/.hidden"] = b"x"
    with pytest.raises(FileMissingError, match="no such object, but a folder or a page"):
        open_store(f"{server.url}/folder")


@pytest.mark.parametrize("status", [401, 403, 407])
def test_an_object_that_may_not_be_read(url, server, status):
    server.faults.refuse, server.faults.refuse_status = 1000, status
    with pytest.raises(
        FormatError, match=rf"/a\.h5: may not be read \(.*{status}.*Give credentials"
    ):
        open_store(url)
    assert len(server.requests) == 1


def test_a_status_that_means_nothing_to_us(url, server):
    server.faults.refuse, server.faults.refuse_status = 1000, 418
    with pytest.raises(FormatError, match=r"/a\.h5: its server refused: HTTP 418"):
        open_store(url)


def test_an_empty_object(server):
    server.files["/a.h5"] = b""
    with pytest.raises(FormatError, match=r"/a\.h5: the file is empty \(0 bytes\)"):
        open_store(f"{server.url}/a.h5")


def test_an_object_of_another_format(server):
    server.files["/a.h5"] = b"PAR1" + bytes(1000)
    with pytest.raises(FormatError, match=r"/a\.h5: not a file of any format .*Parquet"):
        open_store(f"{server.url}/a.h5")


def test_a_truncated_object(server, content):
    server.files["/a.h5"] = content[:-1000]
    with pytest.raises(FormatError, match=r"/a\.h5: the file is truncated"):
        open_store(f"{server.url}/a.h5")


@pytest.mark.parametrize("weak", [False, True])
def test_another_object_of_the_same_length_is_noticed_by_its_tag(source, server, content, weak):
    """A weak tag is compared as a whole, though no server has to keep it from one answer to the
    next: those that change it without need would be refused.
    """
    server.faults.weak_tags = weak
    source = open_store(f"{server.url}/a.h5").sources["X"]
    server.files["/a.h5"] = content[:-1] + b"?"
    with pytest.raises(
        ChangedError, match=r"/a\.h5 is no longer the object that was opened: its tag was .*Open it"
    ):
        read(source)


def test_a_weak_tag_that_stays_is_no_change(url, server):
    server.faults.weak_tags = True
    assert (read(open_store(url).sources["X"]) == X).all()


def test_without_tags_another_object_is_noticed_by_its_date(url, server, content):
    server.faults.no_tags, server.faults.date = True, "Mon, 01 Jan 2024 00:00:00 GMT"
    source = open_store(url).sources["X"]
    assert (read(source) == X).all()
    server.faults.date = "Mon, 01 Jan 2024 00:00:01 GMT"
    with pytest.raises(ChangedError, match="its tag was Mon, 01 Jan 2024 00:00:00 GMT, now it is"):
        read(source)


@pytest.mark.parametrize("change", [b"more", None])
def test_without_tags_and_dates_another_object_is_noticed_by_its_length(
    url, server, content, change
):
    server.faults.no_tags = True
    source = open_store(url).sources["X"]
    server.files["/a.h5"] = content + change if change else content[:300_000]
    with pytest.raises(ChangedError, match=r"a\.h5.* had (\d+ bytes, now it has|more when opened)"):
        read(source)


def test_a_change_between_two_processes_is_noticed(url, server, content):
    copy = pickle.loads(pickle.dumps(open_store(url)))
    server.files["/a.h5"] = content[:-1] + b"?"
    with pytest.raises(ChangedError, match="no longer the object that was opened"):
        read(copy.sources["X"])


def test_a_change_after_the_first_look_is_noticed(url, server, content):
    def replace(request):
        if request.start:
            server.files["/a.h5"] = content[:-1] + b"?"

    server.faults.after = replace
    with pytest.raises(ChangedError, match="no longer the object that was opened"):
        read(open_store(url).sources["X"])


def test_no_head_is_asked_for(url, server):
    """What is signed for GET is refused to HEAD."""
    server.faults.no_head = True
    assert (read(open_store(url).sources["X"]) == X).all()
    assert {request.method for request in server.requests} == {"GET"}


@pytest.fixture
def short_wait(monkeypatch):
    """Silence of a fifth of a second is too long."""
    monkeypatch.setattr(
        remote_http, "TIMEOUT", remote_http.aiohttp.ClientTimeout(sock_connect=5, sock_read=0.2)
    )


def test_an_answer_that_does_not_come_is_asked_for_again(source, server, short_wait):
    server.faults.hang = 1
    assert (read(source) == X).all()


def test_answers_that_never_come(source, server, short_wait):
    server.faults.hang = 1000
    began = time.monotonic()
    with pytest.raises(FormatError, match=r"/a\.h5: cannot be read: .*imeout.*5 times in a row"):
        read(source)
    assert time.monotonic() - began < 10


def test_a_server_that_is_not_there_is_told_at_once():
    began = time.monotonic()
    with pytest.raises(
        FormatError, match=r"http://127\.0\.0\.1:1/a\.h5: cannot be read .*Is the address right"
    ):
        open_store("http://127.0.0.1:1/a.h5")
    assert time.monotonic() - began < 2


def test_a_server_that_is_gone_is_waited_for(content, impatient):
    with Server({"/a.h5": content}) as server:
        source = open_store(f"{server.url}/a.h5").sources["X"]
    with pytest.raises(FormatError, match=r"/a\.h5: cannot be read: .*5 times in a row"):
        read(source)


def test_a_closed_store_is_not_read(url):
    store = open_store(url)
    store.close()
    store.close()
    with pytest.raises(FormatError, match="a store that was closed; open the file again"):
        read(store.sources["X"])


# What may be secret: a signature in a URL, and a password.
SECRETS = ["{0}/{1}?signature=s3cret", "http://me:s3cret@{2}/{1}"]


def shouted(error):
    """Texts of an error and of those that it was raised from by us."""
    texts = []
    while isinstance(error, epochal.EpochalError):
        texts.append(str(error))
        error = error.__cause__
    return " ".join(texts)


@pytest.mark.parametrize("form", SECRETS)
@pytest.mark.parametrize(
    "fault",
    [
        {"refuse": 1000},
        {"refuse": 1000, "refuse_status": 403},
        {"refuse": 1000, "refuse_status": 418},
        {"no_ranges": True},
        {"cut": 1000},
    ],
)
def test_errors_keep_secrets(url, server, form, fault):
    for name, value in fault.items():
        setattr(server.faults, name, value)
    secret = form.format(server.url, "a.h5", server.url.partition("://")[2])
    with pytest.raises(epochal.EpochalError) as caught:
        open_store(secret)
    assert "s3cret" not in shouted(caught.value)
    assert "a.h5" in str(caught.value)


@pytest.mark.parametrize("form", SECRETS)
@pytest.mark.parametrize("name", ["none.h5", "folder", "none-*.h5"])
def test_errors_of_what_is_not_there_keep_secrets(server, form, name):
    server.files["/folder/a.txt"] = b"Nothing to read."
    secret = form.format(server.url, name, server.url.partition("://")[2])
    with pytest.raises(epochal.EpochalError) as caught:
        open_store(secret)
    assert "s3cret" not in shouted(caught.value)
    assert name in str(caught.value)


def test_the_name_of_a_folder_keeps_secrets(server, content):
    server.files |= {"/folder/a.h5": content, "/folder/b.h5": content}
    host = server.url.partition("://")[2]
    with epochal.open(f"http://me:s3cret@{host}/folder") as ds:
        assert "s3cret" not in repr(ds)
        assert f"http://me@{host}/folder" in repr(ds)


@pytest.fixture
def tree(tmp_path, server, impatient):
    """The URL of a Zarr folder, of which every chunk is stored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = zarr.create_array(tmp_path / "a", shape=(60, 4), chunks=(10, 4), dtype="i4")
        array[...] = np.arange(240).reshape(60, 4)
    for path in (tmp_path / "a").rglob("*"):
        if path.is_file():
            server.files[f"/a/{path.relative_to(tmp_path / 'a')}"] = path
    return f"{server.url}/a"


@pytest.mark.parametrize("n_refused", [1, 4])
def test_a_busy_server_does_not_make_chunks_go_missing(tree, server, n_refused):
    """Those that are not there are read as the fill value."""
    with epochal.open(tree):
        pass
    n_requests = len(server.asked())
    for first in range(0, n_requests, 5):
        refused = set(range(first, first + n_refused))
        server.faults.refuse_if = lambda number, refused=refused: number in refused
        server.asked()
        with epochal.open(tree) as ds:
            server.faults.refuse_if = None
            assert (ds["a"][...] == np.arange(240).reshape(60, 4)).all()


def test_a_server_that_stays_busy_is_an_error(tree, server):
    server.faults.refuse_if = lambda number: number >= 6
    with pytest.raises(epochal.EpochalError, match="503"):
        epochal.open(tree)


def test_a_chunk_that_is_gone(tree, server):
    with epochal.open(tree) as ds:
        del server.files["/a/c/3/0"]
        with pytest.raises(epochal.EpochalError, match=r"c/3/0"):
            ds["a"][...]


def test_a_chunk_that_became_another(tree, server):
    with epochal.open(tree) as ds:
        server.files["/a/c/3/0"] = b"longer" * 100
        with pytest.raises(ChangedError, match=r"c/3/0"):
            ds["a"][...]
