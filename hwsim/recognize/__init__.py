"""Speech to words on integer codes: a recognizer's networks as executables, its search, its errors."""

from hwsim.recognize.recognizer import Recognizer, Stream, Transcript
from hwsim.recognize.store import load_recognizer, save_recognizer

__all__ = ["Recognizer", "Stream", "Transcript", "load_recognizer", "save_recognizer"]
