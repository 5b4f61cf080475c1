"""`director devices --ray ADDRESS`: the nodes of a Ray cluster, and what each has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from director.cli._status import UsageError
from director.cli._table import table
from director.cli._terminal import complain, say, say_json

if TYPE_CHECKING:
    from director.ray import Node

_HEAD = ("node", "GPU", "kind of GPU", "CPU", "memory", "id")
_KIND = "accelerator_type:"  # how Ray names a resource that says what its GPUs are


def list_nodes(address: str, *, as_json: bool) -> int:
    """List the nodes; a hint goes to stderr.

    Args:
        address: Of the cluster.
        as_json: Everything that Ray says of their resources.

    Returns:
        0, whether or not they have GPUs.

    Raises:
        DiscoveryError: No cluster answers.
        UsageError: No cluster can have that address.
    """
    from director.ray import cluster_nodes

    try:
        nodes = cluster_nodes(address)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if as_json:
        listed = [{**node._asdict(), "resources": dict(node.resources)} for node in nodes]
        say_json({"nodes": listed}, indent=2)
        return 0
    say(table(_HEAD, [_row(node) for node in nodes], left=len(_HEAD)))
    if not any(node.resources.get("GPU") for node in nodes):
        complain("No node has a GPU: a Director takes one core of each, or with devices='cpu:4' four.")
    return 0


def _row(node: Node) -> tuple[str, ...]:
    held = node.resources
    kinds = ", ".join(sorted(name.removeprefix(_KIND) for name in held if name.startswith(_KIND)))
    memory = f"{held.get('memory', 0) / 2**30:.1f} GiB"
    return node.name, f"{held.get('GPU', 0):g}", kinds or "-", f"{held.get('CPU', 0):g}", memory, node.id
