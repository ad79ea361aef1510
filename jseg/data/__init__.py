"""What the networks are fed: classes, label maps, the folders and data sets that people have, and
what is wrong with them.
"""
