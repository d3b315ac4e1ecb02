#!/usr/bin/env python3
"""Checks that every crate Kvorum is built of may be built into it. Needs no network.

A licence expression passes when one of its alternatives consists of allowed licences only.
"""

import json
import re
import subprocess
import sys

ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
}


def is_allowed(expression):
    """Evaluates an SPDX expression; `/` is how older crates write OR."""
    tokens = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))
    words = []
    for token in tokens:
        if words and (words[-1].endswith(" WITH") or token == "WITH"):
            words[-1] += " " + token
        else:
            words.append(token)
    known = {"(": "(", ")": ")", "OR": "or", "AND": "and"}
    # Only these words and True/False reach the evaluation.
    return eval(" ".join(known.get(word) or str(word in ALLOWED) for word in words))


def main():
    rustc = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    host = re.search(r"^host: (.*)$", rustc, re.MULTILINE)[1]
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--offline"]
    # Crates for other systems are not here to be looked at, nor are they in what is built here.
    command += ["--filter-platform", host]
    metadata = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    faults = []
    built = {node["id"] for node in metadata["resolve"]["nodes"]}
    packages = [it for it in metadata["packages"] if it["source"] and it["id"] in built]
    for package in packages:
        name = f"{package['name']} {package['version']}"
        licence = package["license"]
        if not licence or not is_allowed(licence):
            faults.append(f"{name}: licence {licence!r} is not on the list")
        if not package["source"].startswith("registry+"):
            faults.append(f"{name}: comes from {package['source']}")
    print("\n".join(faults) or f"licences: {len(packages)} crates, all allowed")
    sys.exit(bool(faults))


main()
