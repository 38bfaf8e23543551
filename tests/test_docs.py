"""The pages: their code runs."""

import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def code(page):
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def test_adding_a_store_as_the_page_says(tmp_path):
    """Its store passes the laws, in a process of its own: it is registered for all."""
    (tmp_path / "raw_store.py").write_text(code("add-a-store.md")[0])
    test = "from raw_store import *\n" + code("add-a-store.md")[1]
    (tmp_path / "test_raw.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_raw.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "10 passed" in done.stdout
    assert len((DOCS / "add-a-store.md").read_text().splitlines()) < 60
