"""Layers and operators: each compiled operator beside its twin in plain Jittor; docs/kernels.md
measures them.
"""
