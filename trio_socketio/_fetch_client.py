"""``trio-socketio fetch-client``: get the JavaScript client with an npm that is there, for ``serve_client``.

npm knows where packages come from (a mirror, a proxy, its cache) and checks what it gets. `npm pack` downloads the one
package and runs nothing of it; of that, the files that a server serves are taken, by their names.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from pathlib import Path

from ._server.client_files import CONTENT_TYPES, fetched_client_directory

PACKAGE = "socket.io-client"
DEFAULT_VERSION = "4.8.4"

#: Where a file of ours is in the package.
MEMBERS = {"package.json": "package/package.json", **{name: f"package/dist/{name}" for name in CONTENT_TYPES}}

#: Seconds for npm, which tries again by itself.
PATIENCE = 180.0

_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]*")

#: ``npm error 404 Not Found``; other lines are warnings, or say a code, a place in npm, or where its log is.
_NPM_ERROR = re.compile(
    r"^npm (?:error|ERR!) (?!code |errno |syscall |path |A complete log)(?:[a-z]+ (?=[A-Z]))?(\S.*)", re.MULTILINE
)


class FetchError(Exception):
    """The client is not to be had; the text says why, in one line."""


def fetch_client(directory: Path | None = None, version: str = DEFAULT_VERSION) -> Path:
    """Put the client's files into a directory; nothing is written unless the package has all of them.

    Args:
        directory: Made if there is none; None for the one in which every server of this user looks.
        version: A version, or a tag such as ``latest``.

    Returns:
        The directory.

    Raises:
        FetchError: There is no npm, no such version, no way to the registry, or no permission to write.
    """
    if not _VERSION.fullmatch(version):
        raise FetchError(f"{version!r} is not a version, such as {DEFAULT_VERSION}, or a tag")
    try:
        directory = directory or fetched_client_directory()
    except RuntimeError as error:
        raise FetchError(f"this user has no home directory: name one with --to ({error})") from error
    with tempfile.TemporaryDirectory() as temporary:
        files = _unpack(_pack(version, temporary))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (directory / name).write_bytes(content)
    except OSError as error:
        raise FetchError(f"cannot write to {str(directory)!r}: {error.strerror}") from error
    return directory


def _pack(version: str, directory: str) -> Path:
    """Have npm download the package."""
    npm = shutil.which("npm")
    if npm is None:
        raise FetchError("there is no npm on PATH; it comes with Node.js")
    command = [npm, "pack", f"{PACKAGE}@{version}", "--ignore-scripts", "--pack-destination", directory]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"npm did not end within {PATIENCE:g} seconds") from error
    archives = list(Path(directory).glob("*.tgz"))
    if result.returncode != 0 or len(archives) != 1:
        raise FetchError(f"npm could not get {PACKAGE}@{version}: {_complaint(result.stderr)}")
    return archives[0]


def _complaint(stderr: str) -> str:
    """The first thing that npm says for people."""
    match = _NPM_ERROR.search(stderr)
    return match[1].strip() if match else "it did not say why"


def _unpack(archive: Path) -> dict[str, bytes]:
    """The files that are served, read by name: nothing is extracted to where an archive wants it."""
    files = {}
    try:
        with tarfile.open(archive, "r:gz") as package:
            for name, member in MEMBERS.items():
                content = package.extractfile(member)
                if content is None:
                    raise FetchError(f"{member} in the package is not a file")
                files[name] = content.read()
    except KeyError as error:
        raise FetchError(f"this version of {PACKAGE} has not all of the files: {error.args[0]}") from error
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise FetchError(f"what npm got is not a package: {error}") from error
    return files
