#!/usr/bin/env python3
"""Asks a real redis-server for the replies of a transcript, and writes them into it.

    transcribe.py PORT FILE...              refreshes the replies in place
    transcribe.py PORT --random SEED COUNT [FAMILY]  prints a transcript of random requests

The server is FLUSHALLed. A transcript is a line per request, words split at spaces and escaped
as in Python bytes (`''` is the empty word), followed by a line with two spaces and the escaped
reply. `@resp3` switches the protocol for what follows. `#` begins a comment.
"""
import random
import socket
import sys


class Server:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.file = self.socket.makefile("rb")
        self.ask([b"FLUSHALL"])

    def reply(self):
        line = self.file.readline()
        tag, size = line[:1], line[1:-2]
        if tag in b"$=" and size != b"-1":
            return line + self.file.read(int(size) + 2)
        if tag in b"*~%>" and size != b"-1":
            count = int(size) * (2 if tag == b"%" else 1)
            return line + b"".join(self.reply() for _ in range(count))
        return line

    def ask(self, words):
        request = b"*%d\r\n" % len(words)
        for word in words:
            request += b"$%d\r\n%s\r\n" % (len(word), word)
        self.socket.sendall(request)
        return self.reply()


def escape(data):
    text = "".join(chr(b) if 32 <= b < 127 and b != 92 else
                   {13: "\\r", 10: "\\n", 92: "\\\\"}.get(b, f"\\x{b:02x}") for b in data)
    return text


def unescape(text):
    return text.encode().decode("unicode_escape").encode("latin-1")


def words_of(line):
    return [b"" if word == "''" else unescape(word) for word in line.split()]


def refresh(port, path):
    server = Server(port)
    out = []
    for line in open(path).read().splitlines():
        if line.startswith("  "):
            continue
        out.append(line)
        if line == "@resp3":
            server.ask([b"HELLO", b"3"])
        elif line and not line.startswith("#"):
            out.append("  " + escape(server.ask(words_of(line))))
    open(path, "w").write("\n".join(out) + "\n")


KEYS = ["a", "b", "c"]
TEXTS = ["", "1", "0", "-5", "41", "abc", "abcdefgh", "01", "9223372036854775807", "2.5", "x" * 45, "\\x00\\xff", "1e2",
         "-0.75", " 1", "12345678901234567890"]
INTS = ["0", "1", "-1", "3", "7", "-3", "100", "9223372036854775807", "-9223372036854775808", "9223372036854775", "x", "+1"]
TIMES = ["100", "0", "-1", "9223372036854775807", "9223372036854775", "-9223372036854775808", "q"]
MOMENTS = ["4102444800", "4102444801", "4102444799", "1", "0", "-7", "9223372036854775807", "z"]
MOMENTS_MS = ["4102444800000", "4102444800499", "4102444800500", "1", "0", "-7", "9223372036854775807", "z"]
# Halves and quarters: of other fractions Redis's long doubles show binary noise after some sums.
FLOATS = ["0.25", "2.5", "-0.75", "1e2", "0", "-3", "inf", "nan", "1.2.3", "", "00012.5", ".5", "5."]


