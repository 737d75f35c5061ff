"""Files for a page: small, safe, and no more.

What is served lies below a configured directory after every link is followed, and has no name that begins with a dot.
A file is read whole, in a thread, up to a size.
"""

from __future__ import annotations

import logging
import mimetypes
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote

import trio

from .._engine.contract import Headers, Response

if TYPE_CHECKING:
    from .._engine.contract import Request

logger = logging.getLogger("trio_socketio.listener")

StaticFilesOption: TypeAlias = "str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]]"

MAX_FILE_SIZE = 32 * 1024 * 1024

#: What a page needs must not depend on the tables of the machine.
CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".gif": "image/gif",
    ".htm": "text/html; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".mp3": "audio/mpeg",
    ".mp4": "video/mp4",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".xml": "application/xml",
}


class StaticFiles:
    """Directories to serve with GET and HEAD.

    Args:
        directories: A directory, served at ``/``; or a mapping from URL prefixes to directories. Of several prefixes
            that match, the longest counts.
        max_file_size: Bytes; a larger file is answered 500, with a line in the log.

    Raises:
        ValueError: A prefix that does not begin with a slash, or a directory that does not exist.
    """

    def __init__(self, directories: StaticFilesOption, *, max_file_size: int = MAX_FILE_SIZE) -> None:
        mapping = directories if isinstance(directories, Mapping) else {"/": directories}
        self._roots: dict[str, Path] = {}
        for prefix, directory in sorted(mapping.items(), key=lambda item: len(item[0]), reverse=True):
            if not prefix.startswith("/"):
                raise ValueError(f"static_files: a URL prefix must begin with a slash, not be {prefix!r}")
            if not Path(directory).is_dir():
                raise ValueError(f"static_files: there is no directory {os.fspath(directory)!r}")
            self._roots[prefix.rstrip("/") + "/"] = Path(directory).resolve()
        self._max_file_size = max_file_size

    async def respond(self, request: Request) -> Response | None:
        """The answer to a request, or None if there is no such file."""
        found = self._locate(request.path)
        if found is None:
            return None
        if request.method not in ("GET", "HEAD"):
            return Response(405, b"only GET and HEAD\n", Headers({"allow": "GET, HEAD", **PLAIN}))
        return await trio.to_thread.run_sync(self._load, *found, request)

    def _locate(self, path: str) -> tuple[Path, Path] | None:
        """The root and the path below it that a URL path names, judged by its text alone."""
        for prefix, root in self._roots.items():
            if path.startswith(prefix) or path + "/" == prefix:
                names = path[len(prefix) :].split("/")
                if not names[-1]:
                    names.pop()
                return (root, root.joinpath(*names)) if all(map(_is_harmless, names)) else None
        return None

    def _load(self, root: Path, path: Path, request: Request) -> Response | None:
        try:
            real = path.resolve(strict=True)
            if not real.is_relative_to(root):
                return None
            if not real.is_dir():
                return None if request.path.endswith("/") else self._read(real, request)
            if not request.path.endswith("/"):
                return Response(308, headers=Headers({"location": quote(request.path) + "/"}))
            index = (real / "index.html").resolve(strict=True)
            return self._read(index, request) if index.is_relative_to(root) else None
        except (OSError, ValueError, RuntimeError):  # gone, not readable, no name for this system, a loop of links
            return None

    def _read(self, path: Path, request: Request) -> Response | None:
        # Without blocking: the name may be that of a pipe.
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return None
            etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
            headers = Headers({"etag": etag, "cache-control": "no-cache"})
            if _matches(request.headers.get_all("if-none-match"), etag):
                return Response(304, headers=headers)
            body = file.read(self._max_file_size + 1)
        if len(body) > self._max_file_size:
            logger.warning("static_files: %s is larger than %d bytes, and not served", path, self._max_file_size)
            return Response(500, b"the file is too large to be served\n", Headers(PLAIN))
        headers["content-type"] = _content_type(path)
        headers["x-content-type-options"] = "nosniff"
        return Response(200, body, headers)


PLAIN = {"content-type": "text/plain; charset=utf-8"}


def _is_harmless(name: str) -> bool:
    """Whether a segment is an ordinary visible name on every system; ``..`` and what is hidden begin with a dot."""
    return bool(name) and not name.startswith(".") and name.isprintable() and not any(c in name for c in "\\:")


def _matches(if_none_match: list[str], etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for line in if_none_match for tag in line.split(",")]
    return etag in tags or "*" in tags


def _content_type(path: Path) -> str:
    known = CONTENT_TYPES.get(path.suffix.lower())
    return known or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
