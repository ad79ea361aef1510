"""A training: the loop, its folder, the optimiser, the order of the examples, several processes,
memory and the log.
"""
