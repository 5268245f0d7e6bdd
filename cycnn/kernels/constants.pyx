"""The sizes of this build's vectors and register tile, and how many pixels are few."""
from cycnn.kernels.simd cimport MR, NR, VL, real
from cycnn.kernels.stream cimport FEW

CONSTANTS = {"VL": VL, "MR": MR, "NR": NR, "FEW": FEW, "itemsize": sizeof(real)}
