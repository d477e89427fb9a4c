"""Architectures: the schema of their files, loading, and the origin of every number."""

from hwsim.arch.architecture import Architecture
from hwsim.arch.loading import architecture_names, load_arch
from hwsim.arch.quantity import Origin, Quantity

__all__ = ["Architecture", "Origin", "Quantity", "architecture_names", "json_schema", "load_arch"]


def json_schema() -> dict[str, object]:
    """JSON Schema of an architecture file, see `hwsim.arch.export`."""
    from hwsim.arch import export

    return export.json_schema()
