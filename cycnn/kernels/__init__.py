"""Job functions, compiled per instruction set and dtype: no checks, no allocation, no Python."""
