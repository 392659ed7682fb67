"""Who may do what, at which addresses: a network's policy.yaml, which its operator reads and writes.

A member, its verbs and patterns of addresses as `qis query` takes them are all there is. With a policy engine, such as
casbin, an operator would write a model and a table of tuples, and match addresses by other rules than readers do.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import yaml

from qis_connectors.address import AddressError, Pattern
from qis_connectors.errors import QisError

HEAD = """\
# Who may do what, at which addresses. What no line allows is refused.
#
#   deposit   packets of its own; each must have the member's name as its node_id
#   read      query, watch and list
#   operate   statistics, evidence, and what is known of all sites' contexts and interests
#
# An address is domain/problem_type. What stands here are patterns, as `qis query` takes them: an address, a prefix such
# as clinical.tuberculosis, a glob such as "clinical.*" or "*". The router reads this file again when it is saved; one
# with a mistake in it is logged, and what was read before goes on to hold.
"""

OPERATOR_GRANTS = '  read: ["*"]\n  operate: ["*"]\n'
SITE_GRANTS = '  deposit: ["*"]\n  read: ["*"]\n'


class PolicyError(QisError):
    """A policy that cannot be understood; the text names the line."""


@dataclass(frozen=True)
class Grants:
    """The patterns of the addresses at which a member may do each."""

    deposit: tuple[Pattern, ...] = ()
    read: tuple[Pattern, ...] = ()
    operate: tuple[Pattern, ...] = ()

    def allow(self, verb: str, address: str) -> bool:
        """Whether one pattern covers the address. For a prefix or glob, and for "", whether there is any pattern: what
        lies at addresses that no pattern covers is then left out of the answer."""
        patterns: tuple[Pattern, ...] = getattr(self, verb)
        is_exact = bool(address) and Pattern(address).is_exact
        return any(pattern.matches(address) for pattern in patterns) if is_exact else bool(patterns)


VERBS = tuple(field.name for field in fields(Grants))


def parse(text: str) -> dict[str, Grants]:
    """Member -> what it may do; PolicyError where the text says something else."""
    found = {}
    for key, value in _entries(_composed(text), "a member and below it what it may do"):
        name = key.value
        if name in found:
            raise _mistake(key, f"{name!r:.80} is there already")
        grants: dict[str, tuple[Pattern, ...]] = {}
        for verb, patterns in _entries(value, f'what {name!r:.80} may do, such as read: ["clinical.*"]'):
            if verb.value not in VERBS:
                raise _mistake(verb, f"{verb.value!r:.80} is none of {', '.join(VERBS)}")
            if verb.value in grants:
                raise _mistake(verb, f"{verb.value!r} is there already")
            grants[verb.value] = tuple(_patterns(patterns))
        found[name] = Grants(**grants)
    return found


def with_member(text: str, name: str, grants: str) -> str:
    """The text with these lines for a member; as it is where it has some for it."""
    if name in parse(text):
        return text
    return f"{text.rstrip()}\n\n{name}:\n{grants}"


def without_member(text: str, name: str) -> str:
    """The text without a member's lines."""
    lines = text.splitlines(keepends=True)
    for key, value in reversed(list(_entries(_composed(text), "a member"))):
        if key.value == name:
            del lines[key.start_mark.line : _last_line(value) + 1]
    return "".join(lines)


def _composed(text: str) -> yaml.MappingNode | None:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise PolicyError(f"line {line}: is not YAML: {error.problem}") from None
    except (yaml.YAMLError, RecursionError):
        raise PolicyError("is not YAML") from None
    if root is not None and (not isinstance(root, yaml.MappingNode) or root.flow_style):
        raise _mistake(root, "expected a member and below it what it may do")
    return root


def _last_line(node: yaml.Node) -> int:
    """Of what is written: a block ends, for YAML, behind the comments that follow it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _last_line(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.line)


def _entries(node: yaml.Node | None, expected: str) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
    """As they are written: a site called `no` or `1948` is a name here, and a key that is there twice is seen."""
    if node is None or (isinstance(node, yaml.ScalarNode) and not node.value):
        return
    if not isinstance(node, yaml.MappingNode):
        raise _mistake(node, f"expected {expected}")
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _mistake(key, f"expected {expected}")
        yield key, value


def _patterns(node: yaml.Node) -> Iterator[Pattern]:
    if not isinstance(node, yaml.SequenceNode):
        raise _mistake(node, 'expected a list of addresses, such as ["clinical.*"]')
    for item in node.value:
        if not isinstance(item, yaml.ScalarNode):
            raise _mistake(item, 'expected an address, such as "clinical.*"')
        try:
            yield Pattern(item.value)
        except AddressError as error:
            raise _mistake(item, str(error)) from None


def _mistake(node: yaml.Node, what: str) -> PolicyError:
    return PolicyError(f"line {node.start_mark.line + 1}: {what}")
