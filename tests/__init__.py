"""Tests of cycnn. The plain float64 references are in reference.py."""
