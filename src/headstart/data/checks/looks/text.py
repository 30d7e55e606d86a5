"""The audit of texts: what is cut off, what the vocabulary does not know, scripts, wrong encodings, lengths."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np

from headstart.core.plural import plural
from headstart.data.checks.findings import Finding, View
from headstart.data.modalities.text import Facts
from headstart.data.texts import reading

UNKNOWN_SHARE = 0.2  # of a text's tokens
RARE_SCRIPT = 0.05  # of the rows
FAR = 20.0  # times the median length
# Share of broken words from which a backbone may hardly know the language (Rust et al. 2021 compare tokenizers by it).
# In the vocabulary of an English BERT: SST-2 .08, SmSA (Indonesian) .7; single sentences of German compounds .57, of a
# pathologist's English .33. Languages that chain endings may come near it in vocabularies of many languages.
BROKEN = 0.6
FEWEST_WORDS = 200
# Scripts whose words are divided by spaces, without Korean, whose words are chains of endings too.
SPACED = {"LATIN", "CYRILLIC", "GREEK", "ARABIC", "HEBREW", "ARMENIAN", "DEVANAGARI", "BENGALI"}


def looks(view: View) -> list[Finding]:
    """Rows that are cut, unreadable to the tokenizer, or unlike the others; all of them are used."""
    seen: dict[int, Facts] = dict(view.seen())
    if not seen:
        return []
    findings = []
    cut = [row for row, facts in seen.items() if facts.tokens > facts.kept]
    if cut:
        lost = sum(seen[row].tokens - seen[row].kept for row in cut)
        total = sum(facts.tokens for facts in seen.values())
        longest = max(seen[row].tokens for row in cut)
        most, of = max(seen[row].kept for row in cut), f"of {len(seen):,}"
        one = f"{of} is longer than {most} tokens and loses its end"
        several = f"{of} are longer than {most} tokens and lose their end"
        text = (
            f"{plural(len(cut), one, several)} ({lost / total:.1%} of all tokens; the longest has {longest}): {{names}}"
        )
        severity = "warning" if lost > 0.05 * total else "info"
        remedy = "allow more with max_length=…, where the network takes it; time grows with it"
        findings.append(view.finding("truncated", severity, cut, text, remedy))  # type: ignore[arg-type]
    strange = [row for row, facts in seen.items() if facts.unknown > UNKNOWN_SHARE * facts.kept]
    if strange:
        consist = plural(len(strange), "consists", "consist")
        text = f"{consist} to more than {UNKNOWN_SHARE:.0%} of tokens the vocabulary lacks: {{names}}"
        findings.append(view.finding("unknown-tokens", "warning", strange, text, "a backbone of this language?"))
    spaced = [facts for facts in seen.values() if facts.script in SPACED]
    words, broken = sum(facts.words for facts in spaced), sum(facts.broken for facts in spaced)
    if view.split == "train" and words >= FEWEST_WORDS and broken > BROKEN * words:
        text = (
            f"the vocabulary breaks {broken / words:.0%} of the words into pieces (8 % of English in an English one): "
            "the backbone may hardly know their language"
        )
        remedy = "choose a backbone of their language, or of many; the baseline of words is the score to beat"
        findings.append(view.finding("broken-words", "warning", [], text, remedy))
    garbled = [row for row, facts in seen.items() if facts.garbled]
    if garbled:
        text = f"{plural(len(garbled), 'holds', 'hold')} the traces of a wrong encoding (such as Ã© for é): {{names}}"
        findings.append(view.finding("garbled", "warning", garbled, text, "read the source again as what it is"))
    guessed = [row for row, facts in seen.items() if facts.format == reading.LATIN]
    if guessed:
        read = plural(len(guessed), "is not UTF-8 and was", "are not UTF-8 and were")
        text = f"{read} read as Windows' Latin (cp1252): {{names}}"
        findings.append(view.finding("guessed-encoding", "warning", guessed, text, "check their accented letters"))
    return findings + _unlike(view, seen)


def _unlike(view: View, seen: dict[int, Facts]) -> list[Finding]:
    findings = []
    scripts = Counter(facts.script for facts in seen.values())
    rare = {script for script, count in scripts.items() if count < RARE_SCRIPT * len(seen)}
    odd = [row for row, facts in seen.items() if facts.script in rare]
    if odd:
        told = ", ".join(f"{scripts[script]} {script.lower() or 'without letters'}" for script in sorted(rare))
        text = f"{plural(len(odd), 'is', 'are')} in another script than the rest ({told}): {{names}}"
        findings.append(view.finding("other-script", "info", odd, text))
    usual = float(np.median([facts.characters for facts in seen.values()]))
    far = [row for row, facts in seen.items() if facts.characters > FAR * usual or facts.characters < usual / FAR]
    if far:
        are, characters = plural(len(far), "is", "are"), f"{usual:.0f} characters"
        text = f"{are} more than {FAR:.0f} times longer or shorter than usual ({characters}): {{names}}"
        findings.append(view.finding("odd-length", "info", far, text))
    return findings


# What of a text may give its class away, besides its words.
STORED: dict[str, Callable[[Facts], object]] = {
    "script": lambda facts: facts.script or "no letters",
    "length": lambda facts: f"about {2 ** round(math.log2(facts.characters)):,} characters",
}
