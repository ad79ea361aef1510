"""A CUDA device for Jittor on a machine without one: its compiler, runtime and libraries."""
