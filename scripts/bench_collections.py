"""Measures Kvorum's collections beside redis-server's: commands, memory, and changes of large ones.

Run it by scripts/bench_collections.sh. The rules are those of bench.py.
"""

import argparse
import re
import socket
import statistics
import subprocess
import sys
import time

import bench
from bench import Figures, ask, compare, progress, ratio, scaled, shown, table

TESTS = "lpush rpush lpop rpop sadd hset spop zadd zpopmin lrange_100 lrange_300 mset".split()

# What takes elements away, and what put them there.
FILLED_BY = {"lpop": "lpush", "rpop": "rpush", "spop": "sadd", "zpopmin": "zadd"}

# Of so many names hardly two of a filling are the same.
NAMES = 100_000_000


def one_test(servers, test, pipeline, requests, keyspace=bench.KEYSPACE):
    """Requests per second of a test of redis-benchmark, the list that it fills first left out."""
    command = ["redis-benchmark", "-p", str(servers.ports[0]), "-t", test, "-c", str(bench.CLIENTS)]
    command += ["-P", str(pipeline), "-n", str(requests), "-r", str(keyspace), "--csv"]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode or "rror" in run.stdout + run.stderr:
        sys.exit(f"bench: redis-benchmark -t {test} on {servers.name}: {run.stdout}{run.stderr}")
    # The last row: LRANGE's tests fill their list before.
    return float(re.findall(r'^"[^"]+","([0-9.]+)"', run.stdout, re.MULTILINE)[-1])


def commands(options, out, contestants):
    out.append(f"## Commands\n\nOne node each, `redis-benchmark`, {bench.CLIENTS} clients. Kvorum writes its log as ")
    out[-1] += "always (everysec), Redis its AOF (everysec) or, in the last columns, nothing. What takes elements "
    out[-1] += "away finds as many as it takes.\n"
    quiet = bench.start_redis(name="Redis that persists nothing")
    contestants = (*contestants, quiet)
    rows = []
    for test in TESTS:
        requests = scaled(options, 100_000 if test.startswith("lrange") else 400_000)
        loads = {
            servers.name: (servers, lambda s=servers: one_test(s, test, 16, requests))
            for servers in contestants
        }
        for servers in contestants:
            ask(servers.ports[0], "FLUSHALL")

        def fill(servers):
            if test in FILLED_BY:
                ask(servers.ports[0], "FLUSHALL")
                one_test(servers, FILLED_BY[test], 64, requests, NAMES)
                bench.await_idle(servers)

        figures = compare(options, requests, loads, fill)
        ours, theirs, idle = (figures[servers.name] for servers in contestants)
        rows.append([f"{test.upper()} -P 16"])
        for of in (lambda f: f.rps, lambda f: f.per_cpu):
            rows[-1] += [shown(of(ours)), shown(of(theirs)), ratio(of(ours), of(theirs))]
        rows[-1] += [ratio(of(ours), of(idle)) for of in (lambda f: f.rps, lambda f: f.per_cpu)]
        progress(rows[-1])
    quiet.stop()
    heads = ["load", "Kvorum req/s", "Redis req/s", "ratio"]
    heads += ["Kvorum req/CPU s", "Redis req/CPU s", "ratio"]
    table(out, heads + ["to no AOF, req/s", "to no AOF, per CPU s"], rows)
    for at, of in ((6, "beside Redis with its AOF"), (8, "beside Redis without")):
        ratios = [float(row[at]) for row in rows]
        out.append(f"The median row's ratio per CPU second {of}: {statistics.median(ratios):.2f}.\n")


