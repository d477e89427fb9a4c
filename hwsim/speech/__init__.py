"""Synthetic speech: sentences of a grammar, spoken, disturbed by noise, and turned into features.

`build` makes a set, `dataset` reads one, `audio` and `features` turn a WAV file into what a network reads.
"""
