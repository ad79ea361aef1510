"""What `python -m jseg compare_official` runs: the official release and ours on the same inputs, a
process per side and part.
"""
