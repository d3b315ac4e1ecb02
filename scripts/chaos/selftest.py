"""Plants errors and asks the judges to find them; and asks them to leave honest runs alone."""

import asyncio
import random

from . import judge, resp
from .history import OK, REFUSED, UNCERTAIN, History, Operation, percentile

TESTS = []


def test(function):
    TESTS.append(function)
    return function


def history(*ops):
    made = History()
    for op in ops:
        made.add(op)
    return made


def op(kind, key, value, start, end, outcome=OK, reply=None, worker=0):
    return Operation(kind, key, value, start, end, outcome, reply, worker=worker)


def write(value, start, end):
    return (start, end, True, value)


def read(value, start, end):
    return (start, end, False, value)


def is_refused(events):
    events = sorted(events, key=lambda event: event[0])
    search, zones = judge.is_linearizable(events), judge.crossed_values(events)
    assert search is (zones is None), (events, search, zones)
    return not search


@test
def lost_writes_are_found():
    one, two = op("unique", "a", "1", 0, 1), op("unique", "b", "2", 2, 3, REFUSED)
    run = history(one, two, op("unique", "c", "3", 4, 5, UNCERTAIN))
    for fine in ({"a": "1"}, {"a": "1", "c": "3"}):
        assert not judge.lost_writes(run, fine)
    for bad in ({}, {"a": "2"}, {"a": "1", "b": "2"}, {"a": "1", "c": "4"}, {"a": resp.Error("X")}):
        assert len(judge.lost_writes(run, bad)) == 1, bad


@test
def wrong_reads_are_found():
    assert not judge.wrong_reads(history(op("base", "a", "1", 0, 1, reply="1")))
    assert judge.wrong_reads(history(op("base", "a", "1", 0, 1, reply=None)))
    assert not judge.wrong_reads(history(op("base", "a", "1", 0, 1, REFUSED)))


@test
def removed_keys_stay_removed():
    run = history(op("gone", "a", "1", 0, 1), op("del", "a", None, 2, 3, reply=1))
    assert not judge.removed_keys(run, {})
    assert judge.removed_keys(run, {"a": "1"})
    run = history(op("gone", "a", "1", 0, 1), op("del", "a", None, 2, 3, reply=0))
    assert not judge.removed_keys(run, {"a": "1"}) and judge.removed_keys(run, {})
    run = history(op("gone", "a", "1", 0, 1), op("del", "a", None, 2, 3, REFUSED))
    assert not judge.removed_keys(run, {"a": "1"}) and judge.removed_keys(run, {})
    run = history(op("gone", "a", "1", 0, 1), op("del", "a", None, 2, 3, UNCERTAIN))
    assert not judge.removed_keys(run, {"a": "1"}) and not judge.removed_keys(run, {})


@test
def vanished_writes_are_found():
    first, second = op("over", "k", "1", 0, 1), op("over", "k", "2", 2, 3)
    assert not judge.vanished_writes(history(first, second), {"k": ["2"]})
    assert judge.vanished_writes(history(first, second), {"k": ["1"]}), "the later one vanished"
    assert judge.vanished_writes(history(first, second), {"k": []})
    assert judge.vanished_writes(history(first), {"k": ["3"]}), "a stranger"
    # Concurrent ones may have seen each other, unless a split stood between them.
    side, other = op("over", "k", "1", 0, 5), op("over", "k", "2", 1, 6)
    apart = lambda later, earlier: True
    assert not judge.vanished_writes(history(side, other), {"k": ["1"]})
    assert judge.vanished_writes(history(side, other), {"k": ["1"]}, cannot_see=apart)
    assert not judge.vanished_writes(history(side, other), {"k": ["1", "2"]}, cannot_see=apart)
    # A chain: the visible one saw one side, which nobody says saw the other.
    late = op("over", "k", "3", 8, 9)
    blind = lambda later, earlier: {later.value, earlier.value} != {"2", "3"}
    assert judge.vanished_writes(history(side, other, late), {"k": ["3"]}, cannot_see=blind)
    refused = op("over", "k", "2", 2, 3, REFUSED)
    assert judge.vanished_writes(history(first, refused), {"k": ["2"]})
    assert not judge.vanished_writes(history(first, refused), {"k": ["1"]})
    # An uncertain one may come at any time and have seen all.
    late = op("over", "k", "2", 2, 3, UNCERTAIN)
    assert not judge.vanished_writes(history(late, op("over", "k", "3", 8, 9)), {"k": ["2"]})


@test
def wrong_totals_are_found():
    run = history(*[op("incr", "c", 1, i, i) for i in range(5)], op("incr", "c", 1, 9, 9, UNCERTAIN))
    run.add(op("incr", "c", 1, 10, 10, REFUSED))
    assert [bool(judge.counter_totals(run, {"c": total})) for total in ("4", "5", "6", "7")] == [
        True, False, False, True
    ]
    assert judge.counter_totals(run, {})


@test
def missing_siblings_are_found():
    run = history(
        op("side", "s", "a1", 0, 1, worker="a"), op("side", "s", "a2", 2, 3, worker="a"),
        op("side", "s", "b1", 0, 1, worker="b"), op("side", "s", "b2", 2, 3, UNCERTAIN, worker="b"),
        op("side", "s", "b3", 2, 3, REFUSED, worker="b"),
    )
    for fine in (["a2", "b1"], ["a2", "b2"], ["a2", "b1", "b2"]):
        assert not judge.missing_siblings(run, {"s": fine}), fine
    for bad in (["a2"], ["b1"], ["a1", "b1"], ["a2", "b1", "b3"], ["a2", "b1", "x"], []):
        assert judge.missing_siblings(run, {"s": bad}), bad


