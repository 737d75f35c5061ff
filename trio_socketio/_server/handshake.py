"""How a client came in."""

from __future__ import annotations

import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._engine.contract import Headers, Request


@dataclass(frozen=True, slots=True)
class Handshake:
    """How a client came in.

    Args:
        headers: Of the request that opened the session.
        query: Its query parameters.
        auth: What the client sent as ``auth`` when it connected to the namespace; of a client of Socket.IO 2 the query
            that it put behind the namespace's name, as a dict.
        url: The target of the request.
        address: The client's address.
        secure: Whether it came over TLS.
        xdomain: Whether the request had an Origin header.
        issued: When: seconds since 1970.
    """

    headers: Headers
    query: Mapping[str, str]
    auth: Any
    url: str
    address: str
    secure: bool
    xdomain: bool
    issued: float

    @classmethod
    def of(cls, request: Request, auth: Any) -> Handshake:
        """Read a handshake off a request."""
        return cls(
            headers=request.headers,
            query=request.query,
            auth=auth,
            url=request.target,
            address=request.client[0] if request.client else "",
            secure=request.scheme == "https",
            xdomain="origin" in request.headers,
            issued=time.time(),
        )

    @property
    def time(self) -> str:
        """When, as text."""
        return formatdate(self.issued, usegmt=True)
