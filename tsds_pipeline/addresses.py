"""Remote addresses as tsds.toml names them: which are taken, and how none of them tells a secret.

Text only. What is at an address is found by ``remote_files``.
"""

import re

REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
WEB = ("http", "https")
_BUCKETS = ("s3", "s3a", "gs", "gcs")
_LOCAL = ("file", "local")


def protocol_of(address: str) -> str:
    """What stands before ``://``, in lower case."""
    return address.partition("://")[0].strip().lower()


def server_of(address: str) -> str:
    """``address`` as far as its host or bucket."""
    return "/".join(address.split("/", 3)[:3])


def check_address(address: str) -> None:
    """Raise ValueError where ``address`` is not one plain remote address, free of credentials."""
    protocol = protocol_of(address)
    login, at, _ = server_of(address).partition("://")[2].rpartition("@")
    if "::" in address:
        raise ValueError("an address is of one protocol: write it without ::")
    if protocol in _LOCAL:
        raise ValueError(f"a path on this machine is written without {protocol}://")
    # Elsewhere a name alone may stand there: of a user (sftp) or a container (abfs).
    if at and (protocol in (*WEB, *_BUCKETS) or ":" in login):
        raise ValueError(
            "no credentials may stand in an address: take out what is before @ and give them in the environment"
        )
    # Elsewhere ? is a wildcard.
    if re.search("[?#]", address) if protocol in WEB else re.search(r"\?[^/]*=", address):
        raise ValueError(
            "no query (?...) or fragment (#...) may stand in an address, as it may hold a signature: name the plain "
            "address and give credentials in the environment"
        )


def without_secrets(text: str) -> str:
    """``text`` with what may be credentials in its addresses left out."""
    before, mark, rest = text.partition("://")
    if not mark:
        return text
    if "@" in rest.partition("?")[2]:  # of a query or of a login, which cannot be told
        return f"{before}://..."
    hidden, at, rest = rest.rpartition("@")
    return f"{before}://{'...' if at else hidden}{at}" + re.sub(r"(?<=\?)[^\s\"']+", "...", rest)
