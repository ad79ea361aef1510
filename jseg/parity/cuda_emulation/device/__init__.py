"""A CUDA device for Jittor on a machine without one: its compiler, its runtime and its libraries."""
