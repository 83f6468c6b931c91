"""The 16 classes of Geirhos et al. (2019), each of several of ImageNet's: those of cue conflict and its sister sets."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType


def _indices(*parts: int | range) -> tuple[int, ...]:
    return tuple(index for part in parts for index in (part if isinstance(part, range) else (part,)))


def _span(first: int, last: int) -> range:
    return range(first, last + 1)


SIXTEEN: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "airplane": (404,),
        "bear": _indices(_span(294, 297)),
        "bicycle": (444, 671),
        "bird": _indices(
            8, _span(10, 16), _span(18, 20), _span(22, 24), _span(80, 83), _span(87, 96), _span(98, 100),
            _span(127, 133), _span(135, 145),
        ),
        "boat": (472, 554, 625, 814, 914),
        "bottle": (440, 720, 737, 898, 899, 901, 907),
        "car": (436, 511, 817),
        "cat": _indices(_span(281, 286)),
        "chair": (423, 559, 765, 857),
        "clock": (409, 530, 892),
        "dog": _indices(
            _span(152, 191), _span(193, 203), _span(205, 226), _span(228, 241), _span(243, 250), _span(252, 257), 259,
            261, 262, 263, _span(265, 268),
        ),
        "elephant": (385, 386),
        "keyboard": (508, 878),
        "knife": (499,),
        "oven": (766,),
        "truck": (555, 569, 656, 675, 717, 734, 864, 867),
    }
)  # fmt: skip
"""Class -> ImageNet-1k indices, from 0 on, whose mean probability is the probability of the class."""


def is_sixteen(names: Iterable[str]) -> bool:
    """Whether class folders are the 16 of cue conflict, all of them and no other."""
    return tuple(names) == tuple(SIXTEEN)
