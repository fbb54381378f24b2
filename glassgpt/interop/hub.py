"""Downloads a repository of the Hugging Face hub to a local folder."""

from __future__ import annotations

from pathlib import Path

from glassgpt.errors import UserError

DESCRIPTIONS = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "glassgpt_tokenizer.json",
)
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin")
HTTP_CLIENTS = ("httpx", "httpcore", "requests", "urllib3")  # the hub's client does not catch their errors


def download_model(repository: str, revision: str | None = None) -> Path:
    """The files of a language model in the hub's cache: safetensors if the repository has them, else pickles.

    The folder's name is the commit hash. Raises UserError if the repository or revision does not exist or is not open
    to the user, or if the hub cannot be reached and the files are not in the cache.
    """
    folder = _snapshot(repository, revision, [*DESCRIPTIONS, *SAFETENSORS])
    if not _matching(folder, SAFETENSORS):
        folder = _snapshot(repository, revision, [*DESCRIPTIONS, *PICKLES])
    return folder


def model_files(folder: Path) -> list[Path]:
    """The files in a folder that contain a model and its tokenizer."""
    weights = _matching(folder, SAFETENSORS) or _matching(folder, PICKLES)
    return sorted([*_matching(folder, DESCRIPTIONS), *weights])


def _matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return [path for pattern in patterns for path in folder.glob(pattern)]


def _snapshot(repository: str, revision: str | None, patterns: list[str]) -> Path:
    try:
        from huggingface_hub import constants, errors, snapshot_download
    except ImportError:
        raise UserError("the hub needs huggingface-hub: pip install 'glassgpt[hf]'") from None
    hub = constants.ENDPOINT.rpartition("://")[2]  # huggingface.co, or the mirror in HF_ENDPOINT
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except errors.HFValidationError:
        raise UserError(f"there is no folder '{repository}', and no repository can have that name") from None
    except errors.GatedRepoError:
        raise UserError(
            f"{hub}/{repository} is gated: request access on its page, then set HF_TOKEN to your token"
        ) from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"there is no folder '{repository}', and {hub} has no repository of that name that is open to you:"
            " check the name; for a private one set HF_TOKEN"
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{hub}/{repository} has no revision '{revision}': give a branch, a tag or a commit") from None
    except Exception as error:
        status = _status(error)
        if status == 429:
            raise UserError(
                f"{hub} takes no more requests for now from this address (status 429): wait some minutes, or set"
                " HF_TOKEN, which allows more"
            ) from None
        if status is not None:
            raise UserError(f"{hub} failed (status {status}): try again later; what was downloaded is kept") from None
        if isinstance(error, OSError) and error.strerror:
            raise UserError(f"cannot store '{repository}' in the hub's cache: {error.strerror}") from None
        if not isinstance(error, OSError) and not type(error).__module__.startswith(HTTP_CLIENTS):
            raise
        raise UserError(
            f"there is no folder '{repository}', and {hub} cannot be reached for a repository of that name"
            f" ({type(error).__name__}): connect to the network, or give the folder of a local copy"
        ) from None


def _status(error: BaseException | None) -> int | None:
    """The HTTP status that caused an error of the client, which raises other errors from it; None if there is none."""
    while error is not None:
        if (response := getattr(error, "response", None)) is not None:
            return int(response.status_code)
        error = error.__cause__ or error.__context__
    return None
