"""Real kvorum processes, and everything that may befall them.

Nodes are numbered from 1. Whatever happens, `close` ends every process that was started here, and
removes every file.
"""

import asyncio
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

from . import network, resp

READY_WITHIN = 60.0
SECRET = "a secret of the chaos"


class Breach(Exception):
    """Something happened that Kvorum promises not to happen."""


class Cluster:
    """So many nodes with one contract, and a network of their own."""

    def __init__(self, options, nodes, n, r, w, args=()):
        self.options = options
        self.nodes = range(1, nodes + 1)
        self.contract = n, r, w
        self.args = list(args)
        self.network = network.best(nodes, options.network)
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="kvorum-chaos-", dir=options.folder))
        self.processes = {}
        self.environment = {}
        self.operators = {}
        # Loads end with the cluster, however its story ends.
        self.is_closed = False

    @property
    def title(self):
        n, r, w = self.contract
        return f"{len(self.nodes)} nodes, N={n} R={r} W={w}"

    async def __aenter__(self):
        try:
            await self.network.open()
            for node in self.nodes:
                self.start(node)
            await self.await_ready()
            await self.await_settled()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, kind, *_):
        if kind and not issubclass(kind, (KeyboardInterrupt, asyncio.CancelledError)):
            for node in self.nodes:
                print(f"-- end of node {node}'s log\n{self.log_end(node)}", flush=True)
        await self.close()

    # Processes

    def data_dir(self, node):
        return self.dir / f"n{node}"

    def log(self, node):
        return self.dir / f"n{node}.log"

    def log_end(self, node, lines=12):
        try:
            return "\n".join(self.log(node).read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

    def command(self, node):
        bind, port, peer_port = self.network.bind(node)
        n, r, w = self.contract
        command = [*self.network.prefix(node), self.options.kvorum, "server"]
        command += ["--node-id", str(node), "--bind", bind, "--port", str(port)]
        command += ["--peer-port", str(peer_port), "--members", self.network.members(node)]
        command += ["--secret", SECRET, "--data-dir", str(self.data_dir(node))]
        command += ["--n", str(n), "--r", str(r), "--w", str(w)]
        return command + self.args

    def start(self, node):
        assert node not in self.processes, f"node {node} runs"
        with open(self.log(node), "ab") as log:
            self.processes[node] = subprocess.Popen(
                self.command(node),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment.get(node, {})},
                # Ctrl-C is this script's to answer.
                start_new_session=True,
            )

    def kill(self, node):
        """`kill -9`: the process is gone when this returns."""
        process = self.processes.pop(node)
        process.kill()
        process.wait()
        self.forget(node)

    def terminate(self, node):
        process = self.processes.pop(node)
        process.terminate()
        process.wait(30)
        self.forget(node)

    def freeze(self, node):
        self.processes[node].send_signal(signal.SIGSTOP)

    def thaw(self, node):
        self.processes[node].send_signal(signal.SIGCONT)

    def dead(self):
        """Nodes whose process ended by itself."""
        return [node for node, process in self.processes.items() if process.poll() is not None]

    def processor_seconds(self):
        """Time that all nodes that run have spent on processors so far."""
        ticks = 0
        for process in self.processes.values():
            stat = pathlib.Path(f"/proc/{process.pid}/stat").read_text()
            ticks += sum(int(word) for word in stat.rpartition(")")[2].split()[11:13])
        return ticks / os.sysconf("SC_CLK_TCK")

    # The disk

    def wipe(self, node):
        assert node not in self.processes
        shutil.rmtree(self.data_dir(node))

    def image(self, node):
        """A copy of a node's folder as it is now; the node must not run."""
        assert node not in self.processes
        copy = self.dir / f"image-{node}"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.data_dir(node), copy)

    def put_back(self, node):
        self.wipe(node)
        shutil.copytree(self.dir / f"image-{node}", self.data_dir(node))

    def disk_bytes(self, node):
        files = (path for path in self.data_dir(node).rglob("*") if path.is_file())
        return sum(path.stat().st_size for path in files)

    # The network

    async def split(self, *sides):
        await self.network.cut(network.between(*sides))

    async def heal(self):
        await self.network.cut([])

    # Talking

    def client(self, node, timeout=10.0, setup=()):
        return resp.Client(*self.network.address(node), timeout=timeout, setup=setup)

    def forget(self, node):
        operator = self.operators.pop(node, None)
        if operator:
            operator.close()

    async def ask(self, node, *command, timeout=10.0):
        """An operator's command, on a connection of its own. `None` if there is no answer."""
        if node not in self.operators:
            self.operators[node] = self.client(node, setup=[("HELLO", "3")])
        operator = self.operators[node]
        operator.timeout = timeout
        try:
            return await operator.call(*command)
        except (resp.NotSent, resp.Lost):
            return None

    async def info(self, node):
        text = await self.ask(node, "INFO", "everything")
        if not isinstance(text, str) or isinstance(text, resp.Error):
            return {}
        return resp.parse_info(text)

    async def is_ready(self, node):
        process = self.processes[node]
        if process.poll() is not None:
            raise RuntimeError(f"node {node} exited ({process.returncode}): {self.log_end(node)}")
        text = await self.ask(node, "CLUSTER", "INFO", timeout=3.0)
        return isinstance(text, str) and "cluster_state:ok" in text

    async def is_settled(self, node):
        """Whether a node counts everywhere, as far as it knows itself."""
        info = await self.info(node)
        names = ("loading", "recovering_vnodes", "vnodes_unsettled")
        return bool(info) and all(info.get(name, 0) == 0 for name in names)

    async def await_ready(self, nodes=None, within=READY_WITHIN):
        await self._await_all(self.is_ready, "ready", nodes, within)

    async def await_settled(self, nodes=None, within=READY_WITHIN):
        await self._await_all(self.is_settled, "settled", nodes, within)

    async def _await_all(self, is_so, word, nodes, within):
        start = time.monotonic()
        for node in nodes or list(self.processes):
            while not await is_so(node):
                if time.monotonic() - start > within:
                    raise Breach(f"node {node} is not {word} within {within:.0f} s")
                await asyncio.sleep(0.05)

    # The end

    async def close(self):
        self.is_closed = True
        for client in self.operators.values():
            client.close()
        self.operators = {}
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()
        self.processes = {}
        await self.network.close()
        if not self.options.keep:
            shutil.rmtree(self.dir, ignore_errors=True)
