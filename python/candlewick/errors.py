"""Exceptions: each message says what was found, what was expected, and what to do."""


class Error(Exception):
    """Base of everything candlewick raises on purpose."""


class ModelNotFoundError(Error, FileNotFoundError):
    """No such file, folder, repository or quantization."""


class ModelFormatError(Error, ValueError):
    """The file is not a well-formed GGUF, or it contradicts itself."""


class UnsupportedModelError(Error, ValueError):
    """The file is well formed, but this package, engine, device or CPU cannot run it."""


class InvalidRequestError(Error, ValueError):
    """An argument that makes no sense, or a generator that is closed."""


class ContextLengthError(Error, ValueError):
    """The prompt does not fit in the context."""


class SessionError(Error, ValueError):
    """A saved conversation that is damaged, or of another model, version or ``kv_type``."""


class DownloadError(Error, OSError):
    """A download failed; what was fetched is kept."""


class OutOfMemoryError(Error, MemoryError):
    """More memory would be needed than there is; nothing was allocated."""


# Tracebacks and pickles use the names that users import.
for _class in (
    Error,
    ModelNotFoundError,
    ModelFormatError,
    UnsupportedModelError,
    InvalidRequestError,
    ContextLengthError,
    SessionError,
    DownloadError,
    OutOfMemoryError,
):
    _class.__module__ = "candlewick"
