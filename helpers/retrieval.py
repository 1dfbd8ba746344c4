"""Finding the notes that a question is about: BM25, the ranking that search engines have started from for decades."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

_WORD = re.compile(r"[^\W_\u4e00-\u9fff]+|[\u4e00-\u9fff]+")


def terms(text: str) -> list[str]:
    """What is compared: words in small letters; of a run of Han its pairs of neighbours (a single one stays alone)."""
    found: list[str] = []
    for run in _WORD.findall(text.lower()):
        if "\u4e00" <= run[0] <= "\u9fff" and len(run) > 1:
            found += [run[at : at + 2] for at in range(len(run) - 1)]
        else:
            found.append(run)
    return found


class BM25:
    """An index of texts (Robertson and Zaragoza, 2009; the weights of Lucene, which are never negative).

    A term counts the more, the fewer texts have it; saturates as it is repeated (`k1`); and counts less in a long text
    (`b`). Raises ValueError without texts.
    """

    def __init__(self, texts: Sequence[str], k1: float = 1.2, b: float = 0.75) -> None:
        if not texts:
            raise ValueError("no texts to search; give one or more.")
        self.texts, self.k1, self.b = list(texts), k1, b
        self.counts = [Counter(terms(text)) for text in texts]
        self.lengths = [counts.total() for counts in self.counts]
        self.mean = sum(self.lengths) / len(texts) or 1
        having = Counter(term for counts in self.counts for term in counts)
        self.weights = {t: math.log(1 + (len(texts) - n + 0.5) / (n + 0.5)) for t, n in having.items()}

    def scores(self, query: str) -> list[float]:
        """The score of every text, in their order; 0 where no term is shared."""
        wanted = [term for term in terms(query) if term in self.weights]

        def score(counts: Counter[str], length: int) -> float:
            norm = self.k1 * (1 - self.b + self.b * length / self.mean)
            return sum(self.weights[t] * counts[t] * (self.k1 + 1) / (counts[t] + norm) for t in wanted)

        return [score(counts, length) for counts, length in zip(self.counts, self.lengths)]

    def top(self, query: str, count: int = 1) -> list[tuple[int, float]]:
        """The best `count` texts as (index, score), best first; of equals the earlier."""
        ranked = sorted(enumerate(self.scores(query)), key=lambda pair: (-pair[1], pair[0]))
        return ranked[:count]
