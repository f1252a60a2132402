"""Countries and their capitals, for the dataset ``flags``.

Left out are countries of which the capital, the flag or the statehood is disputed or has lately changed, those with
several capitals or a seat of government elsewhere, those of names beyond two words, and one of two flags that cannot be
told apart in a small picture.
"""

from __future__ import annotations

_TABLE = """
AL albania: tirana                  AM armenia: yerevan                 AO angola: luanda
AR argentina: buenos aires          AT austria: vienna                  AU australia: canberra
AZ azerbaijan: baku                 BB barbados: bridgetown             BD bangladesh: dhaka
BE belgium: brussels                BF burkina faso: ouagadougou        BG bulgaria: sofia
BH bahrain: manama                  BR brazil: brasilia                 BS bahamas: nassau
BT bhutan: thimphu                  BW botswana: gaborone               BY belarus: minsk
BZ belize: belmopan                 CA canada: ottawa                   CL chile: santiago
CM cameroon: yaounde                CN china: beijing                   CO colombia: bogota
CU cuba: havana                     CV cape verde: praia                CY cyprus: nicosia
CZ czechia: prague                  DE germany: berlin                  DK denmark: copenhagen
DM dominica: roseau                 DZ algeria: algiers                 EC ecuador: quito
EE estonia: tallinn                 EG egypt: cairo                     ER eritrea: asmara
ES spain: madrid                    FI finland: helsinki                FJ fiji: suva
FR france: paris                    GA gabon: libreville                GB united kingdom: london
GE georgia: tbilisi                 GH ghana: accra                     GM gambia: banjul
GN guinea: conakry                  GR greece: athens                   GY guyana: georgetown
HR croatia: zagreb                  HU hungary: budapest                IE ireland: dublin
IN india: new delhi                 IQ iraq: baghdad                    IR iran: tehran
IS iceland: reykjavik               IT italy: rome                      JM jamaica: kingston
JO jordan: amman                    JP japan: tokyo                     KE kenya: nairobi
KG kyrgyzstan: bishkek              KH cambodia: phnom penh             KI kiribati: tarawa
KM comoros: moroni                  KP north korea: pyongyang           KR south korea: seoul
KW kuwait: kuwait city              LA laos: vientiane                  LB lebanon: beirut
LC saint lucia: castries            LR liberia: monrovia                LS lesotho: maseru
LT lithuania: vilnius               LV latvia: riga                     MA morocco: rabat
MD moldova: chisinau                MG madagascar: antananarivo         MK north macedonia: skopje
MN mongolia: ulaanbaatar            MR mauritania: nouakchott           MT malta: valletta
MU mauritius: port louis            MV maldives: male                   MW malawi: lilongwe
MX mexico: mexico city              MZ mozambique: maputo               NA namibia: windhoek
NE niger: niamey                    NG nigeria: abuja                   NO norway: oslo
NP nepal: kathmandu                 NZ new zealand: wellington          OM oman: muscat
PA panama: panama city              PE peru: lima                       PH philippines: manila
PK pakistan: islamabad              PL poland: warsaw                   PT portugal: lisbon
PY paraguay: asuncion               QA qatar: doha                      RO romania: bucharest
RS serbia: belgrade                 RU russia: moscow                   RW rwanda: kigali
SA saudi arabia: riyadh             SB solomon islands: honiara         SC seychelles: victoria
SD sudan: khartoum                  SE sweden: stockholm                SI slovenia: ljubljana
SK slovakia: bratislava             SN senegal: dakar                   SO somalia: mogadishu
SR suriname: paramaribo             SS south sudan: juba
TG togo: lome                       TH thailand: bangkok                TJ tajikistan: dushanbe
TM turkmenistan: ashgabat           TN tunisia: tunis                   TO tonga: nukualofa
TR turkey: ankara                   TV tuvalu: funafuti                 UA ukraine: kyiv
UG uganda: kampala                  US united states: washington        UY uruguay: montevideo
UZ uzbekistan: tashkent             VE venezuela: caracas               VN vietnam: hanoi
VU vanuatu: port vila               WS samoa: apia                      ZM zambia: lusaka
ZW zimbabwe: harare
"""
_LETTER_A = 0x1F1E6
"""Flags are pairs of these letters, the country's code in ISO 3166-1."""


def _countries() -> dict[str, tuple[str, str]]:
    found = {}
    for row in _TABLE.strip().split("\n"):
        for cell in filter(None, (c.strip() for c in row.split("   "))):
            code, _, fact = cell.partition(" ")
            country, capital = fact.split(": ")
            found[code] = (country, capital)
    return found


COUNTRIES: dict[str, tuple[str, str]] = _countries()
"""Country and capital in one or two lower-case words each, by the country's two letters (ISO 3166-1)."""


def country_code(code: str) -> str:
    """The two letters of a flag's code points: "1F1EB-1F1F7" gives "FR"."""
    return "".join(chr(ord("A") + int(point, 16) - _LETTER_A) for point in code.split("-"))
