"""What Kvorum says about its own healing, with its field names in this one place."""

import asyncio
import time

from . import resp


def is_unknown(reply):
    return isinstance(reply, resp.Error) and "unknown command" in reply.lower()


async def statuses(cluster, node):
    """Member → what `node` believes of it, by `KV.STATUS`. `None` if it does not answer."""
    reply = await cluster.ask(node, "KV.STATUS", timeout=3.0)
    if not isinstance(reply, list):
        return None
    rows = [resp.pairs(row) for row in reply]
    return {member(row["node"]): row for row in rows}


def member(name):
    """A node's number from how replies name it: `n3`, `3` or 3."""
    return int(str(name).lstrip("n"))


async def divergence(cluster, node):
    """`KV.DIVERGENCE` as a dictionary; `None` when it cannot be had right now."""
    reply = await cluster.ask(node, "KV.DIVERGENCE", timeout=15.0)
    if reply is None or isinstance(reply, resp.Error):
        return None
    return resp.pairs(reply)


# What no setting of the cluster here changes.
VNODES = 256


def is_whole(found):
    """Whether every vnode was compared on all its replicas, and nothing differs."""
    return (
        bool(found)
        and found["vnodes-compared"] == VNODES
        and found["vnodes-differing"] == found["keys-differing"] == 0
        and not found["unreachable"]
    )


async def await_whole(cluster, node, begun, within):
    """Waits until `KV.DIVERGENCE` says that nothing differs. Answers the seconds since `begun`
    (a `time.monotonic()`), or `None`; and what was said last."""
    found = None
    while True:
        found = await divergence(cluster, node)
        took = time.monotonic() - begun
        if is_whole(found):
            return took, found
        if took > within:
            return None, found
        await asyncio.sleep(0.1)


async def hints(cluster):
    """How many keys nodes still hold for others, by `KV.STATUS`."""
    total = 0
    for node in list(cluster.processes):
        total += sum(row["hints"] for row in (await statuses(cluster, node) or {}).values())
    return total


async def siblings(cluster, node, key):
    """The values `KV.GET` shows, and its context."""
    reply = await cluster.ask(node, "KV.GET", key)
    if reply is None or isinstance(reply, resp.Error):
        return None, reply
    found = resp.pairs(reply)
    return found["values"], found["context"]


async def counters(cluster, but=None):
    """What all nodes together counted of healing, by name, and (name, node) → count."""
    total, each = {}, {}
    for node in list(cluster.processes):
        if node == but:
            continue
        for name, value in (await cluster.info(node)).items():
            if isinstance(value, int) and any(word in name for word in HEALING_WORDS):
                total[name] = total.get(name, 0) + value
                each[name, node] = value
    return total, each


# What the names of counters of healing contain.
HEALING_WORDS = ("exchange", "stream", "hint", "handoff", "backlog", "resum", "resent")


def grown(before, after):
    """The counters that grew, and by how much."""
    return {
        name: value - before.get(name, 0)
        for name, value in sorted(after.items())
        if value > before.get(name, 0)
    }


def is_routed(row):
    """Whether the node that was asked sends commands there (or is that itself)."""
    return row["state"] == "up" or bool(row["me"])


def is_suspected(row):
    """Whether the node that was asked believes it dead, alone or with others."""
    return row["gossip"] in ("suspect", "confirmed") and not row["me"]


async def is_caught_up(cluster, node):
    """Whether `node` counts again, by its own word and by that of all others that run."""
    if not await cluster.is_settled(node):
        return False
    for other in cluster.processes:
        if other == node:
            continue
        found = await statuses(cluster, other)
        if found is None or not is_routed(found[node]):
            return False
    return True


async def await_caught_up(cluster, node, begun, within):
    """Seconds from `begun` (a `time.monotonic()`) until `node` counts again, or `None`."""
    while not await is_caught_up(cluster, node):
        if time.monotonic() - begun > within:
            return None
        await asyncio.sleep(0.05)
    return time.monotonic() - begun


async def why_not(cluster, node):
    """What there is to know of a node that does not count again, in one line."""
    seen = []
    for other in cluster.processes:
        row = (await statuses(cluster, other) or {}).get(node)
        if row and other != node:
            seen.append(f"n{other}: {row['state']}, {row['gossip']}, lag {row['lag-changes']} changes")
    info, (total, _) = await cluster.info(node), await counters(cluster)
    own = {name: info.get(name) for name in ("loading", "recovering_vnodes", "vnodes_unsettled")}
    kept = {name: total.get(name) for name in ("stream_backlog_bytes", "stream_backlogs_dropped")}
    return f"seen by {'; '.join(seen)}; itself {own}; in all {kept}"
