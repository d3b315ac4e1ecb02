"""Faults on real processes, load beside them, and judges of what came of it. See ../chaos.py."""
