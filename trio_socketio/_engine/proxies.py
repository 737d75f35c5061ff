"""Whose request it is, when it came through a proxy.

A proxy's ``x-forwarded-for`` is a list to which each proxy appends the address that it was called from. Only what
proxies that we trust have written can be believed, so the list is read from its end, for as long as the address at hand
is one of theirs; the first that is not is the client.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from .contract import Request

Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"


def parse_networks(option: str | Iterable[str]) -> tuple[Network, ...]:
    """Addresses and networks, such as ``"127.0.0.1"`` and ``"10.0.0.0/8"``.

    Raises:
        ValueError: One that is neither.
    """
    return tuple(ipaddress.ip_network(entry) for entry in ([option] if isinstance(option, str) else option))


def see_through_proxies(request: Request, trusted: tuple[Network, ...]) -> None:
    """Set the client's address and scheme to what trusted proxies say they are; its port is not known then."""
    if not trusted or request.client is None or not _is_trusted(request.client[0], trusted):
        return
    hops = [hop.strip() for line in request.headers.get_all("x-forwarded-for") for hop in line.split(",")]
    address = request.client[0]
    while hops and _is_trusted(address, trusted) and _is_address(hops[-1]):
        address = hops.pop()
    if address != request.client[0]:
        request.client = (address, 0)
    scheme = request.headers.get("x-forwarded-proto", "").rpartition(",")[2].strip().lower()
    if scheme in ("http", "https", "ws", "wss"):
        request.scheme = "https" if scheme in ("https", "wss") else "http"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_trusted(text: str, trusted: tuple[Network, ...]) -> bool:
    if not _is_address(text):
        return False
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped  # what a socket for both families calls an IPv4 client
    return any(address in network for network in trusted)
