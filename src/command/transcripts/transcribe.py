#!/usr/bin/env python3
"""Asks a real redis-server for the replies of a transcript, and writes them into it.

    transcribe.py PORT FILE...              refreshes the replies in place
    transcribe.py PORT --random SEED COUNT [FAMILY]
                                            prints a transcript of random requests; of strings

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


BITMAPS = TEXTS + ["\\x00" * 20 + "\\x01", "\\xff" * 17, "\\xff" * 9 + "\\xfe\\x00", "a" * 300]
OFFSETS = ["0", "1", "7", "8", "9", "15", "23", "64", "100", "333", "-1", "x", "4294967296", "01"]
FIELD_OFFSETS = OFFSETS + ["#0", "#1", "#2", "#9", "#-1", "#", "#x"]
WIDTHS = ["u1", "i1", "u2", "i3", "u8", "i8", "u13", "i16", "u32", "i33", "u63", "i63", "i64", "u64", "i65", "u0", "8", "U8"]


def random_bits(rng):
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


# A request of each family.
FAMILIES = {"strings": random_request, "bits": random_bits}


def print_random(port, seed, count, family="strings"):
    server, rng = Server(port), random.Random(seed)
    print(f"# {count} random requests, seed {seed}, answered by redis-server 7.0.15.")
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
