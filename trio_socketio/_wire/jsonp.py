"""JSONP: long-polling for pages that can only load scripts and submit forms (Engine.IO protocol, "JSONP").

An answer is a script that calls the function whose number the page gave in the query (``j``); of that number nothing
but digits are used, so no page can have a script of its own choice written here. A POST is a form with one field,
``d``. Browsers may turn a newline in a form into two characters, so clients send it as backslash and ``n``, and what
was backslash and ``n`` before with one more backslash. Of a backslash right before a newline nothing can be made after
that, but JSON has none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from . import json
from .dialects import Body

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .dialects import Dialect
    from .encoded import EncodedPacket
    from .engine_packets import EnginePacket

_NOT_DIGITS = re.compile("[^0-9]+")
_ESCAPED_NEWLINE = re.compile(r"(\\)?\\n")


class JSONPDialect:
    """A `Dialect` whose polling bodies are those of another one, wrapped.

    Args:
        inner: The dialect of the packets; its bodies have to be text.
        index: The client's ``j``.
    """

    takes_octets = False

    def __init__(self, inner: Dialect, index: str) -> None:
        self.protocol = inner.protocol
        self.heartbeat = inner.heartbeat
        self.plain_frames = inner.plain_frames
        self.decode_message_untrusted = inner.decode_message_untrusted
        self.for_websocket = inner.for_websocket
        self._inner = inner
        self._index = _NOT_DIGITS.sub("", index)

    def iter_body_untrusted(self, body: bytes, octets: bool) -> Iterator[EnginePacket]:
        payload = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)).get("d")
        if payload is None:
            return iter(())  # as in the reference, a form without the field brings nothing, and is no error
        return self._inner.iter_body_untrusted(_ESCAPED_NEWLINE.sub(_unescape, payload).encode(), octets)

    def encode_body(self, packets: Sequence[EncodedPacket]) -> Body:
        content, content_type = self._inner.encode_body(packets)
        # These two are allowed in the strings of JSON, and were none in those of JavaScript until 2019.
        text = json.dumps(content.decode()).replace(b"\xe2\x80\xa8", rb"\u2028").replace(b"\xe2\x80\xa9", rb"\u2029")
        return Body(b"___eio[%b](%b);" % (self._index.encode(), text), content_type)


def _unescape(match: re.Match[str]) -> str:
    return r"\n" if match[1] else "\n"
