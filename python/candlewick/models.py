"""What a user calls a model -> the file to open."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from candlewick.errors import InvalidRequestError, ModelNotFoundError

DEMO = "demo"
SUFFIX = ".gguf"


def resolve(model: str | os.PathLike[str] | None, filename: str | None = None) -> Path:
    """The GGUF file that ``model`` names.

    Args:
        model: ``"demo"``, a ``.gguf`` file, or a folder that holds one.
        filename: Which file of a folder.

    Raises:
        ModelNotFoundError: Nothing is there, or a choice is needed; the text lists what was found.
    """
    if model is None:
        raise _not_yet("microsoft/Phi-3-mini-4k-instruct-gguf")
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
    if is_folder:
        return _in_folder(path, filename)
    if exists:
        if filename is not None:
            raise InvalidRequestError(f"filename is {filename!r}, but {name!r} is a file and not a folder")
        return path
    if name == DEMO:
        if filename is not None:
            raise InvalidRequestError(f"filename is {filename!r}, but the demo model is one file")
        return demo_path()
    if isinstance(model, str) and _looks_like_hub_id(name):
        raise _not_yet(name)
    raise ModelNotFoundError(
        f'no such file or folder: {name!r}; expected a .gguf file, a folder that holds one, or "demo"'
    )


def resolve_tokenizer(tokenizer: str | os.PathLike[str] | None) -> Path | None:
    """The ``tokenizer.json`` that ``tokenizer`` names: the file, or the folder that holds it."""
    if tokenizer is None:
        return None
    path = Path(os.path.expanduser(os.fsdecode(tokenizer)))
    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.is_file():
        raise ModelNotFoundError(f"no tokenizer file {str(path)!r}: give a tokenizer.json, or the folder that holds it")
    return path


def demo_path() -> Path:
    """The model inside the package."""
    return Path(str(resources.files("candlewick") / "demo.gguf"))


def _in_folder(folder: Path, filename: str | None) -> Path:
    files = sorted(p for p in folder.iterdir() if p.suffix == SUFFIX and p.is_file())
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
    return "".join(f"\n  {p.name}  ({p.stat().st_size / 1e9:.2f} GB)" for p in files)


def _looks_like_hub_id(name: str) -> bool:
    owner, slash, repo = name.partition("/")
    return (
        bool(slash and owner and repo)
        and not name.endswith(SUFFIX)
        and "/" not in repo
        and owner not in (".", "..", "~")
    )


def _not_yet(name: str) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"models from the hub ({name!r}) cannot be fetched yet: download the .gguf file and give its path, "
        'or try the model inside the package, Generator("demo")'
    )
