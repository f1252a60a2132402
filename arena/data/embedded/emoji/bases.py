"""Which emojis are one picture in several variants: the rule by which splits are kept apart.

Emojis of one base differ in skin tone, gender, age or hair, in direction, or in what the eye takes for the same thing:
a face and the whole animal, a car from the side and from the front, a book in red and in blue, the hours of a clock.
"""

from __future__ import annotations

PERSON = "1F9D1"
_PERSONS = frozenset(
    [*("1F466", "1F467", "1F468", "1F469", "1F471", "1F474"), *("1F475", "1F476", PERSON, "1F9D2", "1F9D3", "1F9D4")]
)
"""Boy, girl, man, woman, blond, old man, old woman, baby, adult, child, older adult, bearded."""
SKIN_TONES = ("1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF")
_MODIFIERS = frozenset(
    [
        *("200D", "FE0F"),  # joiner, presentation as a picture
        *SKIN_TONES,
        *("2640", "2642"),  # female, male
        *("1F9B0", "1F9B1", "1F9B2", "1F9B3"),  # red, curly, no, white hair
        *("27A1", "2194", "2195"),  # facing right, moving sideways, moving up and down
        *("2B1B", "1F7E9", "1F7EB"),  # black, green, brown
    ]
)
"""Code points that make a variant of what they follow."""

