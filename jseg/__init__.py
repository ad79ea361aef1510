"""jseg: a Jittor package with two branches that meet in the semantic map.

`jseg.ldm` turns a semantic map and a style photograph into a picture (IIDM); `jseg.flowseg` turns a
picture into a semantic map (FlowSeg). Importing `jseg` imports neither of them, and no Jittor.
"""

__version__ = "0.1.0"
