"""What clients did and what they were told: one line a command, and counts by second.

An outcome is `ok` (acknowledged), `refused` (an error that promises that nothing was done, or the
command never left) or `uncertain` (anything else).
"""

import collections
import time

OK, REFUSED, UNCERTAIN = "ok", "refused", "uncertain"


def now():
    """Nanoseconds, monotone, the same for all clients."""
    return time.monotonic_ns()


class Operation:
    """One command as its client saw it. `side` is whatever the section calls the client's place."""

    __slots__ = ("kind", "key", "value", "start", "end", "outcome", "reply", "code", "node", "worker")

    def __init__(self, kind, key, value=None, start=0, end=0, outcome=OK, reply=None, code="", node=0, worker=0):
        self.kind, self.key, self.value = kind, key, value
        self.start, self.end = start, end
        self.outcome, self.reply, self.code = outcome, reply, code
        self.node, self.worker = node, worker

    @property
    def may_have_happened(self):
        return self.outcome != REFUSED

    def __repr__(self):
        times = f"{self.start / 1e9:.6f}–{self.end / 1e9:.6f}"
        return (
            f"{self.kind} {self.key} {self.value!r} at n{self.node} {times} "
            f"{self.outcome} {self.code or self.reply!r}"
        )


class History:
    """All commands of one run, in the order in which they ended."""

    def __init__(self):
        self.operations = []
        self.begun = now()
        # Moments that the story names: (nanoseconds, what).
        self.marks = []

    def add(self, operation):
        self.operations.append(operation)

    def mark(self, what):
        self.marks.append((now(), what))
        return self.marks[-1][0]

    def of(self, *kinds):
        return [op for op in self.operations if op.kind in kinds]

    def by_key(self, *kinds):
        found = collections.defaultdict(list)
        for op in self.of(*kinds):
            found[op.key].append(op)
        return found

    def between(self, start, end, nodes=None):
        """Commands that ended within the time, of clients of these nodes."""
        return [
            op
            for op in self.operations
            if start <= op.end < end and (nodes is None or op.node in nodes)
        ]

    def codes(self, start, end, nodes=None):
        return collections.Counter(op.code for op in self.between(start, end, nodes))

    def latencies(self, start, end, nodes=None):
        """Milliseconds of the acknowledged commands."""
        every = self.between(start, end, nodes)
        return [(op.end - op.start) / 1e6 for op in every if op.outcome == OK]

    def seconds(self, start, end, nodes=None):
        """For each second from `start`: how many commands ended with which code ("" is none)."""
        count = int((end - start + 999_999_999) // 1_000_000_000)
        rows = [collections.Counter() for _ in range(count)]
        for op in self.between(start, end, nodes):
            rows[(op.end - start) // 1_000_000_000][op.code] += 1
        return rows


def percentile(values, p):
    """The value that `p` per cent are not above; 0 for none."""
    if not values:
        return 0.0
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, max(0, -(-len(ranked) * p // 100) - 1))]
