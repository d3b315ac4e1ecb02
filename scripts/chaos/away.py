"""Nodes that were away, and come back: a while later, without their disk, or with an old one."""

import asyncio
import time

from . import ask, judge
from .cluster import Cluster
from .history import History, percentile
from .load import Load, fill, read_all
from .report import bytes_text, codes_text, progress
from .split import CONVERGED_WITHIN, judge_by_all_nodes

# The most bytes that one comparison of two replicas may send beside what differs.
AWAY = 3
LOAD = {"unique": 4, "over": 2, "incr": 3, "gone": 2, "base": 4}


async def stream(options, report):
    """The others kept what the node missed, and send just that."""
    await away(options, report, "away-stream", options.seconds or 300, [])


async def exchange(options, report):
    """The others kept too little, and compare."""
    size = ["--stream-backlog-size", options.small_backlog]
    await away(options, report, "away-exchange", options.seconds or 60, size)


async def away(options, report, name, seconds, args):
    report.heading(name)
    async with Cluster(options, 3, 3, 1, 2, args) as cluster:
        report.say(f"### {cluster.title}: n{AWAY} killed for {seconds:.0f} s under load\n")
        progress(f"{name}: {cluster.title}, {seconds:.0f} s")
        history = History()
        base = await fill(cluster, 1, options.keys, name="base")
        await fill(cluster, 1, options.keys // 4, size=200, name="again")
        load = Load(cluster, history, LOAD, workers=4, rate=options.rate, base=base, size=64).start()
        await asyncio.sleep(5)
        at_death, _ = await ask.counters(cluster, but=AWAY)
        killed = history.mark("killed")
        cluster.kill(AWAY)
        missed = await fill(cluster, 1, options.keys // 4, size=200, name="missed")
        missed.update(await fill(cluster, 2, options.keys // 4, size=200, name="again", seed=2))
        await asyncio.sleep(max(0, seconds - (time.monotonic_ns() - killed) / 1e9))
        at_return, _ = await ask.counters(cluster)
        rows = [[name, f"{count:,}"] for name, count in ask.grown(at_death, at_return).items()]
        report.table(["counted by the others while it was away", ""], rows)
        await back(report, cluster, history, load, killed, missed, name == "away-exchange")


async def back(report, cluster, history, load, killed, missed, is_exchange):
    """The node returns under load; then all is judged."""
    before, _ = await ask.counters(cluster)
    received = cluster.network.received_bytes(AWAY)
    returned, begun = history.mark("returned"), time.monotonic()
    cluster.start(AWAY)
    await cluster.await_ready([AWAY])
    ready = time.monotonic() - begun
    took = await ask.await_caught_up(cluster, AWAY, begun, 120)
    caught_up = history.mark("caught up")
    received = cluster.network.received_bytes(AWAY) - received
    await asyncio.sleep(2)
    await load.stop()
    stopped = time.monotonic()
    whole, said = await ask.await_whole(cluster, 1, stopped, CONVERGED_WITHIN)
    after, _ = await ask.counters(cluster)
    differing = differing_bytes(history, missed, killed, returned)
    report.table(["returned after", ""], [
        ["away", f"{(returned - killed) / 1e9:.1f} s"],
        ["written meanwhile (keys and values, each key once)", bytes_text(differing)],
        ["answers clients again after", f"{ready:.2f} s"],
        ["counts again everywhere after", f"{took:.2f} s" if took else "never"],
        ["bytes that reached it until then, load included", bytes_text(received)],
        ["errors while it was away", codes_text(history.codes(killed, returned))],
        ["errors from its return until it counted", codes_text(history.codes(returned, caught_up))],
    ])
    rows = [[name, f"{count:,}"] for name, count in ask.grown(before, after).items()]
    report.table(["counted from its return on, all nodes", ""], rows)
    report.expect("it is caught up", took is not None, "not within 120 s: " + await ask.why_not(cluster, AWAY))
    if is_exchange:
        judge_exchange(report, before, after, differing)
    else:
        judge_stream(report, before, after)
    report.expect(f"nothing differs within {CONVERGED_WITHIN:.0f} s of the last write"
                  + (f" (after {whole:.1f} s)" if whole is not None else ""),
                  whole is not None, f"KV.DIVERGENCE says {said}")
    await judge_returned(report, cluster, history, missed)


def differing_bytes(history, missed, killed, returned):
    """Bytes of the keys and values that changed while the node was away, each key once."""
    changed = {key: len(key) + len(value) for key, value in missed.items()}
    for op in history.between(killed, returned):
        if op.kind in ("unique", "over", "incr", "gone", "del") and op.may_have_happened:
            changed[op.key] = len(op.key) + len(str(op.value or ""))
    return sum(changed.values())


def judge_exchange(report, before, after, differing):
    grown = ask.grown(before, after)
    sent = grown.get("exchange_bytes_sent")
    if sent is None:
        report.breach(f"no exchange sent anything, by {sorted(grown)}")
        return
    walk = grown.get("exchange_walk_bytes_sent", 0)
    allowed = 2 * differing + walk
    report.expect(f"exchanges sent {bytes_text(sent)}, {bytes_text(walk)} of them to walk the trees, "
                  f"for {bytes_text(differing)} that differ: {(sent - walk) / differing:.2f} bytes a byte",
                  sent <= allowed,
                  f"{sent:,} bytes are more than twice {differing:,} and the walk of {walk:,}")


def judge_stream(report, before, after):
    grown = ask.grown(before, after)
    resumed = {name: count for name, count in grown.items() if "resum" in name}
    report.expect(f"streams were resumed ({resumed})", bool(resumed), f"only {sorted(grown)} grew")


async def judge_returned(report, cluster, history, written):
    keys = sorted({op.key for op in history.operations if op.kind != "base"})
    await judge_by_all_nodes(report, cluster, history, keys)
    report.judge(f"no read of what never changes was wrong ({len(history.of('base'))} reads)",
                 judge.wrong_reads(history))
    own = await read_all(cluster, AWAY, [*written], own=True)
    wrong = [f"{key}: {own[key]!r} for {value!r}" for key, value in written.items() if own[key] != value]
    report.judge(f"n{AWAY} itself holds all {len(written)} keys that were filled", wrong)
    held = {node: await read_all(cluster, node, keys, own=True) for node in cluster.nodes}
    report.judge(f"replicas hold the same, read one by one ({len(keys)} keys)", judge.disagreements(held))


async def wiped(options, report):
    """The disk is gone: whole again without a command, and nobody reads it as empty before."""
    report.heading("wiped")
    for r, w in ((1, 2), (2, 2)):
        async with Cluster(options, 3, 3, r, w) as cluster:
            report.say(f"### {cluster.title}: n{AWAY}'s folder is removed while it is down\n")
            progress(f"wiped: {cluster.title}")
            history = History()
            base = await fill(cluster, 1, options.keys, name="base")
            load = Load(cluster, history, LOAD, workers=4, rate=options.rate, base=base, size=64).start()
            await asyncio.sleep(2)
            history.mark("killed")
            cluster.kill(AWAY)
            await asyncio.sleep(options.seconds or 5)
            cluster.wipe(AWAY)
            await once_more(report, cluster, history, load, base)


async def old_image(options, report):
    """An old copy of the folder is put back: what came since is restored, what went stays gone."""
    report.heading("old-image")
    for is_clean in (True, False):
        async with Cluster(options, 3, 3, 1, 2) as cluster:
            how = "stopped in order" if is_clean else "killed"
            report.say(f"### {cluster.title}: n{AWAY} is given a copy of its folder from when it was {how}\n")
            progress(f"old-image: {cluster.title}, {how}")
            history = History()
            base = await fill(cluster, 1, options.keys, name="base")
            await fill(cluster, 1, options.keys // 5, name="again")
            load = Load(cluster, history, LOAD, workers=4, rate=options.rate, base=base, size=64).start()
            await asyncio.sleep(4)
            cluster.terminate(AWAY) if is_clean else cluster.kill(AWAY)
            cluster.image(AWAY)
            cluster.start(AWAY)
            await cluster.await_ready([AWAY])
            await cluster.await_settled([AWAY])
            # It writes as coordinator what its old image will not know.
            again = await fill(cluster, AWAY, options.keys // 5, name="again", seed=2)
            await asyncio.sleep(options.seconds or 10)
            cluster.kill(AWAY)
            await asyncio.sleep(2)
            cluster.put_back(AWAY)
            await once_more(report, cluster, history, load, {**base, **again})


async def once_more(report, cluster, history, load, base):
    """Starts the node on what its disk is now, without a command, and judges everything."""
    before, _ = await ask.counters(cluster)
    returned, begun = history.mark("returned"), time.monotonic()
    cluster.start(AWAY)
    await cluster.await_ready([AWAY])
    took = await ask.await_caught_up(cluster, AWAY, begun, 120)
    report.expect("it counts again without a command" + (f" (after {took:.1f} s)" if took else ""),
                  took is not None, "not within 120 s: " + await ask.why_not(cluster, AWAY))
    whole = history.mark("whole")
    await asyncio.sleep(5)
    await load.stop()
    agreed, said = await ask.await_whole(cluster, 1, time.monotonic(), CONVERGED_WITHIN)
    report.expect(f"nothing differs within {CONVERGED_WITHIN:.0f} s of the last write"
                  + (f" (after {agreed:.1f} s)" if agreed is not None else ""),
                  agreed is not None, f"KV.DIVERGENCE says {said}")
    after, _ = await ask.counters(cluster)
    rows = [[name, f"{count:,}"] for name, count in ask.grown(before, after).items()]
    report.table(["counted from its return on, all nodes", ""], rows)
    report.say(f"- errors until it counted: {codes_text(history.codes(returned, whole))}; "
               f"p99 meanwhile {percentile(history.latencies(returned, whole), 99):.1f} ms")
    await judge_returned(report, cluster, history, base)
