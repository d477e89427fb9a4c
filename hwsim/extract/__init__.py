"""Networks become operations: the parametric catalogue of `workloads/`."""

from hwsim.extract.workload import Workload, json_schema, load_workload, parameter_counts

__all__ = ["Workload", "json_schema", "load_workload", "parameter_counts"]
