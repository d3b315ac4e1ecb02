"""How soon a dead node is suspected while the others work hard, and how often a live one is."""

import asyncio
import statistics
import subprocess
import time

from . import ask
from .cluster import Cluster
from .report import progress

WITHIN = 30.0
VICTIM = 5


class Benchmark:
    """redis-benchmark, pipelining, for as long as it is let."""

    def __init__(self, cluster, nodes):
        self.processes = []
        for node in nodes:
            host, port = cluster.network.address(node)
            command = ["redis-benchmark", "-h", host, "-p", str(port), "-P", "64", "-c", "10", "-t", "set,get"]
            command += ["-r", "100000", "-d", "64", "-n", "2000000", "-l", "-q"]
            self.processes.append(subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                start_new_session=True,
            ))

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()


async def watch(cluster, node, victim, begun, seen):
    """Notes when `node` suspects `victim`, and when it sends commands elsewhere."""
    while time.monotonic() - begun < WITHIN and len(seen) < 2:
        found = await ask.statuses(cluster, node)
        now = time.monotonic() - begun
        if found and (ask.is_suspected(found[victim]) or not ask.is_routed(found[victim])):
            seen.setdefault("suspected", now)
        if found and not ask.is_routed(found[victim]):
            seen.setdefault("routed around", now)
        await asyncio.sleep(0.02)
    return seen


async def detection(options, report):
    report.heading("detection")
    rounds = options.rounds or 5
    async with Cluster(options, 5, 3, 1, 2) as cluster:
        report.say(f"{cluster.title}, redis-benchmark -P 64 on n1 and n2, {rounds} rounds. Seconds until each of "
                   f"the four others, by its KV.STATUS, suspects n{VICTIM}, and sends commands elsewhere.\n")
        benchmark = Benchmark(cluster, [1, 2])
        try:
            rows = []
            for how in ("process killed (kill -9)", "machine gone (silent)", "process frozen (SIGSTOP)"):
                rows += await trials(options, report, cluster, how, rounds)
            report.table(["fault", "", "median", "first", "last", "not seen"], rows)
            await false_suspicions(options, report, cluster)
        finally:
            benchmark.stop()


async def trials(options, report, cluster, how, rounds):
    others = [node for node in cluster.nodes if node != VICTIM]
    every = []
    for number in range(rounds):
        progress(f"detection: {how}, {number + 1} of {rounds}")
        begun = time.monotonic()
        if "kill" in how:
            cluster.kill(VICTIM)
        elif "frozen" in how:
            cluster.freeze(VICTIM)
        else:
            await cluster.split([VICTIM], others)
        every += await asyncio.gather(*(watch(cluster, node, VICTIM, begun, {}) for node in others))
        if "kill" in how:
            cluster.start(VICTIM)
        elif "frozen" in how:
            cluster.thaw(VICTIM)
        else:
            await cluster.heal()
        await cluster.await_ready([VICTIM])
        if await ask.await_caught_up(cluster, VICTIM, time.monotonic(), 120) is None:
            report.breach(f"n{VICTIM} does not count again within 120 s ({how}): "
                          + await ask.why_not(cluster, VICTIM))
    rows = []
    for what in ("suspected", "routed around"):
        times = [seen[what] for seen in every if what in seen]
        unseen = len(every) - len(times)
        report.expect(f"{how}: {what} by every node", not unseen, f"{unseen} did not within {WITHIN:.0f} s")
        figures = (statistics.median(times), min(times), max(times)) if times else ()
        rows.append([how, what, *(f"{value:.2f} s" for value in figures), unseen])
    return rows


async def commands_so_far(cluster):
    """Commands that clients were answered, on all nodes."""
    return sum([(await cluster.info(node)).get("total_commands_processed", 0) for node in cluster.nodes])


async def false_suspicions(options, report, cluster):
    """Nobody is killed: whoever is suspected, or not sent commands, is wronged."""
    seconds = options.seconds or 120
    progress(f"detection: nobody dies for {seconds:.0f} s")
    wronged, phi_max, polls = {}, 0.0, 0
    begun, commands = time.monotonic(), await commands_so_far(cluster)
    believed = {}
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        for node in cluster.nodes:
            found = await ask.statuses(cluster, node) or {}
            polls += bool(found)
            for member, row in found.items():
                is_up = ask.is_routed(row) and not ask.is_suspected(row)
                if believed.get((node, member), True) and not is_up:
                    wronged[node, member] = wronged.get((node, member), 0) + 1
                believed[node, member] = is_up
                phi_max = max(phi_max, float(row["phi"]))
        await asyncio.sleep(0.1)
    rate = (await commands_so_far(cluster) - commands) / (time.monotonic() - begun)
    report.say(f"- {rate:,.0f} commands a second meanwhile")
    report.say(f"- nobody dies for {seconds:.0f} s under the same load: {sum(wronged.values())} false suspicions "
               f"in {polls} looks, highest phi {phi_max:.1f}")
    report.expect("no false suspicions", not wronged, f"(by, of): times {wronged}")
