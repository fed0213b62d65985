"""The people of the API stand-in: who is drawn for a seed, a page and a choice of fields.

No HTTP, no clock, no state between two draws. The records have the shape of randomuser 1.4, and the same
question has the same answer in every process, on every machine and Python version. How it is asked and how
it is answered belongs to `api`.

Names, cities and streets come from mimesis' JSON datasets, read as files: that takes 0.06 s for all
nationalities, importing mimesis (or Faker) 0.1 s more. What mimesis lacks, such as India, is below.
"""
# ruff: noqa: RUF001, RUF002  (a Cyrillic, Persian or Devanagari letter is meant here, however Latin it looks)

import functools
import hashlib
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import NamedTuple, TypeAlias

import msgspec

Record: TypeAlias = dict[str, object]

_ALPHANUMERIC = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ1234567890"
_CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DIGITS = "0123456789"

# Ages are counted at a fixed instant: counted today, a page would change overnight.
_TODAY = datetime(2026, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_OLDEST, _YOUNGEST = datetime(1945, 1, 1, tzinfo=UTC), datetime(2004, 12, 31, tzinfo=UTC)
_FIRST_REGISTRATION = datetime(2002, 3, 21, tzinfo=UTC)

# The API's lists are untidy, and so are its users: a loader that trims loses something.
_ENDS_IN_A_SPACE = 1 / 500
_EMPTY_PASSWORD = 1 / 2500

_GENDERS = ("male", "female")
_PORTRAITS = {"male": ("men", 100), "female": ("women", 97)}


class Lists(NamedTuple):
    """The names and places of one nationality. First and last names by gender: male, female."""

    first: Mapping[str, Sequence[str]]
    last: Mapping[str, Sequence[str]]
    cities: Sequence[str]
    states: Sequence[str]
    streets: Sequence[str]


_NO_LISTS = Lists(dict.fromkeys(_GENDERS, ()), dict.fromkeys(_GENDERS, ()), (), (), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Nationality:
    """How people of one nationality are named, reached and numbered.

    In patterns, `#` is a digit and `@` a capital letter. `postcode` is a pattern or, where the API sends a
    number, its lowest and highest value. `street_forms` make an address of a street's bare name.
    """

    country: str
    locale: str | None
    postcode: tuple[int, int] | str = (10000, 99999)
    phone: str
    cell: str
    id_name: str = ""
    id_pattern: str | None = None
    street_forms: Sequence[str] = ("{}",)
    mister: str = "Mr"
    women_titles: Sequence[str] = ("Miss", "Mrs", "Ms")


class _Names(msgspec.Struct):
    male: list[str]
    female: list[str]


class _Person(msgspec.Struct):
    names: _Names
    surnames: list[str] | dict[str, list[str]]  # by gender where the language has it so


class _Named(msgspec.Struct):
    name: list[str] = []


class _Address(msgspec.Struct):
    street: _Named
    state: _Named
    city: list[str] = []


# The datasets hold a few broken entries ("Jerónimo/Gerónimo", "Bena?", "[edit]", text decoded twice). A name
# is letters, two or more, with spaces, apostrophes, hyphens, full stops and zero-width non-joiners between.
_NAME = re.compile(r"^(?=.{2})[^\W\d_]+(?:[ '’.\-\u200c]{1,2}[^\W\d_]+)*$", re.MULTILINE)


def _listed(text: str) -> Sequence[str]:
    return tuple(" ".join(name.split()) for name in text.split(","))


def _clean(names: Sequence[str]) -> Sequence[str]:
    return _NAME.findall("\n".join([name.strip() for name in names]))  # the loop over 70,000 names is in C


@functools.cache
def lists(code: str) -> Lists:
    """The names and places of the nationality `code`, read once per process.

    Raises:
        KeyError: there is no such nationality.
        msgspec.ValidationError: mimesis has changed the shape of its datasets.
    """
    own = {kind: _listed(text) for kind, text in _OWN_LISTS.get(code, {}).items()}
    locale = NATIONALITIES[code].locale
    base = _locale_lists(locale) if locale else _NO_LISTS
    return Lists(
        first={gender: own.get(gender) or base.first[gender] for gender in _GENDERS},
        last={gender: own.get("last") or base.last[gender] for gender in _GENDERS},
        cities=own.get("cities") or base.cities,
        states=own.get("states") or base.states,
        streets=own.get("streets") or base.streets,
    )


@functools.cache
def _locale_lists(locale: str) -> Lists:
    folder = _datasets() / locale
    person = msgspec.json.decode((folder / "person.json").read_bytes(), type=_Person)
    address = msgspec.json.decode((folder / "address.json").read_bytes(), type=_Address)
    surnames = person.surnames
    if isinstance(surnames, list):
        surnames = dict.fromkeys(_GENDERS, surnames)
    return Lists(
        first={"male": _clean(person.names.male), "female": _clean(person.names.female)},
        last={gender: _clean(surnames[gender]) for gender in _GENDERS},
        cities=_clean(address.city),
        states=_clean(address.state.name),
        streets=address.street.name,  # as untidy as the API's
    )


@functools.cache
def _datasets() -> Path:
    mimesis = find_spec("mimesis")  # finds the package without importing it
    if mimesis is None or mimesis.origin is None:
        message = "The API stand-in takes its names from mimesis, which is not installed."
        raise ModuleNotFoundError(message, name="mimesis")
    return Path(mimesis.origin).parent / "datasets"


def _spelled(text: str) -> Mapping[str, str]:
    """Letters and how they are spelled, from "а a, є ye, ь": a letter alone is silent."""
    letters = (pair.partition(" ") for pair in _listed(text))
    return {letter: spelling for letter, _, spelling in letters}


# A Devanagari consonant that no vowel sign follows is spoken with an a, but for the last of a word.
_CONSONANT_WITH_A = re.compile(r"([क-ह])(?=[अ-ह\u0901\u0902])")
_NOT_IN_AN_ADDRESS = re.compile(r"[^a-z0-9'.-]")


@functools.cache
def romanized(name: str) -> str:
    """`name` as it stands in an e-mail address: lower-case ASCII, no spaces."""
    spelled = _CONSONANT_WITH_A.sub(r"\1अ", name.lower()).translate(_ROMANIZED)
    return _NOT_IN_AN_ADDRESS.sub("", unicodedata.normalize("NFKD", spelled))


class _Drawn(NamedTuple):
    """What every field of one person is made from."""

    code: str
    nationality: Nationality
    lists: Lists
    gender: str
    title: str
    first: str
    last: str


# Every draw below uses `Random.random` and `getrandbits` alone: they give the same numbers in every Python
# version, which `choice` and `randrange` do not promise, and cost less.
def _one_of(random: Random, values: Sequence[str]) -> str:
    return values[int(random.random() * len(values))]


def _number(random: Random, low: int, high: int) -> int:
    return low + int(random.random() * (high - low + 1))


def _filled(random: Random, pattern: str) -> str:
    draw = random.random
    return "".join(
        [
            _DIGITS[int(draw() * 10)] if mark == "#" else _CAPITALS[int(draw() * 26)] if mark == "@" else mark
            for mark in pattern
        ]
    )


def _untidy(random: Random, text: str) -> str:
    return f"{text} " if random.random() < _ENDS_IN_A_SPACE else text


def _moment(random: Random, earliest: datetime, latest: datetime) -> Record:
    milliseconds = int(random.random() * ((latest - earliest) // _MILLISECOND))
    moment = earliest + milliseconds * _MILLISECOND
    had_this_year = (moment.month, moment.day) <= (_TODAY.month, _TODAY.day)
    return {
        "date": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "age": _TODAY.year - moment.year - (not had_this_year),
    }


def _name(_random: Random, who: _Drawn) -> Record:
    return {"title": who.title, "first": who.first, "last": who.last}


def _location(random: Random, who: _Drawn) -> Record:
    nationality, names = who.nationality, who.lists
    street = _one_of(random, nationality.street_forms).format(_one_of(random, names.streets))
    offset, description = _TIMEZONES[int(random.random() * len(_TIMEZONES))]
    postcode = nationality.postcode
    return {
        "street": {"number": _number(random, 1, 9999), "name": street},
        "city": _untidy(random, _one_of(random, names.cities)),
        "state": _one_of(random, names.states),
        "country": nationality.country,
        "postcode": _filled(random, postcode) if isinstance(postcode, str) else _number(random, *postcode),
        "coordinates": {
            "latitude": f"{random.random() * 180 - 90:.4f}",
            "longitude": f"{random.random() * 360 - 180:.4f}",
        },
        "timezone": {"offset": offset, "description": description},
    }


def _email(_random: Random, who: _Drawn) -> str:
    return f"{romanized(who.first)}.{romanized(who.last)}@example.com"


def _login(random: Random, _who: _Drawn) -> Record:
    digits = f"{random.getrandbits(128):032x}"
    password = _one_of(random, _PASSWORDS) + _one_of(random, _PASSWORD_ENDINGS)
    if random.random() < _EMPTY_PASSWORD:
        password = ""
    number = random.random
    salt = "".join([_ALPHANUMERIC[int(number() * 62)] for _ in range(8)])
    salted = (password + salt).encode()
    variant = _one_of(random, "89ab")
    return {
        "uuid": f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}",
        "username": f"{_one_of(random, _ADJECTIVES)}{_one_of(random, _ANIMALS)}{_number(random, 100, 999)}",
        "password": password,
        "salt": salt,
        "md5": hashlib.md5(salted, usedforsecurity=False).hexdigest(),
        "sha1": hashlib.sha1(salted, usedforsecurity=False).hexdigest(),
        "sha256": hashlib.sha256(salted).hexdigest(),
    }


def _id(random: Random, who: _Drawn) -> Record:
    pattern = who.nationality.id_pattern
    return {"name": who.nationality.id_name, "value": None if pattern is None else _filled(random, pattern)}


def _picture(random: Random, who: _Drawn) -> Record:
    folder, portraits = _PORTRAITS[who.gender]
    portrait = f"{folder}/{_number(random, 0, portraits - 1)}.jpg"
    return {
        "large": f"https://randomuser.me/api/portraits/{portrait}",
        "medium": f"https://randomuser.me/api/portraits/med/{portrait}",
        "thumbnail": f"https://randomuser.me/api/portraits/thumb/{portrait}",
    }


# In the order in which a record holds them.
_FIELDS: Mapping[str, Callable[[Random, _Drawn], object]] = {
    "gender": lambda _random, who: who.gender,
    "name": _name,
    "location": _location,
    "email": _email,
    "login": _login,
    "dob": lambda random, _who: _moment(random, _OLDEST, _YOUNGEST),
    "registered": lambda random, _who: _moment(random, _FIRST_REGISTRATION, _TODAY),
    "phone": lambda random, who: _filled(random, who.nationality.phone),
    "cell": lambda random, who: _filled(random, who.nationality.cell),
    "id": _id,
    "picture": _picture,
    "nat": lambda _random, who: who.code,
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
        nationality: A code from `NATIONALITIES` for all of them; any of the 21 if None.

    Returns:
        One record per user, its fields in the order of `FIELDS`.
    """
    chosen = [(field, drawn) for field, drawn in _FIELDS.items() if field in fields]
    question = "\n".join([",".join([field for field, _ in chosen]), nationality or "", str(page), seed])
    random = Random(int.from_bytes(hashlib.sha256(question.encode()).digest(), "big"))  # noqa: S311 - to be repeatable
    codes = tuple(NATIONALITIES) if nationality is None else (nationality,)
    users: list[Record] = []
    for _ in range(results):
        who = _person(random, codes)
        users.append({field: drawn(random, who) for field, drawn in chosen})
    return users


def _person(random: Random, codes: Sequence[str]) -> _Drawn:
    code = _one_of(random, codes)
    nationality, names = NATIONALITIES[code], lists(code)
    gender = _one_of(random, _GENDERS)
    woman = _one_of(random, nationality.women_titles)
    return _Drawn(
        code=code,
        nationality=nationality,
        lists=names,
        gender=gender,
        title=nationality.mister if gender == "male" else woman,
        first=_one_of(random, names.first[gender]),
        last=_untidy(random, _one_of(random, names.last[gender])),
    )


# The data, from here to the end.

_ENGLISH_STREETS = ("{} Street", "{} Road", "{} Avenue", "{} Lane", "{} Drive")
_ENGLISH_STREETS_SHORT = ("{} St", "{} Rd", "{} Ave", "{} Ln", "{} Dr")

# In the API's own order: a seed of 18 characters names one by its place here.
NATIONALITIES: Mapping[str, Nationality] = {
    "AU": Nationality(
        country="Australia",
        locale="en-au",
        postcode=(200, 9999),
        phone="0#-####-####",
        cell="04##-###-###",
        id_name="TFN",
        id_pattern="#########",
        street_forms=_ENGLISH_STREETS_SHORT,
    ),
    "BR": Nationality(
        country="Brazil",
        locale="pt-br",
        phone="(##) ####-####",
        cell="(##) ####-####",
        id_name="CPF",
        id_pattern="###.###.###-##",
    ),
    "CA": Nationality(
        country="Canada",
        locale="en-ca",
        postcode="@#@ #@#",
        phone="@## @##-####",
        cell="@## @##-####",
        id_name="SIN",
        id_pattern="#########",
        street_forms=_ENGLISH_STREETS_SHORT,
    ),
    "CH": Nationality(
        country="Switzerland",
        locale="de-ch",
        postcode=(1000, 9999),
        phone="07# ### ## ##",
        cell="07# ### ## ##",
        id_name="AVS",
        id_pattern="756.####.####.##",
        mister="Monsieur",
        women_titles=("Madame", "Mademoiselle"),
    ),
    "DE": Nationality(
        country="Germany",
        locale="de",
        phone="0###-#######",
        cell="017#-#######",
        id_name="SVNR",
        id_pattern="## ###### @ ###",
    ),
    "DK": Nationality(
        country="Denmark",
        locale="da",
        phone="########",
        cell="########",
        id_name="CPR",
        id_pattern="######-####",
    ),
    "ES": Nationality(
        country="Spain",
        locale="es",
        phone="9##-###-###",
        cell="6##-###-###",
        id_name="DNI",
        id_pattern="########-@",
    ),
    "FI": Nationality(
        country="Finland",
        locale="fi",
        phone="0#-###-###",
        cell="04#-###-##-##",
        id_name="HETU",
        id_pattern="NaNNA###undefined",  # what the API really sends
    ),
    "FR": Nationality(
        country="France",
        locale="fr",
        phone="0#-##-##-##-##",
        cell="06-##-##-##-##",
        id_name="INSEE",
        id_pattern="############# ##",
        street_forms=("Rue {}", "Avenue {}", "Place {}"),
    ),
    "GB": Nationality(
        country="United Kingdom",
        locale="en-gb",
        postcode="@@## #@@",
        phone="01### ######",
        cell="07### ######",
        id_name="NINO",
        id_pattern="@@ ## ## ## @",
        street_forms=_ENGLISH_STREETS,
    ),
    "IE": Nationality(
        country="Ireland",
        locale="en-gb",
        phone="0##-###-####",
        cell="081-###-####",
        id_name="PPS",
        id_pattern="#######T@",
        street_forms=_ENGLISH_STREETS,
    ),
    "IN": Nationality(
        country="India",
        locale=None,
        phone="##########",
        cell="##########",
        id_name="UIDAI",
        id_pattern="############",
    ),
    "IR": Nationality(
        country="Iran",
        locale="fa",
        phone="0##-########",
        cell="09##-###-####",
        street_forms=("خیابان {}", "کوچه {}", "{}"),
    ),
    "MX": Nationality(
        country="Mexico",
        locale="es-mx",
        phone="(###) ### ####",
        cell="(###) ### ####",
        id_name="NSS",
        id_pattern="## ## ## #### #",
        street_forms=("Calle {}", "Avenida {}", "Boulevard {}"),
    ),
    "NL": Nationality(
        country="Netherlands",
        locale="nl",
        postcode="#### @@",
        phone="(0##) #######",
        cell="(06) ########",
        id_name="BSN",
        id_pattern="########",
    ),
    "NO": Nationality(
        country="Norway",
        locale="no",
        postcode="####",
        phone="########",
        cell="########",
        id_name="FN",
        id_pattern="###########",
    ),
    "NZ": Nationality(
        country="New Zealand",
        locale="en-gb",
        phone="(###)-###-####",
        cell="(###)-###-####",
        street_forms=_ENGLISH_STREETS,
    ),
    "RS": Nationality(
        country="Serbia",
        locale=None,
        phone="0##-####-###",
        cell="06#-####-###",
        id_name="SID",
        id_pattern="#########",
    ),
    "TR": Nationality(
        country="Turkey",
        locale="tr",
        phone="(###)-###-####",
        cell="(###)-###-####",
        street_forms=("{} Cd", "{} Sk"),
    ),
    "UA": Nationality(
        country="Ukraine",
        locale="uk",
        phone="(0##) @##-####",
        cell="(09#) @##-####",
        street_forms=("вулиця {}", "провулок {}"),
    ),
    "US": Nationality(
        country="United States",
        locale="en",
        phone="(###) ###-####",
        cell="(###) ###-####",
        id_name="SSN",
        id_pattern="###-##-####",
        street_forms=_ENGLISH_STREETS_SHORT,
    ),
}

# What mimesis lacks, or has of another country or of one letter of the alphabet alone. First names are under
# "male" and "female".
_OWN_LISTS: Mapping[str, Mapping[str, str]] = {
    "AU": {
        "cities": """
            Adelaide, Albany, Albury, Ballarat, Bathurst, Bendigo, Brisbane, Bunbury, Bundaberg, Cairns,
            Canberra, Coffs Harbour, Darwin, Dubbo, Geelong, Geraldton, Gladstone, Gold Coast, Hervey Bay,
            Hobart, Kalgoorlie, Launceston, Mackay, Maitland, Melbourne, Mildura, Newcastle, Nowra, Orange,
            Perth, Port Macquarie, Rockhampton, Shepparton, Sydney, Tamworth, Toowoomba, Townsville, Wagga
            Wagga, Warrnambool, Wollongong
            """,
    },
    "CA": {
        "cities": """
            Abbotsford, Barrie, Brandon, Calgary, Charlottetown, Dawson, Edmonton, Fredericton, Gatineau,
            Guelph, Halifax, Hamilton, Iqaluit, Kamloops, Kelowna, Kingston, Kitchener, Laval, Lethbridge,
            Lévis, London, Moncton, Montréal, Nanaimo, Oshawa, Ottawa, Québec, Regina, Saint-Jérôme,
            Saskatoon, Sherbrooke, St. John's, Sudbury, Thunder Bay, Toronto, Trois-Rivières, Vancouver,
            Victoria, Whitehorse, Winnipeg, Yellowknife
            """,
        "last": """
            Bélanger, Bouchard, Brown, Campbell, Chan, Côté, Fortin, Gagné, Gagnon, Gauthier, Gill, Grant,
            Harris, Johnson, Jones, Knight, Lam, Lavoie, Lee, Li, MacDonald, Martin, Mitchell, Morin,
            Ouellet, Patel, Pelletier, Reid, Roy, Scott, Singh, Smith, Stewart, Taylor, Thompson, Tremblay,
            Walker, White, Williams, Wilson, Wong, Young
            """,
    },
    "ES": {
        "last": """
            Aguilar, Álvarez, Arias, Benítez, Blanco, Cabrera, Calvo, Campos, Cano, Carrasco, Castillo,
            Castro, Cortés, Crespo, Cruz, Delgado, Díaz, Díez, Domínguez, Durán, Esteban, Fernández, Ferrer,
            Flores, Fuentes, Gallego, García, Garrido, Gil, Giménez, Gómez, González, Guerrero, Gutiérrez,
            Hernández, Herrera, Herrero, Hidalgo, Ibáñez, Iglesias, Jiménez, León, López, Lorenzo, Lozano,
            Marín, Márquez, Martín, Martínez, Medina, Méndez, Molina, Montero, Mora, Morales, Moreno, Moya,
            Muñoz, Navarro, Nieto, Núñez, Ortega, Ortiz, Parra, Pascual, Pastor, Peña, Pérez, Prieto,
            Ramírez, Ramos, Reyes, Rodríguez, Román, Romero, Rubio, Ruiz, Sáez, Sánchez, Santana, Santiago,
            Santos, Sanz, Serrano, Soler, Soto, Suárez, Torres, Vargas, Vázquez, Vega, Velasco, Vicente,
            Vidal
            """,
    },
    "IE": {
        "last": """
            Barry, Boyle, Breen, Brennan, Burke, Byrne, Cahill, Carroll, Clarke, Collins, Connolly, Cullen,
            Daly, Doherty, Dolan, Donnelly, Doyle, Duffy, Dunne, Egan, Farrell, Fitzgerald, Flanagan, Flynn,
            Foley, Gallagher, Hayes, Healy, Hogan, Hughes, Kavanagh, Keane, Kelly, Kennedy, Kenny, Lynch,
            Maguire, Maher, Martin, McCarthy, McDonnell, McGrath, McKenna, McLoughlin, McMahon, Moloney,
            Molony, Moore, Moran, Murphy, Murray, Nolan, Ó Briain, Ó Sé, O'Brien, O'Callaghan, O'Connell,
            O'Connor, O'Donnell, O'Donovan, O'Keeffe, O'Leary, O'Mahony, O'Neill, O'Reilly, O'Rourke,
            O'Shea, O'Sullivan, O'Toole, Power, Quinn, Redmond, Regan, Reilly, Roche, Ryan, Shaw, Sheehan,
            Smyth, Sweeney, Tobin, Walsh, Whelan
            """,
        "cities": """
            Arklow, Athlone, Athy, Balbriggan, Ballina, Bandon, Bantry, Bray, Buncrana, Carlow,
            Carrick-on-Suir, Cashel, Castlebar, Cavan, Clonmel, Cobh, Cork, Drogheda, Dublin, Dundalk,
            Dungarvan, Dún Laoghaire, Ennis, Galway, Gorey, Greystones, Kilkenny, Killarney, Kinsale,
            Letterkenny, Limerick, Longford, Mallow, Midleton, Monaghan, Mullingar, Naas, Navan, Nenagh, New
            Ross, Newbridge, Roscommon, Skerries, Sligo, Swords, Thurles, Tralee, Trim, Tullamore,
            Waterford, Westport, Wexford, Wicklow, Youghal
            """,
        "states": """
            Carlow, Cavan, Clare, Cork, Donegal, Dublin City, Dún Laoghaire–Rathdown, Fingal, Galway, Kerry,
            Kildare, Kilkenny, Laois, Leitrim, Limerick, Longford, Louth, Mayo, Meath, Monaghan, Offaly,
            Roscommon, Sligo, South Dublin, Tipperary, Waterford, Westmeath, Wexford, Wicklow
            """,
    },
    "IN": {
        "male": """
            अमित, अजय, अनिल, अर्जुन, अशोक, आदित्य, आकाश, आनंद, अरुण, भरत, चेतन, दीपक, धीरज, दिनेश, गणेश,
            गौरव, गोपाल, हरीश, हेमंत, ईशान, जगदीश, जितेंद्र, कमल, करण, कार्तिक, किशोर, कृष्ण, कुणाल, ललित,
            महेश, मनीष, मनोज, मोहन, मुकेश, नरेश, नवीन, निखिल, नितिन, पंकज, प्रकाश, प्रदीप, प्रमोद, राहुल,
            राज, राजेश, राकेश, रमेश, रवि, रोहित, सचिन, संजय, संदीप, संतोष, सतीश, शिव, सुनील, सुरेश, सूरज,
            तरुण, उमेश, विजय, विकास, विनोद, विशाल, विवेक, यश, योगेश
            """,
        "female": """
            आशा, अदिति, अंजलि, अनीता, अनुराधा, आरती, भावना, चित्रा, दीपा, दिव्या, गायत्री, गीता, हेमा, इंदु,
            ज्योति, जया, कल्पना, कमला, कविता, किरण, कोमल, लता, लक्ष्मी, माधुरी, मालती, मंजू, मीना, मीरा,
            मोनिका, नंदिनी, नेहा, निशा, पद्मा, पल्लवी, पूजा, पूनम, प्रिया, प्रीति, राधा, रजनी, रानी, रेखा,
            रीना, रितु, रूपा, सरिता, संगीता, सीमा, शालिनी, शांति, शिल्पा, श्वेता, सीता, स्मिता, सोनिया,
            सुधा, सुमन, सुनीता, सुषमा, तारा, उमा, उषा, वंदना, विद्या
            """,
        "last": """
            शर्मा, वर्मा, गुप्ता, सिंह, कुमार, यादव, मिश्रा, पांडे, तिवारी, त्रिवेदी, चतुर्वेदी, द्विवेदी,
            जोशी, पटेल, शाह, मेहता, देसाई, देशमुख, पाटिल, कुलकर्णी, जाधव, पवार, चौहान, राठौर, राजपूत, ठाकुर,
            राव, रेड्डी, नायर, मेनन, अय्यर, पिल्लई, नायडू, गौडा, शेट्टी, दास, सेन, बोस, घोष, बनर्जी,
            मुखर्जी, चटर्जी, दत्ता, रॉय, सरकार, चौधरी, मल्होत्रा, कपूर, खन्ना, आहूजा, भाटिया, सेठी, गिल,
            बाजवा, अग्रवाल, बंसल, गोयल, जैन, सक्सेना, श्रीवास्तव, माथुर, भट्ट, पंत, नेगी, रावत, बिष्ट
            """,
        "cities": """
            मुंबई, दिल्ली, कोलकाता, चेन्नई, बेंगलुरु, हैदराबाद, अहमदाबाद, पुणे, सूरत, जयपुर, लखनऊ, कानपुर,
            नागपुर, इंदौर, ठाणे, भोपाल, विशाखापत्तनम, पटना, वडोदरा, लुधियाना, आगरा, नाशिक, फरीदाबाद, मेरठ,
            राजकोट, वाराणसी, श्रीनगर, धनबाद, अमृतसर, प्रयागराज, रांची, जबलपुर, ग्वालियर, कोयंबटूर, मदुरै,
            रायपुर, कोटा, गुवाहाटी, मैसूर, देहरादून
            """,
        "states": """
            आंध्र प्रदेश, अरुणाचल प्रदेश, असम, बिहार, छत्तीसगढ़, गोवा, गुजरात, हरियाणा, हिमाचल प्रदेश,
            झारखंड, कर्नाटक, केरल, मध्य प्रदेश, महाराष्ट्र, मणिपुर, मेघालय, मिजोरम, नागालैंड, ओडिशा, पंजाब,
            राजस्थान, सिक्किम, तमिलनाडु, तेलंगाना, त्रिपुरा, उत्तर प्रदेश, उत्तराखंड, पश्चिम बंगाल
            """,
        "streets": """
            महात्मा गांधी मार्ग, नेहरू मार्ग, स्टेशन रोड, तिलक मार्ग, सुभाष मार्ग, राजपथ, चांदनी चौक, मॉल
            रोड, पटेल नगर, शिवाजी नगर, गांधी नगर, इंदिरा नगर, सदर बाजार, सिविल लाइंस, कनॉट प्लेस, लिंक रोड,
            अशोक मार्ग, हजरतगंज, बापू बाजार, आजाद मार्ग, कस्तूरबा मार्ग, राजाजी मार्ग, विवेकानंद मार्ग,
            टैगोर मार्ग, झांसी मार्ग
            """,
    },
    "MX": {
        "cities": """
            Acapulco, Aguascalientes, Bernal, Campeche, Cancún, Celaya, Chetumal, Chihuahua, Ciudad Juárez,
            Ciudad Obregón, Ciudad Victoria, Coatzacoalcos, Colima, Córdoba, Cuernavaca, Culiacán, Durango,
            Ensenada, Gómez Palacio, Guadalajara, Guanajuato, Hermosillo, Irapuato, Jiquilpan, La Paz, León,
            Los Mochis, Manzanillo, Matamoros, Mazatlán, Mérida, Mexicali, Monterrey, Morelia, Nogales,
            Nuevo Laredo, Oaxaca, Pachuca, Puebla, Querétaro, Reynosa, Salamanca, Saltillo, San Cristóbal de
            las Casas, San Jeronimito (San Jerónimo), San Luis Potosí, Tampico, Tapachula, Tepic, Tijuana,
            Tlaxcala, Toluca, Torreón, Tula, Tuxtla Gutiérrez, Uruapan, Veracruz, Villahermosa, Xalapa,
            Zacatecas, Zamora
            """,
    },
    "NO": {
        "streets": """
            Akersgata, Bakkeveien, Bekkefaret, Bjerkealléen, Bjørnsons gate, Bygdøy allé, Carl Berners
            plass, Dronningens gate, Elveveien, Fagerborggata, Fjellveien, Fjordgata, Furuveien, Granveien,
            Grønlandsleiret, Havnegata, Holbergs gate, Ibsens gate, Industrigata, Karl Johans gate,
            Kirkegata, Kirkeveien, Kongens gate, Liaveien, Lindealléen, Maridalsveien, Markveien, Nansens
            vei, Nordahl Bruns gate, Parkveien, Prinsens gate, Rådhusgata, Sjøgata, Skogveien, Skolegata,
            Solveien, Storgata, Strandgata, Theresegata, Torggata, Trondheimsveien, Ullevålsveien, Vestre
            Aker vei, Wergelandsveien, Østmarkveien, Åsveien
            """,
    },
    "NZ": {
        "last": """
            Anderson, Baker, Bell, Brown, Campbell, Chen, Clarke, Cooper, Davies, Davis, Edwards, Evans,
            Fraser, Gray, Green, Hall, Harris, Henare, Hohepa, Hughes, Jackson, Johnson, Johnston, Jones,
            Kaur, King, Kumar, Lee, Lewis, MacDonald, Martin, Mason, Mitchell, Moore, Morgan, Morris,
            Murray, Ngata, O'Connor, Parata, Parker, Patel, Phillips, Reid, Roberts, Robertson, Robinson,
            Ruru, Ryan, Scott, Sharma, Singh, Smith, Stewart, Tāmihana, Taylor, Thomas, Thompson, Turner,
            Walker, Wang, Watson, White, Williams, Wilson, Wood, Wright, Young, Zhang
            """,
        "cities": """
            Ashburton, Auckland, Blenheim, Christchurch, Dunedin, Gisborne, Greymouth, Hamilton, Hastings,
            Invercargill, Kaikōura, Lower Hutt, Masterton, Napier, Nelson, New Plymouth, Ōamaru, Palmerston
            North, Porirua, Queenstown, Rotorua, Taupō, Tauranga, Timaru, Upper Hutt, Wellington, Whakatāne,
            Whanganui, Whangārei
            """,
        "states": """
            Auckland, Bay of Plenty, Canterbury, Gisborne, Hawke's Bay, Manawatū-Whanganui, Marlborough,
            Nelson, Northland, Otago, Southland, Taranaki, Tasman, Waikato, Wellington, West Coast
            """,
    },
    "RS": {
        "male": """
            Aleksandar, Andrija, Aleksa, Bogdan, Bojan, Boris, Branislav, Branko, Dejan, Dimitrije, Dragan,
            Dragoljub, Đorđe, Dušan, Goran, Igor, Ivan, Jovan, Lazar, Luka, Ljubomir, Marko, Mihailo, Milan,
            Miloš, Mirko, Miroslav, Mladen, Nebojša, Nemanja, Nenad, Nikola, Ognjen, Pavle, Petar, Predrag,
            Radovan, Ratko, Saša, Sava, Slavko, Slobodan, Srđan, Stefan, Stevan, Strahinja, Teodor, Uroš,
            Vanja, Veljko, Vladan, Vladimir, Vojislav, Vuk, Zoran, Željko, Živko
            """,
        "female": """
            Aleksandra, Ana, Anđela, Biljana, Bojana, Branka, Danica, Dragana, Dušanka, Gordana, Isidora,
            Ivana, Jasmina, Jelena, Jovana, Katarina, Ksenija, Lidija, Ljiljana, Maja, Marija, Marina,
            Milena, Milica, Mirjana, Nada, Nadežda, Nataša, Nevena, Nina, Olivera, Radmila, Ružica, Sanja,
            Sara, Slavica, Slađana, Snežana, Sofija, Sonja, Svetlana, Tamara, Tanja, Teodora, Tijana, Una,
            Vera, Verica, Vesna, Višnja, Zorica, Željka, Živka
            """,
        "last": """
            Adamović, Aleksić, Anđelković, Antić, Arsić, Babić, Bogdanović, Božić, Branković, Cvetković,
            Ćirić, Ćosić, Dimić, Dimitrijević, Dragić, Đokić, Đorđević, Đukić, Filipović, Gajić, Gavrilović,
            Ilić, Ivanović, Jakovljević, Janković, Jeremić, Jovanović, Jović, Kostić, Kovačević, Krstić,
            Lazarević, Lazić, Lukić, Maksimović, Marić, Marinković, Marković, Matić, Mihajlović, Mijatović,
            Miletić, Milić, Milošević, Milovanović, Mitrović, Mladenović, Nedeljković, Nešić, Nikolić,
            Novaković, Obradović, Pantić, Pavlović, Pavić, Perić, Petković, Petrović, Popović, Radić,
            Radovanović, Rakić, Ristić, Savić, Simić, Spasić, Stanić, Stanković, Stefanović, Stević,
            Stojanović, Stojković, Tasić, Todorović, Tomić, Vasić, Vasiljević, Vidić, Vuković, Zdravković,
            Žigić, Živković
            """,
        "cities": """
            Apatin, Aranđelovac, Bačka Palanka, Bečej, Beograd, Bor, Čačak, Ćuprija, Gornji Milanovac,
            Inđija, Jagodina, Kikinda, Knjaževac, Kragujevac, Kraljevo, Kruševac, Kula, Leskovac, Loznica,
            Negotin, Niš, Novi Pazar, Novi Sad, Pančevo, Paraćin, Pirot, Požarevac, Prokuplje, Ruma, Senta,
            Smederevo, Smederevska Palanka, Sokobanja, Sombor, Sremska Mitrovica, Srbobran, Subotica, Šabac,
            Šid, Užice, Valjevo, Vranje, Vrbas, Vršac, Zaječar, Zrenjanin, Žabari
            """,
        "states": """
            Bor, Braničevo, Central Banat, Jablanica, Kolubara, Mačva, Moravica, Nišava, North Bačka, North
            Banat, Pčinja, Pirot, Podunavlje, Pomoravlje, Rasina, Raška, South Bačka, South Banat, Srem,
            Šumadija, Toplica, West Bačka, Zaječar, Zlatibor
            """,
        "streets": """
            Balkanska, Bulevar kralja Aleksandra, Bulevar oslobođenja, Cara Dušana, Cara Lazara, Cerski
            venac, Cvijićeva, Dositejeva, Dunavska, Đure Jakšića, Francuska, Hajduk Veljkova, Jovana
            Cvijića, Karađorđeva, Kneza Miloša, Kneza Mihaila, Kolarčeva, Kralja Petra, Maksima Gorkog,
            Mihajla Pupina, Miloša Crnjanskog, Moravska, Nemanjina, Nikole Tesle, Njegoševa, Partizanska,
            Resavska, Save Kovačevića, Skadarska, Stevana Sinđelića, Svetog Save, Svetosavska, Topličina,
            Učiteljska, Vojvode Mišića, Vojvode Stepe, Vuka Karadžića, Zmaj Jovina, Železnička, Žička
            """,
    },
    "UA": {
        "last": """
            Бабенко, Бойко, Бондар, Бондаренко, Василенко, Власенко, Волошин, Гаврилюк, Гнатюк, Гончар,
            Гончаренко, Гриценко, Давиденко, Дем'яненко, Дем'янчук, Денисенко, Дорошенко, Дяченко,
            Захарченко, Іваненко, Іщенко, Карпенко, Кириленко, Клименко, Коваленко, Коваль, Ковальчук,
            Козак, Коломієць, Костенко, Костюк, Кравець, Кравченко, Кравчук, Кузьменко, Кулик, Кушнір,
            Левченко, Литвин, Литвиненко, Лисенко, Лук'яненко, Лук'янчук, Мазур, Макаренко, Марченко,
            Мартинюк, Мельник, Мельничук, Мироненко, Мороз, Назаренко, Нестеренко, Олійник, Онищенко,
            Остапенко, Павленко, Павлюк, Панченко, Пархоменко, Петренко, Поліщук, Пономаренко, Приходько,
            Романенко, Романюк, Руденко, Савченко, Савчук, Семенюк, Сергієнко, Сидоренко, Скиба, Стеценко,
            Тарасенко, Ткач, Ткаченко, Ткачук, Тимошенко, Федоренко, Харченко, Хоменко, Цимбалюк, Черненко,
            Чорнобай, Шаповал, Швець, Шевченко, Шевчук, Шульга, Юрченко, Яковенко, Яременко, Ященко
            """,
    },
}

_TIMEZONES = (
    ("-12:00", "Eniwetok, Kwajalein"),
    ("-11:00", "Midway Island, Samoa"),
    ("-10:00", "Hawaii"),
    ("-9:00", "Alaska"),
    ("-8:00", "Pacific Time (US & Canada)"),
    ("-7:00", "Mountain Time (US & Canada)"),
    ("-6:00", "Central Time (US & Canada), Mexico City"),
    ("-5:00", "Eastern Time (US & Canada), Bogota, Lima"),
    ("-4:00", "Atlantic Time (Canada), Caracas, La Paz"),
    ("-3:30", "Newfoundland"),
    ("-3:00", "Brazil, Buenos Aires, Georgetown"),
    ("-2:00", "Mid-Atlantic"),
    ("-1:00", "Azores, Cape Verde Islands"),
    ("0:00", "Western Europe Time, London, Lisbon, Casablanca"),
    ("+1:00", "Brussels, Copenhagen, Madrid, Paris"),
    ("+2:00", "Kaliningrad, South Africa"),
    ("+3:00", "Baghdad, Riyadh, Moscow, St. Petersburg"),
    ("+3:30", "Tehran"),
    ("+4:00", "Abu Dhabi, Muscat, Baku, Tbilisi"),
    ("+4:30", "Kabul"),
    ("+5:00", "Ekaterinburg, Islamabad, Karachi, Tashkent"),
    ("+5:30", "Bombay, Calcutta, Madras, New Delhi"),
    ("+5:45", "Kathmandu"),
    ("+6:00", "Almaty, Dhaka, Colombo"),
    ("+7:00", "Bangkok, Hanoi, Jakarta"),
    ("+8:00", "Beijing, Perth, Singapore, Hong Kong"),
    ("+9:00", "Tokyo, Seoul, Osaka, Sapporo, Yakutsk"),
    ("+9:30", "Adelaide, Darwin"),
    ("+10:00", "Eastern Australia, Guam, Vladivostok"),
    ("+11:00", "Magadan, Solomon Islands, New Caledonia"),
)

# 23 x 26 words and 900 numbers: as in the API, some 20 user names are given twice in 5,000.
_ADJECTIVES = _listed(
    """
    angry, beautiful, big, black, blue, brown, crazy, golden, green, happy, heavy, lazy, orange, organic,
    purple, red, sad, silver, small, ticklish, tiny, white, yellow
    """
)
_ANIMALS = _listed(
    """
    bear, bird, butterfly, cat, dog, duck, elephant, fish, frog, goose, gorilla, koala, ladybug, leopard,
    lion, meercat, mouse, ostrich, panda, peacock, rabbit, snake, swan, tiger, wolf, zebra
    """
)
_PASSWORDS = _listed(
    """
    abc123, airplane, alaska, albert, alpha, amanda, amber, america, anchor, andrea, angel, animal, apollo,
    apple, april, arctic, austin, autumn, avatar, badger, bamboo, banana, bandit, barney, baseball, batman,
    beach, beagle, bigben, birdie, blizzard, blossom, boomer, boston, bottle, bridge, broken, bubbles,
    buster, butter, cactus, calvin, camera, candle, captain, carbon, carrot, casper, castle, celtic, center,
    charlie, cheese, cherry, chester, chicken, chopin, circle, classic, clover, cobra, coffee, comet,
    compass, cookie, copper, corvette, cosmos, cowboy, cricket, crystal, dakota, dallas, daniel, denver,
    detroit, diamond, digger, dolphin, dragon, driver, eagle, eclipse, elephant, emerald, enigma, escape,
    falcon, family, fender, ferrari, fiddle, fisher, flower, football, forest, freedom, friend, frosty,
    galaxy, garden, garfield, gemini, genesis, giant, ginger, glacier, golden, golfer, gordon, granite,
    guitar, hammer, hannah, happy, harley, harmony, hello, helmut, hockey, holiday, honey, horizon, hunter,
    iceman, indigo, island, jackson, jaguar, jasmine, jasper, jersey, jordan, jungle, jupiter, karen,
    kermit, kitten, knight, lakers, laser, lemon, letmein, liberty, lizard, london, lucky, m*a*s*h, madison,
    magic, mango, maria, marine, marvin, master, matrix, maverick, melody, mercury, merlin, metal, miami,
    midnight, miller, mirror, monday, monkey, monster, morgan, mother, mountain, music, mustang, nathan,
    nelson, neptune, newton, nicole, ninja, nirvana, nothing, november, ocean, oliver, olympus, onions,
    orange, orchid, orion, oxford, oyster, panther, paradise, parker, passion, password, peanut, pebble,
    pepper, phantom, phoenix, piano, pickle, picasso, pirate, planet, player, pookie, popcorn, porsche,
    prince, puffin, pumpkin, purple, puzzle, python, qazwsx, queen, qwerty, rabbit, racer, radio, rainbow,
    ranger, raven, redsox, rhythm, ribbon, river, robert, rock&roll, rocket, roses, safari, sailor,
    samantha, sammy, samson, sandy, saturn, scooter, scorpio, season, secret, shadow, shannon, silver,
    simple, skater, skyline, smokey, snowball, soccer, sparky, spider, spring, squash, st.louis, starwars,
    steelers, stella, stone, storm, sugar, summer, sunday, sunrise, sunshine, super, surfer, sweet, tamara,
    taylor, temple, tennis, thomas, thunder, tiger, timber, titanic, toffee, topcat, travel, trumpet,
    turtle, twister, umbrella, united, valley, vampire, vanilla, velvet, venus, victor, victory, viking,
    violet, viper, voyager, walnut, warrior, water, welcome, whisky, whisper, willow, window, winner,
    winter, wizard, wolf, yankee, yellow, zebra, zenith, zephyr, zombie
    """
)
_PASSWORD_ENDINGS = ("", "", "", "", "", "", "1", "12", "123", "2", "7", "69", "99", "2000")

# Latin letters that Unicode does not take apart.
_LATIN = _spelled(
    """
    ø o, æ ae, œ oe, ß ss, đ d, ð d, þ th, ł l, ı i, ’ '
    """
)
_UKRAINIAN = _spelled(
    """
    а a, б b, в v, г h, ґ g, д d, е e, є ye, ж zh, з z, и y, і i, ї yi, й i, к k, л l, м m, н n, о o, п p, р
    r, с s, т t, у u, ф f, х kh, ц ts, ч ch, ш sh, щ shch, ь, ю yu, я ya, ʼ '
    """
)
# With the Arabic forms of its letters. Short vowels are not written, so not spelled either.
_PERSIAN = _spelled(
    """
    ا a, آ a, ب b, پ p, ت t, ث s, ج j, چ ch, ح h, خ kh, د d, ذ z, ر r, ز z, ژ zh, س s, ش sh, ص s, ض z, ط t,
    ظ z, ع a, غ gh, ف f, ق q, ک k, ك k, گ g, ل l, م m, ن n, و v, ه h, ی y, ي y, ئ y, ؤ o, أ a, ة h
    """
)
_DEVANAGARI = _spelled(
    """
    अ a, आ a, इ i, ई i, उ u, ऊ u, ऋ ri, ए e, ऐ ai, ऑ o, ओ o, औ au, ा a, ि i, ी i, ु u, ू u, ृ ri, े e, ै ai,
    ॉ o, ो o, ौ au, ं n, ँ n, ः h, ्, क k, ख kh, ग g, घ gh, ङ n, च ch, छ chh, ज j, झ jh, ञ n, ट t, ठ th, ड
    d, ढ dh, ण n, त t, थ th, द d, ध dh, न n, प p, फ ph, ब b, भ bh, म m, य y, र r, ल l, व v, श sh, ष sh, स s,
    ह h
    """
)
_ROMANIZED = str.maketrans({**_LATIN, **_UKRAINIAN, **_PERSIAN, **_DEVANAGARI})
