"""Integer matrix products at the speed of the machine: register tiles in LLVM, loops around them in Numba.

`layout` says how weight codes lie in memory, `target` which instructions a tile may use, `emit` and `tile`
write the tile, `product` runs it over a matrix. Importing this room compiles nothing.
"""
