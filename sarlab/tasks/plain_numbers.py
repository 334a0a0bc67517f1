r"""Plain numbers, read exactly: the path of the verifier that needs no mathematics library.

Accepted: ``72``, ``-3``, ``(-3)``, ``+5``, ``1,000``, ``18.0``, ``.5``, ``$18.00``, ``54$``,
``36/2``, ``\frac{36}{2}``, ``\frac12``, ``1 1/2``, ``1\frac{1}{2}``, ``1e3``, ``10^3``,
``1.2 \times 10^3``, ``x = 5``, each with a unit (``18 dollars``, ``5 cm^2``, ``160 square feet``,
``60 km/h``, ``30/hour``, ``90^\circ``). A percent sign is a unit too: ``50%`` is 50, never 0.5.
An answer (not a gold answer) may be a sentence around one such number, ``She sold 72 clips``, as
long as no word in it changes the value or hedges it.

Refused: ``1,00,0``, ``18,5``, ``1 000``, ``3 or 4``, ``3-4``, ``2+3``, ``2^5``, ``18 million``,
``18k``, ``about 18``, ``not 18``, numbers in words, a division by zero, and digits of any script
but ASCII, superscripts and full-width ones included: folding them would read 10² as 102.
"""

import re
from decimal import Decimal, localcontext
from fractions import Fraction

from sarlab.tasks.answer_line import NUMBER_WORDS, Refused, words

MAX_NUMBER_CHARS = 400  # a longer number is refused unread
MAX_EXPONENT = 100  # of ten; a larger one is refused: nothing here may grow without bound

_INT = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_DECIMAL = rf"(?:{_INT}(?:\.[0-9]+)?|\.[0-9]+)"
_FRACTION = rf"\\frac\s?\{{\s?([+-]?{_INT})\s?\}}\s?\{{\s?({_INT})\s?\}}(?![0-9,])"
_POWER = r"\s?\^\s?(?:\{\s?([+-]?[0-9]{1,4})\s?\}(?![0-9])|([+-]?[0-9]{1,4}))"
_NUMBER = re.compile(
    r"(?P<lead>(?:(?![A-Za-z] =)[^\W\d_]+(?:['’-][^\W\d_]+)*['’]?[,:]? )*)"  # She sold
    r"(?:[A-Za-z]? ?= ?)?"  # x = 5, or = 5
    r"(?P<sign>[+-]?)\s?(?P<currency>[$€£¥]?)\s?(?P<inner_sign>[+-]?)"
    rf"(?:(?:(?P<whole>{_INT}) )?(?P<top>{_INT})\s?/\s?(?P<bottom>{_INT})"  # 1 1/2
    rf"|(?P<decimal>{_DECIMAL})(?:[eE](?P<exponent>[+-]?[0-9]{{1,4}}))?)"
    r"(?P<unit>.*)",
    re.DOTALL,
)
# Once brackets and blanks are settled: \frac{1}{2} is 1/2, and 1.2 \times 10^3 is 1.2e3.
_IN_DIGITS = (
    (re.compile(r"(?<=[0-9]) ?(?=\\frac)"), " "),  # 1\frac12
    (re.compile(_FRACTION), r"\1/\2"),
    (re.compile(r"\\frac\s?([0-9])\s?([0-9])(?![0-9,])"), r"\1/\2"),
    (re.compile(rf"(?<![\w.,/])({_DECIMAL})\s?(?:\\times|\\cdot|[×·*x])\s?10{_POWER}"), r"\1e\2\3"),
    (re.compile(rf"(?<![\w.,/])10{_POWER}"), r"1e\1\2"),
)
_DIGITS = re.compile(r"[0-9][0-9.,]*", re.ASCII)
_DRESSED = re.compile(
    r"(?:\\boxed\{([^{}]*)\}|\$([^$]*)\$|\*\*([^*]*)\*\*)((?:\s|\\).*)", re.DOTALL
)
_IN_BRACKETS = re.compile(r"\(\s?([+-]?[$€£¥]?[0-9.,/]+)\s?\)")
_DASH_AS_MINUS = re.compile(r"^((?:[A-Za-z]?\s?=\s?)?[$€£¥(]?)[\u2012\u2013](?=[$€£¥]?[0-9.])")

