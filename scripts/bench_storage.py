"""Measures Kvorum's storage engine beside redis-server's and prints Markdown tables.

Run it by scripts/bench_storage.sh. The rules are those of bench.py: contestants run in turns, a
figure is the median of its rounds, CPU is that of the server's processes, and the report says on
which machine and from which commit it came. Whatever a load reads is checked; a wrong answer ends
the run.
"""

import argparse
import os
import pathlib
import re
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time

import bench
from bench import Figures, Servers, await_word, compare, progress, ratio, scaled, shown, table

MIB = 1 << 20


def start_kvorum(options, words=""):
    servers = Servers("Kvorum", options.dir)
    servers.ports = bench.free_ports(1)
    launch_kvorum(options, servers, words)
    await_word(servers.ports[0], "cluster_state:ok", "CLUSTER", "INFO", seconds=600)
    return servers


def launch_kvorum(options, servers, words=""):
    port = servers.ports[0]
    command = [options.kvorum, "server", "--port", str(port), "--peer-port", str(port + 10_000)]
    command += ["--data-dir", str(servers.dir / "data"), *shlex.split(options.kvorum_args)]
    servers.spawn(command + shlex.split(words))


def start_redis(options, words, name="Redis"):
    servers = Servers(name, options.dir)
    servers.ports = bench.free_ports(1)
    launch_redis(servers, words)
    await_word(servers.ports[0], "PONG", "PING", seconds=600)
    return servers


def launch_redis(servers, words):
    command = ["redis-server", "--port", str(servers.ports[0]), "--bind", "127.0.0.1"]
    servers.spawn([*command, "--save", "", "--dir", str(servers.dir), *shlex.split(words)])


def end(servers, by=signal.SIGTERM):
    """Ends the processes, and keeps the folder."""
    for process in servers.processes:
        process.send_signal(by)
        process.wait()
    servers.processes = []


def info(servers, section, field):
    found = re.search(rf"^{field}:(\S+)", bench.ask(servers.ports[0], "INFO", section), re.MULTILINE)
    if not found:
        sys.exit(f"bench: {servers.name} has no {field} in INFO {section}")
    return found[1]


def load(options, servers, *words):
    """What storage_load printed, by name."""
    what, *rest = (str(word) for word in words)
    command = [options.storage_load, what, "--port", str(servers.ports[0]), *rest]
    run = subprocess.run(command, capture_output=True, text=True)
    words = run.stdout.split()
    if run.returncode:
        sys.exit(f"bench: storage_load {what} on {servers.name}: {run.stdout}{run.stderr}")
    return {name: float(number) for name, number in zip(words[::2], words[1::2])}


def disk_bytes(folder):
    """What du says: blocks, so what is set aside ahead counts, too."""
    total = 0
    for top, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(top, name)).st_blocks * 512
            except FileNotFoundError:
                pass
    return total


def forget_pages(folder):
    """Asks the kernel to forget what it holds of the files in memory."""
    os.sync()
    for top, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(top, name), "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Watch:
    """Samples a figure in the background until the block ends."""

    def __init__(self, sample, every=0.2):
        self.sample, self.every = sample, every
        self.seen = []
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        while not self.is_over.wait(self.every):
            self.seen.append(self.sample())

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        self.thread.join()


def writes(options, out):
    out.append(f"""## Writes

One node each, SET, `redis-benchmark`, {bench.CLIENTS} clients, {bench.SIZE}-byte values,
{bench.KEYSPACE:,} random keys, data on {options.dir or "the temporary folder"}. CPU includes the
children in which Redis rewrites its file, and Kvorum's compaction. "no rewrite" is Redis with
`auto-aof-rewrite-percentage 0`, which lets its file grow for ever.
""")
    rows = []
    for fsync in ("everysec", "always"):
        aof = f"--appendonly yes --appendfsync {fsync}"
        kvorum = start_kvorum(options, f"--appendfsync {fsync}")
        redis = start_redis(options, aof)
        plain = start_redis(options, f"{aof} --auto-aof-rewrite-percentage 0", "no rewrite")
        contestants = (kvorum, redis, plain)
        for servers in contestants:
            bench.redis_benchmark(servers, "set", 64, 3 * bench.KEYSPACE)
        requests_by = {"everysec": (200_000, 1_000_000), "always": (100_000, 400_000)}[fsync]
        for pipeline, requests in zip((1, 16), requests_by):
            requests = scaled(options, requests)
            load_of = lambda s: lambda: bench.redis_benchmark(s, "set", pipeline, requests)
            figures = compare(
                options, requests, {servers.name: (servers, load_of(servers)) for servers in contestants}
            )
            ours, theirs, plainly = (figures[servers.name] for servers in contestants)
            rows.append([f"{fsync}, -P {pipeline}"])
            for of in (lambda f: f.rps, lambda f: f.per_cpu):
                rows[-1] += [shown(of(ours)), shown(of(theirs)), ratio(of(ours), of(theirs))]
                rows[-1] += [ratio(of(ours), of(plainly))]
            progress(rows[-1])
        for servers in contestants:
            servers.stop()
    heads = ["load", "Kvorum req/s", "Redis req/s", "ratio", "to no rewrite"]
    heads += ["Kvorum req/CPU s", "Redis req/CPU s", "ratio", "to no rewrite"]
    table(out, heads, rows)


