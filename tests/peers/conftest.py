"""Comparisons with PyTorch are collected only where it is installed (extra test-peers)."""

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_*.py"]


def pytest_report_header():
    return "PyTorch is not installed: tests/peers is left out" if collect_ignore_glob else None
