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
            return line + b"".join([self.reply() for _ in range(count)])
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


BITMAPS = TEXTS + ["\\x00" * 20 + "\\x01", "\\xff" * 17, "\\xff" * 9 + "\\xfe\\x00", "a" * 300]
OFFSETS = ["0", "1", "7", "8", "9", "15", "23", "64", "100", "333", "-1", "x", "4294967296", "01"]
FIELD_OFFSETS = OFFSETS + ["#0", "#1", "#2", "#9", "#-1", "#", "#x"]
WIDTHS = ["u1", "i1", "u2", "i3", "u8", "i8", "u13", "i16", "u32", "i33", "u63", "i63", "i64", "u64", "i65", "u0", "8", "U8"]


def random_bits_request(rng):
    pick = rng.choice
    keys = ["a", "b", "c", "d"]
    key = pick(keys)

    # Redis 7.0 looks at the range only when the key is there, 7.2 always: so no bad ones here.
    def places():
        wide = rng.random() < 0.2
        return [str(rng.choice([-1, 1]) * rng.randint(0, 2 ** 62 if wide else 200)) for _ in range(2)]

    def unit():
        return pick([[], [], ["BYTE"], ["BIT"], ["bit"]])

    def width():
        return pick(WIDTHS if rng.random() < 0.1 else WIDTHS[:13])

    # No smaller ones: Redis's own check overflows, and OVERFLOW SAT sets the greatest number for them.
    def number():
        return pick([str(rng.randint(-300, 300)), str(rng.randint(-2 ** 62, 2 ** 63 - 1)), pick(INTS[:8] + INTS[9:])])

    def place():
        return pick(FIELD_OFFSETS if rng.random() < 0.1 else OFFSETS[:10] + FIELD_OFFSETS[14:18])

    def fields(kinds):
        return sum((pick([["GET", width(), place()], ["SET", width(), place(), number()],
                          ["INCRBY", width(), place(), number()],
                          ["OVERFLOW", pick(["WRAP", "SAT", "FAIL", "sat", "FAIL", "SAT", "QQ"])]][:kinds])
                    for _ in range(pick([1, 1, 2, 3, 5]))), [])

    return pick([
        lambda: ["SET", key, pick(BITMAPS)], lambda: ["GET", key], lambda: ["STRLEN", key], lambda: ["DEL", key],
        lambda: ["SETBIT", key, pick(OFFSETS), pick(["0", "1", "1", "2"])], lambda: ["GETBIT", key, pick(OFFSETS)],
        lambda: ["SETBIT", key, str(rng.randint(0, 400)), pick(["0", "1"])], lambda: ["GETBIT", key, str(rng.randint(0, 400))],
        lambda: ["BITCOUNT", key], lambda: ["BITCOUNT", key] + places() + unit(), lambda: ["BITCOUNT", key] + places() + unit(),
        lambda: ["BITPOS", key, pick(["0", "1"])], lambda: ["BITPOS", key, pick(["0", "1"]), places()[0]],
        lambda: ["BITPOS", key, pick(["0", "1"])] + places() + unit(), lambda: ["BITPOS", key, pick(["0", "1"])] + places() + unit(),
        lambda: ["BITOP", pick(["AND", "OR", "XOR", "xor"]), pick(keys)] + [pick(keys) for _ in range(rng.randint(1, 3))],
        lambda: ["BITOP", "NOT", pick(keys), pick(keys)],
        lambda: ["BITFIELD", key] + fields(4), lambda: ["BITFIELD", key] + fields(4), lambda: ["BITFIELD", key] + fields(4),
        lambda: ["BITFIELD_RO", key] + fields(pick([1, 1, 4])), lambda: ["APPEND", key, pick(BITMAPS)], lambda: ["INCR", key],
    ])()


