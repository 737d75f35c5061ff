"""The rooms of any Socket.IO server at a URL, held against the model: here, those of other makes.

::

    npm ci --prefix examples/property_testing
    python examples/property_testing/wire.py                                   # a server of Node.js
    python examples/property_testing/wire.py --redis redis://localhost:6379    # two, which are a cluster
    python examples/property_testing/wire.py --python-socketio                 # needs hypercorn and python-socketio

`trio_socketio.testing.WireMachine` speaks to the servers under test as clients do. What servers do of their own accord,
such as emitting to rooms, it asks of them in their namespace ``/control``: `node_server.mjs` and
`python_socketio_server.py` have what these need for that, and `trio_server.py` the same for this library.

How servers are known to differ from the model is said with `Difference`; with ``--strict`` it is not, and the machine
finds it. Until the history that it prints is short takes longer in real time than it does in memory.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from trio_socketio.testing import Difference, WireMachine

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

HERE = Path(__file__).resolve().parent

#: ``@socket.io/redis-adapter``: who orders `sockets_join` does it when the order has come back from Redis; and who asks
#: the sockets of one server only, waits for the answers of all servers nevertheless.
CLUSTER_OF_NODE = (Difference.LATE_CHANGES, Difference.LOCAL_ACKS_TIME_OUT)
#: It finds sockets by their rooms, and raises an error when another one is to enter such a room.
PYTHON_SOCKETIO = (Difference.OWN_ROOMS_ARE_FIXED,)

PYTHON_SOCKETIO_SERVER: Sequence[str] = (sys.executable, str(HERE / "python_socketio_server.py"))


def node_server(redis: str | None = None, node: str = "node") -> Sequence[str]:
    """The command for a server of Node.js; all of those with the same Redis are a cluster."""
    return [node, str(HERE / "node_server.mjs"), *([] if redis is None else [redis])]


@contextmanager
def started(command: Sequence[str], count: int = 1, directory: Path = HERE) -> Iterator[list[str]]:
    """Run servers, each in a process; their URLs.

    Args:
        command: Starts one, which prints its URL and ends with its input.
        count: How many.
        directory: Where they are started; those of Node.js find their packages there.
    """
    pipe = subprocess.PIPE
    with ExitStack() as stack:
        processes = []
        for _ in range(count):
            process = stack.enter_context(subprocess.Popen(command, cwd=directory, stdin=pipe, stdout=pipe, text=True))
            stack.callback(process.kill)
            processes.append(process)
        yield [url_of(process) for process in processes]


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    if not (url := process.stdout.readline().strip()):
        raise RuntimeError("the server has not started; it has said above why not")
    return url


def drive(servers: Sequence[str], known: Collection[Difference] = (), *, examples: int = 50, steps: int = 20) -> None:
    """Look for a history in which servers do anything else than the model.

    Args:
        servers: Their URLs.
        known: In which ways they are known to.
        examples: How many histories to try.
        steps: How long these are.

    Raises:
        AssertionError: There is one; it says what is different, and with the shortest history that was found.
    """

    class Machine(WireMachine):
        urls = servers
        differences = known

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
            # In real time, what is not wanted costs more than usual.
            report_multiple_bugs=False,
            phases=(Phase.generate, Phase.shrink),
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Drive servers of other makes.")
    parser.add_argument("--redis", help="the URL of a Redis, for a cluster of two servers of Node.js")
    parser.add_argument("--python-socketio", action="store_true", help="drive a server of python-socketio instead")
    parser.add_argument("--examples", type=int, default=50, help="histories to try (default: 50)")
    parser.add_argument("--strict", action="store_true", help="allow for none of the known differences")
    options = parser.parse_args()
    command: Sequence[str]
    known: Collection[Difference]
    if options.python_socketio:
        command, count, known = PYTHON_SOCKETIO_SERVER, 1, PYTHON_SOCKETIO
    elif options.redis is not None:
        command, count, known = node_server(options.redis), 2, CLUSTER_OF_NODE
    else:
        command, count, known = node_server(), 1, ()
    with started(command, count) as urls:
        drive(urls, () if options.strict else known, examples=options.examples)
    print(f"{options.examples} histories, and no difference that was not known")


if __name__ == "__main__":
    main()
