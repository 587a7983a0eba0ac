"""Colours of cases, told apart also by those who see few of them, and in light and dark."""

from __future__ import annotations

# Okabe and Ito's palette without its black (unseen in the dark) and yellow (unseen in the light).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# The darker ones of Paul Tol's palettes for those who see few colours.
MORE_COLOURS = ("#332288", "#882255", "#999933", "#AA4499", "#44AA99", "#661100")
OTHER_COLOUR = "#8796a8"
"""Of those for whom there is no colour of their own left."""
PART_COLOURS = {
    "compute": "#8796a8",
    "communication": "#4477AA",
    "upload": "#4477AA",
    "download": "#88BBDD",
    "aggregation": "#CCAA44",
    "waiting": "rgba(128,140,155,.3)",
}
"""Of what time is spent on; seen on white and on near black."""


def colours(num: int) -> list[str]:
    """Return the colours of so many cases, in order."""
    palette = (*COLOURS, *MORE_COLOURS)
    return [palette[i] if i < len(palette) else OTHER_COLOUR for i in range(num)]


def shortened(text: str, most: int = 18) -> str:
    """Return a name of at most `most` characters: its begin and its end, where the numbers are."""
    if len(text) <= most:
        return text
    tail = most // 2
    return f"{text[: most - tail - 1]}…{text[-tail:]}"
