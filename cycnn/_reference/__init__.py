"""Every layer once more, as its formula in float64: what `cycnn check` measures by.

The formulas are written with `cycnn.autodiff`, so each has its gradients without saying them, and
share no code with the ops and kernels. They are plain instead of fast.
"""

from __future__ import annotations

from cycnn._reference import merging, normalising, values, windows
from cycnn._reference.call import FORMULAS, Call, formula

__all__ = ["FORMULAS", "Call", "formula", "merging", "normalising", "values", "windows"]
