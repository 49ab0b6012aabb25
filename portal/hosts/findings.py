"""One finding of the readiness report. Not for: the findings themselves."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What was found, what it means and how to mend it; `tone` is good, warn, bad or unknown."""

    title: str
    found: str
    means: str
    tone: str
    mend: str = ""
    evidence: str = ""
