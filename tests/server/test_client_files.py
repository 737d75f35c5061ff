"""The client, served to pages by its own server (Socket.IO's "serveClient")."""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trio_socketio import Server
from trio_socketio._server.client_files import BUNDLES, CONTENT_TYPES, fetched_client_directory

from ..wire_client import open_app
from .support import at_least, serving, warnings

if TYPE_CHECKING:
    from collections.abc import Callable

VERSION = "4.8.9"
BANNER = f"/*!\n * Socket.IO v{VERSION}\n */\n"
SCRIPT = "application/javascript; charset=utf-8"
MAP = "application/json; charset=utf-8"
UNREADABLE = Path("/proc/self/mem")
DECODE: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "deflate": zlib.decompress}


def content(name: str) -> bytes:
    """What a file of the tests' client has in it."""
    return ((BANNER if name.endswith(".js") else "") + f"// {name}\n" * 100).encode()


def put_client(directory: Path) -> Path:
    directory.mkdir(parents=True)
    for name in CONTENT_TYPES:
        (directory / name).write_bytes(content(name))
    return directory


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    """A directory with a client."""
    return put_client(tmp_path / "dist")


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, in which there is no client, and none in the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    return project


# What is served


@pytest.mark.parametrize("query", ["", "?buster=1234"])
@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("socket.io.js", SCRIPT),
        ("socket.io.js.map", MAP),
        ("socket.io.min.js", SCRIPT),
        ("socket.io.min.js.map", MAP),
        ("socket.io.esm.min.js", SCRIPT),
        ("socket.io.esm.min.js.map", MAP),
        ("socket.io.msgpack.min.js", SCRIPT),
        ("socket.io.msgpack.min.js.map", MAP),
    ],
)
async def test_each_file_is_served(dist: Path, name: str, content_type: str, query: str) -> None:
    async with serving(serve_client=dist) as served:
        response = await served.net.get(name + query)
        assert (response.status, response.body) == (200, content(name))
        assert response.headers["content-type"] == content_type
        assert response.headers["etag"] == f'"{VERSION}"'
        assert response.headers["cache-control"] == "public, max-age=0"
        assert "content-encoding" not in response.headers
        assert "x-sourcemap" not in response.headers


@pytest.mark.parametrize(
    "name",
    [
        "socket.io.esm.js",
        "socket.io.JS",
        "socket.io.js/",
        "/socket.io//socket.io.js",
        "sub/socket.io.js",
        "socket.io.jsx",
        "package.json",
        "../dist/socket.io.js",
        "%2e%2e/package.json",
        "socket.io.js%00",
        "",
    ],
)
async def test_other_names_are_the_engines(dist: Path, name: str) -> None:
    (dist / "package.json").write_text("{}")
    (dist / "socket.io.esm.js").write_text("not in the table")
    async with serving(serve_client=str(dist)) as served:
        response = await served.net.get(name)
        assert (response.status, response.json()["code"]) == (400, 0)


@pytest.mark.parametrize("path", ["/socket.io.js", "/other/socket.io.js", "/socket.iox/socket.io.js"])
async def test_other_paths_are_404(dist: Path, path: str) -> None:
    async with serving(serve_client=dist) as served:
        assert (await served.net.get(path)).status == 404


@pytest.mark.parametrize("options", [{}, {"add_trailing_slash": False}])
async def test_files_are_below_the_path_of_the_server(dist: Path, options: dict[str, Any]) -> None:
    async with serving(serve_client=dist, path="/deep/er/", **options) as served:
        assert (await served.net.get("/deep/er/socket.io.js")).status == 200
        assert (await served.net.get("/socket.io/socket.io.js")).status == 404


async def test_head_is_answered_without_the_file(dist: Path) -> None:
    async with serving(serve_client=dist) as served:
        response = await served.net.request("HEAD", "socket.io.js")
        assert (response.status, response.body) == (200, b"")
        assert response.headers["content-length"] == str(len(content("socket.io.js")))


async def test_other_methods_are_the_engines(dist: Path) -> None:
    async with serving(serve_client=dist) as served:
        assert (await served.net.post("socket.io.js", "x")).status == 400


