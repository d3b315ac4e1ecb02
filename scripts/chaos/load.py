"""Clients with a bounded rate that write down what they do, each kind of work for one judge.

| kind | keys | what it does | judged by |
|---|---|---|---|
| unique | one a write | SET once | lost writes, refusals without effect |
| over | few, all clients | SET over and over | writes that vanished unseen |
| incr | few, all clients | INCR | totals |
| gone | one a write | SET, later DEL | what was removed never returns |
| get, set | few, all clients | GET and SET | linearizability, stale reads |
| base | filled before | GET of what never changes | wrong reads |
| side | one per key, one client a side | SET over and over, during splits | siblings |
"""

import asyncio
import random

from . import resp
from .history import OK, REFUSED, UNCERTAIN, Operation, now


async def attempt(client, history, kind, key, value, command, node, worker):
    """Runs one command and writes it down."""
    op = Operation(kind, key, value, start=now(), node=node, worker=worker)
    try:
        if client.writer is None:
            await client.open()
            op.start = now()
        op.reply = await client.call(*command)
        if isinstance(op.reply, resp.Error):
            op.code = op.reply.code
            op.outcome = REFUSED if op.reply.is_refusal else UNCERTAIN
    except resp.NotSent:
        op.outcome, op.code = REFUSED, "unreachable"
    except resp.Lost as why:
        op.outcome, op.code = UNCERTAIN, str(why)
    op.end = now()
    history.add(op)
    return op


class Worker:
    """One connection to one node, one command at a time."""

    def __init__(self, load, number, node, kinds, seed):
        self.load, self.number, self.node = load, number, node
        self.kinds = list(kinds)
        self.weights = [kinds[kind] for kind in self.kinds]
        self.chance = random.Random(seed)
        self.client = load.cluster.client(node, timeout=load.timeout)
        self.count = 0
        # Acknowledged keys that wait to be deleted.
        self.doomed = []

    async def run(self):
        every = 1 / self.load.rate
        loop = asyncio.get_running_loop()
        slot = loop.time() + self.chance.random() * every
        try:
            while self.goes_on():
                wait = slot - loop.time()
                if wait > 0:
                    await asyncio.sleep(wait)
                elif wait < -1:
                    # What was missed is missed: a load that catches up is another load.
                    slot = loop.time()
                slot += every
                if not self.goes_on():
                    break
                kind = self.chance.choices(self.kinds, self.weights)[0]
                op = await getattr(self, kind)()
                if op.code == "unreachable":
                    await asyncio.sleep(0.05)
        finally:
            self.client.close()

    def goes_on(self):
        return not (self.load.is_over or self.load.cluster.is_closed)

    def fresh(self):
        self.count += 1
        return f"{self.number}.{self.count}"

    def padded(self, value):
        return value.ljust(self.load.size, ".")

    async def tell(self, kind, key, value, *command):
        history = self.load.history
        return await attempt(
            self.client, history, kind, key, value, command, self.node, self.number
        )

    async def unique(self):
        name = self.fresh()
        value = self.padded(name)
        key = f"{self.load.name}u:{name}"
        return await self.tell("unique", key, value, "SET", key, value)

    async def over(self):
        key = f"{self.load.name}o:{self.chance.randrange(self.load.keys)}"
        value = self.padded(self.fresh())
        return await self.tell("over", key, value, "SET", key, value)

    async def incr(self):
        key = f"{self.load.name}c:{self.chance.randrange(self.load.keys)}"
        return await self.tell("incr", key, 1, "INCR", key)

    async def gone(self):
        if len(self.doomed) > 4:
            key = self.doomed.pop(0)
            return await self.tell("del", key, None, "DEL", key)
        key = f"{self.load.name}d:{self.fresh()}"
        op = await self.tell("gone", key, key, "SET", key, key)
        if op.outcome == OK:
            self.doomed.append(key)
        return op

    async def set(self):
        key = f"{self.load.name}r:{self.chance.randrange(self.load.registers)}"
        value = self.fresh()
        return await self.tell("set", key, value, "SET", key, value)

    async def get(self):
        key = f"{self.load.name}r:{self.chance.randrange(self.load.registers)}"
        return await self.tell("get", key, None, "GET", key)

    async def side(self):
        key = f"{self.load.name}s:{self.chance.randrange(self.load.keys)}"
        value = self.fresh()
        return await self.tell("side", key, value, "SET", key, value)

    async def base(self):
        key = self.chance.choice(self.load.base_keys)
        return await self.tell("base", key, self.load.base[key], "GET", key)

    async def read(self):
        """GET of a key of `over`: for latencies only."""
        key = f"{self.load.name}o:{self.chance.randrange(self.load.keys)}"
        return await self.tell("read", key, None, "GET", key)


