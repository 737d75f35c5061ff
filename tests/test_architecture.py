"""Who may know whom, and what no module may do, decided from the source; imports under `TYPE_CHECKING` count too.

The arrows are in `MAY_IMPORT`. The checks are functions from source text to violations, so that the tests at the end
can show that each of them is able to fail.
"""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PACKAGE = "trio_socketio"
ROOT = Path(__file__).parent.parent / PACKAGE

#: Stands for every module and name of the package without a leading underscore.
PUBLIC = "<public>"

#: Part of the package -> what of the package it may import. The most exact entry for a module counts; a module without
#: an entry may not exist. `_errors` is for everybody.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "_errors": (),
    "_latch": (),
    "_listeners": (),
    "_parking": (),
    "_wire": ("_wire",),
    "_engine": ("_engine", "_wire", "_listeners", "_latch", "_parking"),
    "_engine.life": ("_engine", "_wire", "_listeners", "_frontends.serving"),
    "_redis": ("_redis",),
    "_adapters": ("_adapters", "_wire", "_listeners", "_redis"),
    "_server": ("_server", "_engine", "_adapters", "_wire", "_listeners", "_parking"),
    "_server.server": ("_server", "_engine", "_adapters", "_wire", "_listeners", "_frontends.serving"),
    "_frontends": ("_frontends", "_wire", "_engine.contract", "_latch", "_parking"),
    "testing": ("testing", PUBLIC, "_wire", "_adapters.contract"),
    "_cli": (PUBLIC, "_fetch_client"),
    "_fetch_client": ("_server.client_files",),
}

#: These are lists of names: they may import anything and define nothing.
PUBLIC_MODULES = ("__init__", "__main__", "abc", "admin", "asgi", "engineio", "redis", "testing")

#: Part of the package ("" is all of it) -> what it may not import from outside, with the reason.
FORBIDDEN: dict[str, dict[str, str]] = {
    "": {
        "pickle": "what comes off a bus is untrusted",
        "marshal": "what comes off a bus is untrusted",
        "shelve": "it is pickle",
        "asyncio": "this library is for Trio",
    },
    "_wire": {
        "trio": "_wire computes, it does not wait",
        "trio_websocket": "_wire computes, it does not wait",
        "time": "_wire has no clock",
        "socket": "_wire has no I/O",
        "threading": "_wire has no tasks",
    },
}

#: What need not be installed -> the only modules that may import it, which are themselves imported on demand.
OPTIONAL: dict[str, tuple[str, ...]] = {
    "hypothesis": ("testing._machine", "testing._stateful", "testing.strategies"),
    "pytest": ("testing.pytest_plugin",),
}

FORBIDDEN_CALLS = ("eval", "exec")


class Import(NamedTuple):
    """One imported name, absolute: ``from ..x import y`` inside the package's ``a.b`` is ``trio_socketio.x.y``."""

    line: int
    target: str


class Source(NamedTuple):
    """A module: its name without the package's (``_wire.frames``; the package itself is ``__init__``) and its text."""

    name: str
    text: str
    is_package: bool = False

    @property
    def path(self) -> str:
        parts = [] if self.name == "__init__" else self.name.split(".")
        return "/".join([PACKAGE, *parts, "__init__"] if self.is_package else [PACKAGE, *parts]) + ".py"

    def violation(self, line: int, text: str) -> str:
        return f"{self.path}:{line}: {text}"


def read_sources() -> list[Source]:
    sources = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts) or "__init__"
        sources.append(Source(name, path.read_text(encoding="utf-8"), is_package))
    return sources


