"""What clients feel while a returning node is healed: p99 then beside p99 in quiet, before and after."""

import asyncio
import gc
import statistics
import time

from . import ask
from .cluster import Cluster
from .history import History, percentile
from .load import Load, fill
from .report import bytes_text, progress

# Longest time until a node that is back has all that it missed, be it sent at the lowest pace.
WITHIN = 300.0
RATIO_MAX = 1.5
QUIET_SECONDS = 15
# Fewer samples than these say nothing about one in a hundred.
SAMPLES_MIN = 1000

# How it is healed → nodes, N, R, W, who goes away, arguments, how many times --pressure-keys.
SHAPES = {
    "stream": (3, (3, 1, 2), [3], [], 1),
    "exchange": (3, (3, 1, 2), [3], ["--stream-backlog-size", "8mb"], 5),
    "hints": (5, (3, 1, 2), [4, 5], [], 1),
}


async def pressure(options, report):
    report.heading("pressure")
    report.say(f"GET and SET of 64 bytes at a bounded rate through the nodes that stay, one command at a "
               f"time on each connection; milliseconds; medians of {options.rounds or 3} rounds.\n")
    rows = []
    gc.collect()
    gc.disable()
    try:
        for how, shape in SHAPES.items():
            if not options.healed_by or how in options.healed_by.split(","):
                await one_way(options, report, rows, how, *shape)
    finally:
        gc.enable()
    heads = ["healed by", "missed", "healed in s", "quiet p50", "quiet p99", "p50 then", "p99 then", "ratio of p99"]
    report.table(heads, rows)


async def one_way(options, report, rows, how, nodes, contract, away, args, times):
    keys = options.pressure_keys * times
    async with Cluster(options, nodes, *contract, args) as cluster:
        stay = [node for node in cluster.nodes if node not in away]
        await fill(cluster, stay[0], options.keys)
        rounds = []
        for number in range(options.rounds or 3):
            progress(f"pressure: {how}, round {number + 1}")
            rounds.append(await one_round(options, report, cluster, stay, away, keys, f"{how}{number}"))
        grown = {name: count for _, _, _, counters, _ in rounds for name, count in counters.items()}
        quiet50, quiet99, then50, then99 = (
            [percentile(values[index], p) for values in rounds] for index, p in ((0, 50), (0, 99), (1, 50), (1, 99))
        )
        ratio = statistics.median(then / quiet for then, quiet in zip(then99, quiet99))
        seconds = statistics.median(values[2] for values in rounds)
        middle = lambda values: f"{statistics.median(values):.2f}"
        size = bytes_text(keys * 220)
        rows.append([how, size, f"{seconds:.1f}", *map(middle, (quiet50, quiet99, then50, then99)), f"{ratio:.2f}"])
        samples = min(len(values[1]) for values in rounds)
        for number, values in enumerate(rounds):
            shares = "; ".join(f"{name} {share:.2f}" for name, share in values[4].items())
            p99s = " → ".join(f"{percentile(ms, 99):.2f}" for ms in values[:2])
            report.say(f"- {how}, round {number + 1}: p99 {p99s} ms, {values[2]:.1f} s; CPUs busy: {shares}")
        report.say(f"- {how}: at least {samples} samples a round while healing; last counted: {grown}")
        if samples < SAMPLES_MIN:
            report.say(f"- {how}: too few samples to judge; raise --pressure-keys")
        else:
            report.expect(f"{how}: p99 while healing is at most {RATIO_MAX} times the quiet one",
                          ratio <= RATIO_MAX, f"{ratio:.2f} times")


async def one_round(options, report, cluster, stay, away, keys, name):
    """Latencies in quiet and while healing, how long that took, and what was counted."""
    history = History()
    load = Load(cluster, history, {"read": 1, "over": 1}, stay, workers=8 // len(stay), rate=50, size=64)
    async with load:
        await asyncio.sleep(1)
        quiet, busy = history.mark("quiet"), cluster.processor_seconds()
        await asyncio.sleep(QUIET_SECONDS)
        over = history.mark("over")
        shares = {"quiet": share(busy, cluster.processor_seconds(), QUIET_SECONDS)}
        for node in away:
            cluster.kill(node)
        await asyncio.sleep(2)
        await fill(cluster, stay[0], keys, size=200, name=name)
        await asyncio.sleep(3)
        before, _ = await ask.counters(cluster)
        for node in away:
            cluster.start(node)
        await cluster.await_ready(away)
        returned, begun = history.mark("returned"), time.monotonic()
        busy = cluster.processor_seconds()
        late = [node for node in away if await ask.await_caught_up(cluster, node, begun, WITHIN) is None]
        for node in late:
            report.breach(f"{name}: n{node} does not count again within {WITHIN:.0f} s: "
                          + await ask.why_not(cluster, node))
        while await ask.hints(cluster) and time.monotonic() - begun < WITHIN:
            await asyncio.sleep(0.1)
        healed = history.mark("healed")
        shares["healing"] = share(busy, cluster.processor_seconds(), (healed - returned) / 1e9)
        after, _ = await ask.counters(cluster)
        # A machine may have other work now than it had before: quiet is measured on both sides.
        await asyncio.sleep(1)
        rested = history.mark("quiet again")
        await asyncio.sleep(QUIET_SECONDS)
        ended = history.mark("end")
    quiet_ms = history.latencies(quiet, over) + history.latencies(rested, ended)
    then_ms = history.latencies(returned, healed)
    return quiet_ms, then_ms, (healed - returned) / 1e9, ask.grown(before, after), shares


def share(before, after, seconds):
    """Processors that the nodes kept busy, on average."""
    return (after - before) / max(seconds, 0.001)
