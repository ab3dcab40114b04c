"""Names given by people: what is unknown gets a suggestion."""

import difflib
from collections.abc import Iterable


def known(word: str, words: Iterable[str], what: str) -> str:
    """`word` if it is among `words`, else a ValueError that says what is close to it."""
    words = sorted(words)
    if word in words:
        return word
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"Unknown {what} {word!r}.{hint} Known: {', '.join(words) or 'none'}.")
