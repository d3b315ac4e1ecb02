"""Judges: from what clients were told and what the cluster answers at the end, to breaches.

Each judge answers a list of sentences, empty when all is well. A judge never guesses: where an
outcome is uncertain, both are allowed. `selftest.py` plants errors and asks that they are found.
"""

import bisect
import collections

from .history import OK, REFUSED, UNCERTAIN
from .resp import Error

NEVER = float("inf")


def ends(op):
    """When a command can have had its effect at the latest: one without an answer, at any time."""
    return op.end if op.outcome == OK else NEVER


def lost_writes(history, found, kinds=("unique",)):
    """Keys that were set at most once each: acknowledged is there, refused is not."""
    breaches = []
    for op in history.of(*kinds):
        answer = found.get(op.key)
        if isinstance(answer, Error):
            breaches.append(f"{op.key} cannot be read: {answer}")
        elif op.outcome == OK and answer != op.value:
            breaches.append(f"lost: {op}; it now holds {answer!r}")
        elif op.outcome == REFUSED and answer is not None:
            breaches.append(f"refused, yet done: {op}; it now holds {answer!r}")
        elif answer not in (None, op.value):
            breaches.append(f"nobody wrote that: {op}; it now holds {answer!r}")
    return breaches


def wrong_reads(history, kind="base"):
    """Reads of keys that never change: every answer is the value."""
    return [
        f"{op}, for {op.value!r}"
        for op in history.of(kind)
        if op.outcome == OK and op.reply != op.value
    ]


def removed_keys(history, found):
    """Keys set once and deleted: what DEL removed never returns, what it did not see stays."""
    breaches = []
    deletes = {op.key: op for op in history.of("del")}
    for op in history.of("gone"):
        answer, delete = found.get(op.key), deletes.get(op.key)
        if isinstance(answer, Error):
            breaches.append(f"{op.key} cannot be read: {answer}")
        elif delete is None or delete.outcome == REFUSED or (delete.outcome == OK and delete.reply == 0):
            if op.outcome == OK and answer != op.value:
                breaches.append(f"lost: {op}, deleted by {delete}; it now holds {answer!r}")
            elif op.outcome == REFUSED and answer is not None:
                breaches.append(f"refused, yet done: {op}; it now holds {answer!r}")
        elif delete.outcome == OK and answer is not None:
            breaches.append(f"removed, yet back: {delete}; it now holds {answer!r}")
    return breaches


def vanished_writes(history, visible, kind="over", cannot_see=lambda later, earlier: False):
    """Overwritten keys: an acknowledged write is visible, or a write that may have seen it is.

    `visible` is key → the values that can be seen (one, or all siblings). A write may have seen
    another unless it ended before that began; `cannot_see` rules out more, as a split does. Writes
    are followed in chains: only a write that is visible, or was itself seen, counts.
    """
    breaches = []
    for key, ops in history.by_key(kind).items():
        shown = visible.get(key, ())
        by_value = {op.value: op for op in ops}
        for value in shown:
            if value not in by_value:
                breaches.append(f"{key}: nobody wrote {value!r}")
            elif by_value[value].outcome == REFUSED:
                breaches.append(f"refused, yet done: {by_value[value]}")
        alive = [by_value[value] for value in shown if value in by_value]
        # Backwards in time from what is visible: whatever may have been seen by what was seen.
        reached, queue = set(map(id, alive)), list(alive)
        rest = [op for op in ops if op.may_have_happened and id(op) not in reached]
        while queue and rest:
            later = queue.pop()
            seen = [op for op in rest if ends(later) > op.start and not cannot_see(later, op)]
            if seen:
                taken = set(map(id, seen))
                rest = [op for op in rest if id(op) not in taken]
                queue += seen
        breaches += [f"vanished: {op}; visible is {shown!r}" for op in rest if op.outcome == OK]
    return breaches


