"""Operators that do in one pass over memory what plain Jittor does in several, each beside its twin; docs/kernels.md measures them."""
