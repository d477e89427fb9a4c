"""Accuracy, time and energy of one recognizer together: real decodes, timed as they were done."""

from hwsim.study.request import StudyRequest
from hwsim.study.run import run_study

__all__ = ["StudyRequest", "run_study"]