def counter_totals(history, found, kind="incr"):
    """acknowledged ≤ total ≤ acknowledged + uncertain, for each counter."""
    breaches = []
    for key, ops in history.by_key(kind).items():
        acknowledged = sum(op.value for op in ops if op.outcome == OK)
        uncertain = sum(op.value for op in ops if op.outcome == UNCERTAIN)
        answer = found.get(key)
        if isinstance(answer, Error):
            breaches.append(f"{key} cannot be read: {answer}")
            continue
        total = int(answer or 0)
        if not acknowledged <= total <= acknowledged + uncertain:
            breaches.append(
                f"{key} is {total}: {acknowledged} were acknowledged, {uncertain} are uncertain"
            )
    return breaches


def missing_siblings(history, siblings, kind="side"):
    """Each worker is alone on its side: its last acknowledged value of a key, or an uncertain one
    after it, must be among the siblings. Answers breaches and how many keys have several."""
    breaches = []
    for key, ops in history.by_key(kind).items():
        shown = siblings.get(key, ())
        for worker in {op.worker for op in ops}:
            mine = [op for op in ops if op.worker == worker and op.may_have_happened]
            last = max((i for i, op in enumerate(mine) if op.outcome == OK), default=None)
            if last is None:
                continue
            allowed = {op.value for op in mine[last:]}
            if not allowed & set(shown):
                breaches.append(f"no sibling from worker {worker}: {mine[last]}; shown: {shown!r}")
        strangers = set(shown) - {op.value for op in ops if op.may_have_happened}
        breaches += [f"{key}: nobody (who was not refused) wrote {value!r}" for value in strangers]
    return breaches


def disagreements(held):
    """`held` is node → key → value as each replica has it: all must agree."""
    breaches = []
    nodes = sorted(held)
    for key in held[nodes[0]]:
        values = {node: held[node].get(key) for node in nodes}
        if len(set(values.values())) > 1:
            breaches.append(f"{key} differs: {values}")
    return breaches


# Registers


class Register:
    """One key's history, ready to be judged: reads with answers, and the writes they may be of."""

    def __init__(self, key, ops):
        self.key = key
        self.breaches = []
        reads = [op for op in ops if op.kind == "get" and op.outcome == OK]
        seen = {op.reply for op in reads}
        writes = [op for op in ops if op.kind == "set"]
        by_value = {op.value: op for op in writes}
        for op in reads:
            written = by_value.get(op.reply)
            if op.reply is not None and written is None:
                self.breaches.append(f"nobody wrote that: {op}")
            elif written is not None and written.outcome == REFUSED:
                self.breaches.append(f"refused, yet read: {written}; {op}")
        # (start, end, is it a write, value). Values are written once each, so an uncertain write
        # that nobody read may as well never have happened.
        self.events = [
            (op.start, ends(op), True, op.value)
            for op in writes
            if op.outcome == OK or (op.outcome == UNCERTAIN and op.value in seen)
        ]
        self.events += [(op.start, op.end, False, op.reply) for op in reads]
        self.events.sort(key=lambda event: event[0])


def is_linearizable(events, steps_max=3_000_000):
    """Wing and Gong's search with Lowe's memory ("Testing for linearizability", 2017): whether one
    order explains all answers. `None` if that takes too long to find out."""
    # Places in a list in order of time: place 0 is the head; a call and its return know each other.
    moments = []
    for number, (start, end, _, _) in enumerate(events):
        moments.append((start, 0, number))
        if end != NEVER:
            moments.append((end, 1, number))
    moments.sort()
    size = len(moments) + 1
    next_of, prev_of = list(range(1, size + 1)), list(range(-1, size - 1))
    next_of[-1] = 0
    returns_at = [0] * len(events)
    place_of = [None] * size
    owed = 0
    for place, (_, is_return, number) in enumerate(moments, 1):
        place_of[place] = (is_return, number)
        if is_return:
            returns_at[number] = place
            owed += 1

    def unlink(place):
        before, after = prev_of[place], next_of[place]
        next_of[before] = after
        if after:
            prev_of[after] = before

    def relink(place):
        before, after = prev_of[place], next_of[place]
        next_of[before] = place
        if after:
            prev_of[after] = place

    value, done = None, 0
    seen, stack = set(), []
    place = next_of[0]
    for _ in range(steps_max):
        if not owed:
            return True
        is_return, number = place_of[place]
        if not is_return:
            _, _, is_write, operand = events[number]
            if is_write or operand == value:
                then = operand if is_write else value
                state = (done | 1 << number, then)
                if state not in seen:
                    seen.add(state)
                    stack.append((place, value, done))
                    done, value = state
                    unlink(place)
                    if returns_at[number]:
                        unlink(returns_at[number])
                        owed -= 1
                    place = next_of[0]
                    continue
            place = next_of[place]
            if place:
                continue
        # A return whose call is not in the order yet: the last choice was wrong.
        if not stack:
            return False
        place, value, done = stack.pop()
        number = place_of[place][1]
        if returns_at[number]:
            relink(returns_at[number])
            owed += 1
        relink(place)
        place = next_of[place]
        if not place:
            # Cannot be: an owed return is always behind its call.
            raise AssertionError("the list ended before its returns")
    return None


