"""Networks of other toolkits as graphs: what `from_onnx` and `from_torch` read, and how it becomes operations."""
