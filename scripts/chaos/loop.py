"""Faults drawn at random, one after the other and some at once, with all judges at the end."""

import asyncio
import pathlib
import random
import time

from . import ask, judge
from .cluster import Cluster
from .history import History
from .load import Load, fill
from .network import between
from .report import codes_text, progress
from .split import CONVERGED_WITHIN, drained, judge_eventual, judge_quorum

LIBFAKETIME = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
]


class Clocks:
    """Each node's wall clock, shifted by libfaketime through a file that it reads every second.
    The monotone clock stays true."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.library = next((path for path in LIBFAKETIME if pathlib.Path(path).exists()), None)

    @property
    def works(self):
        return self.library is not None

    def file(self, node):
        return self.cluster.dir / f"clock{node}"

    def prepare(self):
        """To be called before the nodes start."""
        if not self.works:
            return
        for node in self.cluster.nodes:
            self.shift(node, 0)
            self.cluster.environment[node] = {
                "LD_PRELOAD": self.library,
                "FAKETIME_TIMESTAMP_FILE": str(self.file(node)),
                "FAKETIME_CACHE_DURATION": "1",
                "DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }

    def shift(self, node, seconds):
        fresh = self.file(node).with_suffix(".new")
        fresh.write_text(f"{seconds:+}\n")
        fresh.rename(self.file(node))


class Faults:
    """What may befall a node, and how it is undone."""

    def __init__(self, cluster, chance, clocks):
        self.cluster, self.chance, self.clocks = cluster, chance, clocks
        self.told = []

    async def one(self):
        kinds = ["kill", "freeze", "split", "one-way split", "wipe", "old image"]
        if self.clocks.works:
            kinds.append("clock")
        kind = self.chance.choice(kinds)
        node = self.chance.choice(list(self.cluster.nodes))
        seconds = self.chance.uniform(0.5, 8)
        began = time.monotonic()
        await getattr(self, kind.replace(" ", "_").replace("-", "_"))(node, seconds)
        self.told.append(kind)
        progress(f"loop: {kind} of n{node}, {time.monotonic() - began:.1f} s")

    async def kill(self, node, seconds):
        self.cluster.kill(node)
        await asyncio.sleep(seconds)
        await self.start(node)

    async def start(self, node):
        self.cluster.start(node)
        await self.cluster.await_ready([node])

    async def freeze(self, node, seconds):
        self.cluster.freeze(node)
        await asyncio.sleep(seconds)
        self.cluster.thaw(node)

    async def split(self, node, seconds):
        others = [other for other in self.cluster.nodes if other != node]
        await self.cluster.split([node], others)
        await asyncio.sleep(seconds)
        # Now and then somebody dies on one side meanwhile.
        if self.chance.random() < 0.3:
            other = self.chance.choice(others)
            self.cluster.kill(other)
            await asyncio.sleep(1)
            self.cluster.start(other)
        await self.cluster.heal()
        await self.cluster.await_ready()

    async def one_way_split(self, node, seconds):
        """What the node says is not heard; what others say, it hears."""
        others = [other for other in self.cluster.nodes if other != node]
        await self.cluster.network.cut([(a, b) for a, b in between([node], others) if a == node])
        await asyncio.sleep(seconds)
        await self.cluster.heal()

    async def all_whole(self, why):
        """A disk may only be lost while every other is whole: W=2 survives one."""
        await self.cluster.await_ready()
        for node in self.cluster.nodes:
            if await ask.await_caught_up(self.cluster, node, time.monotonic(), 60) is None:
                raise RuntimeError(f"n{node} does not count again before {why}")

    async def wipe(self, node, seconds):
        await self.all_whole("a wipe")
        self.cluster.kill(node)
        await asyncio.sleep(seconds)
        self.cluster.wipe(node)
        await self.start(node)
        await self.all_whole("whatever comes after a wipe")

    async def old_image(self, node, seconds):
        await self.all_whole("an old image")
        self.cluster.terminate(node) if self.chance.random() < 0.5 else self.cluster.kill(node)
        self.cluster.image(node)
        await self.start(node)
        await self.all_whole("the disk is put back")
        await asyncio.sleep(seconds)
        self.cluster.kill(node)
        self.cluster.put_back(node)
        await self.start(node)
        await self.all_whole("whatever comes after an old image")

    async def clock(self, node, seconds):
        self.clocks.shift(node, self.chance.choice([-3600, -30, -2, 2, 30, 3600]))
        await asyncio.sleep(2 + seconds)
        self.clocks.shift(node, 0)
        await asyncio.sleep(2)


async def loop(options, report):
    report.heading("loop")
    seconds = options.seconds or 300
    for level in ("eventual", "quorum"):
        await one_level(options, report, level, seconds / 2)


async def one_level(options, report, level, seconds):
    contract = (3, 1, 2) if level == "eventual" else (3, 2, 2)
    cluster = Cluster(options, 3, *contract)
    clocks = Clocks(cluster)
    clocks.prepare()
    async with cluster:
        faketime = "with" if clocks.works else "without (no libfaketime)"
        report.say(f"### {cluster.title}, {seconds:.0f} s, seed {options.seed}, {faketime} clock shifts\n")
        history = History()
        base = await fill(cluster, 1, 2000, name="base")
        kinds = {"unique": 4, "over": 2, "incr": 4, "gone": 2, "base": 2}
        if level == "quorum":
            kinds = {"get": 5, "set": 5, "unique": 3, "incr": 2, "base": 2}
        load = Load(cluster, history, kinds, workers=3, rate=options.rate, base=base, registers=8).start()
        faults = Faults(cluster, random.Random(f"{options.seed}/{level}"), clocks)
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            await faults.one()
            await asyncio.sleep(faults.chance.uniform(0.5, 4))
        await cluster.heal()
        await cluster.await_ready()
        await asyncio.sleep(3)
        await load.stop()
        stopped = time.monotonic()
        took, said = await ask.await_whole(cluster, 1, stopped, CONVERGED_WITHIN)
        counts = ", ".join(f"{faults.told.count(kind)} × {kind}" for kind in sorted(set(faults.told)))
        report.say(f"- {len(faults.told)} faults: {counts}")
        served = len([op for op in history.operations if op.outcome == "ok"])
        report.say(f"- {served} commands acknowledged; errors: {codes_text(history.codes(0, time.monotonic_ns()))}")
        report.expect(f"nothing differs within {CONVERGED_WITHIN:.0f} s" +
                      (f" (after {took:.1f} s)" if took is not None else ""),
                      took is not None, f"KV.DIVERGENCE says {said}")
        report.judge(f"no read of what never changes was wrong ({len(history.of('base'))} reads)",
                     judge.wrong_reads(history))
        if level == "eventual":
            await drained(report, cluster, stopped)
            await judge_eventual(report, cluster, history, 0, 0, ([1, 2, 3],))
        else:
            await judge_quorum(report, cluster, history)
