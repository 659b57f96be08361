"""Write the parts of the pages that come from the code: ``nox -s docs``."""

from __future__ import annotations

from documenting.generated import GENERATED
from documenting.pages import ROOT

for path, text in GENERATED.items():
    (ROOT / path).write_text(text(), encoding="utf-8")
