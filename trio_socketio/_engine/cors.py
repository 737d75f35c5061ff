"""Which pages may use the server, and the headers that tell their browsers so.

Two questions, kept apart. `origin_allowed` decides whether a request may proceed at all: a browser sends cookies along
with cross-site requests, and it never asks before it opens a WebSocket, so a check on the answer comes too late. `CORS`
writes the headers without which a browser hides an answer from a page of another origin (the Fetch standard, "CORS
protocol"). Requests without an Origin header come from programs, or from the server's own pages: they proceed.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from .contract import Response

if TYPE_CHECKING:
    from .contract import Request

OriginRule: TypeAlias = "str | re.Pattern[str]"
Origins: TypeAlias = "OriginRule | Sequence[OriginRule] | Callable[[str], bool]"

_DEFAULT_PORTS = {"http": 80, "https": 443}
_ORIGIN = re.compile(r"null|[a-z][a-z0-9+.-]*://[^\s/?#@A-Z]+")
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:/?#@\[\]]+)(?::([0-9]{1,5}))?")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# RFC 9110, section 5.5: what a field's value may consist of.
_ILLEGAL_IN_HEADER = re.compile(r"[^\t\x20-\x7e\x80-\xff]")
# RFC 6454, section 6.2: an origin has no other characters; nothing else is ever echoed into an answer.
_PLAIN = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True)
class CORS:
    """Cross-origin access. Pages of the server's own origin need none of this.

    Args:
        origins: Who may: ``"*"`` (everybody), one origin (``"https://example.com"``), a compiled pattern that must
            match the whole origin (so that one without an end admits no ``https://example.com.evil.net``), a list of
            origins and patterns, or a plain function that gets the origin and returns a bool.
        methods: What a preflight's answer allows.
        allowed_headers: Request headers that a preflight's answer allows; None allows those that it asks for.
        exposed_headers: Response headers that the page may read.
        credentials: Whether the browser may send cookies and show the answer (``withCredentials`` in the client).
        max_age: Seconds for which the browser may remember a preflight's answer; None leaves it to the browser.
        preflight_continue: Leave the answer to a preflight (any OPTIONS request) to what comes after.
        options_success_status: The status of the answer to a preflight; some old browsers want 200.

    Raises:
        ValueError: An origin, header, method or status that cannot work in any browser.
        TypeError: `origins` of a type that is not one of the above, such as an async function.
    """

    origins: Origins = "*"
    methods: Sequence[str] = ("GET", "HEAD", "PUT", "PATCH", "POST", "DELETE")
    allowed_headers: Sequence[str] | None = None
    exposed_headers: Sequence[str] = ()
    credentials: bool = False
    max_age: int | None = None
    preflight_continue: bool = False
    options_success_status: int = 204

    def __post_init__(self) -> None:
        object.__setattr__(self, "origins", _checked_origins(self.origins))
        for field in ("methods", "allowed_headers", "exposed_headers"):
            names = getattr(self, field)
            if names is not None:
                object.__setattr__(self, field, _checked_tokens(field, names))
        if self.credentials and self.origins == "*":
            raise ValueError("credentials=True needs the origins by name: browsers refuse it together with '*'")
        if self.max_age is not None and (type(self.max_age) is not int or self.max_age < 0):
            raise ValueError(f"max_age must be whole seconds, not {self.max_age!r}")
        if not 200 <= self.options_success_status <= 299:
            raise ValueError(f"options_success_status must be 200 to 299, not {self.options_success_status!r}")

    @classmethod
    def from_option(cls, option: CORS | Origins | bool | None) -> CORS | None:
        """What the ``cors`` option of a server means: None and False are no cross-origin access at all."""
        if option is None or option is False:
            return None
        if option is True:
            raise TypeError("cors=True could mean any origin or every origin: write cors='*' to admit all of them")
        return option if isinstance(option, CORS) else cls(option)

    def allows(self, origin: str) -> bool:
        """Whether pages of this origin may use the server.

        Raises:
            TypeError: The function given as ``origins`` did not return a bool.
        """
        if not _PLAIN.fullmatch(origin):
            return False
        if callable(self.origins):
            return _bool_of(self.origins(origin))
        rules = (self.origins,) if isinstance(self.origins, str | re.Pattern) else self.origins
        return any(_fits(rule, origin) for rule in rules)

    def apply(self, request: Request) -> Response | None:
        """Add the headers to ``request.response_headers``; answer the request if it is a preflight.

        Returns:
            The answer to any OPTIONS request, whatever its origin: without ``access-control-allow-origin`` the
            browser goes no further. None for every other request.
        """
        headers = request.response_headers
        self._allow_origin(request)
        if self.credentials:
            headers["access-control-allow-credentials"] = "true"
        if self.exposed_headers:
            headers["access-control-expose-headers"] = ",".join(self.exposed_headers)
        if request.method != "OPTIONS":
            return None
        headers["access-control-allow-methods"] = ",".join(self.methods)
        self._allow_headers(request)
        if self.max_age is not None:
            headers["access-control-max-age"] = str(self.max_age)
        return None if self.preflight_continue else Response(self.options_success_status)

    def _allow_origin(self, request: Request) -> None:
        headers = request.response_headers
        if self.origins == "*":
            headers["access-control-allow-origin"] = "*"
            return
        headers.add("vary", "Origin")  # else a shared cache gives one page the answer to another
        origin = request.headers.get("origin")
        if isinstance(self.origins, str):
            headers["access-control-allow-origin"] = self.origins
        elif origin is not None and self.allows(origin):
            headers["access-control-allow-origin"] = origin

    def _allow_headers(self, request: Request) -> None:
        headers = request.response_headers
        if self.allowed_headers is not None:
            allowed = ",".join(self.allowed_headers)
        else:
            headers.add("vary", "Access-Control-Request-Headers")
            allowed = request.headers.get("access-control-request-headers", "")
        if allowed and _PLAIN.fullmatch(allowed):
            headers["access-control-allow-headers"] = allowed


def origin_allowed(cors: CORS | None, request: Request) -> bool:
    """Whether a request may proceed, as far as its Origin goes.

    True without an Origin header, and for the server's own origin: that is the one whose host and port the Host header
    names. A plain-text connection may serve an ``https`` page (TLS ends at a proxy), never the other way round.

    Raises:
        TypeError: The function given as ``origins`` did not return a bool. What that function raises, too.
    """
    origin = request.headers.get("origin")
    if origin is None or _is_same_origin(origin, request):
        return True
    return cors is not None and cors.allows(origin)


def script_allowed(cors: CORS | None, request: Request) -> bool:
    """Whether a page may read answers as scripts (JSONP), for which browsers have no same-origin policy.

    They do not send Origin with the request for a script either. Where not everybody is allowed in, the page has to be
    known by its Referer, which it cannot forge.
    """
    if cors is not None and cors.origins == "*":
        return True
    referer = request.headers.get("referer")
    if referer is None:
        return False
    scheme, _, rest = referer.partition("://")
    origin = f"{scheme}://{re.split('[/?#]', rest, maxsplit=1)[0]}"
    return _is_same_origin(origin, request) or (cors is not None and cors.allows(origin))


def valid_origin(value: str) -> bool:
    """Whether an Origin header has only characters that HTTP allows (else: "Bad request", ``INVALID_ORIGIN``)."""
    return not _ILLEGAL_IN_HEADER.search(value)


def _is_same_origin(origin: str, request: Request) -> bool:
    scheme, _, authority = origin.partition("://")
    if scheme not in _DEFAULT_PORTS or (scheme == "http" and request.scheme == "https"):
        return False
    own = _host_and_port(request.headers.get("host", ""), scheme)
    return own is not None and own == _host_and_port(authority, scheme)


def _host_and_port(authority: str, scheme: str) -> tuple[str, int] | None:
    match = _AUTHORITY.fullmatch(authority.lower())
    if match is None:
        return None
    host, port = match.groups()
    return host, _DEFAULT_PORTS[scheme] if port is None else int(port)


def _fits(rule: OriginRule, origin: str) -> bool:
    return rule in ("*", origin) if isinstance(rule, str) else rule.fullmatch(origin) is not None


def _bool_of(answer: object) -> bool:
    # A coroutine or a mock is true: what is not a bool must not open the door.
    if not isinstance(answer, bool):
        raise TypeError(f"the function that judges origins must return a bool, not {answer!r}")
    return answer


def _checked_origins(origins: Origins) -> Origins:
    if isinstance(origins, re.Pattern):
        return origins
    if isinstance(origins, str):
        return origins if origins == "*" else _checked_origin(origins)
    if callable(origins):
        if inspect.iscoroutinefunction(origins):
            raise TypeError("the function that judges origins must not be async: it runs before every answer")
        return origins
    try:
        rules = tuple(origins)
    except TypeError:
        raise TypeError(f"cors: a string, a pattern, a list of them or a function, not {origins!r}") from None
    return tuple(rule if isinstance(rule, re.Pattern) else _checked_origin(rule) for rule in rules)


def _checked_origin(origin: object) -> str:
    if origin == "*":
        raise ValueError("'*' stands alone: cors='*'")
    if not isinstance(origin, str) or not origin.isascii() or not _ORIGIN.fullmatch(origin):
        raise ValueError(
            f"not an origin: {origin!r}; browsers send scheme://host[:port] in lower case, without a slash at the end"
        )
    return origin


def _checked_tokens(field: str, names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise TypeError(f"{field} must be a list of names, not the string {names!r}")
    for name in names:
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{field}: {name!r} is not a name that HTTP allows")
    return tuple(names)
