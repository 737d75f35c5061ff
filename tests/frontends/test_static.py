"""Static files: what is below a directory, and nothing else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from trio_socketio._engine.contract import Headers, Request, Response
from trio_socketio._frontends.static import StaticFiles

from .test_listener import GET, connect
from .wire import App

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    (root / "docs" / "deep").mkdir(parents=True)
    (root / "index.html").write_text("<p>home")
    (root / "app.js").write_text("export {}")
    (root / "a b.txt").write_text("spaced")
    (root / "docs" / "index.html").write_text("<p>docs")
    (root / "docs" / "deep" / "x.css").write_text("p {}")
    (root / ".env").write_text("secret")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("secret")
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "site-other").mkdir()
    (tmp_path / "site-other" / "x.txt").write_text("secret")
    return root


async def get(files: StaticFiles, target: str, method: str = "GET", **headers: str) -> Response | None:
    pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return await files.respond(Request(method=method, target=target, headers=Headers(pairs)))


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/", b"<p>home"),
        ("/index.html", b"<p>home"),
        ("/app.js?v=1", b"export {}"),
        ("/a%20b.txt", b"spaced"),
        ("/docs/", b"<p>docs"),
        ("/docs/deep/x.css", b"p {}"),
    ],
)
async def test_a_file_is_served(site: Path, target: str, body: bytes) -> None:
    response = await get(StaticFiles(site), target)
    assert response is not None
    assert (response.status, response.body) == (200, body)


@pytest.mark.parametrize(
    "target",
    [
        "/missing.txt",
        "/docs/deep/",
        "//app.js",
        "/docs//index.html",
        "/app.js/",
        "/app.js/x",
        "/../secret.txt",
        "/docs/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/..%5csecret.txt",
        "/docs/..%2f..%2fsecret.txt",
        "/%2fetc/passwd",
        "//etc/passwd",
        "/C:/windows/win.ini",
        "/app.js%00.txt",
        "/app.js::$DATA",
        "/./app.js",
        "/.env",
        "/.git/config",
        "/%2egit/config",
        "/../site-other/x.txt",
        "/" + "x" * 5000,
        "/%ff%fe",
    ],
)
async def test_what_is_not_below_the_directory_or_is_hidden_does_not_exist(site: Path, target: str) -> None:
    assert await get(StaticFiles(site), target) is None


async def test_links_may_lead_anywhere_inside_and_nowhere_outside(site: Path) -> None:
    (site / "inside.js").symlink_to(site / "app.js")
    (site / "outside.txt").symlink_to(site.parent / "secret.txt")
    (site / "up").symlink_to(site.parent)
    (site / "loop").symlink_to(site / "loop")
    (site / "docs" / "deep" / "index.html").symlink_to(site.parent / "secret.txt")
    files = StaticFiles(site)
    inside = await get(files, "/inside.js")
    assert inside is not None
    assert inside.body == b"export {}"
    for target in ("/outside.txt", "/up/secret.txt", "/up", "/up/", "/loop", "/docs/deep/"):
        assert await get(files, target) is None


async def test_a_pipe_is_no_file_and_does_not_block(site: Path) -> None:
    os.mkfifo(site / "pipe")
    assert await get(StaticFiles(site), "/pipe") is None


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("x.js", "text/javascript; charset=utf-8"),
        ("x.mjs", "text/javascript; charset=utf-8"),
        ("x.CSS", "text/css; charset=utf-8"),
        ("x.html", "text/html; charset=utf-8"),
        ("x.svg", "image/svg+xml"),
        ("x.woff2", "font/woff2"),
        ("x.wasm", "application/wasm"),
        ("x.json", "application/json"),
        ("x.unheard-of", "application/octet-stream"),
        ("x", "application/octet-stream"),
    ],
)
async def test_the_type_follows_from_the_name(site: Path, name: str, content_type: str) -> None:
    (site / name).write_bytes(b"x")
    response = await get(StaticFiles(site), f"/{name}")
    assert response is not None
    assert response.headers["content-type"] == content_type
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_an_unchanged_file_is_not_sent_again(site: Path) -> None:
    files = StaticFiles(site)
    first = await get(files, "/app.js")
    assert first is not None
    etag = first.headers["etag"]
    for tags in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        again = await get(files, "/app.js", if_none_match=tags)
        assert again is not None
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", etag)
    (site / "app.js").write_text("export { changed }")
    changed = await get(files, "/app.js", if_none_match=etag)
    assert changed is not None
    assert (changed.status, changed.body) == (200, b"export { changed }")


async def test_a_directory_without_its_slash_redirects(site: Path) -> None:
    response = await get(StaticFiles(site), "/docs")
    assert response is not None
    assert (response.status, response.headers["location"]) == (308, "/docs/")


async def test_other_methods_are_not_allowed(site: Path) -> None:
    response = await get(StaticFiles(site), "/app.js", method="POST")
    assert response is not None
    assert (response.status, response.headers["allow"]) == (405, "GET, HEAD")


async def test_the_longest_prefix_counts(site: Path) -> None:
    files = StaticFiles({"/": site, "/assets": site / "docs", "/assets/deep/": site / "docs" / "deep"})
    for target, body in [("/app.js", b"export {}"), ("/assets/", b"<p>docs"), ("/assets/deep/x.css", b"p {}")]:
        response = await get(files, target)
        assert response is not None
        assert response.body == body
    redirect = await get(files, "/assets")
    assert redirect is not None
    assert redirect.headers["location"] == "/assets/"
    assert await get(files, "/assetsx") is None


async def test_a_file_over_the_size_is_an_error_in_the_log(site: Path, caplog: pytest.LogCaptureFixture) -> None:
    response = await get(StaticFiles(site, max_file_size=5), "/app.js")
    assert response is not None
    assert response.status == 500
    assert "app.js is larger than 5 bytes" in caplog.text


@pytest.mark.parametrize("option", ["/no/such/directory", {"/": "/no/such/directory"}])
def test_a_missing_directory_is_an_error_at_once(option: str | dict[str, str]) -> None:
    with pytest.raises(ValueError, match="there is no directory '/no/such/directory'"):
        StaticFiles(option)


def test_a_prefix_must_begin_with_a_slash(site: Path) -> None:
    with pytest.raises(ValueError, match="must begin with a slash"):
        StaticFiles({"assets": site})


async def test_the_listener_serves_files_where_the_application_does_not(site: Path) -> None:
    async with connect(App(files=StaticFiles(site))) as client:
        assert (await client.ask(GET % b"/app.js")).body == b"export {}"
        head = await client.ask(b"HEAD /app.js HTTP/1.1\r\nHost: a\r\n\r\n", b"HEAD")
        assert (head.headers["content-length"], head.body) == ("9", b"")
        assert (await client.ask(GET % b"/app/x")).body == b"/app/x"
        assert (await client.ask(GET % b"/missing")).status == 404