_UNIT_TOKEN = re.compile(
    r"(?P<word>[^\W\d_²³]+(?:['’&-][^\W\d_]+)*['’]?(?:/[^\W\d_]+)?)(?:\^?\{?[23]\}?|[²³])?[.,]?"
)
_PER = re.compile(r"^(?:\s?/\s?(?=[^\W\d_]{3}|(?:hr|kg|lb|km|mi)\b)|-(?=[^\W\d_]{3}))")
# Phrases after a number that leave it alone: "160 square feet", "70 for three days", "9 a.m."
_HARMLESS_AFTER = re.compile(
    r"\b(?:(?:square|cubic|sq|cu)(?:\. ?| )(?=[^\W\d_]{2})|(?:for|in|after|every) (?:one|two|three"
    r"|four|five|six|seven|eight|nine|ten)(?= [^\W\d_]{3})|[ap]\.m\b\.?)",
    re.IGNORECASE,
)
# Words shorter than three letters are factors (2xy, 18 k) unless they stand here.
_SHORT_WORDS = words(
    "a i an as at by do he in is it me my of on so to us we am pm g m s h l cm mm km kg mg ml cl "
    "dl lb oz ft yd mi hr kw mb gb km/h m/s ft/s ad tv"
)
_GLUED_UNITS = {word for word in _SHORT_WORDS if len(word) > 1} | words(
    "g lbs hrs min mph kph usd eur gbp sec mins secs"
)
# Words that change a value, hedge it, or name another.
_NO_WORDS = NUMBER_WORDS | words(
    "or nor not no never minus plus negative twice double triple square squared cubed root but "
    "either neither then versus vs if else unless instead except wrong incorrect than about around "
    "approximately approx roughly nearly almost over under least most between maybe perhaps "
    "probably possibly might could unsure guess thousands millions billions hundreds dozens mil "
    "mio mn bn tn pi halves thirds fourths fifths sixths sevenths eighths ninths tenths "
    "hundredths thousandths st nd rd th sqrt sin cos tan log ln mod"
)
_NO_HEDGE_AFTER = words("than over then between")  # "46 hours left over", "15 more than Tommy"
_MAX_WORDS = 16  # before the number, and after it
# Units that are compared where both sides name one; each line is one unit's spellings.
_UNITS = {
    spelling: names.split()[0]
    for names in (
        *("mm millimeter millimetre", "cm centimeter centimetre", "m meter metre"),
        *("km kilometer kilometre", "in inch inche", "ft foot feet", "yd yard", "mi mile"),
        *("mg milligram", "g gram", "kg kilogram", "lb", "oz ounce", "ml milliliter", "l liter"),
        *("second sec s", "minute min", "hour hr h", "day", "week", "month", "year"),
        *("percent %", "degree", "dollar $ usd", "cent", "euro €", "£", "¥ yen"),
    )
    for spelling in names.split()
}


def parse_number(value: str, sentence: bool = False) -> Fraction:
    """The exact value of an unwrapped plain number, or of a sentence around one.

    Raises :class:`Refused` with reason "no value", "several values" or "too long".
    """
    return parse_quantity(value, sentence)[0]


def parse_quantity(value: str, sentence: bool = False) -> tuple[Fraction, str]:
    """:func:`parse_number` and the unit, in one spelling; "" for none and for any rare unit."""
    if len(value) > MAX_NUMBER_CHARS:
        raise Refused("too long")
    plain = _plain(value)
    match = _NUMBER.fullmatch(plain)
    if match and not (match["sign"] and match["inner_sign"]):
        unit = _PER.sub(" per ", match["unit"])
        if not match["currency"]:
            unit = re.sub(r"^\s*[$€£¥]", "", unit)  # 54$
        if _are_words(match["lead"], _HARMLESS_AFTER.sub("", unit), sentence):
            sign = -1 if "-" in (match["sign"], match["inner_sign"]) else 1
            return sign * _magnitude(match), _unit(match["currency"] or match["unit"])
    raise Refused("several values" if len(_DIGITS.findall(plain)) > 1 else "no value")


def is_number(value: str) -> bool:
    """Whether an unwrapped value is a plain number."""
    try:
        parse_number(value)
    except Refused:
        return False
    return True