def random_hash_request(rng):
    pick = rng.choice
    key, fields = pick(["h", "h", "h", "g", "g", "s"]), ["a", "b", "c", "", "\\x00\\xff"]
    field, text = pick(fields), pick(TEXTS)
    several = [pick(fields) for _ in range(pick([1, 2, 2, 3, 5]))]

    def pairs():
        return sum(([name, pick(TEXTS)] for name in several), pick([[], [], [], [], [], ["odd"]]))

    def scan_options():
        return sum((pick([["COUNT", pick(["100", "100", "0", "x", "-1"])], ["MATCH", pick(["*", "a*", "[ab]"])], ["FOO"], ["COUNT"]])
                    for _ in range(pick([0, 0, 1, 1, 2]))), ["COUNT", "100"])

    return pick([
        lambda: ["HSET", key] + pairs(), lambda: ["HSET", key] + pairs(), lambda: ["hSeT", key, field, text],
        lambda: ["HSET", key, field, text], lambda: ["HMSET", key] + pairs(), lambda: ["HSETNX", key, field, text],
        lambda: ["HGET", key, field], lambda: ["HGET", key, field], lambda: ["HMGET", key] + several,
        lambda: ["HGETALL", key], lambda: ["HGETALL", key], lambda: ["HDEL", key] + several, lambda: ["HDEL", key, field],
        lambda: ["HEXISTS", key, field], lambda: ["HKEYS", key], lambda: ["HVALS", key], lambda: ["HLEN", key],
        lambda: ["HSTRLEN", key, field], lambda: ["HINCRBY", key, field, pick(INTS)],
        lambda: ["HINCRBY", key, field, pick(INTS)], lambda: ["HINCRBYFLOAT", key, "f", pick(FLOATS)],
        # A field of its own: of great numbers Redis's long doubles keep no fraction.
        lambda: ["HINCRBYFLOAT", key, "f", pick(FLOATS)], lambda: ["HSET", key, "f", pick(FLOATS + ["abc"])], lambda: ["HRANDFIELD", key, pick(["100", "0", "x", "9223372036854775807"])],
        lambda: ["HRANDFIELD", "none"] + pick([[], ["5"], ["-5"], ["5", "WITHVALUES"], ["5", "FOO"]]),
        lambda: ["HSCAN", key, pick(["0", "0", "0", "x"])] + scan_options(), lambda: ["TYPE", key],
        lambda: pick([["DEL", key], ["SET", "s", "x"], ["EXISTS", key], ["TTL", key], ["EXPIRE", key, "100"]]),
    ])()


def random_set_request(rng):
    pick = rng.choice
    keys, members = ["p", "q", "r", "p", "q", "r", "p", "q", "r", "s", "none"], ["a", "b", "c", "1", "2", "", "\\x00\\xff", "x" * 70]
    key, other, member = pick(keys), pick(keys), pick(members)
    several = [pick(members) for _ in range(pick([1, 2, 2, 3, 5]))]
    sources = [pick(keys) for _ in range(pick([1, 2, 2, 3, 4]))]

    def scan_options():
        return sum((pick([["COUNT", pick(["100", "100", "0", "x", "-1"])], ["MATCH", pick(["*", "a*", "[ab]"])], ["FOO"], ["COUNT"]])
                    for _ in range(pick([0, 0, 1, 1, 2]))), ["COUNT", "100"])

    def limit():
        return sum((pick([["LIMIT", pick(["1", "2", "0", "-1", "x"])], ["LIMIT"], ["FOO"]]) for _ in range(pick([0, 0, 1, 1, 2]))), [])

    return pick([
        lambda: ["SADD", key] + several, lambda: ["SADD", key] + several, lambda: ["SADD", key] + several, lambda: ["sadd", key, member],
        lambda: ["SREM", key] + several, lambda: ["SREM", key, member], lambda: ["SISMEMBER", key, member],
        lambda: ["SMISMEMBER", key] + several, lambda: ["SMEMBERS", key], lambda: ["SMEMBERS", key], lambda: ["SCARD", key],
        lambda: ["SPOP", key, pick(["100", "100", "0", "-1", "x"])], lambda: ["SPOP", "never"] + pick([[], ["5"], ["5", "6"]]),
        lambda: ["SRANDMEMBER", key, pick(["100", "100", "0", "x"])], lambda: ["SRANDMEMBER", "never"] + pick([[], ["5"], ["-5"], ["5", "6"]]),
        lambda: ["SMOVE", key, other, member], lambda: ["SMOVE", key, other, member],
        lambda: ["SINTER"] + sources, lambda: ["SUNION"] + sources, lambda: ["SDIFF"] + sources,
        lambda: ["SINTERSTORE", other] + sources, lambda: ["SUNIONSTORE", other] + sources, lambda: ["SDIFFSTORE", other] + sources,
        lambda: ["SINTERCARD", str(len(sources))] + sources + limit(),
        lambda: ["SINTERCARD", pick(["0", "-1", "x", "1", "9"])] + sources + limit(),
        lambda: ["SSCAN", key, pick(["0", "0", "0", "x"])] + scan_options(), lambda: ["TYPE", key],
        lambda: pick([["DEL", key], ["SET", "s", "x"], ["EXISTS", key], ["TTL", key], ["EXPIRE", key, "100"]]),
    ])()


