"""Build a speech set in a folder: once, from a seed, whoever does the work and however often it is interrupted."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hwsim.errors import HwsimError
from hwsim.speech.chunks import Chunk, Work, chunks_of, is_whole, pool_of, read_chunk, run_all
from hwsim.speech.dataset import (
    FORMAT,
    MANIFEST,
    TEXT,
    FileEntry,
    Manifest,
    check_file,
    load_manifest,
    pack,
    save_split,
    sha256,
    write_manifest,
)
from hwsim.speech.features import Normalizer, library_version
from hwsim.speech.grammar import sample_sentences
from hwsim.speech.spec import SpeechSpec
from hwsim.speech.synthesis import Espeak, Synthesizer
from hwsim.speech.utterance import Spoken, generator
from hwsim.workers import cores

PARTIAL = ".partial-"


@dataclass(frozen=True)
class Request:
    """What is to be built; equal requests give equal files."""

    workload: str
    """Name of the network, for the manifest."""
    spec: SpeechSpec
    seed: int | None = None
    """Default: that of the settings."""
    utterances: int | None = None
    """Most utterances of a split; the text is always whole."""

    def __post_init__(self) -> None:
        for name, value, least in (("seed", self.seed, 0), ("utterances", self.utterances, 1)):
            if value is not None and value < least:
                raise HwsimError(f"{name} must be at least {least}, got {value}")

    @property
    def used_seed(self) -> int:
        """The seed that is used."""
        return self.spec.seed if self.seed is None else self.seed

    @property
    def sizes(self) -> dict[str, int]:
        """Utterances of each split."""
        return {name: min(split.utterances, self.utterances or split.utterances)
                for name, split in self.spec.splits.items()}  # fmt: skip

    @property
    def settings_sha256(self) -> str:
        """SHA-256 of all that decides what is built, except the synthesizer and the feature library."""
        settings = [FORMAT, self.workload, self.spec.model_dump(mode="json"), self.used_seed, self.utterances]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def current(request: Request, out: Path) -> Manifest | None:
    """The manifest of the set in `out` when it is whole, unaltered and the one asked for."""
    try:
        manifest = load_manifest(out)
        if manifest.settings_sha256 != request.settings_sha256:
            return None
        for name, entry in manifest.splits.items():
            check_file(out / f"{name}.npz", entry)
        check_file(out / TEXT, manifest.text)
    except HwsimError:
        return None
    return manifest


def build(request: Request, out: str | Path, synthesizer: Synthesizer | None = None, workers: int | None = None,
          on_utterance: Callable[[int, int], None] | None = None) -> tuple[Manifest, bool]:  # fmt: skip
    """Build the set in `out` and return its manifest, and whether anything was done.

    A whole set of the same request stays as it is, and then nothing needs to be installed. Chunks that an
    interrupted build of the same request left are used. `workers` processes work at once, by default one for each
    core. `on_utterance(done, total)` is told of progress. Raises HwsimError when the synthesizer or the feature
    library is missing, a voice is not installed or says nothing, or the folder cannot be written.
    """
    out = Path(out)
    if workers is not None and workers < 1:
        raise HwsimError(f"workers must be at least 1, got {workers}")
    if out.exists() and not out.is_dir():
        raise HwsimError(f"{out}: must be a folder to write to, got a file")
    found = current(request, out)
    if found is not None:
        return found, False
    synthesizer = synthesizer or Espeak()
    versions = (synthesizer.version(), library_version())
    synthesizer.check_voices(voice for voices in request.spec.voices.values() for voice in voices)
    key = hashlib.sha256("\n".join((request.settings_sha256, *versions)).encode()).hexdigest()[:12]
    folder = out / f"{PARTIAL}{key}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        work = Work(request.spec, request.used_seed, synthesizer, folder)
        _run(request, work, workers or cores(), on_utterance or (lambda done, total: None))
        # Without a manifest no reader takes a folder that is half old and half new.
        (out / MANIFEST).unlink(missing_ok=True)
        manifest = _assemble(request, folder, out, versions)
    except OSError as error:
        raise HwsimError(f"{out}: must be a folder to write to, got {error.strerror or error}") from None
    for left in out.glob(f"{PARTIAL}*"):
        shutil.rmtree(left, ignore_errors=True)
    return manifest, True


def _run(request: Request, work: Work, workers: int, progress: Callable[[int, int], None]) -> None:
    """Make what is missing: first the babble, which the utterances need, then the utterances."""
    pools = list(dict.fromkeys(pool for name in request.spec.splits if (pool := pool_of(request.spec, name))))
    chunks = [chunk for name, size in request.sizes.items() for chunk in chunks_of(name, size)]
    total = sum(request.sizes.values()) + len(pools) * request.spec.babble.utterances
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    for stage in (pools, chunks):
        missing: list[Chunk] = []
        for chunk in stage:
            if is_whole(work.folder / chunk.file):
                advance(chunk.stop - chunk.start if chunk.stop else request.spec.babble.utterances)
            else:
                missing.append(chunk)
        run_all(work, missing, workers, advance)


def _assemble(request: Request, folder: Path, out: Path, versions: tuple[str, str]) -> Manifest:
    spec = request.spec

    def spoken(name: str) -> list[Spoken]:
        return [u for chunk in chunks_of(name, request.sizes[name]) for u in read_chunk(folder / chunk.file)]

    normalizer = Normalizer.over([u.frames for u in spoken(spec.normalize_by)], spec.features.bins)
    entries = {}
    for name in spec.splits:
        split = pack(name, spoken(name), spec.words, normalizer, spec.features.sample_rate_hz)
        partial = folder / f"{name}.npz"
        entries[name] = save_split(split, partial)
        os.replace(partial, out / partial.name)
    manifest = Manifest(
        workload=request.workload,
        seed=request.used_seed,
        utterances=request.utterances,
        settings_sha256=request.settings_sha256,
        synthesizer=versions[0],
        feature_library=versions[1],
        words=spec.words,
        features=spec.features,
        mean=normalizer.mean,
        deviation=normalizer.deviation,
        splits=entries,
        text=_write_text(request, out),
    )
    write_manifest(manifest, out)
    return manifest


def _write_text(request: Request, out: Path) -> FileEntry:
    text, path = request.spec.text, out / TEXT
    grammar = request.spec.grammars[text.grammar]
    sentences = sample_sentences(grammar, text.sentences, generator(request.used_seed, "text"))
    path.write_text("\n".join(sentences) + "\n", encoding="utf-8")
    words = sum(len(sentence.split()) for sentence in sentences)
    return FileEntry(sha256=sha256(path), utterances=len(sentences), words=words)
