"""Where a Redis server is, and as whom to talk to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

EXPECTED = "redis://[[user]:password@]host[:port][/db], rediss://... for TLS, or unix://[[user]:password@]/path[?db=0]"


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """Where a server is.

    Args:
        host: Its name or IP address.
        port: Its TCP port.
        path: The path of its unix socket, instead of a host and port.
        tls: Whether TLS is spoken.
        db: The number of the database.
        username: As whom to log in; with a password alone, as the default user.
        password: None does not log in.
    """

    host: str = "localhost"
    port: int = 6379
    path: str | None = None
    tls: bool = False
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """The URL, without who logs in: it is for logs and errors."""
        if self.path is not None:
            return f"unix://{self.path}?db={self.db}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{host}:{self.port}/{self.db}"


def parse_url(url: str) -> RedisAddress:
    """Read an address from its URL; user and password may be percent-encoded.

    Raises:
        ValueError: It is not of the form ``redis://user:password@host:port/db``, ``rediss://...`` (TLS) or
            ``unix:///path?db=0``. The text does not repeat the URL, in which there may be a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise wrong_url(str(error)) from None
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    db_text = query.pop("db", "")
    if query or parts.fragment:
        raise wrong_url(f"nobody knows {', '.join(query) or '#' + parts.fragment}")
    username = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password else None
    if username is not None and password is None:
        raise wrong_url("a user without a password")
    if parts.scheme == "unix":
        if not parts.path or parts.hostname:
            raise wrong_url("a unix socket needs an absolute path")
        return RedisAddress(path=unquote(parts.path), db=parse_db(db_text), username=username, password=password)
    if parts.scheme not in ("redis", "rediss"):
        raise wrong_url(f"the scheme {parts.scheme!r}" if parts.scheme else "no scheme")
    if not parts.hostname:
        raise wrong_url("no host")
    if db_text and parts.path.strip("/"):
        raise wrong_url("two databases")
    return RedisAddress(
        host=parts.hostname,
        port=6379 if port is None else port,
        tls=parts.scheme == "rediss",
        db=parse_db(db_text or parts.path.removeprefix("/")),
        username=username,
        password=password,
    )


def parse_db(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal()):
        raise wrong_url(f"the database {text!r} is not a number")
    return int(text)


def wrong_url(reason: str) -> ValueError:
    return ValueError(f"not the URL of a Redis server: {reason}; expected {EXPECTED}")
