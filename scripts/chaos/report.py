"""Markdown as it is found out, and the breaches that decide the exit status."""

import datetime
import os
import pathlib
import re
import subprocess
import sys

SHOWN_MAX = 10


class Report:
    """Prints at once, so that a run that is broken off has said what it knew."""

    def __init__(self, path=None):
        self.path = pathlib.Path(path) if path else None
        self.lines = []
        self.breaches = []
        self.section = ""

    def say(self, text=""):
        print(text, flush=True)
        self.lines.append(text)
        if self.path:
            self.path.write_text("\n".join(self.lines) + "\n")

    def heading(self, text):
        self.section = text
        self.say(f"\n## {text}\n")

    def table(self, heads, rows):
        self.say("| " + " | ".join(heads) + " |")
        self.say("|---" + "|--:" * (len(heads) - 1) + "|")
        for row in rows:
            self.say("| " + " | ".join(map(str, row)) + " |")
        self.say()

    def breach(self, text):
        self.breaches.append(f"{self.section}: {text}")
        self.say(f"- **BREACH** {text}")

    def judge(self, what, breaches):
        """One line for a judge: what it looked at, and what it found."""
        if not breaches:
            self.say(f"- {what}: fine")
            return
        for text in breaches[:SHOWN_MAX]:
            self.breach(f"{what}: {text}")
        if len(breaches) > SHOWN_MAX:
            self.breach(f"{what}: and {len(breaches) - SHOWN_MAX} more")

    def expect(self, what, is_so, otherwise=""):
        self.judge(what, [] if is_so else [otherwise or "it is not so"])


def progress(text):
    print(f"[{datetime.datetime.now():%H:%M:%S}] {text}", file=sys.stderr, flush=True)


def headline(options, network):
    def output(*command):
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError:
            return ""
        return done.stdout.strip()

    commit = output("git", "rev-parse", "--short", "HEAD") or "unknown"
    commit += ", changed" if output("git", "status", "--porcelain") else ""
    cpu = re.search(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    now = datetime.datetime.now(datetime.timezone.utc)
    return f"""# Kvorum while things fail

| | |
|---|---|
| date | {now:%Y-%m-%d %H:%M} UTC |
| Kvorum | commit {commit}, `{options.kvorum}` |
| machine | {cpu[1] if cpu else "unknown CPU"}, {os.cpu_count()} cores, Linux {os.uname().release} |
| network | {network} |
| load average at the start | {os.getloadavg()[0]:.2f} |"""


def bytes_text(count):
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024


def codes_text(codes):
    """Counts of codes; the empty code is an acknowledgement."""
    errors = {code: count for code, count in codes.items() if code}
    return ", ".join(f"{code} {count}" for code, count in sorted(errors.items())) or "none"