def is_within(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def imports_of(source: Source) -> Iterator[Import]:
    here = [PACKAGE, *([] if source.name == "__init__" else source.name.split("."))]
    for node in ast.walk(ast.parse(source.text)):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = node.level - source.is_package
            base = here[: len(here) - up] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (Import(node.lineno, f"{module}.{alias.name}") for alias in node.names)


def rule_for(name: str) -> str | None:
    rules = [part for part in MAY_IMPORT if is_within(name, part)]
    return max(rules, key=len, default=None)


def arrows_violated(source: Source) -> Iterator[str]:
    if source.name in PUBLIC_MODULES:
        return
    rule = rule_for(source.name)
    if rule is None:
        yield source.violation(1, "no rule says what this module may import")
        return
    allowed = MAY_IMPORT[rule]
    for line, target in imports_of(source):
        if not is_within(target, PACKAGE):
            continue
        inner = target.removeprefix(PACKAGE).removeprefix(".")
        is_public = PUBLIC in allowed and (
            inner == "__version__" or not any(word[0] == "_" for word in inner.split("."))
        )
        if not is_public and not any(is_within(inner, part) for part in ("_errors", *allowed)):
            permitted = ", ".join(("_errors", *allowed))
            yield source.violation(line, f"imports {inner}; {rule} may import {permitted}")


def forbidden_imports(source: Source) -> Iterator[str]:
    for part, reasons in FORBIDDEN.items():
        if part and not is_within(source.name, part):
            continue
        for line, target in imports_of(source):
            root = target.partition(".")[0]
            if root in reasons:
                yield source.violation(line, f"imports {root}: {reasons[root]}")


def optional_imports(source: Source) -> Iterator[str]:
    for line, target in imports_of(source):
        root = target.partition(".")[0]
        if root in OPTIONAL and source.name not in OPTIONAL[root]:
            yield source.violation(line, f"imports {root}, which need not be installed")


def forbidden_calls(source: Source) -> Iterator[str]:
    for node in ast.walk(ast.parse(source.text)):
        if isinstance(node, ast.Name) and node.id in FORBIDDEN_CALLS:
            yield source.violation(node.lineno, f"uses {node.id}")
        elif isinstance(node, ast.Attribute) and node.attr in FORBIDDEN_CALLS and ast.unparse(node.value) == "builtins":
            yield source.violation(node.lineno, f"uses {node.attr}")


def bare_excepts(source: Source) -> Iterator[str]:
    for node in ast.walk(ast.parse(source.text)):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield source.violation(node.lineno, "a bare except")


def is_list_entry(node: ast.stmt) -> bool:
    """Whether a statement belongs into a list of names: an import, a string, `__all__`, `__version__`."""
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__" | "__version__" | "_NEED_HYPOTHESIS")]):
            return True
        case ast.FunctionDef(name="__getattr__"):  # for names whose modules are imported on demand
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING"), body=body, orelse=[]):
            return all(isinstance(entry, ast.Import | ast.ImportFrom) for entry in body)
        case _:
            return False


def definitions_in_public_modules(source: Source) -> Iterator[str]:
    if source.name not in PUBLIC_MODULES:
        return
    for node in ast.parse(source.text).body:
        is_start = source.name == "__main__" and isinstance(node, ast.Expr | ast.If)  # `python -m` has to call main
        if not is_list_entry(node) and not is_start:
            yield source.violation(node.lineno, "a public module lists names; this belongs into a private one")


CHECKS = [
    arrows_violated,
    forbidden_imports,
    optional_imports,
    forbidden_calls,
    bare_excepts,
    definitions_in_public_modules,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_package_obeys(check: Callable[[Source], Iterator[str]]) -> None:
    sources = read_sources()
    assert {"_errors", "_wire.frames", "_engine.contract"} <= {source.name for source in sources}
    violations = [text for source in sources for text in check(source)]
    assert not violations, "\n".join(["", *violations])


def exports_undocumented(name: str) -> list[str]:
    module = importlib.import_module(PACKAGE if name == "__init__" else f"{PACKAGE}.{name}")
    exported = getattr(module, "__all__", ())
    missing = [f"{module.__name__}.{entry}: does not exist" for entry in exported if not hasattr(module, entry)]
    silent = [
        f"{module.__name__}.{entry}: has no docstring"
        for entry in exported
        if hasattr(module, entry) and not is_documented(getattr(module, entry))
    ]
    return missing + silent


def is_documented(entry: object) -> bool:
    """Whether it has a docstring of its own, neither inherited nor written by `dataclass` or `NamedTuple`."""
    if not (inspect.isclass(entry) or inspect.isroutine(entry) or inspect.ismodule(entry)):
        return True  # a constant or an alias of a type cannot have one
    text = vars(entry).get("__doc__") if inspect.isclass(entry) else entry.__doc__
    return bool(text) and not str(text).startswith(f"{getattr(entry, '__name__', '')}(")


@pytest.mark.parametrize(
    "name", [source.name for source in read_sources() if source.name in PUBLIC_MODULES and source.name != "__main__"]
)
def test_what_is_exported_exists_and_is_documented(name: str) -> None:
    violations = exports_undocumented(name)
    assert not violations, "\n".join(["", *violations])


# The checks can fail, and name the place.


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (Source("_errors", "from ._wire import frames"), 1),
        (Source("_wire.frames", "\nfrom .._engine.contract import Request"), 2),
        (Source("_wire", "from .. import _engine", is_package=True), 1),
        (Source("_wire.frames", "import trio_socketio._server.server"), 1),
        (Source("_wire.frames", "from trio_socketio import Server"), 1),
        (Source("_engine.session", "from .._server.connection import Connection"), 1),
        (Source("_engine.session", "from .._frontends import serving"), 1),
        (Source("_engine.life", "from .._frontends.lane import Lane"), 1),
        (
            Source(
                "_adapters.memory", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  from .._server import x"
            ),
            3,
        ),
        (Source("_redis.client", "from .._listeners import Listeners"), 1),
        (Source("_redis.client", "from .._adapters.contract import Adapter"), 1),
        (Source("_server.server", "from .._redis.client import Redis"), 1),
        (Source("_server.socket", "def f() -> None:\n  from .._frontends.serving import Listening"), 2),
        (Source("_frontends.asgi", "from .._engine.session import Session"), 1),
        (Source("_frontends.asgi", "from .._engine import session"), 1),
        (Source("_cli", "from ._server.server import Server"), 1),
        (Source("testing.kit", "from .._engine import contract"), 1),
        (Source("_newcomer", ""), 1),
    ],
)
def test_an_arrow_that_points_the_wrong_way_is_found(source: Source, line: int) -> None:
    (violation,) = arrows_violated(source)
    assert violation.startswith(f"{source.path}:{line}: ")


