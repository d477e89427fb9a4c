"""How fast hwsim is on this machine, beside the targets of the project: `python -m benchmarks`."""
