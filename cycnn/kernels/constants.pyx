"""The sizes of this build's vectors and register tile."""
from cycnn.kernels.simd cimport MR, NR, VL, real

CONSTANTS = {"VL": VL, "MR": MR, "NR": NR, "itemsize": sizeof(real)}