def crossed_values(events):
    """Gibbons and Korach's zones ("Testing shared memories", 1997, for writes of distinct values):
    the first two values that no order explains, or `None`. Exact, and fast on any history."""
    clusters = {None: [[-1, -1, True, None]]}
    for event in events:
        clusters.setdefault(event[3], []).append(event)
    forward, backward = [], []
    for value, cluster in clusters.items():
        write = next((event for event in cluster if event[2]), None)
        if write is None or any(event[1] < write[0] for event in cluster):
            return value, value
        first_end = min(event[1] for event in cluster)
        last_start = max(event[0] for event in cluster)
        if first_end < last_start:
            forward.append((first_end, last_start, value))
        else:
            backward.append((last_start, first_end, value))
    forward.sort(key=lambda zone: zone[0])
    for one, other in zip(forward, forward[1:]):
        if other[0] < one[1]:
            return one[2], other[2]
    begins = [zone[0] for zone in forward]
    for last_start, first_end, value in backward:
        at = bisect.bisect_left(begins, last_start) - 1
        if at >= 0 and first_end < forward[at][1]:
            return forward[at][2], value
    return None


def registers(history):
    """Judges every register; answers breaches, and figures about the histories."""
    breaches, figures = [], collections.Counter()
    for key, ops in sorted(history.by_key("get", "set").items()):
        register = Register(key, ops)
        breaches += register.breaches
        figures["commands"] += len(register.events)
        figures["histories"] += 1
        stale = stale_reads(register.events)
        figures["stale"] += len(stale)
        breaches += [f"{key}: stale: {text}" for text in stale[:3]]
        crossed = crossed_values(register.events)
        verdict = is_linearizable(register.events)
        figures["too long for the search"] += verdict is None
        if verdict is not None and verdict == bool(crossed):
            breaches.append(f"{key}: the judges disagree: {verdict}, {crossed}")
        if crossed:
            around = [op for op in ops if op.value in crossed or (op.kind == "get" and op.reply in crossed)]
            shown = "; ".join(map(repr, around[:8]))
            breaches.append(f"{key} is not linearizable, no order explains: {shown}")
    return breaches, figures


def stale_reads(events):
    """Reads of a value although a later write had ended before they began."""
    writes = {event[3]: event for event in events if event[2]}
    # Ends in order, and the latest start among the writes that ended by then.
    ended = sorted((event[1], event[0]) for event in events if event[2] and event[1] != NEVER)
    latest, best = [], -1
    for _, start in ended:
        best = max(best, start)
        latest.append(best)
    found = []
    for start, _, is_write, value in events:
        if is_write or (value is not None and value not in writes):
            continue
        before = bisect.bisect_left(ended, (start, -1))
        own_end = writes[value][1] if value is not None else -1
        if before and latest[before - 1] > own_end:
            found.append(f"{value!r} read at {start / 1e9:.6f}, written by {own_end / 1e9:.6f}")
    return found
