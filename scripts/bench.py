"""Measures Kvorum and redis-server in turns and prints Markdown tables. Run it by scripts/bench.sh.

Two figures stand for every load: requests per second as the load generator saw them, and requests
per second of the servers' own CPU time (user and system, all server processes together), which a
busy machine or a slow load generator disturbs far less. Both are medians over rounds; a round runs
each contestant once, one after the other; ± is half the distance of the best and the worst round.
"""

import argparse
import datetime
import os
import pathlib
import random
import re
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
KEYSPACE = 100_000
CLIENTS = 50
SIZE = 64


def free_ports(count):
    """Ports such that each and the one 10,000 above were free a moment ago."""
    found = []
    while len(found) < count:
        port = random.randrange(11_000, 21_000)
        try:
            for candidate in (port, port + 10_000):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", candidate))
        except OSError:
            continue
        if port not in found:
            found.append(port)
    return found


def ask(port, *command):
    """What redis-cli prints."""
    run = subprocess.run(
        ["redis-cli", "-p", str(port), *command], capture_output=True, text=True, timeout=60
    )
    return run.stdout.strip()


def await_word(port, word, *command, seconds=60):
    for _ in range(seconds * 20):
        if word in ask(port, *command):
            return
        time.sleep(0.05)
    sys.exit(f"bench: the server on port {port} does not say {word!r} to {' '.join(command)}")


