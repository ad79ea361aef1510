"""Which arrays of a foreign file are a PixNerd, under which names, and what its configuration is.

Sources: PixNerd (MCG-NJU/PixNerd), also inside of its trainer's Lightning files, and our own files.
The names are ours already.
"""

from __future__ import annotations

from typing import Optional

from jseg.configs import PixNerdConfig
from jseg.flowseg.state_dict import pixnerd_config, pixnerd_shapes
from jseg.formats.extraction import Extraction, Shapes, inside


def extract_pixnerd(
    shapes: Shapes, scope: str = "", config: Optional[PixNerdConfig] = None
) -> Extraction:
    """The PixNerd whose arrays stand under the prefix `scope` in a file.

    config: where the file says it; nothing else is then in the file. Raises ValueError, in one
    line, for names and shapes of another network.
    """
    result = inside(shapes, scope)
    if config is not None:
        result.config, result.shapes = config, result.own_shapes(shapes)
        return result
    own = pixnerd_config(result.own_shapes(shapes))
    result.complete(own, pixnerd_shapes(own), shapes)
    return result
