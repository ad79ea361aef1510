"""An image file as bytes: what Pillow makes of it, what it is where Pillow fails, and a PNG without
what its pixels do not need.
"""
