"""The score of results: mask accuracy, style similarity, distances of feature sets, and the
challenge's formulas from these terms.
"""
