"""What holds for the project as a whole: which module may import which, and what `import epochal`
costs.
"""

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import epochal
from epochal import errors

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "epochal"

# A module imports smaller numbers only, never a sibling: the table of ARCHITECTURE.md.
LAYERS = {
    "errors": 0,
    "sizes": 0,
    "casting": 1,
    "html": 1,
    "layout": 1,
    "ragged": 1,
    "schemes": 2,
    "spaces": 2,
    "stores": 3,
    "plan": 3,
    "execute": 4,
    "progress": 4,
    "writing": 5,
    "planning": 5,
    "batches": 6,
    "changes": 5,
    "view": 6,
    "splits": 5,
    "editing": 6,
    "choosing": 6,
    "finish": 6,
    "transformed": 6,
    "dataset": 7,
    "opening": 8,
    "identity": 7,
    "limits": 7,
    "transforms": 8,
    "converting": 9,
    "datasets": 10,
    "cli": 11,
    "testing": 11,
}
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = ("h5py", "imagecodecs", "hdf5plugin", "click", "rich", "scipy", "sklearn", "torch", "zarr")


def dotted(path: Path) -> str:
    """`epochal.stores.store` of a file."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Every module of epochal that a file imports at run time, wherever in it the import stands."""
    for node in walk_at_run_time(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if is_ours(alias.name))
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: import epochal modules by their full names"
            if node.module and is_ours(node.module):
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    yield whole if is_module(whole) else node.module


def walk_at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """Like `ast.walk`, but past what only type checkers see."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield from walk_at_run_time(child)


def is_ours(name: str) -> bool:
    return name.split(".")[0] == "epochal"


def is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


def part(name: str) -> str | None:
    """`stores` of `epochal.stores.store`; None of `epochal` itself, the face that all of it is
    under.
    """
    return name.split(".")[1] if "." in name else None


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_point_one_way(path):
    own = part(dotted(path))
    if own is None or own == "__main__":
        return
    assert own in LAYERS, f"{own} has no layer: give it one here and in ARCHITECTURE.md"
    for name in imports(path):
        theirs = part(name)
        if theirs is None:
            assert LAYERS[own] >= 9, f"{dotted(path)} imports the face, which is above it"
        elif theirs != own:
            assert LAYERS[theirs] < LAYERS[own], f"{dotted(path)} imports {name}, not below it"


def test_no_import_cycles():
    # A package's __init__ gathers its modules, so importing a module does not count as importing
    # that.
    graph = {dotted(path): set(imports(path)) for path in MODULES}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, "cycle: " + " -> ".join((*way[way.index(name) :], name))
        if name in done:
            return
        for below in graph.get(name, ()):
            visit(below, (*way, name))
        done.add(name)

    for name in sorted(graph):
        visit(name, ())


def test_a_cycle_would_be_seen(tmp_path):
    # The test above is only as good as what it reads: imports of every form, those for type
    # checkers aside.
    module = tmp_path / "module.py"
    module.write_text(
        "import epochal.layout\n"
        "from epochal import errors\n"
        "from epochal.stores.store import Source\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n"
        "    from epochal.plan.plan import Plan\n"
        "def f():\n"
        "    from epochal.sizes import show\n"
    )
    expected = ["epochal.layout", "epochal.errors", "epochal.stores.store", "epochal.sizes"]
    assert list(imports(module)) == expected


def test_importing_epochal_loads_numpy_at_most():
    # What is at start-up already (a .pth file may import anything) is not epochal's doing.
    code = (
        "import sys; before = set(sys.modules); import epochal; print(*set(sys.modules) - before)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = {name.split(".")[0] for name in run.stdout.split()}
    assert "epochal" in loaded
    assert not loaded & set(HEAVY)
    third_party = {
        name
        for name in loaded - set(sys.stdlib_module_names) - {"epochal", "numpy"}
        if not name.startswith("_")
    }
    assert not third_party


def test_the_public_surface_is_short_and_listed():
    assert sorted(epochal.__all__) == [
        "Batches",
        "Dataset",
        "EpochalError",
        "Plan",
        "append",
        "convert",
        "create",
        "from_arrays",
        "open",
        "shuffle",
        "verify",
    ]
    for name in epochal.__all__:
        assert inspect.getdoc(getattr(epochal, name)), f"epochal.{name} says nothing of itself"
    assert set(epochal.__all__) <= set(dir(epochal))
    with pytest.raises(AttributeError, match="has no attribute 'opne'"):
        epochal.opne  # noqa: B018 - asking is the test


def test_every_error_is_one_of_ours_and_a_builtin_one():
    assert issubclass(errors.DamageWarning, UserWarning)
    for name in sorted(set(errors.__all__) - {"DamageWarning"}):
        error = getattr(errors, name)
        assert issubclass(error, errors.EpochalError)
        if error is not errors.EpochalError:
            builtin = [base for base in error.__mro__ if base.__module__ == "builtins"]
            assert builtin[0] is not Exception, f"who catches a builtin misses {name}"


def texts() -> Iterator[Path]:
    for folder in ("src", "tests", "benchmarks", "docs"):
        for suffix in ("py", "md", "sh"):
            yield from (ROOT / folder).rglob(f"*.{suffix}")
    yield from ROOT.glob("*.md")
    yield from (ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / ".ci" / "run")


def test_no_file_names_a_machine():
    # Paths of one machine mean nothing to whoever clones this.
    of_a_machine = re.compile(r"(?<![\w.])/(tmp|work|root|home|opt)/\w")
    for path in texts():
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            assert not of_a_machine.search(line), f"{path}:{number}: {line.strip()}"
