"""The two ways in which the language between nodes is broken: by us, or by them."""


class ProtocolError(Exception):
    """A rule of the language was broken. Raised only as one of the two below."""


class LocalProtocolError(ProtocolError):
    """We tried to say what is not ours to say now: our own bug."""


class RemoteProtocolError(ProtocolError):
    """The peer said what it may not say: the link ends.

    `code` is the refusal that answers it (`refusals`), empty where the connection closes without a word.
    """

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code
