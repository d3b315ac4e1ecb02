"""Splits: both sides of an `eventual` cluster go on and merge; one side of a `quorum` one stops."""

import asyncio
import time

from . import ask, judge
from .cluster import Cluster
from .history import OK, UNCERTAIN, History
from .load import Load, read_all
from .report import codes_text, progress

# Longest time from healing until nothing differs.
CONVERGED_WITHIN = 10.0
# When a side must have found its way, seconds after a split.
DETECTED_WITHIN = 15.0


def side_of(sides, node):
    return next(index for index, side in enumerate(sides) if node in side)


def side_name(side):
    return "{" + ",".join(f"n{node}" for node in side) + "}"


def timeline(report, history, start, end, sides):
    """What each side was told, second by second; equal seconds in a row are one row."""
    by_side = [history.seconds(start, end, side) for side in sides]
    rows = []
    for second, counts in enumerate(zip(*by_side)):
        errors = [codes_text(count) for count in counts]
        if rows and rows[-1][2] == errors and errors == ["none"] * len(sides):
            rows[-1][1] = second
            rows[-1][3].append(counts)
        else:
            rows.append([second, second, errors, [counts]])
    shown = []
    for first, last, errors, counts in rows:
        row = [f"{first}" if first == last else f"{first}–{last}"]
        for index, error in enumerate(errors):
            row += [f"{sum(count[index][''] for count in counts) / len(counts):.0f}", error]
        shown.append(row)
    heads = ["second of the split"]
    for side in sides:
        heads += [f"{side_name(side)} ok/s", "errors"]
    report.table(heads, shown)


def last_error(history, start, end, side, is_error):
    """Seconds from `start` to the end of the last error of a side; 0 without any."""
    ended = [op.end for op in history.between(start, end, side) if is_error(op)]
    return (max(ended) - start) / 1e9 if ended else 0.0


async def resolve(report, cluster, keys, siblings, contexts):
    """Writes one value over what was seen; afterwards nothing else may be visible."""
    breaches, resolved = [], 0
    for key in keys:
        if contexts.get(key) is None:
            continue
        node = 1 + len(key) % len(cluster.nodes)
        reply = await cluster.ask(node, "KV.SET", key, f"resolved {key}", "CONTEXT", contexts[key])
        if reply != "OK":
            breaches.append(f"KV.SET {key} … CONTEXT: {reply!r}")
            continue
        values, _ = await ask.siblings(cluster, 1, key)
        if values != [f"resolved {key}"]:
            breaches.append(f"{key} shows {values!r} after it was resolved (was {siblings[key]!r})")
        resolved += 1
    report.judge(f"{resolved} keys resolved by KV.SET … CONTEXT", breaches)


async def all_siblings(cluster, keys):
    """key → values, and key → context, by `KV.GET`; empty if there is no such command."""
    values, contexts = {}, {}
    for key in keys:
        for _ in range(50):
            found, context = await ask.siblings(cluster, 1, key)
            if found is not None or ask.is_unknown(context):
                break
            await asyncio.sleep(0.1)
        if found is None:
            return {}, {}
        values[key], contexts[key] = found, context
    return values, contexts


async def eventual(options, report):
    report.heading("split-eventual")
    shapes = [(3, 3, 1, 1, ([1], [2, 3])), (5, 3, 1, 2, ([1, 2], [3, 4, 5]))]
    for nodes, n, r, w, sides in shapes:
        await eventual_story(options, report, nodes, (n, r, w), sides)


