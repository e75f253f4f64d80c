"""Comparisons: grids of runs, their stored cells, tables of them, and what others have published."""
