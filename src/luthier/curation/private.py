"""The check for secrets and personal data."""

from collections import Counter
from collections.abc import Iterable, Sequence

from luthier.curation.looking import Seen
from luthier.curation.privacy import find_private
from luthier.curation.problems import Gathered, Kind, Problem

SECRET = Kind(
    "secrets", "error", "{n} with what looks like a secret, such as a key or a token",
    "whoever has the model may get it to say them; take them out, and revoke them", "mask",
)  # fmt: skip
PERSONAL = Kind(
    "personal-data", "warning", "{n} with personal data",
    "a model may say them to anybody, and laws may forbid to train on them", "mask",
)  # fmt: skip


class PrivateCheck:
    """Finds secrets and personal data."""

    name = "private"

    def __init__(self, region: str | None = None) -> None:
        self._region = region
        self._secret, self._personal = Gathered(SECRET), Gathered(PERSONAL)

    def see(self, rows: Sequence[Seen]) -> None:
        """Search all texts of each row."""
        for row in rows:
            spans = [
                (text, span) for text in row.all_texts for span in find_private(text, self._region)
            ]
            for gathered, own in (
                (self._secret, [s for s in spans if s[1].kind == "SECRET"]),
                (self._personal, [s for s in spans if s[1].kind != "SECRET"]),
            ):
                if own:
                    text, first = own[0]
                    counts = Counter(span.kind for _, span in own)
                    said = ", ".join(f"{n} {kind}" for kind, n in counts.items())
                    gathered.add(row, text, said, around=first.start)

    def problems(self) -> Iterable[Problem]:
        """Rows with secrets, and rows with personal data."""
        yield from self._secret.problem()
        yield from self._personal.problem()
