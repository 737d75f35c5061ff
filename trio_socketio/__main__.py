"""``python -m trio_socketio`` is the command ``trio-socketio``."""

import sys

from ._cli import main

sys.exit(main())
