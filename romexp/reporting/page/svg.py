"""Figures as inline SVG: they take the page's colours, in dark mode too, and their texts are texts."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from xml.etree import ElementTree

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from romexp.reporting.figures.style import lay_out

SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"
PIXELS = 96 / 72
"""Pixels of the page for each point of a figure."""
COLOURED = ("fill", "stroke")
GREY = 0.04
"""A colour whose parts differ by no more than this is a shade of grey, and follows the page's colour of text."""
FONT = re.compile(r"(?P<size>[\d.]+)px")
DEFAULTS = {"stroke-linejoin": "round", "stroke-linecap": "butt", "fill": "currentColor"}


def inline_svg(figure: Figure, *, prefix: str, label: str) -> Markup:
    """The figure as an `<svg>` element without style attributes, which the page's security policy does not allow.

    Greys and black become the page's colour of text with an opacity, so that they are right by day and by night;
    white stays white.

    Args:
        prefix: what the ids of its elements begin with; it must be unique in the page.
        label: what the figure shows, for those who do not see it.
    """
    lay_out(figure)
    buffer = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    root = ElementTree.fromstring(buffer.getvalue())
    for element in root.iter():
        for child in [one for one in element if one.tag in (f"{SVG}metadata", f"{SVG}style")]:
            element.remove(child)
    for element in root.iter():
        _as_attributes(element)
        _rename(element, prefix)
    width, height = (float(root.get(name, "0").removesuffix("pt")) * PIXELS for name in ("width", "height"))
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="{root.get("viewBox")}"'
    defaults = " ".join(f'{name}="{value}"' for name, value in DEFAULTS.items())
    inner = "".join(_written(child) for child in root)
    return Markup(f'<svg role="img" aria-label="{escape(label)}" {size} {defaults}>{inner}</svg>')


def _as_attributes(element: ElementTree.Element) -> None:
    """Turn the style into presentation attributes, and colours into those of the page."""
    for name, value in _parts(element.attrib.pop("style", "")):
        if name == "font" and (size := FONT.search(value)):
            element.set("font-size", size["size"])
        elif name in ("font", "font-family"):  # the page has its own
            continue
        else:
            element.set(name, value)
    for name in COLOURED:
        if colour := element.get(name):
            _recolour(element, name, colour)


def _parts(style: str) -> Iterator[tuple[str, str]]:
    for part in filter(None, map(str.strip, style.split(";"))):
        name, _, value = part.partition(":")
        yield name.strip(), value.strip()


def _recolour(element: ElementTree.Element, name: str, value: str) -> None:
    if value in ("none", "currentColor") or value.startswith("url("):
        return
    red, green, blue = to_rgb(to_hex(value))
    if max(red, green, blue) - min(red, green, blue) <= GREY and red < 0.97:
        element.set(name, "currentColor")
        if red > 0.02:
            opacity = float(element.get(f"{name}-opacity", "1")) * (1 - red)
            element.set(f"{name}-opacity", f"{opacity:.3g}")


def _rename(element: ElementTree.Element, prefix: str) -> None:
    """Make ids unique in the page, and references to them."""
    if element.get("id"):
        element.set("id", f"{prefix}-{element.get('id')}")
    if link := element.attrib.pop(LINK, ""):
        element.set("href", f"#{prefix}-{link[1:]}" if link.startswith("#") else link)
    for name, value in element.attrib.items():
        if value.startswith("url(#"):
            element.set(name, f"url(#{prefix}-{value[5:]}")


def _written(element: ElementTree.Element) -> str:
    """The element as HTML, where elements of SVG have no prefix."""
    for each in element.iter():
        each.tag = each.tag.removeprefix(SVG)
    text = ElementTree.tostring(element, encoding="unicode", short_empty_elements=False)
    return re.sub(r"\s*\n\s*", " ", text).strip()
