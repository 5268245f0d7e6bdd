"""Job functions, compiled once per instruction set and dtype: no checks, no allocation, no Python."""
