"""The parts of jseg.procedural: noise, terrain, sky, light, plants and buildings of procedural landscapes (NumPy and OpenCV only)."""
