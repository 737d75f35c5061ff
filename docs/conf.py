from __future__ import annotations

from importlib.metadata import version as version_of
from typing import TYPE_CHECKING

from sphinx.util.docutils import SphinxDirective

from trio_socketio._wire.phases import TRANSITIONS

if TYPE_CHECKING:
    from docutils.nodes import Node
    from sphinx.application import Sphinx

project = "trio_socketio"
author = "trio_socketio contributors"
copyright = "trio_socketio contributors"
version = release = version_of("trio-socketio")

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
# In docstrings, a name in single backquotes is a name of the API.
default_role = "py:obj"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_attr_annotations = True

html_theme = "furo"
html_title = "trio_socketio"


class PhaseTable(SphinxDirective):
    """The transitions of a session, from the table that the library itself goes by."""

    def run(self) -> list[Node]:
        rows = [("while", "this", "leads to")]
        rows += [(f"``{old.name}``", change.value, f"``{new.name}``") for (old, change), new in TRANSITIONS.items()]
        lines = [f"   * - {first}\n     - {second}\n     - {third}" for first, second, third in rows]
        return self.parse_text_to_nodes("\n".join([".. list-table::", "   :header-rows: 1", "", *lines]))


def setup(app: Sphinx) -> None:
    app.add_directive("phase-table", PhaseTable)
