"""Plays tests/clients/session.json by redis-py: session.py plain|cluster HOST:PORT."""

import json
import pathlib
import sys

import redis

TAGS = ["{a}", "{b}", "{c}", "{d}", "{e}", "{f}", "{g}", "{h}"]


def meaning(value):
    """A reply as numbers' digits, text, None and lists."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return [meaning(part) for pair in value.items() for part in pair]
    if isinstance(value, (list, tuple, set)):
        return [meaning(part) for part in value]
    if value is None or isinstance(value, (bool, str)):
        return value
    return f"{value:g}" if isinstance(value, float) else str(value)


def fits(got, want, tag):
    if isinstance(want, dict):
        if "any" in want:
            return True
        if "set" in want:
            return sorted(got) == sorted(key.replace("{t}", tag) for key in want["set"])
        if "min" in want:
            return want["min"] <= int(got) <= want["max"]
        return False
    if isinstance(want, list):
        return (
            isinstance(got, list)
            and len(got) == len(want)
            and all(fits(one, other, tag) for one, other in zip(got, want))
        )
    if got is True:
        return want in ("OK", "PONG", 1)
    if got is False:
        return want in (0, None)
    if want is None:
        return got is None
    return got == str(want)


def play(client, kind):
    session = json.loads((pathlib.Path(__file__).parent.parent / "session.json").read_text())
    count = 0
    for tag in TAGS:
        # The last command tidies up; it also does so after a run that broke off.
        client.execute_command(*(word.replace("{t}", tag) for word in session[-1]["command"]))
        for row in session:
            if kind == "cluster" and row.get("only") == "plain":
                continue
            command = [word.replace("{t}", tag) for word in row["command"]]
            want = row["reply"]
            try:
                # What the library's own set(…, get=True) would add: SET answers a value then.
                options = {"get": True} if command[0] == "SET" and "GET" in command else {}
                got = meaning(client.execute_command(*command, **options))
            except redis.ResponseError as error:
                got = error
                is_right = isinstance(want, dict) and want.get("error", "\0") in str(error)
            else:
                is_right = fits(got, want, tag)
            if not is_right:
                sys.exit(f"client redis-py {kind}: {command}: {got!r}, expected {want!r}")
            count += 1
    return count


def own_methods(client, kind):
    for i in range(100):
        assert client.set(f"py:{i}", i, ex=1000) is True
    for i in range(100):
        assert client.get(f"py:{i}") == str(i).encode()
        assert 990 <= client.ttl(f"py:{i}") <= 1000
    pipeline = client.pipeline(transaction=False)
    for i in range(100):
        pipeline.incr(f"py:{i}")
    assert pipeline.execute() == [i + 1 for i in range(100)]
    if kind == "cluster":
        assert client.mget_nonatomic("py:1", "py:2", "py:none") == [b"2", b"3", None]
        assert client.mset_nonatomic({"py:a": 1, "py:b": 2}) is not None
    else:
        assert client.mget("py:1", "py:2", "py:none") == [b"2", b"3", None]
        assert client.mset({"py:a": 1, "py:b": 2}) is True
    found = {key for key in client.scan_iter(match="py:*", count=10)}
    assert len(found) == 102, len(found)
    assert client.delete(*found) == 102
    return 512


def main():
    kind, address = sys.argv[1:]
    host, port = address.rsplit(":", 1)
    library = redis.RedisCluster if kind == "cluster" else redis.Redis
    client = library(host=host, port=int(port))
    count = play(client, kind) + own_methods(client, kind)
    client.close()
    print(f"client redis-py {redis.__version__} {kind} ok ({count} commands)")


main()
