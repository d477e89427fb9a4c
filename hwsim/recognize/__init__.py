"""Speech to words on integer codes: a recognizer's networks as executables, its search, its errors."""

from hwsim.recognize.recognizer import Recognizer, Stream, Transcript
from hwsim.recognize.rescoring import Rescored, rescore, sentence_log_p
from hwsim.recognize.store import load_recognizer, save_recognizer

__all__ = [
    "Recognizer",
    "Rescored",
    "Stream",
    "Transcript",
    "load_recognizer",
    "rescore",
    "save_recognizer",
    "sentence_log_p",
]