async def eventual_story(options, report, nodes, contract, sides):
    seconds = options.seconds or 30
    async with Cluster(options, nodes, *contract) as cluster:
        report.say(f"### {cluster.title}: {' | '.join(map(side_name, sides))} for {seconds} s\n")
        progress(f"split-eventual: {cluster.title}")
        history = History()
        kinds = {"unique": 4, "over": 3, "incr": 4, "gone": 2}
        load = Load(cluster, history, kinds, workers=4, rate=options.rate).start()
        await asyncio.sleep(min(5, seconds))
        split = history.mark("split")
        await cluster.split(*sides)
        await asyncio.sleep(min(10, seconds / 2))
        leaders = [side[0] for side in sides]
        side_load = Load(cluster, history, {"side": 1}, leaders, workers=1, rate=20, name="z", keys=20)
        side_load.start()
        await asyncio.sleep(max(0, seconds - (history_now(history) - split) / 1e9 - 1))
        await side_load.stop()
        await asyncio.sleep(max(0, seconds - (history_now(history) - split) / 1e9))
        heal, begun = history.mark("heal"), time.monotonic()
        await cluster.heal()
        await asyncio.sleep(2)
        await load.stop()
        took, said = await ask.await_whole(cluster, 1, begun, CONVERGED_WITHIN)
        timeline(report, history, split, heal, sides)

        def allowed(op):
            # A side without any replica of a key refuses what is not a blind write.
            return op.kind == "del" and op.code == "CLUSTERDOWN" and nodes > contract[0]

        for side in sides:
            name, window = side_name(side), last_error(
                history, split, heal, side, lambda op: op.outcome != OK and not allowed(op)
            )
            late = split + int(min(DETECTED_WITHIN, seconds / 2) * 1e9)
            served = [op for op in history.between(late, heal, side) if op.outcome == OK]
            refused = [op for op in history.between(late, heal, side) if op.outcome != OK and not allowed(op)]
            report.say(f"- {name}: errors ended {window:.1f} s after the split")
            report.expect(f"{name} serves after it: {len(served)} commands", served and not refused,
                          f"{len(served)} served, {len(refused)} not, such as {refused[:2]}")
        errors = history.codes(heal, history_now(history))
        report.say(f"- errors after healing: {codes_text(errors)}")
        report.expect(f"nothing differs within {CONVERGED_WITHIN:.0f} s of healing" +
                      (f" (after {took:.1f} s)" if took is not None else ""),
                      took is not None, f"KV.DIVERGENCE says {said}")
        await drained(report, cluster, begun)
        await judge_eventual(report, cluster, history, split, heal, sides)


def history_now(_):
    return time.monotonic_ns()


async def drained(report, cluster, begun, within=30.0):
    while (left := await ask.hints(cluster)) and time.monotonic() - begun < within:
        await asyncio.sleep(0.2)
    report.expect(f"hints drained (after {time.monotonic() - begun:.1f} s)", left == 0, f"{left} are left")


async def judge_by_all_nodes(report, cluster, history, keys):
    """What every node answers for keys of all kinds must satisfy the judges of each."""
    judges = {
        f"no acknowledged write is lost, no refused one done ({len(history.of('unique'))} SET)": judge.lost_writes,
        f"removed keys stay removed ({len(history.of('del'))} DEL)": judge.removed_keys,
        f"INCR totals are exact ({len(history.of('incr'))} INCR)": judge.counter_totals,
    }
    found = {node: await read_all(cluster, node, keys) for node in cluster.nodes}
    for what, judged in judges.items():
        breaches = [f"by n{node}: {text}" for node in cluster.nodes for text in judged(history, found[node])]
        report.judge(f"{what}, by every node", breaches)


async def judge_eventual(report, cluster, history, split, heal, sides):
    """All judges of an `eventual` run that is over and has healed."""
    keys = sorted({op.key for op in history.operations})
    plain = [key for key in keys if "s:" not in key]
    await judge_by_all_nodes(report, cluster, history, plain)
    if cluster.contract[0] == len(cluster.nodes):
        held = {node: await read_all(cluster, node, plain, own=True) for node in cluster.nodes}
        report.judge(f"replicas hold the same, read one by one ({len(plain)} keys)", judge.disagreements(held))

    def cannot_see(later, earlier):
        is_apart = side_of(sides, later.node) != side_of(sides, earlier.node)
        return is_apart and earlier.start > split and later.end < heal and later.outcome == OK

    over = sorted({op.key for op in history.of("over")})
    visible, _ = await all_siblings(cluster, over)
    if not visible:
        report.breach("KV.GET shows nothing: siblings cannot be judged")
        return
    report.judge(f"no overwritten write vanished unseen ({len(history.of('over'))} SET)",
                 judge.vanished_writes(history, visible, cannot_see=cannot_see))
    side_keys = sorted({op.key for op in history.of("side")})
    shown, contexts = await all_siblings(cluster, side_keys)
    several = sum(len(values) > 1 for values in shown.values())
    report.judge(f"KV.GET shows what both sides wrote ({several} of {len(side_keys)} keys have siblings)",
                 judge.missing_siblings(history, shown))
    await resolve(report, cluster, side_keys, shown, contexts)


