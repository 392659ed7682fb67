"""Who calls, and whether that is allowed: `Access.decide` is the one place where a call is let in or refused.

TLS has proved the caller's certificate, pyarrow tells the name in it, and the token that comes with the call proves
that it is the member's current one (tokens.py). The token travels in a header, which a middleware keeps for the
handler: an auth handler of Flight's would put a name of its own in the certificate's place.
"""

import time
from pathlib import Path
from typing import Literal

from cryptography import x509
from pyarrow import flight

from qis_connectors.address import Pattern
from qis_connectors.network.certificates import load_pem, network_of
from qis_connectors.network.policy import Grants
from qis_connectors.network.rules import Member, Rules
from qis_connectors.network.tokens import LEEWAY_SECONDS, Proof, TokenError, verify
from qis_connectors.router.refusals import AccessError, BusyError, UnprovenError

Verb = Literal["join", "deposit", "read", "operate"]
"""Every member may join: it is told that the router serves, and how far its log is."""

RECHECK_SECONDS = 1.0
"""How soon an open stream hears that what it was let in with has changed."""

_MAX_VERIFIED = 10_000


class Permit:
    """What one stream was let in with. `node_id`: whose packets it may deposit; None at a router without a network."""

    def __init__(self, rules: Rules | None = None, identity: str = "", member: Member | None = None) -> None:
        self._rules, self._identity, self._member = rules, identity, member
        self.node_id = member.name if member else None
        self._grants = rules.grants(member.name) if rules and member else Grants()
        self._again = time.monotonic() + RECHECK_SECONDS

    def check(self) -> None:
        """BusyError, for a client to come back with, where the member or what it may do is not what it was.

        Cheap enough to be called for each batch."""
        if self._rules and self._member and (now := time.monotonic()) >= self._again:
            self._again = now + RECHECK_SECONDS
            member, grants = self._rules.member(self._identity), self._rules.grants(self._member.name)
            if (member, grants) != (self._member, self._grants) or self._member.expires < time.time():
                raise BusyError(f"what {self._member.name} may do here has changed meanwhile; ask again")

    def readable(self, pattern: Pattern) -> Pattern:
        """The part of what is asked for that may be read."""
        return pattern if self._rules is None else pattern.within(self._grants.read)


class Access:
    """To the router of the network in a folder, or to anybody who is on this machine where there is none."""

    def __init__(self, network: Path | None) -> None:
        self._rules: Rules | None = None
        if network:
            self._rules = Rules(network)
            self._network = network_of(load_pem(network / "ca.pem", x509.load_pem_x509_certificate))
        self._verified: dict[str, tuple[Member, int]] = {}

    def admit(self, context: flight.ServerCallContext, verb: Verb, address: str = "") -> Permit:
        """What a call's stream is let in with; raises what `decide` does."""
        if self._rules is None:
            return Permit()
        token = context.get_middleware("token")
        return self.decide(context.peer_identity().decode(errors="replace"), token.text if token else "", verb, address)

    def decide(self, identity: str, token: str, verb: Verb, address: str) -> Permit:
        """The one decision on a stream: `identity` is what its certificate says, `address` where it wants to `verb`.

        For reading the address may be a prefix or a glob: the Permit then knows which part of it is covered. "" is no
        address in particular. UnprovenError where the caller is no member, AccessError where the policy does not
        allow it.
        """
        assert self._rules
        member = self._rules.member(identity)
        if member is None:
            raise UnprovenError(identity, f"{identity} is no member of the network {self._network}, or not any more")
        self._prove(identity, token, member)
        if verb != "join" and not self._rules.grants(member.name).allow(verb, address):
            raise AccessError(
                identity, f"{member.name} may not {verb}{f' {address}' if address else ''} here (policy.yaml)"
            )
        return Permit(self._rules, identity, member)

    def _prove(self, identity: str, token: str, member: Member) -> None:
        """Each token is verified once: signatures cost more than small calls do."""
        now = time.time()
        if member.expires < now:
            raise UnprovenError(identity, f"the certificate of {member.name} has expired")
        known = self._verified.get(token)
        if known and known[0] == member and now < known[1]:
            return
        if not token:
            raise UnprovenError(
                identity, f"{member.name} has sent no token: a call carries one in its authorization header"
            )
        try:
            end = verify(token, Proof(identity, self._network, member.certificate), member.signing_key)
        except TokenError as error:
            raise UnprovenError(identity, f"{member.name}: {error}") from None
        if len(self._verified) >= _MAX_VERIFIED:
            self._verified.clear()
        self._verified[token] = member, end + LEEWAY_SECONDS


class Tokens(flight.ServerMiddlewareFactory):  # type: ignore[misc]  # pyarrow ships no types
    """Keeps a call's token for its handler."""

    def start_call(self, _: flight.CallInfo, headers: dict[str, list[str]]) -> "_Token | None":
        scheme, _, text = next(iter(headers.get("authorization", ())), "").partition(" ")
        return _Token(text.strip()) if scheme.lower() == "bearer" else None


class _Token(flight.ServerMiddleware):  # type: ignore[misc]
    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