async def test_server_that_does_not_run_serves_no_files(dist: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with open_app(Server(serve_client=dist), running=False) as net:
        assert (await net.get("/socket.io/socket.io.js")).status == 503
    assert len(warnings(caplog)) == 1


async def test_sessions_and_middlewares_know_nothing_of_it(dist: Path) -> None:
    io = Server(serve_client=dist)
    asked: list[str] = []
    io.engine.use(lambda request: asked.append(request.path))
    io.engine.on("headers", lambda headers, request: asked.append("headers"))
    async with serving(io) as served:
        assert (await served.net.get("socket.io.js")).status == 200
        assert io.engine.clients_count == 0
        assert not asked


# Versions and caches


@pytest.mark.parametrize(
    ("if_none_match", "status"),
    [
        (f'"{VERSION}"', 304),
        (f'W/"{VERSION}"', 304),
        (f'"1.0.0", W/"{VERSION}"', 304),
        ("*", 304),
        ('"1.0.0"', 200),
        (VERSION, 200),
        (f'"{VERSION}', 200),
        ("", 200),
    ],
)
async def test_client_that_has_this_version_is_not_sent_it(dist: Path, if_none_match: str, status: int) -> None:
    async with serving(serve_client=dist) as served:
        headers = {"if-none-match": if_none_match, "accept-encoding": "gzip"}
        response = await served.net.get("socket.io.min.js", headers)
        assert response.status == status
        assert bool(response.body) == (status == 200)
        assert response.headers["etag"] == f'"{VERSION}"'
        assert response.headers["cache-control"] == "public, max-age=0"
        assert response.headers["vary"] == "Accept-Encoding"
        if status == 304:
            assert "content-type" not in response.headers
            assert "content-encoding" not in response.headers


async def test_version_is_that_of_the_package(dist: Path) -> None:
    (dist.parent / "package.json").write_text(json.dumps({"name": "socket.io-client", "version": "5.0.0-beta.1"}))
    async with serving(serve_client=dist) as served:
        assert (await served.net.get("socket.io.js.map")).headers["etag"] == '"5.0.0-beta.1"'


@pytest.mark.parametrize("package", ["", "[]", "\ud800", '{"name": "my-page", "version": "1.0.0"}'])
async def test_package_of_something_else_does_not_count(dist: Path, package: str) -> None:
    (dist / "package.json").write_bytes(package.encode("utf-8", "surrogatepass"))
    async with serving(serve_client=dist) as served:
        assert (await served.net.get("socket.io.js")).headers["etag"] == f'"{VERSION}"'


@pytest.mark.parametrize("version", ['1.0.0"\\r\\nset-cookie: x', "", "latest", None, 5])
async def test_what_is_no_version_does_not_get_into_a_header(dist: Path, version: object) -> None:
    (dist / "package.json").write_text(json.dumps({"name": "socket.io-client", "version": version}))
    async with serving(serve_client=dist) as served:
        response = await served.net.get("socket.io.js")
        assert response.status == 200
        assert len(response.headers["etag"]) == 18


async def test_files_without_a_version_have_one_of_their_content(tmp_path: Path) -> None:
    etags = []
    for number, text in enumerate(["one", "two", "one"]):
        directory = tmp_path / str(number)
        directory.mkdir()
        (directory / "socket.io.js").write_text(text)
        async with serving(serve_client=directory) as served:
            etags.append((await served.net.get("socket.io.js")).headers["etag"])
    assert etags[0] == etags[2] != etags[1]


# Compression


@pytest.mark.parametrize(
    ("accept", "coding"),
    [("gzip,br,deflate", "gzip"), ("deflate, gzip", "deflate"), ("br", None), ("gzip;q=0.2, deflate;q=0.3", "deflate")],
)
async def test_files_are_compressed_as_the_client_accepts(dist: Path, accept: str, coding: str | None) -> None:
    async with serving(serve_client=dist, http_compression=False) as served:
        for _ in range(2):  # made, and then kept
            response = await served.net.get("socket.io.js", {"accept-encoding": accept})
            assert response.headers.get("content-encoding") == coding
            assert response.headers["vary"] == "Accept-Encoding"
            assert response.headers["etag"] == f'"{VERSION}"'
            assert response.headers["content-length"] == str(len(response.body))
            decode = DECODE[coding] if coding else bytes
            assert decode(response.body) == content("socket.io.js")


async def test_file_is_read_once(dist: Path) -> None:
    async with serving(serve_client=dist) as served:
        assert (await served.net.get("socket.io.js")).body == content("socket.io.js")
        (dist / "socket.io.js").write_text("something else")
        assert (await served.net.get("socket.io.js")).body == content("socket.io.js")
        response = await served.net.get("socket.io.js", {"accept-encoding": "gzip"})
        assert gzip.decompress(response.body) == content("socket.io.js")


# CORS


async def test_pages_of_other_origins_may_load_it_as_the_server_says(dist: Path) -> None:
    async with serving(serve_client=dist, cors="https://a.example") as served:
        response = await served.net.get("socket.io.esm.min.js", {"origin": "https://a.example"})
        assert response.headers.get_all("access-control-allow-origin") == ["https://a.example"]
        assert sorted(response.headers.get_all("vary")) == ["Accept-Encoding", "Origin"]
        same = await served.net.get("socket.io.esm.min.js", {"if-none-match": f'"{VERSION}"'})
        assert same.status == 304
        assert same.headers["access-control-allow-origin"] == "https://a.example"
        preflight = await served.net.request("OPTIONS", "socket.io.js", {"origin": "https://a.example"})
        assert (preflight.status, preflight.body) == (204, b"")


async def test_without_the_option_there_are_no_headers_for_other_origins(dist: Path) -> None:
    async with serving(serve_client=dist) as served:
        response = await served.net.get("socket.io.js", {"origin": "https://a.example"})
        assert response.status == 200
        assert not [name for name in response.headers if name.startswith("access-control")]


# Where it is


@pytest.mark.parametrize("name", CONTENT_TYPES)
async def test_server_that_shall_not_serve_it_answers_400(nowhere: Path, name: str) -> None:
    put_client(nowhere / "node_modules" / "socket.io-client" / "dist")
    async with serving(serve_client=False) as served:
        response = await served.net.get(name)
        assert (response.status, response.json()["code"]) == (400, 0)


async def test_client_that_npm_has_installed_is_found(nowhere: Path) -> None:
    put_client(nowhere / "node_modules" / "socket.io-client" / "dist")
    async with serving() as served:
        assert (await served.net.get("socket.io.js")).body == content("socket.io.js")


async def test_client_that_was_fetched_is_found(nowhere: Path) -> None:
    put_client(fetched_client_directory())
    async with serving() as served:
        assert (await served.net.get("socket.io.js")).body == content("socket.io.js")


async def test_client_of_the_project_goes_before_the_users(nowhere: Path) -> None:
    put_client(fetched_client_directory())
    project = put_client(nowhere / "node_modules" / "socket.io-client" / "dist")
    (project / "socket.io.js").write_text("the project's")
    async with serving(serve_client=True) as served:
        assert (await served.net.get("socket.io.js")).text == "the project's"


@pytest.mark.usefixtures("nowhere")
async def test_without_a_client_one_line_says_how_to_get_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trio_socketio")
    async with serving() as served:
        for name in ("socket.io.js", "socket.io.min.js", "socket.io.js"):
            response = await served.net.get(name)
            assert (response.status, response.json()["code"]) == (400, 0)
        [line] = at_least(caplog, logging.INFO)
        assert "trio-socketio fetch-client" in line
        assert not warnings(caplog)


@pytest.mark.usefixtures("nowhere")
async def test_client_that_comes_later_is_served_without_a_restart() -> None:
    async with serving() as served:
        assert (await served.net.get("socket.io.js")).status == 400
        put_client(fetched_client_directory())
        assert (await served.net.get("socket.io.js")).status == 200


async def test_user_without_a_home_has_no_cache(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("no home directory")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("LOCALAPPDATA")
    monkeypatch.setattr(Path, "home", homeless)
    async with serving() as served:
        assert (await served.net.get("socket.io.js")).status == 400
        put_client(nowhere / "node_modules" / "socket.io-client" / "dist")
        assert (await served.net.get("socket.io.js")).status == 200


async def test_file_that_is_missing_is_the_engines(dist: Path) -> None:
    (dist / "socket.io.js.map").unlink()
    (dist / "socket.io.min.js").unlink()
    (dist / "socket.io.min.js").mkdir()
    async with serving(serve_client=dist) as served:
        for name, status in [("socket.io.js.map", 400), ("socket.io.min.js", 400), ("socket.io.js", 200)]:
            assert (await served.net.get(name)).status == status


@pytest.mark.skipif(not UNREADABLE.exists(), reason="no file that cannot be read, whoever asks")
async def test_file_that_cannot_be_read_is_the_engines(dist: Path, caplog: pytest.LogCaptureFixture) -> None:
    (dist / "socket.io.js").unlink()
    (dist / "socket.io.js").symlink_to(UNREADABLE)
    async with serving(serve_client=dist) as served:
        assert (await served.net.get("socket.io.js")).status == 400
        assert len(warnings(caplog)) == 1


def test_directory_without_a_client_is_refused_at_once(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ValueError, match=r"serve_client: there is no socket\.io\.js in"):
            Server(serve_client=directory)


@pytest.mark.parametrize("option", [None, 1, ["dist"]])
def test_option_of_another_type_is_refused(option: Any) -> None:
    with pytest.raises(TypeError, match="serve_client is a bool or a directory"):
        Server(serve_client=option)


@pytest.mark.parametrize("bundle", BUNDLES)
async def test_one_bundle_is_enough(tmp_path: Path, bundle: str) -> None:
    (tmp_path / bundle).write_bytes(content(bundle))
    async with serving(serve_client=tmp_path) as served:
        response = await served.net.get(bundle)
        assert (response.status, response.headers["etag"]) == (200, f'"{VERSION}"')
