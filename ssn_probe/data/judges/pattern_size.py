"""How large a pattern becomes when its repetitions are written out, as the library `regex` writes out those of groups.

`(a{10000}){10000}` is short, and would fill any memory.
"""

import re

_PIECE = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|(?P<times>\{(\d*)(?P<comma>,?)(\d*)\})|.", re.DOTALL)


def written_out(pattern: str) -> int:
    """The number of pieces of a pattern with its repetitions written out, at most. `re` must have accepted it."""
    sizes, last = [0], 0
    for found in _PIECE.finditer(pattern):
        piece = found[0]
        if piece == "(":
            sizes.append(0)
            last = 0
        elif piece == ")" and len(sizes) > 1:
            last = sizes.pop() + 1
            sizes[-1] += last
        elif found["times"] and (found[2] or found[4]):
            sizes[-1] += last * max(int(found[2] or 0), int(found[4] or 0))
        else:
            last = 1
            sizes[-1] += 1
    return sum(sizes)
