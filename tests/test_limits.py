"""What the bounds are bounds of."""

import resource

from epochal.limits import raw_read


def test_more_files_than_may_be_open(tmp_path):
    paths = [tmp_path / str(k) for k in range(300)]
    for path in paths:
        path.write_bytes(b"abc")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        found = raw_read(paths, 10, threads=2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (found.n_bytes, found.n_rows) == (900, 10)
