"""Where the nodes' packets go, and how to stop some of them without a word to anybody.

`Namespaces`: each node has a network namespace of its own on a bridge; a split is a rule in each
node that drops what comes from the other side. Nobody gets a reset, connections stay open and
silent, and what TCP still holds is sent again after healing: like a broken switch. It needs the
right to make namespaces; chaos.sh gives it in a namespace that ends with the script.

`Relays`: without that right, each node dials its peers through a relay in this process, which
stops passing bytes on during a split, and passes them on after it.

`Loopback`: no splits, and nothing in between.
"""

import asyncio
import ipaddress
import os
import pathlib
import random
import socket
import subprocess

CLIENT_PORT = 6379
PEER_PORT = 16379
NET = ipaddress.ip_network("10.77.0.0/24")

RULES = """
table inet chaos {
  set away { type ipv4_addr; }
  chain incoming {
    type filter hook input priority 0;
    ip saddr @away drop
  }
}
"""


def run(*command, text=None):
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")


def free_ports(count):
    """Ports that were free a moment ago, none of them twice."""
    found = []
    while len(found) < count:
        port = random.randrange(11_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


class Namespaces:
    """Made once a cluster; everything is gone with `close`, or with the namespace around it."""

    name = "network namespaces, splits drop packets (nftables)"
    can_split = True

    def __init__(self, nodes):
        self.nodes = nodes
        self.prefix_name = f"kvchaos{os.getpid()}"
        self.made = []

    async def open(self):
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "kvchaos", "type", "bridge")
        self.made.append(("ip", "link", "del", "kvchaos"))
        run("ip", "addr", "add", f"{NET[254]}/24", "dev", "kvchaos")
        run("ip", "link", "set", "kvchaos", "up")
        for node in range(1, self.nodes + 1):
            space, link = self.space(node), self.link(node)
            run("ip", "netns", "add", space)
            self.made.append(("ip", "netns", "del", space))
            run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
            # A namespace goes some time after its last process; its link would stay as long.
            self.made.append(("ip", "link", "del", link))
            run("ip", "link", "set", link, "master", "kvchaos", "up")
            run("ip", "-n", space, "addr", "add", f"{NET[node]}/24", "dev", "eth0")
            run("ip", "-n", space, "link", "set", "eth0", "up")
            run("ip", "-n", space, "link", "set", "lo", "up")
            run(*self.prefix(node), "nft", "-f", "-", text=RULES)

    def space(self, node):
        return f"{self.prefix_name}-{node}"

    def link(self, node):
        return f"kvchaos{node}"

    def prefix(self, node):
        """What a command must begin with to run where `node` lives."""
        return ["nsenter", f"--net=/run/netns/{self.space(node)}", "--"]

    def bind(self, node):
        return str(NET[node]), CLIENT_PORT, PEER_PORT

    def address(self, node):
        """Where clients find a node: they are on the bridge itself, and never cut off."""
        return str(NET[node]), CLIENT_PORT

    def members(self, _):
        every = range(1, self.nodes + 1)
        return ",".join(f"{i}={NET[i]}:{CLIENT_PORT}@{PEER_PORT}" for i in every)

    async def cut(self, pairs):
        """Drops from now on what passes from a to b for each pair (a, b); all else passes."""
        for node in range(1, self.nodes + 1):
            away = ", ".join(str(NET[a]) for a, b in pairs if b == node)
            rule = "flush set inet chaos away\n"
            if away:
                rule += f"add element inet chaos away {{ {away} }}\n"
            run(*self.prefix(node), "nft", "-f", "-", text=rule)

    def received_bytes(self, node):
        """Bytes that reached a node's network card, those a rule then drops included."""
        # /sys may still be that of the namespace outside.
        lines = pathlib.Path("/proc/net/dev").read_text().splitlines()
        line = next(line for line in lines if line.strip().startswith(f"{self.link(node)}:"))
        return int(line.partition(":")[2].split()[8])

    async def close(self):
        for command in reversed(self.made):
            subprocess.run(command, capture_output=True)
        self.made = []