def pipe(port, commands):
    """Sends commands as fast as they go, and waits for all replies."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        file = connection.makefile("rb")
        batch, waiting = [], 0

        def flush():
            connection.sendall(b"".join(batch))
            batch.clear()
            for _ in range(waiting):
                line = file.readline()
                if not line or line.startswith(b"-"):
                    sys.exit(f"bench: {line!r}")

        for words in commands:
            words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
            batch.append(b"*%d\r\n" % len(words))
            batch.extend(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
            waiting += 1
            if waiting == 1_000:
                flush()
                waiting = 0
        flush()


def chunks(count, size):
    return (range(start, min(start + size, count)) for start in range(0, count, size))


def fills(count):
    """What is put into memory: name, elements, commands."""
    each = lambda words: [word for nth in words[1] for word in words[0](nth)]
    field = lambda nth: (f"f:{nth:08}", f"v:{nth:08}")
    rows = [
        ("hash, 1 key", lambda ns: ["HSET", "h", *each((field, ns))]),
        ("set, 1 key", lambda ns: ["SADD", "s", *each((lambda n: [f"m:{n:08}"], ns))]),
        ("sorted set, 1 key", lambda ns: ["ZADD", "z", *each((lambda n: [n * 7919 % count, f"m:{n:08}"], ns))]),
        ("list, 1 key", lambda ns: ["RPUSH", "l", *each((lambda n: [f"v:{n:08}"], ns))]),
    ]
    for name, command in rows:
        yield name, count, lambda command=command: (command(ns) for ns in chunks(count, 100))
    small = count // 10
    hashes = lambda: (
        ["HSET", f"user:{key:08}", *each((lambda n: (f"field{n}", f"value{key:06}{n}"), range(10)))]
        for key in range(small)
    )
    yield f"{small:,} hashes of 10 fields", small * 10, hashes


def memory(options, out, contestants):
    count = scaled(options, 1_000_000)
    rows = []
    for name, elements, commands_of in fills(count):
        each = []
        for servers in contestants:
            ask(servers.ports[0], "FLUSHALL")
            before = bench.settled_rss(servers)
            pipe(servers.ports[0], commands_of())
            each.append((bench.settled_rss(servers) - before) / elements)
        ours, theirs = each
        rows.append([name, f"{elements:,}", f"{ours:.1f}", f"{theirs:.1f}", f"{ours / theirs:.2f}"])
        progress(rows[-1])
    out.append("Bytes of resident memory for each element, of 10 to 12 bytes (and a value of as many).\n")
    table(out, ["what", "elements", "Kvorum", "Redis", "ratio"], rows)


def large(options, out):
    """HSET of one field of a small and of a large hash on three nodes."""
    count = scaled(options, 1_000_000)
    servers = bench.start_kvorum(options, 3, 3, 1, 2)
    try:
        fill = (["HSET", "large", *[w for n in ns for w in (f"f:{n:08}", "v")]] for ns in chunks(count, 100))
        pipe(servers.ports[0], fill)
        pipe(servers.ports[0], [["HSET", "small", *[w for n in range(10) for w in (f"f:{n:08}", "v")]]])
        rows = []
        for key, fields in (("small", 10), ("large", count)):
            times, requests = [], scaled(options, 20_000)
            sent = lambda: sum(
                int(n) for port in servers.ports for n in re.findall(r"bytes_out=(\d+)", ask(port, "INFO", "peers"))
            )
            for _ in range(options.rounds):
                began, bytes_before = time.time(), sent()
                pipe(servers.ports[0], (["HSET", key, f"f:{n * 7 % fields:08}", n] for n in range(requests)))
                times.append((time.time() - began) / requests * 1e6)
                bytes_sent = (sent() - bytes_before) / requests / 2
            rows.append([f"{fields:,} fields", f"{statistics.median(times):.1f}", f"{bytes_sent:.0f}"])
            progress(rows[-1])
        out.append("HSET of one field, three nodes, N=3 W=2, pipelines of 1,000.\n")
        table(out, ["hash of", "µs each", "bytes to each replica"], rows)
    finally:
        servers.stop()


def one_node(part):
    def run(options, out):
        contestants = (bench.start_kvorum(options, 1, 1, 1, 1), bench.start_redis(appendonly="yes"))
        part(options, out, contestants)
        for servers in contestants:
            servers.stop()

    return run


def main():
    sections = {"commands": one_node(commands), "memory": one_node(memory), "large": large}
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="of " + ", ".join(sections) + "; all without")
    bench.add_options(parser, "elements")
    options = bench.parse(parser)
    unknown = set(options.sections) - set(sections)
    if unknown:
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    out = [bench.headline(options, "Collections of Kvorum and of Redis")]
    for name in options.sections or sections:
        sections[name](options, out)
    bench.publish(options, out)


if __name__ == "__main__":
    try:
        main()
    finally:
        bench.stop_all()