def canonical(number: Fraction) -> str:
    """A number as digits: ``5``, ``-0.25`` where that is exact, else ``1/3``."""
    with localcontext(prec=3 * MAX_NUMBER_CHARS):
        digits = format(Decimal(number.numerator) / number.denominator, "f")
    return digits if Fraction(digits) == number else str(number)


def _magnitude(match: re.Match[str]) -> Fraction:
    whole, top, bottom = (
        int((match[name] or "0").replace(",", "")) for name in ("whole", "top", "bottom")
    )
    if match["bottom"]:
        if bottom == 0:
            raise Refused("no value")
        if match["whole"] and top >= bottom:
            raise Refused("several values")  # 3 5/2 is no mixed number
        return whole + Fraction(top, bottom)
    exponent = int(match["exponent"] or 0)
    if abs(exponent) > MAX_EXPONENT:
        raise Refused("too long")
    return Fraction(match["decimal"].replace(",", "")) * Fraction(10) ** exponent


def _unit(text: str) -> str:
    """The first word or sign of a unit in one spelling, "" where the table does not hold it."""
    first = re.match(r"\s?([%$€£¥]|[^\W\d_]+)", text)
    if first is None:
        return ""
    word = first[1].casefold()
    return _UNITS.get(word) or _UNITS.get(word.removesuffix("s"), "")


def _plain(value: str) -> str:
    """Rewrite what is only another spelling of the same number."""
    dressed = _DRESSED.fullmatch(value)
    if dressed:  # \boxed{18} dollars
        value = next(g for g in dressed.groups()[:3] if g is not None) + dressed[4]
    for old, new in (
        *(("\u2212", "-"), ("\u00a0", " "), ("\u2009", " "), ("\u202f", " "), ("{,}", ",")),
        *(("\\!", ""), ("\\%", "%"), ("\\$", "$"), ("\\dfrac", "\\frac"), ("\\tfrac", "\\frac")),
        *(("^\\circ", " degrees"), ("^{\\circ}", " degrees"), ("\u00b0", " degrees ")),
        *(("\\,", " "), ("\\;", " "), ("\\:", " "), ("\\ ", " ")),
        *(("\\text{", "\\mathrm{"), ("\\mbox{", "\\mathrm{"), ("\\textrm{", "\\mathrm{")),
    ):
        value = value.replace(old, new)
    value = re.sub(r"\\mathrm\{([^{}]*)\}", r" \1", value)
    value = re.sub(r"(?<=[0-9])~", " ", value)  # a tie before a unit; before a number it says about
    value = _DASH_AS_MINUS.sub(r"\1-", " ".join(value.split()))
    if in_brackets := _IN_BRACKETS.fullmatch(value):
        return in_brackets[1]
    for pattern, digits in _IN_DIGITS:
        value = pattern.sub(digits, value)
    return value


def _are_words(lead: str, unit: str, sentence: bool) -> bool:
    """Whether a number stands among words that leave its value alone: a unit, or a sentence."""
    if lead and not sentence:
        return False
    glued = unit[:1].isalpha()
    unit = unit.strip().removeprefix("%").strip()
    if unit.startswith("(") and unit.endswith(")"):
        unit = unit[1:-1]
    before, after = [word.rstrip(",:") for word in lead.split()], unit.split()
    if max(len(before), len(after)) > _MAX_WORDS:
        return False
    if "and" in (word.casefold() for word in before[-1:] + after[:1] + after[-1:]):
        return False  # a list that was cut off: 72 and
    for index, token in enumerate(before + after, start=-len(before)):
        match = _UNIT_TOKEN.fullmatch(token)
        if match is None:
            return False
        word = match["word"].casefold()
        if index >= 0 and word in _NO_HEDGE_AFTER:
            continue
        parts = re.split(r"[-/'’]", word)
        if index >= 0 and "-" in word:
            parts = parts[-1:]  # "3 four-minute songs"
        if (
            not _NO_WORDS.isdisjoint(parts)
            or (len(word) < 3 and word not in _SHORT_WORDS)
            or (glued and index == 0 and len(word) < 4 and word not in _GLUED_UNITS)
        ):
            return False
    return True