class Load:
    """Workers on some nodes, from `start` to `stop`."""

    def __init__(self, cluster, history, kinds, nodes=None, workers=2, rate=50, keys=50,
                 registers=5, size=32, name="", seed=1, timeout=10.0, base=None):
        self.cluster, self.history = cluster, history
        # Commands a second of each worker.
        self.rate = rate
        self.keys, self.registers, self.size, self.name = keys, registers, size, name
        self.timeout = timeout
        # What was written before and never changes: key → value.
        self.base, self.base_keys = base, list(base or ())
        self.is_over = False
        self.tasks = []
        self.workers = [
            Worker(self, f"{name}{node}-{i}", node, kinds, f"{seed}/{name}/{node}/{i}")
            for node in nodes or cluster.nodes
            for i in range(workers)
        ]

    def start(self):
        self.tasks = [asyncio.create_task(worker.run()) for worker in self.workers]
        return self

    async def stop(self):
        self.is_over = True
        await asyncio.gather(*self.tasks)

    async def __aenter__(self):
        return self.start()

    async def __aexit__(self, kind, *_):
        self.is_over = True
        if kind:
            for task in self.tasks:
                task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=bool(kind))


async def fill(cluster, node, keys, size=64, name="fill", batch=200, seed=1):
    """Writes `keys` keys in pipelines; all must be acknowledged. Answers key → value."""
    chance = random.Random(seed)
    written = {}
    client = cluster.client(node)
    for start in range(0, keys, batch):
        pairs = {
            f"{name}:{i}": f"{chance.getrandbits(64):016x}".ljust(size, "-")
            for i in range(start, min(keys, start + batch))
        }
        left = dict(pairs)
        for _ in range(100):
            replies = await client.pipeline([("SET", k, v) for k, v in left.items()])
            left = {k: v for (k, v), reply in zip(left.items(), replies) if reply != "OK"}
            if not left:
                break
            await asyncio.sleep(0.1)
        else:
            raise RuntimeError(f"cannot write {name}: {next(r for r in replies if r != 'OK')}")
        written.update(pairs)
    client.close()
    return written


async def read_all(cluster, node, keys, own=False, batch=200, within=20.0):
    """What `node` answers for each key; refused reads are asked again for a while. With `own`, what
    the node's own replica holds."""
    setup = [("READONLY",)] if own else []
    client = cluster.client(node, setup=setup)
    found, left = {}, list(keys)
    deadline = now() + within * 1e9
    while left:
        again = []
        for start in range(0, len(left), batch):
            chunk = left[start : start + batch]
            try:
                replies = await client.pipeline([("GET", key) for key in chunk])
            except (resp.NotSent, resp.Lost):
                again += chunk
                await asyncio.sleep(0.1)
                continue
            for key, reply in zip(chunk, replies):
                if isinstance(reply, resp.Error) and reply.is_refusal:
                    again.append(key)
                else:
                    found[key] = reply
        left = again
        if left and now() > deadline:
            found.update(dict.fromkeys(left, resp.Error("REFUSED for too long")))
            break
        if left:
            await asyncio.sleep(0.1)
    client.close()
    return found