def random_request(rng):
    key, other, text = rng.choice(KEYS), rng.choice(KEYS), rng.choice(TEXTS)
    pick = rng.choice

    def timing():
        kind = pick(["EX", "PX", "EXAT", "PXAT"])
        pool = {"EX": TIMES, "PX": ["100000", "0", "-1", "9223372036854775807"], "EXAT": MOMENTS, "PXAT": MOMENTS_MS}
        return [pick([kind, kind.lower()]), pick(pool[kind])]

    def set_options():
        return sum((pick([["NX"], ["XX"], ["GET"], ["KEEPTTL"], timing(), timing(), ["PERSIST"], ["EX"]])
                    for _ in range(pick([0, 0, 1, 1, 1, 2, 2, 3]))), [])

    def getex_options():
        return sum((pick([["PERSIST"], ["PERSIST"], timing(), timing(), timing(), ["KEEPTTL"]])
                    for _ in range(pick([0, 1, 1, 1, 2]))), [])

    def conditions():
        return [pick(["NX", "XX", "GT", "LT", "nx", "gt", "lt", "QQ"]) for _ in range(pick([0, 0, 1, 1, 1, 2]))]

    def copy_options():
        return sum((pick([["REPLACE"], ["DB", "0"], ["DB", "99"], ["DB"], ["FOO"]]) for _ in range(pick([0, 0, 1, 1, 2]))), [])

    def lcs_options():
        return sum((pick([["LEN"], ["IDX"], ["IDX"], ["WITHMATCHLEN"], ["MINMATCHLEN", pick(["2", "-1", "x", "4"])]])
                    for _ in range(pick([0, 1, 1, 2, 3]))), [])

    return pick([
        lambda: ["SET", key, text] + set_options(), lambda: ["SET", key, text] + set_options(),
        lambda: ["SET", key, text] + set_options(), lambda: ["GET", key], lambda: ["GET", key],
        lambda: ["SETNX", key, text], lambda: ["SETEX", key, pick(TIMES), text], lambda: ["GETSET", key, text],
        lambda: ["PSETEX", key, pick(["100000", "0", "x"]), text], lambda: ["GETDEL", key],
        lambda: ["GETEX", key] + getex_options(), lambda: ["MGET", key, other, "a"],
        lambda: ["MSET", key, text, other, pick(TEXTS)], lambda: ["MSETNX", key, text, other, pick(TEXTS)],
        lambda: ["APPEND", key, text], lambda: ["STRLEN", key], lambda: ["GETRANGE", key, pick(INTS), pick(INTS)],
        lambda: ["SUBSTR", key, pick(INTS[:7]), pick(INTS[:7])], lambda: ["SETRANGE", key, pick(INTS), text],
        lambda: ["INCR", key], lambda: ["DECR", key], lambda: ["INCRBY", key, pick(INTS)],
        lambda: ["DECRBY", key, pick(INTS)], lambda: ["INCRBYFLOAT", "f", pick(FLOATS)],
        lambda: ["INCRBYFLOAT", "f", pick(FLOATS)], lambda: ["SET", "f", pick(FLOATS)], lambda: ["GET", "f"],
        lambda: ["LCS", key, other] + lcs_options(), lambda: ["DEL", key, other], lambda: ["UNLINK", key],
        lambda: ["EXISTS", key, other, "a"], lambda: ["TOUCH", key], lambda: ["TYPE", key],
        lambda: ["EXPIRE", key, pick(TIMES[1:])] + conditions(),
        # Never the same seconds twice: whether GT holds would then depend on the milliseconds.
        lambda: ["EXPIRE", key, str(rng.randint(101, 999999))] + conditions(), lambda: ["EXPIREAT", key, pick(MOMENTS)] + conditions(),
        lambda: ["PEXPIREAT", key, pick(MOMENTS_MS)] + conditions(), lambda: ["TTL", key],
        lambda: ["PERSIST", key],
        lambda: ["RENAME", key, other], lambda: ["RENAMENX", key, other], lambda: ["COPY", key, other] + copy_options(),
    ])()