async def quorum(options, report):
    report.heading("split-quorum")
    seconds, sides = options.seconds or 30, ([1], [2, 3])
    minority, majority = sides
    async with Cluster(options, 3, 3, 2, 2) as cluster:
        report.say(f"### {cluster.title}: {' | '.join(map(side_name, sides))} for {seconds} s\n")
        progress(f"split-quorum: {cluster.title}")
        history = History()
        kinds = {"get": 5, "set": 5, "unique": 2, "incr": 2}
        load = Load(cluster, history, kinds, workers=4, rate=options.rate, registers=8).start()
        await asyncio.sleep(min(5, seconds))
        split = history.mark("split")
        await cluster.split(*sides)
        await asyncio.sleep(seconds)
        heal, begun = history.mark("heal"), time.monotonic()
        await cluster.heal()
        await asyncio.sleep(5)
        await load.stop()
        took, said = await ask.await_whole(cluster, 1, begun, CONVERGED_WITHIN)
        timeline(report, history, split, heal, sides)
        window = last_error(history, split, heal, majority, lambda op: op.outcome != OK)
        report.say(f"- the majority's errors ended {window:.1f} s after the split")
        late = split + int(min(DETECTED_WITHIN, seconds / 2) * 1e9)
        served = [op for op in history.between(late, heal, majority) if op.outcome == OK]
        failed = [op for op in history.between(late, heal, majority) if op.outcome != OK]
        report.expect(f"the majority serves after it: {len(served)} commands", served and not failed,
                      f"{len(served)} served, {len(failed)} not, such as {failed[:2]}")
        window = last_error(history, split, heal, minority, lambda op: op.code != "NOQUORUM")
        report.say(f"- the minority answers NOQUORUM only from {window:.1f} s after the split")
        inside = [op for op in history.between(split, heal, minority) if op.start > split]
        report.judge("the minority serves nothing", [repr(op) for op in inside if op.outcome == OK])
        report.judge("the minority answers NOQUORUM, and TRYAGAIN or UNCERTAIN only at first", [
            repr(op) for op in inside if op.start > late and op.code != "NOQUORUM"
        ])
        report.expect(f"nothing differs within {CONVERGED_WITHIN:.0f} s of healing" +
                      (f" (after {took:.1f} s)" if took is not None else ""),
                      took is not None, f"KV.DIVERGENCE says {said}")
        await judge_quorum(report, cluster, history)


async def judge_quorum(report, cluster, history):
    """All judges of a `quorum` run that is over and has healed."""
    # What the cluster holds in the end is one more read of each register.
    final = Load(cluster, history, {"get": 1})
    for worker in final.workers[:: max(1, len(final.workers) // len(cluster.nodes))]:
        for key in sorted({op.key for op in history.of("get", "set")}):
            await worker.tell("get", key, None, "GET", key)
        worker.client.close()
    breaches, figures = judge.registers(history)
    what = f"{figures['histories']} register histories are linearizable ({figures['commands']} commands"
    if figures["too long for the search"]:
        what += f"; {figures['too long for the search']} by zones only"
    report.judge(f"{what}); stale reads: {figures['stale']}", breaches)
    keys = sorted({op.key for op in history.of("unique", "incr")})
    await judge_by_all_nodes(report, cluster, history, keys)
    uncertain = sum(op.outcome == UNCERTAIN for op in history.operations)
    report.say(f"- {uncertain} answers in all were uncertain")
