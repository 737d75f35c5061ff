"""``trio-socketio fetch-client``: with the real npm, and with programs of its name that misbehave."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from trio_socketio._server.client_files import CONTENT_TYPES, client_version

ROOT = Path(__file__).parents[1]

needs_scripts = pytest.mark.skipif(os.name != "posix", reason="the programs are shell scripts")


@pytest.fixture(scope="module")
def registry() -> None:
    """An npm that has a way to its registry; without it, the test is skipped."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm on PATH")
    if subprocess.run([npm, "view", "socket.io-client", "version"], capture_output=True, check=False).returncode:
        pytest.skip("npm has no way to a registry")


def run(directory: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command in a directory, which is its user's home as well."""
    home = str(directory)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": home, "LOCALAPPDATA": home}
    if path is not None:
        environment["PATH"] = path
    command = [sys.executable, "-m", "trio_socketio", "fetch-client", *arguments]
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=55, check=False
    )


def put_npm(directory: Path, script: str) -> str:
    """A program with the name of npm; the PATH on which it is found."""
    program = directory / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return f"{program.parent}{os.pathsep}/usr/bin{os.pathsep}/bin"


def put_archive(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def assert_refused(ended: subprocess.CompletedProcess[str], text: str) -> None:
    assert ended.returncode == 1, ended
    assert ended.stdout == ""
    assert ended.stderr.startswith("trio-socketio: error: ")
    assert text in ended.stderr
    assert ended.stderr.count("\n") == 1


# With npm


@pytest.mark.js
@pytest.mark.slow
@pytest.mark.usefixtures("registry")
def test_client_comes_from_npm(tmp_path: Path) -> None:
    ended = run(tmp_path, "--to", "public/client", "--version", "4.8.1")
    directory = tmp_path / "public" / "client"
    assert ended.returncode == 0, ended
    assert str(Path("public/client")) in ended.stdout
    assert sorted(path.name for path in directory.iterdir()) == sorted([*CONTENT_TYPES, "package.json"])
    assert client_version(directory) == "4.8.1"
    assert b"Socket.IO v4.8.1" in (directory / "socket.io.min.js").read_bytes()[:200]


@pytest.mark.js
@pytest.mark.slow
@pytest.mark.usefixtures("registry")
def test_client_goes_to_where_servers_look(tmp_path: Path) -> None:
    ended = run(tmp_path)
    assert ended.returncode == 0, ended
    assert client_version(tmp_path / "trio_socketio" / "client") == "4.8.4"


@pytest.mark.js
@pytest.mark.slow
@pytest.mark.usefixtures("registry")
def test_version_that_does_not_exist_is_one_line(tmp_path: Path) -> None:
    ended = run(tmp_path, "--version", "4.999.0")
    assert_refused(ended, "npm could not get socket.io-client@4.999.0: No matching version found")
    assert not (tmp_path / "trio_socketio").exists()


# Without it


def test_without_npm_it_says_so(tmp_path: Path) -> None:
    assert_refused(run(tmp_path, path=str(tmp_path)), "there is no npm on PATH; it comes with Node.js")


@pytest.mark.parametrize("version", ["", "../x", "4.8.4 --registry=http://x", "file:x", "-g", "@x/y"])
def test_what_is_no_version_does_not_reach_npm(tmp_path: Path, version: str) -> None:
    assert_refused(run(tmp_path, f"--version={version}", path=str(tmp_path)), "is not a version")


@needs_scripts
@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("exit 3", "it did not say why"),
        ("exit 0", "it did not say why"),
        (
            "echo 'npm warn old' >&2; echo 'npm error code E404' >&2; echo 'npm error 404 Not Found' >&2; exit 1",
            "socket.io-client@4.8.4: 404 Not Found",
        ),
        ("echo 'npm ERR! network No network here' >&2; exit 1", "socket.io-client@4.8.4: No network here"),
        ("printf '\\377\\n' >&2; exit 1", "it did not say why"),
        ('for last; do :; done; echo x > "$last/a.tgz"', "what npm got is not a package"),
        ('for last; do :; done; echo x | gzip > "$last/a.tgz"', "what npm got is not a package"),
        ('for last; do :; done; echo x | gzip | head -c 12 > "$last/a.tgz"', "what npm got is not a package"),
    ],
)
def test_failure_of_npm_is_one_line(tmp_path: Path, script: str, text: str) -> None:
    assert_refused(run(tmp_path, path=put_npm(tmp_path, script)), text)


@needs_scripts
@pytest.mark.parametrize("change", ["missing", "link"])
def test_package_without_all_of_the_files_changes_nothing(tmp_path: Path, change: str) -> None:
    files = {f"package/dist/{name}": b"x" for name in CONTENT_TYPES} | {"package/package.json": b"{}"}
    del files["package/dist/socket.io.min.js"]
    put_archive(tmp_path / "package.tgz", files)
    if change == "link":
        with tarfile.open(tmp_path / "package.tgz", "w:gz") as archive:
            for name in ["package/dist/socket.io.min.js", *files]:
                member = tarfile.TarInfo(name)
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/hostname"
                archive.addfile(member)
    npm = put_npm(tmp_path, f'for last; do :; done; cp "{tmp_path}/package.tgz" "$last/"')
    assert_refused(run(tmp_path, "--to", "client", path=npm), "socket.io-client" if change == "missing" else "package")
    assert not (tmp_path / "client").exists()


@needs_scripts
def test_files_besides_those_that_are_served_stay_in_the_package(tmp_path: Path) -> None:
    wanted = {f"package/dist/{name}": name.encode() for name in CONTENT_TYPES} | {"package/package.json": b"{}"}
    put_archive(tmp_path / "package.tgz", {**wanted, "package/dist/evil.js": b"x", "../../evil": b"x", "/evil": b"x"})
    npm = put_npm(tmp_path, f'for last; do :; done; cp "{tmp_path}/package.tgz" "$last/"')
    ended = run(tmp_path, "--to", "client", path=npm)
    assert ended.returncode == 0, ended
    assert sorted(path.name for path in (tmp_path / "client").iterdir()) == sorted([*CONTENT_TYPES, "package.json"])
    assert (tmp_path / "client" / "socket.io.js").read_bytes() == b"socket.io.js"
    assert not list(tmp_path.rglob("evil*"))


@needs_scripts
def test_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    wanted = {f"package/dist/{name}": b"x" for name in CONTENT_TYPES} | {"package/package.json": b"{}"}
    put_archive(tmp_path / "package.tgz", wanted)
    npm = put_npm(tmp_path, f'for last; do :; done; cp "{tmp_path}/package.tgz" "$last/"')
    (tmp_path / "file").write_text("no directory")
    assert_refused(run(tmp_path, "--to", "file", path=npm), "cannot write to 'file'")
