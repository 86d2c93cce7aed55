"""What goes wrong in TLS itself, in words that say what to do."""

from __future__ import annotations

from OpenSSL import SSL
from service_identity import VerificationError

#: What goes wrong in TLS itself.
TLS_ERRORS = (SSL.Error, VerificationError)


def tls_words(error: Exception) -> str:
    """OpenSSL's own words for an error; empty where it has none."""
    try:
        return "; ".join(str(part[-1]) for part in error.args[0])
    except (IndexError, TypeError):
        return ""


def tls_obstacle(error: Exception) -> str | None:
    """
    Why TLS cannot come about with the certificates or the scheme as they are, and what to do.

    None for errors that may pass, or that come when a request may have been read.
    """
    if isinstance(error, VerificationError):
        return (
            "the server's certificate is for another host; connect by a name that it has, or issue one with this name"
        )
    words = tls_words(error)
    if "certificate verify failed" in words:
        # OpenSSL does not say here which of these it is.
        return (
            f"the server's certificate is not trusted ({words}); give the authority that signed it as ca_file, and"
            " where that is given already, renew the certificate if it has expired, or set this machine's clock"
        )
    # With TLS 1.3 this comes when the handshake has already ended on this side.
    if "alert" in words and any(part in words for part in ("certificate", "unknown ca")):
        return f"the server wants another client certificate ({words}); give or mend cert_file and key_file"
    if any(part in words for part in ("wrong version number", "packet length too long", "http request")):
        return f"the server does not speak TLS ({words}); write the endpoint with http://"
    if any(part in words for part in ("handshake failure", "protocol version", "unsupported protocol")):
        return f"the server and the client have no version or cipher of TLS in common ({words})"
    return None
