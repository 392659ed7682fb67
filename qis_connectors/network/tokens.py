"""Tokens: a member's word, minutes old at most, that a call comes from whom its certificate names.

A router behind pyarrow learns the name in a caller's certificate and nothing else of it: no thumbprint, no list of
revoked ones. So each call carries a JSON Web Token too (RFC 7519), which the member signs itself with the Ed25519 key
of its bundle and which says which certificate it goes with (RFC 8705, section 3.1). The router knows the current key
and thumbprint of each member: who was revoked has neither, and what was rotated away has the wrong ones, from the next
call on. A token is of no use beside another member's certificate, at another network, or a few minutes later.
"""

import time
from dataclasses import dataclass

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from qis_connectors.errors import QisError

LIFE_SECONDS = 300
LONGEST_SECONDS = 600
"""A router takes no token that was made to last longer."""

LEEWAY_SECONDS = 60
"""Clocks differ by so much."""

_ALGORITHM = "EdDSA"
_THUMBPRINT = "x5t#S256"


class TokenError(QisError):
    """A token that proves nothing; the text says why, and has nothing of the token in it."""


@dataclass(frozen=True)
class Proof:
    """What a token proves: who speaks, at which network, under the certificate with which thumbprint (x5t#S256)."""

    identity: str
    network: str
    thumbprint: str


def mint(proof: Proof, key: Ed25519PrivateKey, life: int = LIFE_SECONDS) -> str:
    """A token that is good from now on for `life` seconds."""
    now = int(time.time())
    claims = {
        "sub": proof.identity,
        "aud": proof.network,
        "iat": now,
        "exp": now + life,
        "cnf": {_THUMBPRINT: proof.thumbprint},
    }
    return jwt.encode(claims, key, _ALGORITHM)


def verify(token: str, proof: Proof, key: Ed25519PublicKey) -> int:
    """When a token that proves this ends, in seconds since 1970; TokenError where it does not prove it."""
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=[_ALGORITHM],
            audience=proof.network,
            subject=proof.identity,
            leeway=LEEWAY_SECONDS,
            options={"require": ["sub", "aud", "iat", "exp", "cnf"]},
        )
    except (jwt.ExpiredSignatureError, jwt.ImmatureSignatureError):
        raise TokenError("the token has expired, or is not good yet: is the clock of this machine right?") from None
    except jwt.exceptions.InvalidSubjectError:
        raise TokenError("the token is another member's") from None
    except jwt.InvalidAudienceError:
        raise TokenError("the token is for another network") from None
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError):
        raise TokenError("the token is not one that this member signed with its current key") from None
    if int(claims["exp"]) - int(claims["iat"]) > LONGEST_SECONDS:
        raise TokenError(f"the token was made to last longer than {LONGEST_SECONDS} seconds")
    if claims["cnf"] != {_THUMBPRINT: proof.thumbprint}:
        raise TokenError("the token goes with another certificate")
    return int(claims["exp"])
