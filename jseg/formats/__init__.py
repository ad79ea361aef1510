"""Files of weights -> descriptions of the arrays in them, without running anything that a file asks
for.
"""
