"""Whether jseg computes what it should: beside the official release, on a GPU against the CPU, and
its CUDA sources without a GPU.
"""
