"""What `Server`, `Namespace` and `Socket` are generic over: the type of ``socket.data``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import TypeVar

    # With a default, so that a plain ``Socket`` is what it was: one that is not asked about its data.
    DataT = TypeVar("DataT", default=Any)
else:  # typing has no defaults before Python 3.13, and nobody reads them while the program runs
    from typing import TypeVar

    DataT = TypeVar("DataT")
