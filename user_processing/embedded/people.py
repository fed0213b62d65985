"""The people of the API stand-in: who is drawn for a seed, a page and a choice of fields.

No HTTP, no clock, no state between two draws. The same question has the same answer in every process, on every
machine and Python version. How it is asked and how it is answered belongs to `api`.

The records have the shape of randomuser 1.4, with the fields that are asked for daily and three that cost little.
The stand-in has no `registered`, `phone`, `cell`, `id` and `picture`, and 14 of the API's 21 nationalities. A field
that it lacks is ignored like one that the API does not know: it is not in the record, and takes no part in the draw.
A new field is a function in `_FIELDS`.

Names, cities and streets come from mimesis' JSON datasets, read as files: that takes 0.02 s for all
nationalities, importing mimesis 0.16 s.
"""
# ruff: noqa: RUF001  (a Cyrillic or Persian letter is meant here, however Latin it looks)

import functools
import hashlib
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from random import Random
from string import ascii_letters, ascii_uppercase, digits
from typing import NamedTuple, TypeAlias, TypeVar

import msgspec

Record: TypeAlias = dict[str, object]
T = TypeVar("T")

# The API's lists are untidy, and so are its users: a loader that trims loses something.
_ENDS_IN_A_SPACE = 1 / 500
_EMPTY_PASSWORD = 1 / 2500

_TITLES = {"male": ("Mr",), "female": ("Miss", "Mrs", "Ms")}
_GENDERS = tuple(_TITLES)


class Nationality(NamedTuple):
    """Where the names of a country are found, and how its postcodes look.

    In a pattern, `#` is a digit and `@` a capital letter. Without one, the postcode is a number.
    """

    code: str
    country: str
    locale: str
    postcode: str | None = None


# By the two hexadecimal digits with which a seed of 18 characters names one, in the API.
NATIONALITIES: Mapping[str, Nationality] = {
    "01": Nationality("BR", "Brazil", "pt-br"),
    "03": Nationality("CH", "Switzerland", "de-ch"),
    "04": Nationality("DE", "Germany", "de"),
    "05": Nationality("DK", "Denmark", "da"),
    "06": Nationality("ES", "Spain", "es"),
    "07": Nationality("FI", "Finland", "fi"),
    "08": Nationality("FR", "France", "fr"),
    "09": Nationality("GB", "United Kingdom", "en-gb", "@@## #@@"),
    "0c": Nationality("IR", "Iran", "fa"),
    "0e": Nationality("NL", "Netherlands", "nl"),
    "0f": Nationality("NO", "Norway", "no", "####"),
    "12": Nationality("TR", "Turkey", "tr"),
    "13": Nationality("UA", "Ukraine", "uk"),
    "14": Nationality("US", "United States", "en"),
}


class Lists(NamedTuple):
    """The names and places of one nationality. First and last names by gender: male, female."""

    first: Mapping[str, Sequence[str]]
    last: Mapping[str, Sequence[str]]
    cities: Sequence[str]
    states: Sequence[str]
    streets: Sequence[str]


class _Person(msgspec.Struct):
    names: dict[str, list[str]]
    surnames: list[str] | dict[str, list[str]]  # by gender where the language has it so


class _Named(msgspec.Struct):
    name: list[str]


class _Address(msgspec.Struct):
    city: list[str]
    state: _Named
    street: _Named


# The datasets hold a few broken entries ("Jerónimo/Gerónimo", "Bena?", "Tronerin???", text decoded twice). A name
# is letters, two or more, with spaces, apostrophes, hyphens, full stops and zero-width non-joiners between.
_NAME = re.compile(r"^(?=.{2})[^\W\d_]+(?:[ '’.\-\u200c]{1,2}[^\W\d_]+)*$", re.MULTILINE)


