# Makes the small fonts that figures embed: Liberation Sans reduced to the
# characters of Windows-1252, which is what gonum's PDF canvas can encode.
# Run as: subset.py LIBERATION_DIR OUT_DIR. Needs fonttools.
# Liberation is a reserved font name (SIL OFL 1.1), so the subsets have another.
import os
import sys

from fontTools import subset
from fontTools.ttLib import TTFont

source, out = sys.argv[1:3]
characters = {ord(c) for b in range(32, 256) for c in bytes([b]).decode("cp1252", "ignore")}
for style in ["Regular"]:
    options = subset.Options(hinting=False, layout_features=[], name_IDs=["*"], notdef_outline=True)
    font = TTFont(os.path.join(source, f"LiberationSans-{style}.ttf"), recalcTimestamp=False)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=characters)
    subsetter.subset(font)
    names = {1: "Waggle Sans", 2: style, 3: f"Waggle Sans {style}", 4: f"Waggle Sans {style}", 6: f"WaggleSans-{style}"}
    for record in list(font["name"].names):
        if record.nameID in names:
            record.string = names[record.nameID]
        elif record.nameID not in (0, 5, 13, 14):
            font["name"].removeNames(nameID=record.nameID)
    font.save(os.path.join(out, f"WaggleSans-{style}.ttf"))
