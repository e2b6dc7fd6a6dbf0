"""The sizes of modules and functions, who may import the lab, and views of images."""

import ast
from pathlib import Path

import pytest

ROOM = Path(__file__).parents[1] / "src" / "fluoronav"
MOST_MODULE_LINES, MOST_FUNCTION_LINES = 400, 80
# Exceptions, each with its reason: a module, or a module and the name of a function in it.
LONG_MODULES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}
VIEWS = "GetArrayViewFromImage"
MODULES = {str(path.relative_to(ROOM)): path.read_text(encoding="utf-8") for path in sorted(ROOM.rglob("*.py"))}


def functions(source):
    """Name and number of lines of every function in a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.end_lineno - node.lineno + 1


def imported_with_module(node):
    """Modules that are imported when this one is: everything outside function bodies."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from imported_with_module(child)


def test_no_module_is_longer_than_can_be_read_at_once():
    long = {name for name, source in MODULES.items() if source.count("\n") > MOST_MODULE_LINES}
    assert long == LONG_MODULES.keys()


def test_no_function_is_longer_than_a_screen():
    long = {
        f"{module} {name}"
        for module, source in MODULES.items()
        for name, lines in functions(source)
        if lines > MOST_FUNCTION_LINES
    }
    assert long == LONG_FUNCTIONS.keys()


@pytest.mark.parametrize("module", [m for m in MODULES if m.split("/")[0] not in ("cli", "lab")])
def test_only_the_command_line_imports_the_lab(module):
    imported = imported_with_module(ast.parse(MODULES[module]))
    assert [name for name in imported if f"{name}.".startswith("fluoronav.lab.")] == []


@pytest.mark.parametrize("module", [m for m in MODULES if m != "kernels/decorator.py"])
def test_every_kernel_is_made_by_the_decorator_whose_cache_can_be_built_ahead(module):
    imported = set(imported_with_module(ast.parse(MODULES[module])))
    assert not imported & {"numba.njit", "numba.jit", "numba.vectorize", "numba.guvectorize"}


@pytest.mark.parametrize("folder", [ROOM, Path(__file__).parent], ids=["package", "tests"])
def test_every_view_is_of_an_image_that_a_name_keeps(folder):
    """SimpleITK's view does not keep its image: one of a call's result reads memory that is free already."""
    views = [
        (path.name, node.lineno, type(node.args[0]))
        for path in sorted(folder.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == VIEWS
    ]
    assert views and [view for view in views if not issubclass(view[2], ast.Name | ast.Attribute)] == []