def _some(names: Sequence[str]) -> Sequence[str]:
    """About a hundred, of the whole alphabet: some 40 e-mail addresses in 5,000 are given twice then, as in the API."""
    return _NAME.findall("\n".join([name.strip() for name in names[:: max(1, len(names) // 100)]]))


@functools.cache
def lists(locale: str) -> Lists:
    """The names and places of a locale of mimesis, read once per process.

    Raises:
        ModuleNotFoundError: mimesis is not installed.
        msgspec.ValidationError: mimesis has changed the shape of its datasets.
    """
    mimesis = find_spec("mimesis")  # finds the package without importing it
    if mimesis is None or mimesis.origin is None:
        message = "The API stand-in takes its names from mimesis, which is not installed."
        raise ModuleNotFoundError(message, name="mimesis")
    folder = Path(mimesis.origin).parent / "datasets" / locale
    person = msgspec.json.decode((folder / "person.json").read_bytes(), type=_Person)
    address = msgspec.json.decode((folder / "address.json").read_bytes(), type=_Address)
    surnames = person.surnames if isinstance(person.surnames, dict) else dict.fromkeys(_GENDERS, person.surnames)
    return Lists(
        first={gender: _some(person.names[gender]) for gender in _GENDERS},
        last={gender: _some(surnames[gender]) for gender in _GENDERS},
        cities=_some(address.city),
        states=_some(address.state.name),
        streets=_some(address.street.name),
    )


# Cyrillic, then Persian with the Arabic forms of its letters: its short vowels are not written, so not spelled either.
# A letter alone is silent. Latin letters are here that Unicode does not take apart.
_SPELLED = """
    ø:o æ:ae œ:oe ß:ss đ:d ð:d þ:th ł:l ı:i ’:'
    а:a б:b в:v г:h ґ:g д:d е:e є:ye ж:zh з:z и:y і:i ї:yi й:i к:k л:l м:m н:n о:o п:p р:r с:s т:t у:u ф:f х:kh ц:ts
    ч:ch ш:sh щ:shch ь: ю:yu я:ya ʼ:'
    ا:a آ:a ب:b پ:p ت:t ث:s ج:j چ:ch ح:h خ:kh د:d ذ:z ر:r ز:z ژ:zh س:s ش:sh ص:s ض:z ط:t ظ:z ع:a غ:gh ف:f ق:q ک:k ك:k
    گ:g ل:l م:m ن:n و:v ه:h ی:y ي:y ئ:y ؤ:o أ:a ة:h
"""
_ROMANIZED = str.maketrans(
    {letter: spelled for letter, _, spelled in (pair.partition(":") for pair in _SPELLED.split())}
)
_NOT_IN_AN_ADDRESS = re.compile(r"[^a-z0-9'.-]")


@functools.cache
def romanized(name: str) -> str:
    """`name` as it stands in an e-mail address: lower-case ASCII, no spaces."""
    return _NOT_IN_AN_ADDRESS.sub("", unicodedata.normalize("NFKD", name.lower().translate(_ROMANIZED)))


# 23 x 26 words and 900 numbers: as in the API, some 20 user names are given twice in 5,000.
_USER_NAMES = """
    angry beautiful big black blue brown crazy golden green happy heavy lazy orange organic purple red sad silver small
    ticklish tiny white yellow,
    bear bird butterfly cat dog duck elephant fish frog goose gorilla koala ladybug leopard lion meercat mouse ostrich
    panda peacock rabbit snake swan tiger wolf zebra
"""
_ADJECTIVES, _ANIMALS = (words.split() for words in _USER_NAMES.split(","))
_PASSWORDS = [*_ADJECTIVES, *_ANIMALS, "letmein", "qwerty", "m*a*s*h", "rock&roll", "st.louis", "0.0.000", "*****"]
_SALT = ascii_letters + digits
_PASSWORD_ENDINGS = ("", "", "", "", "1", "12", "123", "2", "7", "69", "99", "2000")

_TIMEZONES = (
    ("-3:30", "Newfoundland"),
    ("-3:00", "Brazil, Buenos Aires, Georgetown"),
    ("+1:00", "Brussels, Copenhagen, Madrid, Paris"),
    ("+3:30", "Tehran"),
    ("+5:45", "Kathmandu"),
    ("+9:00", "Tokyo, Seoul, Osaka, Sapporo, Yakutsk"),
)


class _Drawn(NamedTuple):
    """What every field of one person is made from."""

    nationality: Nationality
    lists: Lists
    gender: str
    title: str
    first: str
    last: str


# Every draw uses `Random.random` and `getrandbits` alone: they give the same numbers in every Python version, which
# `choice` and `randrange` do not promise, and cost less.
def _one_of(random: Random, values: Sequence[T]) -> T:
    return values[int(random.random() * len(values))]


def _number(random: Random, low: int, high: int) -> int:
    return low + int(random.random() * (high - low + 1))


def _untidy(random: Random, text: str) -> str:
    return f"{text} " if random.random() < _ENDS_IN_A_SPACE else text


def _person(random: Random, nationalities: Sequence[Nationality]) -> _Drawn:
    nationality, gender = _one_of(random, nationalities), _one_of(random, _GENDERS)
    names = lists(nationality.locale)
    return _Drawn(
        nationality=nationality,
        lists=names,
        gender=gender,
        title=_one_of(random, _TITLES[gender]),
        first=_one_of(random, names.first[gender]),
        last=_untidy(random, _one_of(random, names.last[gender])),
    )


def _location(random: Random, who: _Drawn) -> Record:
    names = who.lists
    offset, description = _one_of(random, _TIMEZONES)
    return {
        "street": {"number": _number(random, 1, 9999), "name": _one_of(random, names.streets)},
        "city": _untidy(random, _one_of(random, names.cities)),
        "state": _one_of(random, names.states),
        "country": who.nationality.country,
        "postcode": _postcode(random, who.nationality.postcode),
        "coordinates": {
            "latitude": f"{random.random() * 180 - 90:.4f}",
            "longitude": f"{random.random() * 360 - 180:.4f}",
        },
        "timezone": {"offset": offset, "description": description},
    }


def _postcode(random: Random, pattern: str | None) -> int | str:
    if pattern is None:
        return _number(random, 10000, 99999)
    return "".join([_one_of(random, {"#": digits, "@": ascii_uppercase}.get(mark, mark)) for mark in pattern])


def _login(random: Random, _who: _Drawn) -> Record:
    bits = f"{random.getrandbits(128):032x}"
    password = _one_of(random, _PASSWORDS) + _one_of(random, _PASSWORD_ENDINGS)
    if random.random() < _EMPTY_PASSWORD:
        password = ""
    salt = "".join([_one_of(random, _SALT) for _ in range(8)])
    salted = (password + salt).encode()
    return {
        "uuid": f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-{_one_of(random, '89ab')}{bits[17:20]}-{bits[20:]}",
        "username": f"{_one_of(random, _ADJECTIVES)}{_one_of(random, _ANIMALS)}{_number(random, 100, 999)}",
        "password": password,
        "salt": salt,
        "md5": hashlib.md5(salted, usedforsecurity=False).hexdigest(),
        "sha1": hashlib.sha1(salted, usedforsecurity=False).hexdigest(),
        "sha256": hashlib.sha256(salted).hexdigest(),
    }


def _birth(random: Random, _who: _Drawn) -> Record:
    """Of people who are 21 to 90 years old at the end of 2025: counted today, ages would change a page overnight."""
    born = datetime(1935, 1, 1, tzinfo=UTC) + timedelta(milliseconds=random.getrandbits(41))  # until September 2004
    return {"date": born.isoformat(timespec="milliseconds").replace("+00:00", "Z"), "age": 2025 - born.year}


# In the order in which a record holds them.
_FIELDS: Mapping[str, Callable[[Random, _Drawn], object]] = {
    "gender": lambda _random, who: who.gender,
    "name": lambda _random, who: {"title": who.title, "first": who.first, "last": who.last},
    "location": _location,
    "email": lambda _random, who: f"{romanized(who.first)}.{romanized(who.last)}@example.com",
    "login": _login,
    "dob": _birth,
    "nat": lambda _random, who: who.nationality.code,
}
FIELDS: Sequence[str] = tuple(_FIELDS)


def draw(
    *, seed: str, page: int, results: int, fields: Collection[str], nationality: str | None = None
) -> list[Record]:
    """The users of one page.

    Args:
        seed: Any text.
        page: Each has other people than the next.
        results: How many; fewer are the first of more.
        fields: Names from `FIELDS`, in any order; others are ignored. As in the API they take part in the
            draw: other fields, other people.
        nationality: A key of `NATIONALITIES`, for all of them; any of the 14 if None.

    Returns:
        One record per user, its fields in the order of `FIELDS`.

    Raises:
        KeyError: there is no such nationality.
    """
    chosen = [(field, drawn) for field, drawn in _FIELDS.items() if field in fields]
    question = "\n".join([",".join([field for field, _ in chosen]), nationality or "", str(page), seed])
    random = Random(int.from_bytes(hashlib.sha256(question.encode()).digest(), "big"))  # noqa: S311 - to be repeatable
    nationalities = tuple(NATIONALITIES.values()) if nationality is None else (NATIONALITIES[nationality],)
    users: list[Record] = []
    for _ in range(results):
        who = _person(random, nationalities)
        users.append({field: drawn(random, who) for field, drawn in chosen})
    return users
