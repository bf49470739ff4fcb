"""What a user calls a model -> the file to open."""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from candlewick import _native
from candlewick.errors import InvalidRequestError, ModelNotFoundError
from candlewick.progress import reporting

if TYPE_CHECKING:
    from collections.abc import Callable

    from candlewick.progress import Report

_Found = TypeVar("_Found")

DEMO = "demo"
SUFFIX = ".gguf"
TOKENIZER = "tokenizer.json"

# "owner/name", with a quantization after a colon: no path that is meant as one looks like it by accident.
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*(:[\w.-]+)?", re.ASCII)

# A model in several files: the first part, and the others.
_FIRST_PART = re.compile(r"(.*)-00001-of-(\d{5}\.gguf)")
_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$")

DEFAULT_REPO = "microsoft/Phi-3-mini-4k-instruct-gguf"
DEFAULT_FILE = "Phi-3-mini-4k-instruct-q4.gguf"
DEFAULT_TOKENIZER_REPO = "microsoft/Phi-3-mini-4k-instruct"


@dataclass(frozen=True)
class Hub:
    """How to ask the hub, with the meaning of `Generator`'s arguments of the same names."""

    revision: str | None = None
    cache_dir: str | os.PathLike[str] | None = None
    local_files_only: bool | None = None
    token: str | bool | None = None
    progress: bool | Report = True

    def fetch(self, repo: str, filename: str | None = None, *, revision: str | None = None) -> list[Path]:
        """The file of ``repo``, or all parts of a split one, fetched if need be."""
        with reporting(self.progress) as report:
            return _native.fetch(
                repo,
                filename=filename,
                revision=revision,
                cache_dir=self._folder(),
                local_files_only=self.local_files_only,
                token=self.token,
                progress=report,
            )

    def header(self, repo: str, filename: str | None = None, *, revision: str | None = None) -> _native.Header:
        """What `fetch` would fetch: its header, and no more."""
        return _native.Header.ask(
            repo,
            filename=filename,
            revision=revision,
            cache_dir=self._folder(),
            local_files_only=self.local_files_only,
            token=self.token,
        )

    def _folder(self) -> str | None:
        return None if self.cache_dir is None else os.path.expanduser(os.fsdecode(self.cache_dir))


def name(model: str | os.PathLike[str] | None) -> str:
    """What requests to a server call it: the repository or "demo" as it was given, or the name of the file."""
    if model is None:
        return DEFAULT_REPO
    return Path(model).stem if os.path.exists(model) else str(model)


def resolve(model: str | os.PathLike[str] | None, filename: str | None = None, hub: Hub | None = None) -> Path:
    """The GGUF file that ``model`` names, fetched from the hub if need be.

    Args:
        model: A ``.gguf`` file, a folder that holds one, a hub id such as ``"owner/name"`` or
            ``"owner/name:Q5_K_M"``, ``"demo"``, or ``None`` for Phi-3-mini.
        filename: Which file of a folder or of a repository.
        hub: How to ask the hub.

    Raises:
        ModelNotFoundError: Nothing is there, or a choice is needed; the text lists what was found.
        DownloadError: It could not be fetched.
    """
    hub = hub or Hub()
    return _find(model, filename, hub, Path, lambda *asked: hub.fetch(*asked, revision=hub.revision)[0])


def header(model: str | os.PathLike[str] | None, filename: str | None = None, hub: Hub | None = None) -> _native.Header:
    """The header of the file that `resolve` would give, which is not fetched for it."""
    hub = hub or Hub()
    return _find(model, filename, hub, _native.Header.read, lambda *asked: hub.header(*asked, revision=hub.revision))