# Their sums are exact, and Redis 7.0 prints them as 7.2 does.
SCORES = ["1", "1", "2", "3", "2.5", "-0.75", "0", "10", "1e2", "-3", "0x10", "inf", "-inf", "nan", "x", "", "1e400"]
SCORE_ENDS = ["-inf", "+inf", "-inf", "+inf", "0", "1", "(1", "2.5", "(3", "10", "(-3", "inf", "(inf", "x", "", "nan"]
LEX_ENDS = ["-", "+", "-", "+", "[a", "(a", "[b", "(c", "[ab", "[", "(", "x", "", "[zz"]


def random_zset_request(rng):
    pick = rng.choice
    # All members of l and m have one score: else Redis's ranges by name depend on how it keeps a set.
    mixed, level = ["p", "q", "r"], ["l", "m"]
    members = ["a", "b", "c", "ab", "1", "2", "", "\\x00\\xff", "x" * 70]
    into, source = pick(mixed), pick(mixed * 4 + level + ["s", "none"])
    flat, member = pick(level * 6 + ["s", "none"]), pick(members)
    several = [pick(members) for _ in range(pick([1, 2, 2, 3, 5]))]
    sources = [pick(mixed * 3 + level + ["t", "s", "none"]) for _ in range(pick([1, 2, 2, 2, 3]))]

    def scored():
        return [pick(SCORES), pick(members)]

    def pairs():
        return sum((scored() for _ in range(pick([1, 2, 2, 3, 5]))), pick([[], [], [], [], ["x"]]))

    def conditions():
        return [pick(["NX", "XX", "GT", "LT", "CH", "INCR", "ch", "CH", "xx"]) for _ in range(pick([0, 0, 1, 1, 2, 3]))]

    def sometimes(*words):
        return list(words) if rng.random() < 0.3 else []

    def limit():
        return sometimes("LIMIT", pick(["0", "0", "1", "2", "-1", "x"]), pick(["1", "2", "-1", "0", "100", "x"]))

    def ranks():
        return [pick(["0", "1", "2", "-1", "-2", "-100", "100", "x"]), pick(["0", "1", "3", "-1", "-1", "-3", "100", "x"])]

    def by_score():
        return [pick(SCORE_ENDS), pick(SCORE_ENDS)]

    def by_lex():
        return [pick(LEX_ENDS), pick(LEX_ENDS)]

    def extra():
        return sometimes("WITHSCORES") + sometimes("REV") + (["FOO"] if rng.random() < 0.02 else [])

    def combined():
        weights = ["WEIGHTS"] + [pick(["1", "2", "-1", "0.5", "0", "inf", "x"]) for _ in sources] + (["1"] if rng.random() < 0.05 else [])
        return sometimes(*weights) + sometimes("AGGREGATE", pick(["SUM", "MIN", "MAX", "max", "AVG"]))

    def counted():
        return [pick([str(len(sources))] * 20 + ["0", "-1", "x", "9"])] + sources

    def store():
        name, keys = pick(["ZUNIONSTORE", "ZINTERSTORE", "ZDIFFSTORE", "ZUNIONSTORE"]), counted()
        return [name, into] + keys + ([] if name == "ZDIFFSTORE" else combined()) + (["FOO"] if rng.random() < 0.03 else [])

    def combine():
        name, keys = pick(["ZUNION", "ZINTER", "ZDIFF", "ZUNION", "ZINTER"]), counted()
        return [name] + keys + ([] if name == "ZDIFF" else combined()) + sometimes("WITHSCORES")

    return pick([
        lambda: ["ZADD", into] + conditions() + pairs(), lambda: ["ZADD", into] + pairs(), lambda: ["zadd", pick(mixed + ["s"])] + scored(),
        lambda: ["ZADD", into] + conditions() + scored(), lambda: ["ZADD", into] + sum(([pick(SCORES[:10]), name] for name in several), []),
        lambda: ["ZADD", pick(level)] + sum((["0", name] for name in several), []), lambda: ["ZADD", pick(level)] + sum((["0", name] for name in several), []),
        lambda: ["ZINCRBY", pick(mixed * 5 + ["s"])] + scored(), lambda: ["ZINCRBY", into] + scored(), lambda: ["ZREM", source] + several,
        lambda: ["ZCARD", source], lambda: ["ZSCORE", source, member], lambda: ["ZMSCORE", source] + several,
        lambda: ["ZRANK", source, member], lambda: ["ZREVRANK", source, member],
        lambda: ["ZRANGE", source] + ranks() + extra() + limit(), lambda: ["ZRANGE", source, "0", "-1", "WITHSCORES"], lambda: ["ZRANGE", source, "0", "-1", "WITHSCORES"],
        lambda: ["ZRANGE", source] + by_score() + ["BYSCORE"] + extra() + limit(), lambda: ["ZRANGE", flat] + by_lex() + ["BYLEX"] + sometimes("REV") + limit(),
        lambda: ["ZREVRANGE", source] + ranks() + sometimes("WITHSCORES"), lambda: ["ZRANGEBYSCORE", source] + by_score() + sometimes("WITHSCORES") + limit(),
        lambda: ["ZREVRANGEBYSCORE", source] + by_score() + limit() + sometimes("WITHSCORES"), lambda: ["ZRANGEBYLEX", flat] + by_lex() + limit(),
        lambda: ["ZREVRANGEBYLEX", flat] + by_lex() + limit(), lambda: ["ZCOUNT", source] + by_score(), lambda: ["ZLEXCOUNT", flat] + by_lex(),
        lambda: ["ZRANGESTORE", into, source] + ranks() + sometimes("REV"), lambda: ["ZRANGESTORE", into, source] + by_score() + ["BYSCORE"] + sometimes("REV") + limit(),
        lambda: ["ZRANGESTORE", into, flat] + by_lex() + ["BYLEX"] + sometimes("REV") + limit(),
        lambda: ["ZREMRANGEBYRANK", source] + ranks(), lambda: ["ZREMRANGEBYSCORE", source] + by_score(), lambda: ["ZREMRANGEBYLEX", flat] + by_lex(),
        lambda: [pick(["ZPOPMIN", "ZPOPMAX"]), source] + pick([[], [], ["1"], ["2"], ["0"], ["-1"], ["x"], ["1", "2"]]),
        lambda: ["ZMPOP"] + counted() + [pick(["MIN", "MAX", "min", "MIN", "MAX", "MID"])] + sometimes("COUNT", pick(["1", "2", "100", "0", "x"])),
        lambda: ["ZRANDMEMBER", source, pick(["100", "100", "0", "x"])], lambda: ["ZRANDMEMBER", "never"] + pick([[], ["5"], ["-5"], ["5", "WITHSCORES"], ["5", "FOO"]]),
        combine, combine, combine, store, store, store,
        lambda: ["ZINTERCARD"] + counted() + sometimes("LIMIT", pick(["1", "2", "0", "-1", "x"])),
        lambda: ["ZSCAN", source, pick(["0", "0", "0", "x"]), "COUNT", pick(["100", "100", "0", "x"])] + sometimes("MATCH", pick(["*", "a*", "[ab]"])),
        lambda: ["SADD", "t"] + several, lambda: ["SREM", "t"] + several, lambda: ["TYPE", into],
        lambda: pick([["DEL", into], ["SET", "s", "x"], ["EXISTS", into], ["TTL", into], ["EXPIRE", into, "100"], ["DEL", pick(level)]]),
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


FAMILIES = {
    "strings": random_request, "hashes": random_hash_request, "sets": random_set_request, "zsets": random_zset_request,
    "lists": random_list_request,
    "bits": random_bits_request,
}


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
