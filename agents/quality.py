"""Checks that every written text must pass: length, no refusal, placeholder, leak, loop or twin.

Does not know what the text is for, nor what happens to one that is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from agents.phrases import compiled, find, in_every_language

SHORTENED = "up to its last whole sentence"  # in the note on a text that reached its token limit
SHINGLE = 2
LEAKED_WORDS = 8
LEAST_PROMPT_WORDS = 4
REFUSAL_WITHIN = 300
REPEATS = 3
REPEATED_WORDS = 4
WINDOW = 60
LEAST_DISTINCT = 0.5
LEAST_KEPT = 0.5  # of an answer that was cut
CLOSING = 8  # characters that a finished sentence ends in

WORD = re.compile(r"\w+(?:'\w+)*")
SENTENCE_END = re.compile(r"[.!?…](?:[\"'”’)\]]|\*\*?)*(?=\s|$)")
ABBREVIATION = re.compile(r"(?:\b(?:mr|mrs|ms|dr|prof|st|vs|e\.g|i\.e|approx|[a-z])|^\s*\d+)\.$", re.I | re.M)
CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
BRACKETED = re.compile(r"\[[^\W\d_][^\[\]\n]{0,60}\](?!\()")
BRACES = re.compile(r"(?<![/$\w])\{\{?\s*[A-Za-z_][\w. -]{0,40}\s*\}\}?")
ANGLED = re.compile(
    r"<(?:insert|your|enter|add|fill|name|date|company|recipient)\b[^<>\n]{0,60}>", re.IGNORECASE
)
CROSSED_OUT = re.compile(r"\bX{2,}(?:[/.:-]X{2,})+\b|[$€£]X+(?:[,.]X{2,})*\b|\b[Ll]orem ipsum\b")
LINKING = {"of", "the", "and", "or", "/", "&", "de", "du", "la"}
NOT_PLACEHOLDERS = {"confidential", "draft", "redacted", "internal", "external", "urgent", "sic", "signed"}


@lru_cache(maxsize=64)  # several checks look at one text
def words(text: str) -> tuple[str, ...]:
    """Return the words of a text in lower case, without punctuation."""
    return tuple(WORD.findall(text.replace("’", "'").lower()))


def text_problems(text: str, *, min_words: int, system_prompt: str = "") -> tuple[str, ...]:
    """Return why a text is refused, each reason with how to mend it; nothing when it is good."""
    count = len(text.split())
    found = (
        f"it has {count} words, fewer than {min_words}, so write more" if count < min_words else None,
        refusal(text),
        placeholder(text),
        leaked_prompt(text, system_prompt),
        looping(text),
    )
    return tuple(problem for problem in found if problem)


def refusal(text: str) -> str | None:
    """Say so when the text declines the task or speaks as a machine, in any of the languages."""
    declined = find(in_every_language("refusal"), text[:REFUSAL_WITHIN])
    told = declined or find(in_every_language("machine"), text)
    if not told:
        return None
    return f"it declines or speaks as a machine ({told!r}), so do what was asked, in the role"


def placeholder(text: str) -> str | None:
    """Name the first template placeholder, such as [Your Name], {name}, <insert date> or Lorem ipsum."""
    prose = CODE.sub(" ", text)
    candidates = [match.group() for match in BRACKETED.finditer(prose) if _is_blank(match.group())]
    for pattern in (BRACES, ANGLED, CROSSED_OUT):
        candidates += [match.group() for match in pattern.finditer(prose)]
    if not candidates:
        return None
    return f"it leaves the placeholder {candidates[0]!r}, so write the real name, date or figure"


def _is_blank(bracketed: str) -> bool:
    """Tell a blank to fill in, [Your Name] or [date of move], from a remark, [sic] or [see below]."""
    inner = bracketed[1:-1].strip()
    if inner.lower() in NOT_PLACEHOLDERS:
        return False
    opening = compiled(in_every_language("placeholders")).match(inner)
    named = all(part[0].isupper() or part in LINKING for part in inner.split())
    return bool(opening) or (named and not re.search(r"[\d:]", inner))


@lru_cache(maxsize=64)  # the quality of a text and the persona's rules both ask
def leaked_prompt(text: str, system_prompt: str, *, run: int = LEAKED_WORDS) -> str | None:
    """Quote what the text shares with the system prompt when `run` or more words in a row are the same."""
    run = min(run, len(words(system_prompt)))
    if run >= LEAST_PROMPT_WORDS:
        known = _runs_of(system_prompt, run)
        for part in _shingles(words(text), run):
            if part in known:
                return f"it repeats its instructions ({' '.join(part)!r}), so say it in other words"
    told_of = find(in_every_language("prompt_talk"), text)
    return f"it talks about its instructions ({told_of!r}), so leave them out" if told_of else None


@lru_cache(maxsize=64)
def _runs_of(text: str, size: int) -> frozenset[tuple[str, ...]]:
    return frozenset(_shingles(words(text), size))


def looping(text: str) -> str | None:
    """Say so when a sentence or line comes three times or more, or a stretch goes round in circles."""
    counts: dict[str, int] = {}
    for sentence in re.split(r"(?<=[.!?…])\s+|\n+", text):
        said = words(sentence)
        if len(said) >= REPEATED_WORDS:
            key = " ".join(said)
            counts[key] = counts.get(key, 0) + 1
            if counts[key] >= REPEATS:
                return f"it says {key[:80]!r} {REPEATS} times, so say it once"
    share = distinct_share(text)
    if share < LEAST_DISTINCT:
        return f"it goes round in circles (only {share:.0%} of a stretch is new), so say each thing once"
    return None


def distinct_share(text: str) -> float:
    """Return the lowest share of distinct 3-word runs in any stretch of 60 runs; 1 for a short text."""
    runs = list(_shingles(words(text), 3))
    starts = range(0, len(runs) - WINDOW + 1, WINDOW // 4)
    return min((len(set(runs[at : at + WINDOW])) / WINDOW for at in starts), default=1.0)


def near_duplicate(text: str, others: Sequence[str], *, threshold: float = 0.6) -> int | None:
    """Return the index of the most similar other text at or above the threshold, or None.

    Every other text is compared, about 60 µs each for texts of 600 words.
    """
    shares = [overlap(text, other) for other in others]
    best = max(range(len(shares)), key=shares.__getitem__, default=None)
    return best if best is not None and shares[best] >= threshold else None


def overlap(text: str, other: str, *, size: int = SHINGLE) -> float:
    """Return the Jaccard overlap, 0 to 1, of two texts' runs of `size` words (shorter texts: of all)."""
    ours, theirs = shingle_set(text, size), shingle_set(other, size)
    both = len(ours & theirs)
    either = len(ours) + len(theirs) - both
    return both / either if either else 1.0


@lru_cache(maxsize=1024)
def shingle_set(text: str, size: int) -> frozenset[int]:
    """Return the hashes of the distinct runs of `size` words; a shorter text is one run."""
    said = words(text)
    return frozenset(map(hash, _shingles(said, min(size, len(said)))))


def _shingles(said: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(said[at : at + size]) for at in range(len(said) - size + 1)] if size else []


def settle_cut(text: str) -> tuple[str, str | None]:
    """Return what is kept of an answer that reached its token limit, and why it is refused, or None.

    Kept is all up to the last whole sentence, if that is at least half of it: the rest is no answer.
    """
    kept = whole_sentences(text)
    finished = SENTENCE_END.search(kept[-CLOSING:]) is not None
    if finished and len(kept) >= LEAST_KEPT * len(text.strip()):
        return kept, None
    return kept, "it was cut at the token limit before it was finished, so be briefer and finish it"


def whole_sentences(text: str) -> str:
    """Return the text up to its last finished sentence; all of it when no sentence is finished."""
    ends = [
        match.end()
        for match in SENTENCE_END.finditer(text)
        if not ABBREVIATION.search(text[max(0, match.end() - 12) : match.end()])
    ]
    return text[: ends[-1]].strip() if ends else text.strip()
