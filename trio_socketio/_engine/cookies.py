"""The cookie that can carry the session's id (Engine.IO protocol, "handshake"), for load balancers that route by it.

Every attribute is checked when the `Cookie` is made, so that no option can smuggle a second attribute or header into
the answer; the value is percent-encoded when the header is written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Literal
from urllib.parse import quote

# RFC 6265, section 4.1.1: a name is a token; an attribute's value ends at a semicolon or a control character.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PATH = re.compile(r"/[\x20-\x3a\x3c-\x7e]*")
_LABEL = r"[0-9A-Za-z](?:[0-9A-Za-z-]{0,61}[0-9A-Za-z])?"
_DOMAIN = re.compile(rf"\.?{_LABEL}(?:\.{_LABEL})*")

# What JavaScript's encodeURIComponent leaves alone besides letters, digits and "-._~": the peers write the same value.
_UNRESERVED = "!*'()"


@dataclass(frozen=True)
class Cookie:
    """How the session's id is set as a cookie in the answer to a polling handshake.

    Args:
        name: The cookie's name.
        path: Where the browser sends it back, or None for the path of the handshake.
        http_only: Hide it from the page's scripts.
        same_site: ``"lax"``, ``"strict"``, ``"none"`` (needs ``secure``), or None to leave it to the browser.
        domain: The domain, for the cookie to be sent to its subdomains too; None for this host alone.
        max_age: Seconds that the browser keeps it; None for as long as the browser runs.
        expires: When the browser forgets it: an aware datetime.
        secure: Send it back over HTTPS only.
        partitioned: Keep one per embedding site (needs ``secure``).
        priority: ``"low"``, ``"medium"`` or ``"high"``, where the browser knows priorities.

    Raises:
        ValueError: An attribute that HTTP does not allow, or one that every browser would refuse.
    """

    name: str = "io"
    path: str | None = "/"
    http_only: bool = True
    same_site: Literal["lax", "strict", "none"] | None = "lax"
    domain: str | None = None
    max_age: int | None = None
    expires: datetime | None = None
    secure: bool = False
    partitioned: bool = False
    priority: Literal["low", "medium", "high"] | None = None

    def __post_init__(self) -> None:
        _require(_TOKEN.fullmatch(self.name), "name", self.name, "a token: letters, digits, or !#$%&'*+.^_`|~-")
        _require(self.path is None or _PATH.fullmatch(self.path), "path", self.path, 'a path from "/", without ";"')
        _require(self.domain is None or _DOMAIN.fullmatch(self.domain), "domain", self.domain, "a domain name")
        _require(self.same_site in (None, "lax", "strict", "none"), "same_site", self.same_site, "lax, strict or none")
        _require(self.priority in (None, "low", "medium", "high"), "priority", self.priority, "low, medium or high")
        _require(self.max_age is None or type(self.max_age) is int, "max_age", self.max_age, "whole seconds")
        _require(self.expires is None or _is_aware(self.expires), "expires", self.expires, "an aware datetime")
        if not self.secure and (self.same_site == "none" or self.partitioned):
            raise ValueError("a cookie with same_site='none' or partitioned=True needs secure=True: browsers refuse it")

    @classmethod
    def from_option(cls, option: bool | Cookie | None) -> Cookie | None:
        """What the ``cookie`` option of a server means: True is the default cookie, False and None are no cookie."""
        if isinstance(option, Cookie):
            return option
        if option is True:
            return cls()
        if option is None or option is False:
            return None
        raise TypeError(f"cookie must be True, False or a Cookie, not {option!r}")

    def header(self, value: str) -> str:
        """The value of a ``set-cookie`` header, such as ``io=lv_VI97HAXpY6yYWAAAC; Path=/; HttpOnly; SameSite=Lax``."""
        attributes = (
            f"{self.name}={quote(value, safe=_UNRESERVED)}",
            self.max_age is not None and f"Max-Age={self.max_age}",
            self.domain is not None and f"Domain={self.domain}",
            self.path is not None and f"Path={self.path}",
            self.expires is not None and f"Expires={format_datetime(self.expires.astimezone(UTC), usegmt=True)}",
            self.http_only and "HttpOnly",
            self.secure and "Secure",
            self.partitioned and "Partitioned",
            self.priority is not None and f"Priority={self.priority.capitalize()}",
            self.same_site is not None and f"SameSite={self.same_site.capitalize()}",
        )
        return "; ".join(attribute for attribute in attributes if attribute)


def _require(allowed: object, attribute: str, value: object, wanted: str) -> None:
    if not allowed:
        raise ValueError(f"not a cookie's {attribute}: {value!r}; it must be {wanted}")


def _is_aware(moment: object) -> bool:
    return isinstance(moment, datetime) and moment.tzinfo is not None