class Servers:
    """Processes that form one contestant; `ports[0]` is where clients go."""

    # All that were ever started: whatever happens, none outlives the script.
    live = []

    def __init__(self, name, parent=None):
        Servers.live.append(self)
        self.name = name
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="kvorum-bench-", dir=parent))
        self.processes = []
        self.ports = []

    def spawn(self, command):
        log = open(self.dir / f"{len(self.processes)}.log", "wb")
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.processes.append(process)

    def cpu_seconds(self):
        """User and system time so far: all threads of all processes, and children that ended."""
        ticks = 0
        for process in self.processes:
            stat = pathlib.Path(f"/proc/{process.pid}/stat").read_text()
            fields = stat.rpartition(")")[2].split()
            ticks += sum(int(field) for field in fields[11:15])
        return ticks / TICKS

    def rss_bytes(self):
        pages = 0
        for process in self.processes:
            pages += int(pathlib.Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        return pages * PAGE

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()
        self.processes = []
        shutil.rmtree(self.dir, ignore_errors=True)


def stop_all():
    for servers in Servers.live:
        servers.stop()


def start_redis(replicas=0, name="Redis", appendonly="no"):
    servers = Servers(name)
    servers.ports = free_ports(1 + replicas)
    for port in servers.ports:
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--appendonly", appendonly, "--dir", str(servers.dir)]
        if port != servers.ports[0]:
            command += ["--replicaof", "127.0.0.1", str(servers.ports[0])]
        servers.spawn(command)
    for port in servers.ports:
        await_word(port, "PONG", "PING")
    for port in servers.ports[1:]:
        await_word(port, "master_link_status:up", "INFO", "replication")
    return servers


def start_kvorum(options, nodes, n, r, w):
    servers = Servers("Kvorum")
    servers.ports = free_ports(nodes)
    members = ",".join(
        f"{i}=127.0.0.1:{port}@{port + 10_000}" for i, port in enumerate(servers.ports, 1)
    )
    for i, port in enumerate(servers.ports, 1):
        command = [options.kvorum, "server", "--node-id", str(i), "--port", str(port)]
        command += ["--peer-port", str(port + 10_000), "--members", members]
        command += ["--secret", "a secret of the bench", "--data-dir", str(servers.dir / str(i))]
        command += ["--n", str(n), "--r", str(r), "--w", str(w)]
        servers.spawn(command + shlex.split(options.kvorum_args))
    for port in servers.ports:
        await_word(port, "cluster_state:ok", "CLUSTER", "INFO")
    return servers


def redis_benchmark(servers, test, pipeline, requests, extra=()):
    """Requests per second, as redis-benchmark counts them."""
    command = ["redis-benchmark", "-p", str(servers.ports[0]), "-t", test, "-c", str(CLIENTS)]
    command += ["-P", str(pipeline), "-n", str(requests), "-d", str(SIZE), "-r", str(KEYSPACE)]
    run = subprocess.run([*command, "--csv", *extra], capture_output=True, text=True)
    found = re.search(rf'^"{test.upper()}","([0-9.]+)"', run.stdout, re.MULTILINE)
    if run.returncode or not found:
        sys.exit(f"bench: redis-benchmark failed on {servers.name}: {run.stdout}{run.stderr}")
    return float(found[1])


def wait_load(options, servers, pipeline, requests, extra=()):
    """Requests per second, as benches/wait_load.rs counts them."""
    command = [options.wait_load, "--ports", str(servers.ports[0]), "--clients", str(CLIENTS)]
    command += ["--pipeline", str(pipeline), "--requests", str(requests), "--size", str(SIZE)]
    command += ["--keyspace", str(KEYSPACE), *extra]
    run = subprocess.run(command, capture_output=True, text=True)
    found = re.match(r"([0-9.]+) rps", run.stdout)
    if run.returncode or not found:
        sys.exit(f"bench: wait_load failed on {servers.name}: {run.stdout}{run.stderr}")
    return float(found[1])


class Figures:
    """What the rounds of one load on one contestant gave."""

    def __init__(self):
        self.rps = []
        self.per_cpu = []

    def round(self, servers, requests, load):
        before = servers.cpu_seconds()
        self.rps.append(load())
        # Acknowledged by the first, a write may still be on its way to the last replica.
        time.sleep(0.1)
        self.per_cpu.append(requests / max(servers.cpu_seconds() - before, 1 / TICKS))


def await_idle(servers):
    """Waits until the servers do nothing any more, 30 s at most."""
    before = servers.cpu_seconds()
    for _ in range(60):
        time.sleep(0.5)
        now = servers.cpu_seconds()
        if now - before <= 0.01:
            return
        before = now


def shown(values):
    middle = statistics.median(values)
    spread = (max(values) - min(values)) / 2 / middle
    return f"{middle:,.0f} ±{spread:.0%}"


def ratio(ours, theirs):
    return f"{statistics.median(ours) / statistics.median(theirs):.2f}"


def compare(options, requests, contestants, prepare=lambda servers: None):
    """Runs `contestants` (name → servers and load) in turns, and answers their figures by name.

    `prepare` is done before each round, and is not counted.
    """
    figures = {name: Figures() for name in contestants}
    for _ in range(options.rounds):
        for name, (servers, load) in contestants.items():
            prepare(servers)
            figures[name].round(servers, requests, load)
    return figures


def table(out, heads, rows):
    out.append("| " + " | ".join(heads) + " |")
    out.append("|---" + "|--:" * (len(heads) - 1) + "|")
    out.extend("| " + " | ".join(row) + " |" for row in rows)
    out.append("")


def scaled(options, requests):
    return max(requests // (10 if options.quick else 1), 20_000)


def one_node(options, out):
    out.append(f"## One node\n\n`redis-benchmark`, {CLIENTS} clients, {SIZE}-byte values, ")
    out[-1] += f"{KEYSPACE:,} random keys. Redis persists nothing.\n"
    kvorum, redis = start_kvorum(options, 1, 1, 1, 1), start_redis()
    rows = []
    for servers in (kvorum, redis):
        redis_benchmark(servers, "set", 64, 10 * KEYSPACE)
    for test in ("set", "get"):
        for pipeline, requests in ((1, 200_000), (16, 1_000_000), (64, 2_000_000)):
            requests = scaled(options, requests)
            contestants = {
                servers.name: (
                    servers,
                    lambda s=servers: redis_benchmark(s, test, pipeline, requests),
                )
                for servers in (kvorum, redis)
            }
            figures = compare(options, requests, contestants)
            ours, theirs = figures["Kvorum"], figures["Redis"]
            rows.append([f"{test.upper()} -P {pipeline}"])
            for of in (lambda f: f.rps, lambda f: f.per_cpu):
                rows[-1] += [shown(of(ours)), shown(of(theirs)), ratio(of(ours), of(theirs))]
            progress(rows[-1])
    for servers in (kvorum, redis):
        servers.stop()
    heads = ["load", "Kvorum req/s", "Redis req/s", "ratio"]
    heads += ["Kvorum req/CPU s", "Redis req/CPU s", "ratio"]
    table(out, heads, rows)


def three_nodes(options, out):
    out.append(f"""## Two copies before the answer

Kvorum: three nodes, N=3, W=2. Redis: a primary with two replicas, and `WAIT 1 0` after every batch
where it says so. CPU is that of all three processes. SET, {CLIENTS} clients, {SIZE}-byte values,
{KEYSPACE:,} random keys. `wait_load` is `benches/wait_load.rs`. Ratios are to Redis with `WAIT`.
""")
    kvorum, redis = start_kvorum(options, 3, 3, 1, 2), start_redis(replicas=2)
    rows = []
    for pipeline, requests in ((1, 100_000), (16, 400_000)):
        requests = scaled(options, requests)
        by_wait_load = lambda s, *extra: lambda: wait_load(options, s, pipeline, requests, extra)
        by_benchmark = lambda s, *extra: lambda: redis_benchmark(s, "set", pipeline, requests, extra)
        contestants = {
            "Redis, WAIT 1 (wait_load)": (redis, by_wait_load(redis, "--wait", "1")),
            "Kvorum, one node asked (wait_load)": (kvorum, by_wait_load(kvorum)),
            "Kvorum, owners asked (wait_load --cluster)": (kvorum, by_wait_load(kvorum, "--cluster")),
            "Kvorum, one node asked (redis-benchmark)": (kvorum, by_benchmark(kvorum)),
            "Kvorum, owners asked (redis-benchmark --cluster)": (
                kvorum,
                by_benchmark(kvorum, "--cluster"),
            ),
            "Redis, no WAIT: one copy (redis-benchmark)": (redis, by_benchmark(redis)),
        }
        figures = compare(options, requests, contestants)
        base = figures["Redis, WAIT 1 (wait_load)"]
        for name, figure in figures.items():
            row = [f"-P {pipeline}: {name}"]
            row += [shown(figure.rps), ratio(figure.rps, base.rps)]
            row += [shown(figure.per_cpu), ratio(figure.per_cpu, base.per_cpu)]
            rows.append(row)
            progress(row)
    for servers in (kvorum, redis):
        servers.stop()
    table(out, ["load", "req/s", "ratio", "req/CPU s", "ratio"], rows)


def random_value(chance, _):
    return chance.randbytes(64)


def json_value(chance, i):
    """About a kilobyte of what web applications store."""
    cities = ("Lisbon", "Tallinn", "Porto", "Ghent", "Turku", "Graz", "Split", "Bilbao")
    items = ",".join(
        f'{{"sku":"A-{chance.randrange(10**7):07}","title":"Item number {chance.randrange(1000)}",'
        f'"quantity":{chance.randrange(1, 9)},"price":{chance.randrange(100, 99999) / 100}}}'
        for _ in range(10)
    )
    text = (
        f'{{"id":{i},"name":"Customer {i}","email":"customer{i}@example.org","city":'
        f'"{chance.choice(cities)}","score":{chance.random():.6f},"active":true,"items":[{items}]}}'
    )
    return text.encode().ljust(1024)[:1024]


def fill(servers, keys, value):
    """Writes so many 16-byte keys, a thousand SETs at a time."""
    chance = random.Random(17)
    with socket.create_connection(("127.0.0.1", servers.ports[0])) as link:
        for start in range(0, keys, 1000):
            batch = bytearray()
            count = min(1000, keys - start)
            for i in range(start, start + count):
                data = value(chance, i)
                batch += b"*3\r\n$3\r\nSET\r\n$16\r\nkey:%012d\r\n$%d\r\n" % (i, len(data))
                batch += data + b"\r\n"
            link.sendall(batch)
            left = 5 * count
            while left:
                reply = link.recv(left)
                if not reply or reply.strip(b"+OK\r\n"):
                    sys.exit(f"bench: {servers.name} answered a SET with {reply[:100]!r}")
                left -= len(reply)


def settled_rss(servers):
    """Memory once it has not moved by a hundredth for two seconds."""
    last = servers.rss_bytes()
    for _ in range(30):
        time.sleep(2)
        now = servers.rss_bytes()
        if abs(now - last) < last / 100:
            return now
        last = now
    return last


def memory(options, out):
    keys = scaled(options, 1_000_000)
    out.append(f"## Memory\n\nOne node each, {keys:,} keys of 16 bytes: real memory gained, by key.\n")
    rows = []
    for name, value in (("64 random bytes", random_value), ("1 KiB of JSON", json_value)):
        gained = {}
        for start in (lambda: start_kvorum(options, 1, 1, 1, 1), start_redis):
            servers = start()
            before = settled_rss(servers)
            fill(servers, keys, value)
            gained[servers.name] = (settled_rss(servers) - before) / keys
            servers.stop()
        ours, theirs = gained["Kvorum"], gained["Redis"]
        rows.append([name, f"{ours:.0f}", f"{theirs:.0f}", f"{ours / theirs:.2f}"])
        progress(rows[-1])
    table(out, ["value", "Kvorum bytes/key", "Redis bytes/key", "ratio"], rows)


def progress(row):
    print("  ".join(row), file=sys.stderr, flush=True)


def headline(options, what="Kvorum and Redis on one machine"):
    git = lambda *args: subprocess.run(["git", *args], capture_output=True, text=True).stdout.strip()
    commit = git("rev-parse", "--short", "HEAD") + (", changed" if git("status", "--porcelain") else "")
    cpu = re.search(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    kib = int(re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text())[1])
    version = subprocess.run(["redis-server", "--version"], capture_output=True, text=True).stdout
    version = re.search(r"v=(\S+)", version)[1]
    now = datetime.datetime.now(datetime.timezone.utc)
    return f"""# {what}

| | |
|---|---|
| date | {now:%Y-%m-%d %H:%M} UTC |
| Kvorum | commit {commit}, `{options.kvorum} {options.kvorum_args}` |
| Redis | {version} |
| machine | {cpu[1] if cpu else "unknown CPU"}, {os.cpu_count()} cores, {kib / 2**20:.0f} GiB, Linux {os.uname().release} |
| rounds | {options.rounds}, in turns{", shortened" if options.quick else ""} |
| load average at the start | {os.getloadavg()[0]:.2f} |
"""


def add_options(parser, amounts):
    """What every measurement is told; `--quick` takes a tenth of these amounts."""
    parser.add_argument("--quick", action="store_true", help=f"a tenth of the requests and {amounts}")
    parser.add_argument("--rounds", type=int, help="rounds of each load (default: 5, quick: 3)")
    parser.add_argument("--kvorum", default="target/release/kvorum", help="the binary to measure")
    parser.add_argument("--kvorum-args", default="", help="more arguments for `kvorum server`")
    parser.add_argument("--output", help="a file for the tables as well")


def parse(parser):
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 5)
    return options


def publish(options, out):
    """Prints the report, and writes it where that is asked for."""
    text = "\n".join(out)
    print(text)
    if options.output:
        pathlib.Path(options.output).write_text(text)


def main():
    sections = {"one": one_node, "three": three_nodes, "memory": memory}
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_options(parser, "keys")
    parser.add_argument("--only", default=",".join(sections), help="of one,three,memory")
    parser.add_argument("--wait-load", default="target/release/examples/wait_load")
    options = parse(parser)
    out = [headline(options)]
    for name in options.only.split(","):
        sections[name](options, out)
    publish(options, out)


if __name__ == "__main__":
    try:
        main()
    finally:
        stop_all()
