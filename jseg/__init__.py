"""jseg: a Jittor package with two branches that meet in the semantic map.

`jseg.ldm` turns a semantic map and a style photograph into an image (IIDM); `jseg.flowseg` turns an
image into a semantic map (FlowSeg). Importing `jseg` imports neither of them, and no Jittor.
"""

__version__ = "0.1.0"
