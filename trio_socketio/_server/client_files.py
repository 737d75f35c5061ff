"""The client, for pages that load it from their server: ``<script src="/socket.io/socket.io.js">``.

A fixed table says which files there are, so no request can name any other. They are those that the npm package
``socket.io-client`` has in its ``dist``; this library does not bring them along. A file, and each compressed form of
it, is made when it is first asked for, and kept: that is at most 2 MB for all of them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import trio

from .._engine.compression import Compressor, HttpCompression, negotiate
from .._engine.contract import Headers, Response

if TYPE_CHECKING:
    from .._engine.contract import Request

logger = logging.getLogger("trio_socketio.server")

BUNDLES = ("socket.io.js", "socket.io.min.js", "socket.io.esm.min.js", "socket.io.msgpack.min.js")

#: Every file that is served, with its type.
CONTENT_TYPES = {
    **dict.fromkeys(BUNDLES, "application/javascript; charset=utf-8"),
    **{f"{bundle}.map": "application/json; charset=utf-8" for bundle in BUNDLES},
}

#: Where npm puts them, below the directory in which the server is started.
INSTALLED = Path("node_modules", "socket.io-client", "dist")

HOW_TO_GET_IT = (
    "a page asked for the client's %s, and there is none: run `trio-socketio fetch-client` or "
    "`npm install socket.io-client`, or set serve_client to its directory, or to False if pages have it from elsewhere"
)

_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+[0-9A-Za-z.+-]*")
_BANNER = re.compile(rb"Socket\.IO v([0-9A-Za-z.+-]+)")
#: A bundle's banner stands in its first lines.
_BANNER_BYTES = 200


class ClientFile(NamedTuple):
    """A file as it is sent, and what tells its version from another one."""

    body: bytes
    etag: str


def fetched_client_directory() -> Path:
    """Where ``trio-socketio fetch-client`` puts the client, for all servers of this user.

    Raises:
        RuntimeError: The user has no home directory.
    """
    cache = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    return Path(cache or Path.home() / ".cache") / "trio_socketio" / "client"


class ClientFiles:
    """The answers to requests for the client.

    Args:
        directory: Where the files are; None looks for them in `INSTALLED` and then in `fetched_client_directory`, at
            each request until there are some.
        path: What they are below, without a slash at its end.
    """

    def __init__(self, directory: Path | None, path: str) -> None:
        self._directory = directory
        self._path = path
        self._kept: dict[tuple[str, str | None], ClientFile] = {}
        self._compressor = Compressor(HttpCompression())
        self._told = False

    async def respond(self, request: Request) -> Response | None:
        """The answer to a GET or HEAD for one of the files; None if it is not one, or if the file is missing.

        It is a middleware of the engine, which comes after that for CORS: modules in pages of other origins need it.
        """
        path, _, name = request.path.rpartition("/")
        if path != self._path or name not in CONTENT_TYPES or request.method not in ("GET", "HEAD"):
            return None
        coding = negotiate(",".join(request.headers.get_all("accept-encoding")))
        file = self._kept.get((name, coding)) or await self._make(name, coding)
        if file is None:
            self._tell(name)
            return None
        headers = Headers({"etag": file.etag, "cache-control": "public, max-age=0"})
        # As in the reference, all forms of a file have one ETag, so this is what caches must keep them apart by.
        headers["vary"] = "Accept-Encoding"
        if _matches(request, file.etag):
            return Response(304, headers=headers)
        headers["content-type"] = CONTENT_TYPES[name]
        if coding is not None:
            headers["content-encoding"] = coding
        return Response(200, file.body, headers)

    async def _make(self, name: str, coding: str | None) -> ClientFile | None:
        file = self._kept.get((name, None)) or await trio.to_thread.run_sync(self._read, name)
        if file is None:
            return None
        self._kept[name, None] = file
        if coding is not None:
            file = file._replace(body=await self._compressor.compress(file.body, coding))
            self._kept[name, coding] = file
        return file

    def _read(self, name: str) -> ClientFile | None:
        directory = self._directory or find_client()
        if directory is None or not has_client(directory, name):
            return None
        try:
            body = (directory / name).read_bytes()
            version = client_version(directory) or hashlib.sha256(body).hexdigest()[:16]
        except OSError as error:
            logger.warning("serve_client: %s", error)
            return None
        return ClientFile(body, f'"{version}"')

    def _tell(self, name: str) -> None:
        if not self._told:
            self._told = True
            logger.info(HOW_TO_GET_IT, name)


def checked_client_directory(option: str | os.PathLike[str]) -> Path:
    """The directory that the ``serve_client`` option names.

    Raises:
        TypeError: It names none.
        ValueError: The client is not in it.
    """
    if not isinstance(option, str | os.PathLike):
        raise TypeError(f"serve_client is a bool or a directory, not {option!r}")
    directory = Path(option).absolute()
    if not any(has_client(directory, bundle) for bundle in BUNDLES):
        raise ValueError(f"serve_client: there is no {BUNDLES[0]} in {os.fspath(option)!r}")
    return directory


def has_client(directory: Path, name: str = BUNDLES[0]) -> bool:
    """Whether a directory has a file of the client."""
    try:
        return (directory / name).is_file()
    except OSError:  # not even to be looked at
        return False


def find_client() -> Path | None:
    """The first place that has the client."""
    places = [Path.cwd() / INSTALLED]
    try:
        places.append(fetched_client_directory())
    except RuntimeError:
        logger.debug("this user has no home directory, and so no cache")
    return next(filter(has_client, places), None)


def client_version(directory: Path) -> str | None:
    """The version of the client in a directory: its package's, or else what a bundle says at its beginning.

    Raises:
        OSError: A bundle cannot be read.
    """
    for package in (directory / "package.json", directory.parent / "package.json"):
        try:
            content = json.loads(package.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and content.get("name") == "socket.io-client":
            return _checked_version(content.get("version"))
    for bundle in filter(lambda bundle: has_client(directory, bundle), BUNDLES):
        with (directory / bundle).open("rb") as file:
            if match := _BANNER.search(file.read(_BANNER_BYTES)):
                return _checked_version(match[1].decode())
    return None


def _checked_version(version: object) -> str | None:
    """It becomes a part of a header, so it must look like a version."""
    return version if isinstance(version, str) and _VERSION.fullmatch(version) else None


def _matches(request: Request, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in ",".join(request.headers.get_all("if-none-match")).split(",")]
    return etag in tags or "*" in tags