class Loopback:
    """All nodes on 127.0.0.1."""

    name = "loopback, no splits"
    can_split = False

    def __init__(self, nodes):
        self.nodes = nodes
        ports = free_ports(2 * nodes)
        self.ports = list(zip(ports[::2], ports[1::2]))

    async def open(self):
        pass

    def prefix(self, _):
        return []

    def bind(self, node):
        return "127.0.0.1", *self.ports[node - 1]

    def address(self, node):
        return "127.0.0.1", self.ports[node - 1][0]

    def members(self, _):
        return ",".join(
            f"{i}=127.0.0.1:{client}@{peer}" for i, (client, peer) in enumerate(self.ports, 1)
        )

    async def cut(self, pairs):
        if pairs:
            raise RuntimeError("this network cannot be split")

    def received_bytes(self, _):
        return None

    async def close(self):
        pass


class Relays(Loopback):
    """A relay for each ordered pair of nodes: (dials, is dialled)."""

    name = "relays in this process"
    can_split = True

    def __init__(self, nodes):
        super().__init__(nodes)
        pairs = [(a, b) for a in range(1, nodes + 1) for b in range(1, nodes + 1) if a != b]
        self.relays = {pair: Relay() for pair in pairs}
        # Bytes passed on to each node.
        self.received = dict.fromkeys(range(1, nodes + 1), 0)

    async def open(self):
        for (dials, dialled), relay in self.relays.items():
            relay.passes = lambda a, b, count: self.passed(b, count)
            await relay.open(dials, dialled, self.ports[dialled - 1][1])

    def passed(self, node, count):
        self.received[node] += count

    def members(self, node):
        def peer_port(to):
            return self.ports[to - 1][1] if to == node else self.relays[node, to].port

        return ",".join(
            f"{i}=127.0.0.1:{client}@{peer_port(i)}" for i, (client, _) in enumerate(self.ports, 1)
        )

    async def cut(self, pairs):
        pairs = set(pairs)
        for relay in self.relays.values():
            relay.hold(pairs)

    def received_bytes(self, node):
        return self.received[node]

    async def close(self):
        for relay in self.relays.values():
            relay.close()


class Relay:
    """Passes bytes on between one dialling and one dialled node, each way unless it is held."""

    def __init__(self):
        self.port = None
        self.passes = None
        self.server = None
        self.writers = set()
        self.gates = {}

    async def open(self, dials, dialled, to_port):
        self.gates = {(dials, dialled): asyncio.Event(), (dialled, dials): asyncio.Event()}
        for gate in self.gates.values():
            gate.set()

        async def accept(reader, writer):
            self.writers.add(writer)
            try:
                # A connection asked for during a split is as silent as a lost SYN.
                await self.gates[dials, dialled].wait()
                await self.gates[dialled, dials].wait()
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", to_port)
            except (OSError, asyncio.CancelledError):
                writer.transport.abort()
                return
            self.writers.add(far_writer)
            await asyncio.gather(
                self.pump(reader, far_writer, dials, dialled),
                self.pump(far_reader, writer, dialled, dials),
            )
            self.writers -= {writer, far_writer}

        self.server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def pump(self, reader, writer, source, target):
        gate = self.gates[source, target]
        try:
            while data := await reader.read(1 << 16):
                await gate.wait()
                writer.write(data)
                self.passes(source, target, len(data))
                await writer.drain()
            await gate.wait()
        except (OSError, asyncio.CancelledError):
            pass
        # The death of one end is told to the other, once it may be.
        await gate.wait()
        writer.transport.abort()

    def hold(self, pairs):
        for pair, gate in self.gates.items():
            gate.clear() if pair in pairs else gate.set()

    def close(self):
        if self.server:
            self.server.close()
        for writer in self.writers:
            writer.transport.abort()


def between(*sides):
    """The pairs that a split into `sides` cuts, both ways."""
    return [
        (a, b) for one in sides for other in sides if one is not other for a in one for b in other
    ]


def best(nodes, wish=None):
    """The network that this process may make; `wish` names one."""
    kinds = {"namespaces": Namespaces, "relays": Relays, "loopback": Loopback}
    if wish:
        return kinds[wish](nodes)
    return (Namespaces if os.environ.get("KVORUM_CHAOS_NAMESPACES") else Relays)(nodes)
