"""Accuracy, time and energy of one recognizer together: real decodes, timed as they were done."""

from hwsim.study.decodes import Decode, measure, read_decodes, search_rows, spread_rows
from hwsim.study.request import StudyRequest
from hwsim.study.run import run_study
from hwsim.study.table import Point

__all__ = [
    "Decode",
    "Point",
    "StudyRequest",
    "measure",
    "read_decodes",
    "run_study",
    "search_rows",
    "spread_rows",
]
