"""Character sets, and what lines of text say.

Latin text is the reference of Python's language (`pydoc_data`, which comes with Python); Greek text
is of the package Faker: sentences, names, addresses, professions. Every tenth passage is held out
for tests.
"""

import pydoc_data.topics
import re
import unicodedata
from functools import cache
from pathlib import Path

import numpy as np

from recognition.charsets import load_charset

LATIN = "".join(map(chr, range(ord(" "), ord("~") + 1)))
GREEK_LETTERS = "ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩαβγδεζηθικλμνξοπρσςτυφχψωΆΈΉΊΌΎΏάέήίόύώϊϋΐΰ"
GREEK = " " + GREEK_LETTERS + "0123456789" + ".,;:!?'\"()[]«»·-–+/%&@#*=<>_€"
CHARACTERS = {"latin": LATIN, "greek": GREEK}
HELD_OUT = 10  # one passage in so many

# Numbers, dates, codes: # is a digit, A a capital letter, a a small one, _ a space.
_PATTERNS = (
    "#.## ##.## ###.## #,### ##,### #### ##### ###### ## # ##% ##.#% ##:## ##:##:## ##/##/#### "
    "##.##.#### ####-##-## A# A## AA-### A#-#### ###-###-#### (###)_###-#### +##_###_####### "
    "aaa_=_## aa+# (a) [#] [##] A. #. ##. p._### No._### Nr._## ##-## ##_x_## #/# a@aaaa.aaa "
    "#:## \"a\" 'aa' <a> #e-# 0.### -## <= ## *# @aaa aaa_aaa A_A_A AAAA AA## -- ... &"
)


def charset_of(characters: str) -> str:
    """Returns the characters of "latin" or "greek", or those of a file, in class order.

    A file is one of `load_charset`; a space is added, as the first character.
    """
    return CHARACTERS.get(characters) or " " + load_charset(characters).replace(" ", "")


def tidy(text: str) -> str:
    """Returns text in Unicode's composed form (NFC), with single spaces between words."""
    return " ".join(unicodedata.normalize("NFC", text).split())


_RULE = re.compile(r"(.)\1{3}")


@cache
def passages(characters: str) -> list[list[str]]:
    """Returns passages of text as lists of words, of "latin" or "greek" characters only.

    Rules such as ------ are left out: nobody can count their characters.
    """
    allowed = set(CHARACTERS[characters])
    found = (tidy(text).split() for text in _SOURCES[characters]())
    kept = ([w for w in words if allowed.issuperset(w) and not _RULE.search(w)] for words in found)
    return [words for words in kept if words]


def _python_reference() -> list[str]:
    topics = pydoc_data.topics.topics
    return [part for name in sorted(topics) for part in topics[name].split("\n\n")]


def _greek_fakes() -> list[str]:
    from faker import Faker

    fake = Faker("el_GR")
    fake.seed_instance(0)
    kinds = [fake.sentence] * 3 + [fake.name, fake.address, fake.job, fake.currency_name]
    return [f"{kinds[i % len(kinds)]()}" for i in range(7000)]


_SOURCES = {"latin": _python_reference, "greek": _greek_fakes}


@cache
def words_of(characters: str, held_out: bool) -> list[str]:
    """Returns the words of the text to train with, or of the text held out, in order."""
    return [
        word
        for i, words in enumerate(passages(characters))
        if (i % HELD_OUT == 0) == held_out
        for word in words
    ]


def words_for(source: str, characters: str, charset: str) -> list[str]:
    """Returns the words of a UTF-8 text file, or the built-in ones, for a word model.

    Words with characters that are not in `charset` are left out.

    Raises:
      SystemExit: If no word is left, or there are no built-in words for these characters.
    """
    if source == "built-in":
        if characters not in CHARACTERS:
            raise SystemExit(f"there are no built-in words for the characters of {characters}")
        return words_of(characters, held_out=False)
    allowed = set(charset)
    try:
        text = Path(source).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise SystemExit(f"{source}: {error.strerror}") from None
    words = [word for word in tidy(text).split() if allowed.issuperset(word)]
    if not words:
        raise SystemExit(f"{source}: not one word in these characters")
    return words


def _pattern(rng: np.random.Generator, charset: str) -> str:
    """Returns a number, a date or a code."""
    patterns = _PATTERNS.split()
    pattern = patterns[rng.integers(len(patterns))]
    small = [c for c in charset if c.islower()]
    capital = [c for c in charset if c.isupper()]
    drawn = {"#": list("0123456789"), "a": small, "A": capital}
    text = "".join(
        drawn[c][rng.integers(len(drawn[c]))] if c in drawn else c
        for c in pattern.replace("_", " ")
    )
    return "".join(c for c in text if c in charset)


def shorten(text: str, length: int, *, whole_words: bool) -> str:
    """Returns the first `length` characters of a text, or fewer, without a space at the end.

    The first word is cut if it is longer, even with `whole_words`.
    """
    start = text[: max(1, length)]
    if whole_words and len(start) < len(text) and " " in start and text[len(start)] != " ":
        start = start.rpartition(" ")[0]
    return start.strip() or text.strip()[:1]


def random_line(
    rng: np.random.Generator,
    characters: str,
    length: int,
    *,
    held_out: bool = False,
) -> str:
    """Returns a line of at most `length` characters.

    Nine of ten lines that are held out are text, and the others numbers, dates and codes; they end
    with a whole word. Lines to train with have more of these, may end anywhere, and one of ten has
    characters in no order, so that rare ones are learnt too.
    """
    charset, kind = CHARACTERS[characters], rng.random()
    if not held_out and kind < 0.1:
        letters = np.array(list(charset))[rng.integers(0, len(charset), length)]
        return tidy("".join(letters)) or charset[1]
    if kind < (0.1 if held_out else 0.3):
        parts = []
        while sum(map(len, parts)) + len(parts) < length:
            parts.append(_pattern(rng, charset))
        return shorten(tidy(" ".join(parts)), length, whole_words=held_out)
    words = words_of(characters, held_out)
    start, end, size = int(rng.integers(len(words))), 0, 0
    chosen = []
    while size < length:
        word = words[(start + end) % len(words)]
        chosen.append(word)
        size, end = size + len(word) + 1, end + 1
    line = " ".join(chosen)
    if not held_out and rng.random() < 0.15:
        line = unicodedata.normalize("NFC", (line.upper(), line.title())[rng.integers(2)])
        line = "".join(c for c in line if c in charset)
    return shorten(line, length, whole_words=held_out)
