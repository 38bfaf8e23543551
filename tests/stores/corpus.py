"""Where the files of other writers are, on the machines that have them."""

from pathlib import Path

import pytest

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpus"


def files(kind):
    """The files of one part of the corpus, or a skip that says what is missing."""
    folder = CORPUS / kind
    if not folder.is_dir():
        pytest.skip(f"the corpus of {kind} HDF5 files is not on this machine ({folder})")
    return sorted(path for path in folder.rglob("*") if path.is_file())