_JOINED = """
1F934 1F478 1FAC5                prince, princess, person with crown
1F385 1F936 1F9D1-1F384          father, mother, mx Christmas
1F483 1F57A                      dancers
1F930 1FAC3 1FAC4                pregnant
1F931 1F9D1-1F37C                feeding a baby
1F46B 1F46C 1F46D 1F9D1-1F91D-1F9D1     holding hands
1F48F 1F9D1-2764-1F48B-1F9D1     kiss
1F491 1F9D1-2764-1F9D1           couple with heart
1F464 1F465 1F5E3                silhouettes
1F91D 1FAF1-1FAF2                handshakes of one and of two skin tones
1FAF1 1FAF2 1FAF7 1FAF8          hands to the side
1FAF3 1FAF4                      palm down, up
1F446 1F447 1F448 1F449 261D 1FAF5      pointing fingers
1F44D 1F44E                      thumbs
1F91B 1F91C 1F44A 270A           fists
1F91A 270B 1F590                 raised hands
1F442 1F9BB                      ears
1F440 1F441 1F441-1F5E8          eyes
1F642 1F643 1F600 1F603 1F604 1F601 1F60A 263A   smiling faces that differ in a line
1F61B 1F61C 1F61D                tongues
1F617 1F619 1F61A 1F618          kissing faces
2639 1F641 1F626 1F627           frowning faces
1F62E 1F62F 1F62E-1F4A8          open mouths
1F610 1F611 1F636 1F636-1F32B    neutral faces
1F608 1F47F                      devils
2620 1F480                       skulls
1F479 1F47A                      ogre, goblin
2764 1F493 1F494 1F495 1F496 1F497 1F498 1F499 1F49A 1F49B 1F49C 1F49D 1F49E 1F49F  hearts
+ 1F90D 1F90E 1F5A4 1F9E1 1FA75 1FA76 1FA77 2763 2764-1F525 2764-1FA79 2665
1F435 1F412 1F648 1F649 1F64A    monkey
1F436 1F415 1F9AE 1F415-1F9BA 1F429     dog
1F431 1F408 1F638 1F639 1F63A 1F63B 1F63C 1F63D 1F63E 1F63F 1F640   cat, and smileys of one
1F42F 1F405                      tiger
1F434 1F40E 1F3A0                horse
1F42E 1F404                      cow
1F402 1F403                      ox, buffalo
1F437 1F416 1F43D                pig
1F42D 1F401 1F400                mouse, rat
1F430 1F407                      rabbit
1F43B 1F43B-2744                 bear
1F432 1F409                      dragon
1F433 1F40B                      whale
1F42A 1F42B                      camel
1F414 1F413                      chicken
1F423 1F424 1F425                chick
1F41A 1F9AA                      shells
1F41E 1FAB2                      beetles
1F33C 1F338 1F4AE                blossoms
1F339 1F940                      rose
1F340 2618                       clover
1F341 1F342 1F343                leaves
1FAB9 1FABA                      nest
1F332 1F384                      fir
1F34A 1F34B                      tangerine, lemon
1F34E 1F34F                      apple
1F348 1F349                      melon
1F366 1F367 1F368                ice cream
1F370 1F382                      cake
1F37A 1F37B                      beer
1F377 1F942                      wine glasses
1F372 1F35C 1F35B 1F35A          bowls of food
1F37D 1F374                      fork and knife
1F30D 1F30E 1F30F 1F310          globe
26F0 1F3D4 1F5FB                 mountain
1F3D6 1F3DD                      beach
1F3E0 1F3E1 1F3D8 1F3DA          house
1F3E3 1F3E4                      post office
1F3E8 1F3E9                      hotel
1F3EF 1F3F0                      castle
1F304 1F305 1F306 1F307 1F3D9 1F303     skylines
1F682 1F683 1F684 1F685 1F686 1F687 1F688 1F689 1F68A 1F68B 1F69D 1F69E   trains
1F68C 1F68D 1F68E 1F690          bus
1F693 1F694                      police car
1F695 1F696                      taxi
1F697 1F698 1F699                automobile
1F69A 1F69B                      lorry
1F6A5 1F6A6                      traffic light
1F9BC 1F9BD                      wheelchair
2708 1F6E9 1F6EB 1F6EC           airplane
1F6A4 1F6E5                      motor boat
1F6A0 1F6A1 1F69F                cableway
1F550 1F551 1F552 1F553 1F554 1F555 1F556 1F557 1F558 1F559 1F55A 1F55B 1F55C 1F55D  hours
+ 1F55E 1F55F 1F560 1F561 1F562 1F563 1F564 1F565 1F566 1F567
231B 23F3                        hourglass
1F311 1F312 1F313 1F314 1F315 1F316 1F317 1F318 1F319 1F31A 1F31B 1F31C 1F31D   moon
2600 1F31E                       sun
2B50 1F31F                       star
2601 26C5 26C8 1F324 1F325 1F326 1F327 1F328 1F329 1F32A 1F32B   clouds
2602 2614 26F1 1F302             umbrella
2603 26C4                        snowman
1F947 1F948 1F949 1F3C5 1F396    medals
26BE 1F94E                       baseball
1F3C8 1F3C9                      American football, rugby
2660 2663 2666                   suits
1F4D5 1F4D7 1F4D8 1F4D9 1F4D4 1F4D3 1F4DA   books
1F4B4 1F4B5 1F4B6 1F4B7 1F4B8    banknotes
1F4EA 1F4EB 1F4EC 1F4ED          mailbox
1F4E4 1F4E5                      trays
2709 1F4E7 1F4E8 1F4E9 1F48C     envelope
1F4C5 1F4C6 1F5D3                calendar
1F4C8 1F4C9 1F4CA 1F4B9          charts
1F4CC 1F4CD                      pins
1F4CE 1F587                      paper clips
1F4CF 1F4D0                      rulers
1F512 1F513 1F50F 1F510          lock
1F511 1F5DD                      key
1F50D 1F50E                      magnifying glass
1F507 1F508 1F509 1F50A          speaker
1F514 1F515                      bell
1F4C1 1F4C2                      folder
1F4F1 1F4F2 1F4F4 1F4F3 1F4F5    mobile phone
1F4DE 260E                       telephone
1F4BF 1F4C0 1F4BD                disc
1F4F7 1F4F8                      camera
1F50B 1FAAB                      battery
1F3B5 1F3B6                      notes
1F5DE 1F4F0                      newspaper
1F4C4 1F4C3                      pages
1F453 1F576 1F97D                glasses
1FA73 1FA72                      shorts, briefs
1F461 1F460                      heels
1F45E 1F97E                      shoe
1F3A9 1F393 1F452                hats
1F6AB 26D4 1F6AD 1F6AF 1F6B1 1F6B3 1F6B7 1F51E   no ...
1F6B9 1F6BA 1F6BB 1F6BC          signs of persons
26D3 26D3-1F4A5                  chain
"""
"""Rows of code points that are one base, which is called by the first; behind two spaces what they show. A row that
begins with "+" goes on with the one above."""


def _bases() -> dict[str, str]:
    found: dict[str, str] = {}
    base = ""
    for row in _JOINED.strip().split("\n"):
        codes = row.removeprefix("+ ").split("  ")[0].split()
        base = base if row.startswith("+") else codes[0]
        found |= dict.fromkeys(codes, base)
    return found


_BASE = _bases()


def base_of(code: str) -> str:
    """The base of an emoji, by its code points as Unicode's charts write them: "1F469-1F3FD-200D-1F680" (a woman of
    medium skin tone, astronaut) and "1F9D1-200D-1F680" (an astronaut) give "1F9D1-1F680"."""
    first, *rest = code.upper().split("-")
    points = [PERSON if p in _PERSONS else p for p in (first, *(p for p in rest if p not in _MODIFIERS))]
    if len(points) > 1 and set(points) == {PERSON}:
        return "1F46A"  # a family
    joined = "-".join(points)
    return _BASE.get(joined, joined)