def random_list_request(rng):
    pick = rng.choice
    keys = ["k", "l", "m", "k", "l", "m", "k", "l", "m", "s", "none"]
    texts = ["a", "b", "c", "1", "2", "-0.5", "", "\\xff", "x" * 70]
    key, other, text = pick(keys), pick(keys), pick(texts)
    several = [pick(texts) for _ in range(pick([1, 2, 2, 3, 5]))]
    index, end = lambda: pick(["0", "1", "-1", "2", "-2", "5", "-9", "x"]), lambda: pick(["LEFT", "right", "LEFT", "RIGHT", "UP"])
    count = lambda: pick(["0", "1", "2", "3", "9", "-1", "x"])

    def options(*all_of_them):
        return sum((pick(all_of_them)() for _ in range(pick([0, 0, 1, 1, 2]))), [])

    def sort_options():
        return options(lambda: ["ALPHA"], lambda: ["ALPHA"], lambda: ["DESC"], lambda: ["asc"], lambda: ["LIMIT", index(), count()],
                       lambda: ["GET", "#"], lambda: ["BY", "nosort"], lambda: ["FOO"], lambda: ["LIMIT", "1"])

    def pops():
        names = [pick(keys) for _ in range(pick([1, 1, 2, 3]))]
        number = pick(["0", "x", "9"]) if rng.random() < 0.1 else str(len(names))
        return [number] + names + [end()] + options(lambda: ["COUNT", count()], lambda: ["COUNT", "2"], lambda: ["FOO"])

    return pick([
        lambda: ["LPUSH", key] + several, lambda: ["LPUSH", key] + several, lambda: ["RPUSH", key] + several, lambda: ["rpush", key, text],
        lambda: ["LPUSHX", key] + several, lambda: ["RPUSHX", key] + several, lambda: ["LPOP", key] + pick([[], [], [count()], ["1", "2"]]),
        lambda: ["RPOP", key] + pick([[], [], [count()], ["1", "2"]]), lambda: ["LLEN", key], lambda: ["LRANGE", key, index(), index()],
        lambda: ["LRANGE", key, "0", "-1"], lambda: ["LRANGE", key, "0", "-1"], lambda: ["LINDEX", key, index()],
        lambda: ["LSET", key, index(), text], lambda: ["LINSERT", key, pick(["BEFORE", "after", "AFTER", "AT"]), text, pick(texts)],
        lambda: ["LINSERT", key, pick(["BEFORE", "AFTER"]), text, pick(texts)], lambda: ["LREM", key, pick(["0", "1", "-1", "2", "-2", "x"]), text],
        lambda: ["LTRIM", key, index(), index()], lambda: ["LTRIM", key, "0", "6"],
        lambda: ["LPOS", key, text] + options(lambda: ["RANK", pick(["1", "2", "-1", "-2", "0", "x"])], lambda: ["COUNT", count()],
                                              lambda: ["MAXLEN", count()], lambda: ["COUNT"], lambda: ["FOO", "1"]),
        lambda: ["LMOVE", key, other, end(), end()], lambda: ["LMOVE", key, other, end(), end()], lambda: ["RPOPLPUSH", key, other],
        lambda: ["LMPOP"] + pops(), lambda: ["LMPOP"] + pops(),
        # Never one that would wait: of a key that is there, or with a wrong time.
        lambda: ["BLPOP", key, other, pick(["x", "-1", ""])], lambda: ["BLMPOP", pick(["x", "-1"])] + pops(),
        lambda: ["SORT", key] + sort_options(), lambda: ["SORT", key, "ALPHA"] + sort_options(), lambda: ["SORT_RO", key] + sort_options(),
        lambda: ["SORT", key, "ALPHA", "STORE", other] + sort_options(), lambda: ["SORT", key, "STORE", other] + sort_options(),
        lambda: ["TYPE", key], lambda: pick([["DEL", key], ["SET", "s", "x"], ["EXISTS", key], ["TTL", key], ["EXPIRE", key, "100"]]),
    ])()


FAMILIES = {"strings": random_request, "lists": random_list_request}


def print_random(port, seed, count, family="strings"):
    server, rng = Server(port), random.Random(seed)
    print(f"# {count} random requests of {family}, seed {seed}, answered by redis-server 7.0.15.")
    for _ in range(count):
        line = " ".join("''" if word == "" else word.replace(" ", "\\x20") for word in FAMILIES[family](rng))
        reply = server.ask(words_of(line))
        if line.startswith("TTL") and int(reply[1:]) > 1_000_000:
            continue  # Up to an absolute moment: it depends on the day.
        print(line)
        print("  " + escape(reply))


if __name__ == "__main__":
    if sys.argv[2] == "--random":
        print_random(int(sys.argv[1]), int(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:])
    else:
        for path in sys.argv[2:]:
            refresh(int(sys.argv[1]), path)
