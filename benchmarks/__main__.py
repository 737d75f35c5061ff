"""``python -m benchmarks``: what ``nox -s bench`` and ``nox -s profile`` run, with their options."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from . import generator, machine, plot, report
from .measure import FULL, QUICK, measure
from .profiling import profile
from .scenarios import select
from .servers import COMMANDS, BenchmarkError, node_version

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS = Path(__file__).parent / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the result is the process's status."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))  # so that what was started is ended
    options = _make_parser().parse_args(arguments)
    try:
        if not sys.platform.startswith("linux"):
            raise BenchmarkError("the benchmarks need Linux: epoll, /proc, and processes that stay on their cores")
        generator.build()
        options.run(options)
    except (BenchmarkError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="measure, and print tables")
    run.add_argument("--quick", action="store_true", help="one short round; under two minutes")
    run.add_argument("--only", default="", metavar="NAMES", help="scenarios, or how their names begin: echo,ack")
    run.add_argument("--servers", default="", metavar="NAMES", help=f"some of {', '.join(COMMANDS)}")
    run.add_argument("--rounds", type=int, help=f"default: {FULL.rounds}, and {QUICK.rounds} with --quick")
    run.add_argument("--seconds", type=float, help=f"of a run; default: {FULL.seconds}, and {QUICK.seconds}")
    run.set_defaults(run=_run)
    draw = commands.add_parser("profile", help="draw a flame graph of a server under load")
    draw.add_argument("scenario", help="its name, or how it begins")
    draw.add_argument("--server", default="trio", help="default: %(default)s")
    draw.add_argument("--seconds", type=int, default=5, help="of sampling, twice; default: %(default)s")
    draw.set_defaults(run=_profile)
    return parser


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _run(options: argparse.Namespace) -> None:
    effort = QUICK if options.quick else FULL
    effort = effort._replace(rounds=max(1, min(options.rounds or effort.rounds, 20)))
    effort = effort._replace(seconds=max(0.1, min(options.seconds or effort.seconds, 60.0)))
    scenarios, servers = select(_names(options.only)), _names(options.servers)
    if unknown := set(servers) - set(COMMANDS):
        raise BenchmarkError(f"no server is called {', '.join(unknown)}; there are {', '.join(COMMANDS)}")
    if options.quick and not options.only:
        scenarios = [scenario for scenario in scenarios if not scenario.only_full]
    if machine.SERVER_CORE is None:
        print("one core only: the server and the generator share it, and the figures are worth little")
    result = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "versions": {**machine.versions(), "node": node_version()},
        "effort": effort._asdict(),
    }
    runs = measure(scenarios, servers, effort, lambda text: print(text, flush=True))
    result["runs"] = runs
    print(report.as_text(runs))
    print("\nN: socket.io in Node.js; P: python-socketio. Rates are per second of the server's CPU.")
    # Only what is complete is for the documentation.
    name = "partial" if options.only or servers else "latest"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if name == "latest":
        (RESULTS / "latest.rst").write_text(report.as_rst(result), encoding="utf-8")
        (RESULTS / "latest.svg").write_text(plot.draw(runs), encoding="utf-8")
    print(f"written to {RESULTS / name}.json")


def _profile(options: argparse.Namespace) -> None:
    RESULTS.mkdir(exist_ok=True)
    (scenario, *_) = select([options.scenario])
    if options.server not in COMMANDS:
        raise BenchmarkError(f"no server is called {options.server!r}; there are {', '.join(COMMANDS)}")
    graph = RESULTS / f"profile-{scenario.name}.svg"
    shares = profile(scenario, options.server, max(1, min(options.seconds, 60)), graph)
    ours = [entry for entry in shares.within if "trio_socketio/" in entry[1]]
    for title, entries in (("functions by themselves", shares.own), ("ours, with what they call", ours)):
        print(f"\n{scenario.name} on {options.server}, {title}:\n")
        for share, place in entries[:15]:
            print(f"{share:6.1%}  {place}")
    print(f"\nflame graph: {graph}")


sys.exit(main())