def ms(figures, name):
    return f"{figures[name]:.2f}"


def tiers(options, out):
    keys = 200_000 if options.quick else 2_000_000
    memory = keys * 1024 // 10
    out.append(f"""## Ten times more data than memory

One node, {keys:,} keys of 12 bytes, values of 1 KiB, `maxmemory` {memory / MIB:.0f} MiB: a tenth
of the values. `storage_load` (`benches/storage_load.rs`) checks every answer. "all in memory" is
the same node without `maxmemory`. Times are of one request (`-P 1`, 8 clients).
""")
    for texture in ("noise", "half"):
        tier(options, out, texture, keys, memory)


def tier(options, out, texture, keys, memory):
    name = {"noise": "Values that nothing compresses", "half": "Values that compress by half"}[texture]
    out.append(f"### {name}\n")
    of = ["--keys", keys, "--size", 1024, "--texture", texture]
    small = start_kvorum(options, f"--maxmemory {memory}")
    small.name = "maxmemory"
    large = start_kvorum(options)
    large.name = "all in memory"
    empty = small.rss_bytes()
    with Watch(small.rss_bytes) as watch:
        for servers in (small, large):
            load(options, servers, "fill", *of, "--clients", 4, "--pipeline", 32)
        requests = scaled(options, 1_000_000)
        rows = []
        # Of the popular ranks, few enough that they fit into what the cold keys' stubs leave.
        popular = max(keys // 500, 100)
        spreads = (
            ("GET of popular keys (hits)", ["--ranks", popular, "--spread", "uniform"]),
            ("GET, Zipf 0.99 over all keys", ["--spread", "zipf"]),
        )
        for title, spread in spreads:
            for pipeline, share in ((1, 4), (16, 1)):
                count = max(requests // share, 20_000)
                words = [*of, *spread, "--requests", count, "--pipeline", pipeline, "--clients", 50]
                for servers in (small, large):
                    load(options, servers, "read", *words)
                load_of = lambda s: lambda: load(options, s, "read", *words)["rps"]
                figures = compare(
                    options, count, {s.name: (s, load_of(s)) for s in (small, large)}
                )
                ours, theirs = figures["maxmemory"], figures["all in memory"]
                rows.append([f"{title}, -P {pipeline}"])
                for figure in (lambda f: f.rps, lambda f: f.per_cpu):
                    rows[-1] += [shown(figure(ours)), shown(figure(theirs))]
                    rows[-1] += [ratio(figure(ours), figure(theirs))]
                progress(rows[-1])
        heads = ["load", "maxmemory req/s", "all in memory req/s", "ratio"]
        heads += ["maxmemory req/CPU s", "all in memory req/CPU s", "ratio"]
        table(out, heads, rows)
        latency_of_cold(options, out, small, of, keys)
        load(options, small, "read", *of, "--spread", "sweep", "--pipeline", 16)
    used = int(info(small, "memory", "used_memory"))
    settled = bench.settled_rss(small)
    top = max(watch.seen)
    fits = redis_fits(options, keys, memory, texture)
    out.append(f"""Every one of the {keys:,} keys was read and had its value.

| | |
|---|--:|
| `maxmemory` | {memory / MIB:.1f} MiB |
| `used_memory` | {used / MIB:.1f} MiB |
| real memory before the first key | {empty / MIB:.1f} MiB |
| real memory, highest of {len(watch.seen)} samples | {top / MIB:.1f} MiB: {top / memory:.2f} of `maxmemory` |
| real memory at the end | {settled / MIB:.1f} MiB: {settled / memory:.2f} of `maxmemory` |
| the same node all in memory | {large.rss_bytes() / MIB:.0f} MiB |
| keys that Redis holds with this `maxmemory` before it says OOM | {fits:,} of {keys:,} |
""")
    progress([f"{texture}: RSS {top / memory:.2f} of maxmemory, Redis holds {fits:,} of {keys:,}"])
    for servers in (small, large):
        servers.stop()


def latency_of_cold(options, out, servers, of, keys):
    """Reads, each once, keys that nobody has read since they were written."""
    rows = []
    count = scaled(options, 200_000) // 4
    first = keys // 4
    for title, forgets in (
        ("files in the system's memory", False),
        ("files forgotten by the system", True),
    ):
        if forgets:
            forget_pages(servers.dir)
        words = ["--spread", "sweep", "--first", first, "--ranks", count, "--clients", 8, "--pipeline", 1]
        first += count
        figures = load(options, servers, "read", *of, *words)
        rows.append([f"cold, {title}", f"{figures['rps']:,.0f}"])
        rows[-1] += [ms(figures, name) for name in ("p50", "p99", "p999", "max")]
    words = ["--spread", "uniform", "--ranks", 100, "--requests", count, "--clients", 8]
    figures = load(options, servers, "read", *of, *words, "--pipeline", 1)
    rows.append(["hot", f"{figures['rps']:,.0f}"])
    rows[-1] += [ms(figures, name) for name in ("p50", "p99", "p999", "max")]
    for row in rows:
        progress(row)
    table(out, ["reads", "req/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms"], rows)


def redis_fits(options, keys, memory, texture):
    redis = start_redis(options, f"--appendonly no --maxmemory {memory}")
    command = [options.storage_load, "fill", "--port", str(redis.ports[0]), "--keys", str(keys)]
    run = subprocess.run([*command, "--texture", texture], capture_output=True, text=True)
    if "OOM" not in run.stderr and run.returncode:
        sys.exit(f"bench: Redis does not say OOM: {run.stdout}{run.stderr}")
    count = int(bench.ask(redis.ports[0], "DBSIZE"))
    redis.stop()
    return count


def await_value(port, key, seconds=900):
    """Asks for a key until its value comes; the answer to a connection that cannot be made yet,
    or to one that is told to wait, is to ask again."""
    request = b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(key), key)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as link:
                while True:
                    link.sendall(request)
                    reply = link.recv(1 << 16)
                    if reply.startswith(b"$") and not reply.startswith(b"$-1"):
                        return
                    if reply.startswith(b"$-1") or not reply.startswith(b"-"):
                        sys.exit(f"bench: {key} is {reply!r} on port {port}")
                    time.sleep(0.002)
        except OSError:
            time.sleep(0.002)
    sys.exit(f"bench: the server on port {port} does not come back")


def restart(options, out):
    keys = 500_000 if options.quick else 5_000_000
    out.append(f"""## Restart

{keys:,} keys of 12 bytes, values of 64 random bytes, written once; the time from starting the
program until the key that was written last is answered. The files are in the system's memory.
"AOF as written" is Redis's file of {keys:,} SETs; "AOF rewritten" is the same after `BGREWRITEAOF`,
which makes it an RDB file.
""")
    of = ["--keys", keys, "--size", 64]
    aof = "--appendonly yes --appendfsync everysec --auto-aof-rewrite-percentage 0"
    small = f"--maxmemory {keys * 96}"
    contestants = {
        "Kvorum, ended in order": (start_kvorum(options), "", signal.SIGTERM),
        "Kvorum, killed": (start_kvorum(options), "", signal.SIGKILL),
        "Kvorum, maxmemory 96 bytes a key": (start_kvorum(options, small), small, signal.SIGTERM),
        "Redis, AOF as written": (start_redis(options, aof), aof, signal.SIGTERM),
        "Redis, AOF rewritten": (start_redis(options, aof), aof, signal.SIGTERM),
    }
    last = b"k:%010d" % (keys - 1)
    sizes = {}
    for name, (servers, words, by) in contestants.items():
        load(options, servers, "fill", *of, "--clients", 4, "--pipeline", 64)
        if "rewritten" in name:
            bench.ask(servers.ports[0], "BGREWRITEAOF")
            await_word(servers.ports[0], "aof_rewrites:1", "INFO", "persistence", seconds=600)
            await_word(servers.ports[0], "aof_rewrite_in_progress:0", "INFO", "persistence", seconds=600)
        end(servers, by)
        sizes[name] = disk_bytes(servers.dir)
    took = {name: [] for name in contestants}
    cpu = {name: [] for name in contestants}
    for _ in range(options.rounds):
        for name, (servers, words, by) in contestants.items():
            start = time.monotonic()
            if name.startswith("Redis"):
                launch_redis(servers, words)
            else:
                launch_kvorum(options, servers, words)
            await_value(servers.ports[0], last)
            took[name].append(time.monotonic() - start)
            cpu[name].append(servers.cpu_seconds())
            if (count := int(bench.ask(servers.ports[0], "DBSIZE"))) != keys:
                sys.exit(f"bench: {name} has {count:,} of {keys:,} keys after a restart")
            end(servers, by)
    base = took["Redis, AOF as written"]
    rewritten = took["Redis, AOF rewritten"]
    rows = []
    for name in contestants:
        middle = statistics.median(took[name])
        spread = (max(took[name]) - min(took[name])) / 2
        row = [name, f"{middle:.2f} ±{spread:.2f}", ratio(took[name], base)]
        row += [ratio(took[name], rewritten), f"{statistics.median(cpu[name]):.2f}"]
        rows.append([*row, f"{sizes[name] / MIB:,.0f}"])
        progress(rows[-1])
    heads = ["", "seconds", "to AOF as written", "to AOF rewritten", "CPU seconds", "MiB on disk"]
    table(out, heads, rows)
    for servers, _, _ in contestants.values():
        servers.stop()


def compaction(options, out):
    keys = 200_000 if options.quick else 1_000_000
    seconds = options.seconds or (30 if options.quick else 120)
    rate = options.rate
    rounds = min(options.rounds, 3)
    out.append(f"""## Compaction under overwrites

One node, {keys:,} keys with values of 512 random bytes, overwritten at random at {rate:,} writes a
second (50 clients, `-P 1`; a write that is late because the one before it was slow counts its
lateness). "Disk" is what `du` says of the data folder, with what is set aside ahead; "live" is
`log_live_bytes`. Every round begins with a fresh node. "Before" is the time in which its log is
still too short to be compacted; then the load goes on until the log has grown to where compaction
holds it, and then "at work" is measured for {seconds} s. {rounds} rounds; the lines are rounds, the
last one is the median of their ratios.
""")
    rows, ratios = [], []
    for number in range(1, rounds + 1):
        servers = start_kvorum(options)
        of = ["--keys", keys, "--size", 512]
        load(options, servers, "fill", *of, "--clients", 4, "--pipeline", 32)
        # From one to 1.8 times the live bytes.
        idle = 0.8 * keys / rate
        steady = [*of, "--rate", rate, "--clients", 50, "--pipeline", 1]
        sample = lambda: (disk_bytes(servers.dir), int(info(servers, "persistence", "log_live_bytes")))
        figures, busy, seen = {}, {}, {}
        for phase, length in (("before", idle), ("growing", 0.6 * keys / rate), ("at work", seconds)):
            start = servers.cpu_seconds()
            with Watch(sample, every=1) as watch:
                figures[phase] = load(options, servers, "write", *steady, "--seconds", length)
            busy[phase] = (servers.cpu_seconds() - start) / length
            seen[phase] = watch.seen
        for phase in ("before", "at work"):
            disks = [disk / live for disk, live in seen[phase]]
            row = [f"round {number}, {phase}", f"{figures[phase]['rps']:,.0f}"]
            row += [ms(figures[phase], name) for name in ("p50", "p99", "p999", "max")]
            row += [f"{busy[phase]:.2f}", f"{seen[phase][-1][1] / MIB:,.0f}"]
            row += [f"{max(disk for disk, _ in seen[phase]) / MIB:,.0f}"]
            row += [f"{max(disks):.2f}", f"{statistics.mean(disks):.2f}"]
            rows.append(row)
            progress(row)
        ratios.append([figures["at work"][name] / figures["before"][name] for name in ("p50", "p99", "p999")])
        if options.output:
            plot = pathlib.Path(options.output).with_suffix(f".compaction-{number}.tsv")
            every = seen["before"] + seen["growing"] + seen["at work"]
            plot.write_text("".join(f"{disk}\t{live}\n" for disk, live in every))
        servers.stop()
    middle = [f"{statistics.median(ratio):.2f}" for ratio in zip(*ratios)]
    rows.append(["at work / before, median", "", *middle, "", "", "", "", "", ""])
    progress(rows[-1])
    heads = ["", "writes/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "CPUs busy", "live MiB"]
    table(out, [*heads, "highest disk MiB", "highest disk/live", "mean disk/live"], rows)


def main():
    sections = {"writes": writes, "tiers": tiers, "restart": restart, "compaction": compaction}
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sections", nargs="*", default=list(sections), metavar="SECTION",
                        help=f"of {', '.join(sections)}; all without")
    bench.add_options(parser, "keys")
    parser.add_argument("--dir", help="where the data goes (default: the temporary folder)")
    parser.add_argument("--storage-load", default="target/release/examples/storage_load")
    parser.add_argument("--rate", type=int, default=20_000, help="compaction: writes per second")
    parser.add_argument("--seconds", type=int, help="compaction: how long (default: 120, quick: 30)")
    options = bench.parse(parser)
    for name in options.sections:
        if name not in sections:
            parser.error(f"no section {name!r}; there are {', '.join(sections)}")
    out = [bench.headline(options, "Kvorum's storage engine beside Redis's")]
    for name in options.sections:
        sections[name](options, out)
    bench.publish(options, out)


try:
    main()
finally:
    bench.stop_all()
