"""Text that came from a model, made visible and harmless; numbers and colours of the views. Pure.

Any token may be markup, a control character or half of a character. Nothing is dropped: what has
no shape of its own is shown as a mark (``␣ ⏎ ⇥``, or ``⟨U+202E⟩``), and all of it is escaped.
"""

import html
import itertools
import re
import unicodedata

V_FULL_NATS = 4.0
"""|Δ log p| at which a colour is strongest: one scale for every answer, so that they compare."""
V_MARKED_NATS = 1.0
"""|Δ log p| from which a token is underlined too, for readers who see no colour."""

# Blue and orange of Okabe and Ito, apart for all common kinds of colour blindness. Tints lie over
# the page's own background, so they serve in the light and in the dark theme.
BLUE, ORANGE = (0, 114, 178), (230, 159, 0)
# Lines and bars have at least 3:1 against white and against JupyterLab's dark grey; text has 4.5:1
# on the strongest tint in both themes.
BLUE_HEX, ORANGE_HEX, GREY_HEX = "#3d8fc6", "#b8740f", "#767676"
_STRONGEST = 0.5
LEGEND = (
    "Δ log p in nats: log p(token | question, before) − log p(token | before). Blue, solid line "
    "(≥ 1): likelier with the question. Orange, dotted line (≤ −1): less likely. One scale for all "
    "answers."
)
TERMS = (
    ("SAR", "self-aligned reward: (ppl(a) − ppl(a|q)) / ppl(a) = 1 − exp(−mean Δ log p), ≥ −1"),
    ("ppl(a|q)", "perplexity of the answer behind its question, under the policy itself"),
    ("ppl(a)", "perplexity of the same tokens without the question"),
    ("Δ log p", "v = log p(token | question, before) − log p(token | before), in nats, per token"),
    ("label", "where an answer comes from, or which type of answer it is"),
    ("advantage", "reward minus the mean reward of the answers to the same question"),
    ("α", "weight of the bonus: a right answer earns 1, plus α times the bonus"),
    ("truncated", "sampled up to the token limit without an end: counts as wrong in training"),
    ("Σ Δ log p", "sum over the tokens of a sentence or line, in nats"),
)
"""Terms of the views and what they mean."""

SENTENCE_END = re.compile(r"(?<!\be\.g)(?<!\bi\.e)(?<!\bMr)(?<!\bDr)[.!?]+[\"')\]]*(?=\s)|\n+")
"""A sentence ends at a line's end or at . ! ? before a space; "3.5" and "e.g. " hold no end."""

_SHORT_MARKS = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍", "\x7f": "␡"}
# Cc control, Cf format (bidi, zero width), Cs lone surrogate, Co private, Cn unassigned,
# Zl and Zp separators; Zs are the spaces.
_SHAPELESS = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}
HALF_CHARACTER = "◌"
"""Stands for an id that holds only a part of a character; the last of its ids shows it whole."""


def mark_of(character: str) -> str | None:
    """What stands for a character without a shape of its own; None for all others."""
    if character in _SHORT_MARKS:
        return _SHORT_MARKS[character]
    if character < " ":
        return chr(0x2400 + ord(character))
    if unicodedata.category(character) in _SHAPELESS:
        return f"⟨U+{ord(character):04X}⟩"
    return None


def segments(piece: str) -> list[str]:
    """A token's text as alternating runs: [text, marks, text, marks, …], starting with text.

    An empty piece (a part of a character) gives one mark.
    """
    if not piece:
        return ["", HALF_CHARACTER]
    parts = itertools.groupby(piece, key=lambda character: mark_of(character) is None)
    runs = [visible("".join(part)) for _, part in parts]
    return runs if mark_of(piece[0]) is None else ["", *runs]


def visible(text: str, keep: str = "") -> str:
    """The text with a mark for every shapeless character that is not in ``keep``; not escaped."""
    return "".join(c if c in keep else mark_of(c) or c for c in text)


def plain(text: str) -> str:
    """Escaped text with its spaces and line ends as they are, other shapeless characters shown."""
    return html.escape(visible(text, " \n"), quote=True)


def shortened(text: str, limit: int) -> str:
    """The text on one line, cut with an ellipsis where it is longer than ``limit``."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def one_line(text: str, limit: int = 110) -> str:
    """A model's text as one line of a table or a list."""
    return visible(shortened(text, limit), " ")


def signed(value: float, digits: int = 3) -> str:
    """A number with its sign, the minus as a typographic one; −0 is +0."""
    rounded = round(value, digits) + 0.0
    return f"{rounded:+.{digits}f}".replace("-", "−")


def number(value: float, digits: int = 2) -> str:
    """A number without a plus: thousands without decimals, millions in three digits; – if nan."""
    if value != value:
        return "–"
    if abs(value) >= 999_999.5:
        text = f"{value:.2e}"
    elif abs(value) >= 999.5:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.{digits}f}"
    return text.replace("-", "−")


def tint(value_nats: float) -> str:
    """The background of a token: blue where the question made it likelier, orange where less."""
    red, green, blue = BLUE if value_nats >= 0 else ORANGE
    strength = _STRONGEST * min(1.0, abs(value_nats) / V_FULL_NATS)
    return f"rgba({red}, {green}, {blue}, {strength:.2f})"


def line_of(value_nats: float) -> int:
    """The second channel, a line below: 1 solid (Δ log p ≥ 1 nat), 2 dotted (≤ −1), 0 none."""
    return int(value_nats >= V_MARKED_NATS) + 2 * int(value_nats <= -V_MARKED_NATS)