@pytest.mark.parametrize(
    "source",
    [
        Source("_wire.encoded", "from .frames import encode_frame\nfrom .._errors import EncodeError\nimport base64"),
        Source("_wire", "from . import frames\nfrom .encoded import PING", is_package=True),
        Source("_redis.client", "from .commands import Commands\nfrom .._errors import RedisError\nimport trio"),
        Source("_adapters.redis", "from .._redis.client import Redis"),
        Source("_engine.life", "from .._frontends.serving import Listening\nfrom . import contract"),
        Source("_frontends.asgi", "from .._engine.contract import Request\nfrom .._engine import contract"),
        Source("_cli", "from . import Server, engineio\nfrom ._errors import NotRunning"),
        Source(
            "testing.kit",
            "from .. import Server\nfrom .._wire import packets\nfrom .._adapters.contract import Adapter",
        ),
        Source("__init__", "from ._server.server import Server", is_package=True),
    ],
)
def test_an_arrow_that_points_the_right_way_is_left_alone(source: Source) -> None:
    assert list(arrows_violated(source)) == []


@pytest.mark.parametrize(
    ("check", "source", "complaint"),
    [
        (forbidden_imports, Source("_server.a", "import pickle"), "trio_socketio/_server/a.py:1: imports pickle"),
        (forbidden_imports, Source("_server.a", "from asyncio import run"), "imports asyncio"),
        (forbidden_imports, Source("_wire.a", "import trio.lowlevel"), "imports trio"),
        (forbidden_imports, Source("_wire", "import time", is_package=True), "trio_socketio/_wire/__init__.py:1: "),
        (
            optional_imports,
            Source("testing._client", "from hypothesis import given"),
            "_client.py:1: imports hypothesis",
        ),
        (optional_imports, Source("_server.a", "import pytest"), "a.py:1: imports pytest"),
        (forbidden_calls, Source("_server.a", "x = 1\neval('x')"), "a.py:2: uses eval"),
        (forbidden_calls, Source("_server.a", "import builtins\nbuiltins.exec('x')"), "a.py:2: uses exec"),
        (bare_excepts, Source("_server.a", "try:\n  pass\nexcept:\n  pass"), "a.py:3: a bare except"),
        (definitions_in_public_modules, Source("asgi", '"""Text."""\nx = 1'), "trio_socketio/asgi.py:2: "),
        (definitions_in_public_modules, Source("abc", "class A: ..."), "trio_socketio/abc.py:1: "),
        (definitions_in_public_modules, Source("__init__", "def f(): ...", is_package=True), "__init__.py:1: "),
        (definitions_in_public_modules, Source("__main__", "def f(): ..."), "__main__.py:1: "),
    ],
)
def test_a_broken_convention_is_found(check: Callable[[Source], Iterator[str]], source: Source, complaint: str) -> None:
    (violation,) = check(source)
    assert complaint in violation


@pytest.mark.parametrize(
    ("check", "source"),
    [
        (forbidden_imports, Source("_server.a", "import trio\nimport time")),
        (optional_imports, Source("testing.strategies", "from hypothesis import strategies")),
        (forbidden_calls, Source("_server.a", "re.compile('x')\nevaluate()\nself.exec()")),
        (bare_excepts, Source("_server.a", "try:\n  pass\nexcept ValueError:\n  pass")),
        (definitions_in_public_modules, Source("asgi", '"""Text."""\nfrom ._a import b\n__all__ = ["b"]')),
        (definitions_in_public_modules, Source("__main__", "import sys\nfrom ._cli import main\nsys.exit(main())")),
    ],
)
def test_a_kept_convention_is_left_alone(check: Callable[[Source], Iterator[str]], source: Source) -> None:
    assert list(check(source)) == []


def test_only_a_docstring_of_its_own_counts() -> None:
    class Documented:
        """Text."""

    class Inherits(Documented):
        pass

    class Generated(NamedTuple):
        field: int

    class Silent(enum.Enum):
        MEMBER = 1

    assert is_documented(Documented)
    assert is_documented("a constant")
    assert [is_documented(entry) for entry in (Inherits, Generated, Silent, lambda: None)] == [False] * 4
