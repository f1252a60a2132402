"""What the folders of stamps and clip art show: kinds of `arena.data.embedded.emoji.kinds` by folder."""

from __future__ import annotations

from collections.abc import Mapping

STAMPS = {
    "animals/amphibians": "reptile",
    "animals/birds": "bird",
    "animals/dinosaur": "reptile",
    "animals/fish": "sea animal",
    "animals/insects": "bug",
    "animals/lizards": "reptile",
    "animals/mammals": "mammal",
    "animals/mammals/aquatic": "sea animal",
    "animals/marsupials": "mammal",
    "animals/shellfish": "sea animal",
    "clothes": "clothing",
    "food": "meal",
    "food/dessert": "sweet",
    "food/fruit": "fruit",
    "food/vegetables": "vegetable",
    "hobbies/music": "music",
    "household": "household",
    "household/arttools": "art",
    "household/dishes": "dishes",
    "household/electronics": "device",
    "household/tools": "tool",
    "medical": "medicine",
    "military/vehicles": "vehicle",
    "naturalforces": "sky",
    "people": "person",
    "people/body_parts": "body part",
    "plants": "plant",
    "plants/flowers": "flower",
    "seasonal": "festival",
    "space": "sky",
    "sports": "sport",
    "symbols/alphabets": "letter",
    "symbols/alphabets/asl": "hand",
    "town": "building",
    "town/roadsigns": "sign",
    "vehicles": "vehicle",
}
"""Kinds by folder; a folder takes after the one that it is in."""

CLIP_ART = {
    "animals/birds": "bird",
    "animals/bugs": "bug",
    "animals/dinosaurs": "reptile",
    "animals/fish": "sea animal",
    "animals/mammals": "mammal",
    "buildings": "building",
    "buildings/furniture": "household",
    "computer/hardware": "device",
    "containers": "household",
    "education": "office",
    "education/books": "paper",
    "electronics": "device",
    "food": "meal",
    "food/beverages": "drink",
    "food/breads_and_carbs": "meal",
    "food/desserts": "sweet",
    "food/fruit": "fruit",
    "food/meats_and_eggs": "meal",
    "food/vegetables": "vegetable",
    "geography/astronomy": "sky",
    "office": "office",
    "office/telephone": "device",
    "people": "person",
    "people/bodypart": "body part",
    "people/clothing": "clothing",
    "people/smilies": "",  # of all moods
    "plants": "plant",
    "plants/flowers": "flower",
    "recreation/games": "game",
    "recreation/holiday": "festival",
    "recreation/music": "music",
    "recreation/party": "festival",
    "recreation/religion": "religion",
    "recreation/sports": "sport",
    "recreation/toys": "game",
    "shapes": "shape",
    "shapes/arrows": "arrow",
    "signs_and_symbols/clocks": "clock",
    "signs_and_symbols/hazard": "sign",
    "signs_and_symbols/led": "button",
    "signs_and_symbols/money": "paper",
    "signs_and_symbols/weather": "sky",
    "tools": "tool",
    "transportation": "vehicle",
    "transportation/roadsigns": "sign",
}
"""Kinds by folder, as above; folders that are not named here are not read, such as flags, icons, maps and patterns."""


def kind_of_folder(folder: str, table: Mapping[str, str]) -> str | None:
    """The kind by the longest name in `table` that is the folder or one that it is in; None where there is none."""
    fitting = [known for known in table if folder == known or folder.startswith(f"{known}/")]
    return (table[max(fitting, key=len)] or None) if fitting else None
