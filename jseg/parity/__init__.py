"""Whether jseg computes what it should: beside the official release, and on a GPU against the
CPU.
"""
