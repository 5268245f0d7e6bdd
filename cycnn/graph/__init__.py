"""Models: Graph and its short forms, all brought to one flat program and run by one executor."""

from __future__ import annotations

from cycnn.graph.containers import Parallel, Residual, Sequential
from cycnn.graph.graph import Graph
from cycnn.graph.model import Model
from cycnn.graph.program import Node, Program
from cycnn.graph.replay import TrainingRuns

__all__ = [
    "Graph", "Model", "Node", "Parallel", "Program", "Residual", "Sequential", "TrainingRuns",
]  # fmt: skip
