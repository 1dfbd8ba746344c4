"""Whether an error says what to do, for the tests of bad input."""

from __future__ import annotations

import re

MEND = re.compile(
    r"[.?…] (?:Add|Allow|Bring|Check|Choose|Close|Copy|Correct|Cut|Delete|Download|Fill|Filter|Format|Get|Give|Join|Leave|"
    r"Make|Mend|Name|Open|Put|Rename|Repair|Replace|Save|Say|Set|Unpack|Use|Wrap|Write)\b"
)


def says_what_to_do(message: str) -> bool:
    """Whether a sentence behind the first is a request: `Add the text, or delete the row.`"""
    return MEND.search(message) is not None
