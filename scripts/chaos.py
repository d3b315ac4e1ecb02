"""Lets things fail on real Kvorum processes under load, judges what came of it, and prints
Markdown. Run it by scripts/chaos.sh, which says what there is.

The exit status is 0 if no judge found a breach, 1 if one did, 2 for wrong arguments.
"""

import argparse
import asyncio
import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from chaos import away, detection, loop, pressure, selftest, split  # noqa: E402
from chaos.cluster import Breach  # noqa: E402
from chaos.network import best  # noqa: E402
from chaos.report import Report, headline, progress  # noqa: E402

SECTIONS = {
    "split-eventual": split.eventual,
    "split-quorum": split.quorum,
    "away-stream": away.stream,
    "away-exchange": away.exchange,
    "wiped": away.wiped,
    "old-image": away.old_image,
    "pressure": pressure.pressure,
    "detection": detection.detection,
    "loop": loop.loop,
}


# These take their rounds into one table.
ROUNDS_WITHIN = {"pressure", "detection"}


async def run(options):
    report = Report(options.output)
    report.say(headline(options, best(1, options.network).name))
    for name in options.sections or SECTIONS:
        for _ in range(1 if name in ROUNDS_WITHIN else options.rounds or 1):
            try:
                await SECTIONS[name](options, report)
            except Breach as breach:
                report.breach(str(breach))
            except (RuntimeError, OSError, AssertionError) as broken:
                report.breach(f"the story broke off: {type(broken).__name__}: {broken}")
    if report.breaches:
        report.say(f"\n{len(report.breaches)} breaches:\n")
        for breach in report.breaches:
            report.say(f"- {breach}")
        return 1
    report.say("\nNo breaches.")
    return 0


async def until_interrupted(options):
    """Runs, and on a signal ends in order: every process that was started is ended."""
    task = asyncio.create_task(run(options))
    loop = asyncio.get_running_loop()

    def interrupt():
        # Once: a second signal shall not disturb the ending.
        if not task.cancelling():
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    try:
        return await task
    except asyncio.CancelledError:
        progress("interrupted")
        return 130


def main():
    parser = argparse.ArgumentParser(prog="chaos.sh", description=__doc__.split("\n")[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--self-test", action="store_true", help="test the judges, and nothing else")
    parser.add_argument("--seconds", type=float, help="how long the fault of a section lasts")
    parser.add_argument("--rounds", type=int, help="how often each section runs")
    parser.add_argument("--rate", type=float, default=12, help="commands a second of each client")
    parser.add_argument("--keys", type=int, default=20_000, help="keys that are there beforehand")
    parser.add_argument("--pressure-keys", type=int, default=100_000, help="keys that a node misses")
    parser.add_argument("--healed-by", help="of stream, exchange and hints, those that pressure shall measure")
    parser.add_argument("--small-backlog", default="1mb", help="a backlog that is soon dropped")
    parser.add_argument("--seed", default="1", help="for what is drawn at random")
    parser.add_argument("--kvorum", default="target/quick/kvorum", help="the binary to judge")
    parser.add_argument("--output", help="a file for the Markdown as well")
    parser.add_argument("--network", choices=["namespaces", "relays", "loopback"])
    parser.add_argument("--folder", help="where the nodes' files are made")
    parser.add_argument("--keep", action="store_true", help="do not remove the nodes' files")
    options = parser.parse_args()
    if options.self_test:
        selftest.main()
        return 0
    for section in options.sections:
        if section not in SECTIONS:
            parser.error(f"there is no section {section!r}; there are {', '.join(SECTIONS)}")
    options.kvorum = str(pathlib.Path(options.kvorum).resolve())
    if not pathlib.Path(options.kvorum).is_file():
        parser.error(f"{options.kvorum} is not there")
    return asyncio.run(until_interrupted(options))


if __name__ == "__main__":
    sys.exit(main())