def _find(
    model: str | os.PathLike[str] | None,
    filename: str | None,
    hub: Hub,
    here: Callable[[Path], _Found],
    there: Callable[[str, str | None], _Found],
) -> _Found:
    """What ``here`` makes of the file that ``model`` names, or ``there`` of the repository and file."""
    if model is None:
        return there(DEFAULT_REPO, filename or DEFAULT_FILE)
    try:
        name = os.fspath(model)
    except TypeError:
        raise TypeError(f"model must be str or a path, not {type(model).__name__}") from None
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    if not name:
        raise InvalidRequestError('model is an empty string, expected a path, a hub id or "demo"')
    if "\0" in name:
        raise ModelNotFoundError(f"{name!r} is not a path: it holds a NUL character")
    if filename is not None and not isinstance(filename, str):
        raise TypeError(f"filename must be str or None, not {type(filename).__name__}")
    path = Path(os.path.expanduser(name))
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:  # a name longer than any file's: a prompt, most likely
        raise ModelNotFoundError(f"{name[:60]!r}... is no path ({error.strerror}): the model comes first") from None
    if hub.revision is not None and (is_folder or exists or name == DEMO):
        raise InvalidRequestError(f"revision is {hub.revision!r}, but {name!r} is no repository of the hub")
    if is_folder:
        return here(_in_folder(path, filename))
    if exists:
        if filename is not None:
            raise InvalidRequestError(f"filename is {filename!r}, but {name!r} is a file and not a folder")
        return here(path)
    if name == DEMO:
        if filename is not None:
            raise InvalidRequestError(f"filename is {filename!r}, but the demo model is one file")
        return here(demo_path())
    if isinstance(model, str) and _looks_like_hub_id(name):
        try:
            return there(name, filename)
        except ModelNotFoundError as error:
            if not str(error).startswith("no repository"):
                raise
            raise ModelNotFoundError(f"{error}; nor is there a file or folder {name!r} here") from None
    raise ModelNotFoundError(
        f"no such file or folder: {name!r}; expected a .gguf file, a folder that holds one, "
        'a hub id such as "owner/name", or "demo"'
    )


def resolve_tokenizer(
    tokenizer: str | os.PathLike[str] | None, hub: Hub | None = None, *, default: bool = False
) -> Path | None:
    """The ``tokenizer.json`` that ``tokenizer`` names: the file, the folder or the repository that holds it.

    Args:
        tokenizer: ``None`` is the vocabulary inside the model's file.
        hub: How to ask the hub.
        default: The model is the default one, whose tokenizer is that of the original model.
    """
    hub = hub or Hub()
    if tokenizer is None:
        return hub.fetch(DEFAULT_TOKENIZER_REPO, TOKENIZER)[0] if default else None
    path = Path(os.path.expanduser(os.fsdecode(tokenizer)))
    path = path / TOKENIZER if path.is_dir() else path
    if path.is_file():
        return path
    if isinstance(tokenizer, str) and not tokenizer.endswith(".json") and _looks_like_hub_id(tokenizer):
        return hub.fetch(tokenizer, TOKENIZER)[0]
    raise ModelNotFoundError(
        f"no tokenizer file {str(path)!r}: give a {TOKENIZER}, or the folder or hub id of the repository that holds it"
    )


def demo_path() -> Path:
    """The model inside the package."""
    return Path(__file__).with_name("demo.gguf")


def _in_folder(folder: Path, filename: str | None) -> Path:
    files = sorted(p for p in folder.iterdir() if p.suffix == SUFFIX and p.is_file() and not _LATER_PART.search(p.name))
    if filename is not None:
        if (folder / filename).is_file():
            return folder / filename
        raise ModelNotFoundError(f"no {filename!r} in {str(folder)!r}{_listing(files)}")
    if len(files) == 1:
        return files[0]
    if not files:
        raise ModelNotFoundError(f"no {SUFFIX} file in the folder {str(folder)!r}")
    preferred = [p for p in files if "q4_k_m" in p.name.lower()] or [p for p in files if "q4" in p.name.lower()]
    if len(preferred) == 1:
        return preferred[0]
    raise ModelNotFoundError(f"several models in {str(folder)!r}: choose one with filename={_listing(files)}")


def _listing(files: list[Path]) -> str:
    return "".join(f"\n  {p.name}  ({_size(p) / 1e9:.2f} GB)" for p in files)


def _size(file: Path) -> int:
    """Of a split model, the size of all its parts that are there."""
    first = _FIRST_PART.fullmatch(file.name)
    parts = file.parent.glob(f"{glob.escape(first[1])}-*-of-{first[2]}") if first else [file]
    return sum(part.stat().st_size for part in parts)


def _looks_like_hub_id(name: str) -> bool:
    return _HUB_ID.fullmatch(name) is not None and not name.endswith(SUFFIX)