@test
def replicas_that_differ_are_found():
    assert not judge.disagreements({1: {"a": "1"}, 2: {"a": "1"}})
    assert judge.disagreements({1: {"a": "1"}, 2: {"a": "2"}})
    assert judge.disagreements({1: {"a": "1"}, 2: {}})


@test
def one_order_explains():
    never = judge.NEVER
    for events in (
        [],
        [read(None, 0, 1)],
        [write(1, 0, 1), read(1, 2, 3)],
        [write(1, 0, 10), read(None, 1, 2), read(1, 3, 4), read(1, 5, 6)],
        [write(1, 0, 10), write(2, 1, 10), read(2, 2, 3), read(1, 4, 5)],
        [write(1, 0, 1), write(2, 2, never), read(1, 3, 4), read(2, 50, 51)],
        [write(1, 0, 5), read(None, 5, 6)],
    ):
        assert not is_refused(events), events


@test
def no_order_explains():
    never = judge.NEVER
    for events in (
        [read(1, 0, 1), write(1, 2, 3)],
        # Stale reads: nothing after something, an old value after a newer one.
        [write(1, 0, 1), read(None, 2, 3)],
        [write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)],
        # New, then old.
        [write(1, 0, 10), read(1, 1, 2), read(None, 3, 4)],
        [write(1, 0, 10), write(2, 0, 10), read(1, 11, 12), read(2, 13, 14)],
        [write(1, 0, 1), write(2, 2, never), read(2, 3, 4), read(1, 5, 6)],
        [read(2, 0, 1), write(2, 2, never)],
    ):
        assert is_refused(events), events


def honest(chance, count, spread):
    """A run of a true register; each command's times lie around the moment it took effect."""
    events, value = [], None
    for i in range(count):
        at = 10 * i + 1000
        start, end = at - chance.randrange(spread), at + chance.randrange(spread)
        if chance.random() < 0.4:
            value = i
            end = judge.NEVER if chance.random() < 0.05 else end
            events.append(write(value, start, end))
        else:
            events.append(read(value, start, end))
    # Uncertain writes that nobody read are left out, as `Register` does.
    seen = {event[3] for event in events if not event[2]}
    return [event for event in events if event[1] != judge.NEVER or event[3] in seen]


@test
def true_registers_pass_and_forged_ones_do_not():
    for seed in range(30):
        chance = random.Random(seed)
        events = honest(chance, 200, 60)
        assert not is_refused(events), seed
        first = next(event for event in events if event[2] and event[1] != judge.NEVER)
        events.append(read(first[3], 10_000, 10_001))
        events.append(write("last", 9_000, 9_001))
        assert is_refused(events), seed
        assert judge.stale_reads(sorted(events, key=lambda event: event[0]))


@test
def both_judges_say_the_same_of_noise():
    verdicts = set()
    for seed in range(4000):
        chance = random.Random(seed)
        writes = [write(i, s := chance.randrange(30), s + chance.randrange(20)) for i in range(4)]
        reads = [
            read(chance.choice([None, 0, 1, 2, 3]), s := chance.randrange(40), s + chance.randrange(20))
            for _ in range(4)
        ]
        verdicts.add(is_refused(writes + reads))
    assert verdicts == {True, False}


@test
def registers_judge_what_clients_saw():
    def run(*ops):
        return judge.registers(history(*ops))[0]

    first, second = op("set", "r", "1", 0, 1), op("set", "r", "2", 2, 3)
    assert not run(first, second, op("get", "r", None, 4, 5, reply="2"))
    assert any("stale" in b for b in run(first, second, op("get", "r", None, 4, 5, reply="1")))
    refused = op("set", "r", "3", 2, 3, REFUSED)
    assert any("refused, yet read" in b for b in run(refused, op("get", "r", None, 4, 5, reply="3")))
    assert any("nobody" in b for b in run(op("get", "r", None, 4, 5, reply="9")))
    # Uncertain writes: may be seen, may never be.
    late = op("set", "r", "2", 2, 3, UNCERTAIN)
    assert not run(first, late, op("get", "r", None, 4, 5, reply="1"))
    assert not run(first, late, op("get", "r", None, 4, 5, reply="1"), op("get", "r", None, 6, 7, reply="2"))
    assert run(first, late, op("get", "r", None, 4, 5, reply="2"), op("get", "r", None, 6, 7, reply="1"))


@test
def percentiles():
    assert percentile([], 99) == 0 and percentile([3], 50) == 3
    assert percentile(range(1, 101), 50) == 50 and percentile(range(1, 101), 99) == 99


@test
def replies_are_read():
    async def decoded(data):
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        return await resp.decode(reader)

    def decode(data):
        return asyncio.run(decoded(data))

    assert decode(b"+OK\r\n") == "OK" and decode(b":-3\r\n") == -3
    assert decode(b"$3\r\na\nb\r\n") == "a\nb" and decode(b"$-1\r\n") is None
    assert decode(b"*2\r\n:1\r\n$1\r\n\xff\r\n") == [1, b"\xff"]
    assert decode(b"%1\r\n+a\r\n*1\r\n_\r\n") == {"a": [None]}
    error = decode(b"-NOQUORUM too few\r\n")
    assert error.is_refusal and error.code == "NOQUORUM"
    assert not decode(b"-UNCERTAIN who knows\r\n").is_refusal
    try:
        decode(b"+OK")
    except resp.Lost:
        pass
    else:
        raise AssertionError("half a reply")
    assert resp.pairs(["a", 1, "b", 2]) == resp.pairs([["a", 1], ["b", 2]]) == {"a": 1, "b": 2}


def main():
    for case in TESTS:
        case()
    print(f"chaos: {len(TESTS)} tests of the judges passed")
