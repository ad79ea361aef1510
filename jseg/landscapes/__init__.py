"""Procedural landscapes with their label maps: noise, terrain, sky, light, plants and buildings
(NumPy and OpenCV only).
"""
