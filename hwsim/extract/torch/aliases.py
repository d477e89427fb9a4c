"""Changes in place: what is a view of what, and what each of them stands for after a write."""

from __future__ import annotations

from hwsim.extract.torch.calls import Call, Meta
from hwsim.extract.torch.draft import Draft
from hwsim.extract.torch.entries import Computed, Constant


class Aliases:
    """Names of one storage, of which the first is the whole. Those that nobody writes to need no care."""

    def __init__(self, draft: Draft, calls: list[Call]) -> None:
        self.draft = draft
        self._metas: dict[str, Meta] = {}
        written = set()
        for call in calls:
            if call.outputs[0] is not None:
                self._metas.setdefault(call.name, call.outputs[0])
            if call.in_place and call.outputs[0] is not None:
                written.add(call.outputs[0].storage)
        self._whole: dict[int, str] = {}
        self._version: dict[int, int] = dict.fromkeys(written, 0)
        self._seen: dict[str, int] = {}

    def start(self, name: str, meta: Meta) -> None:
        """An input or a buffer, the whole of its storage. A constant that is written to is copied."""
        self._metas[name] = meta
        entry = self.draft.entries.get(name)
        if meta.storage in self._version:
            self._whole.setdefault(meta.storage, name)
            if isinstance(entry, Constant):
                self.draft.entries[name] = Constant(entry.tensor.clone(), entry.name)

    def refresh(self, call: Call) -> None:
        """What the call reads stands for the last writes to it."""
        for ref in call.refs:
            meta = self._metas.get(ref.name)
            if meta is None or meta.storage not in self._version:
                continue
            whole = self._whole.setdefault(meta.storage, ref.name)
            version = self._version[meta.storage]
            if self._seen.setdefault(ref.name, 0) < version and ref.name != whole:
                current = self.draft.entry_of(whole)
                if isinstance(current, Computed):
                    self.draft.entries[ref.name] = self.draft.view(call, [current], meta, f"{ref.name}.after{version}")
            self._seen[ref.name] = version
        meta = call.outputs[0]
        if meta is not None and meta.storage in self._version:
            self._whole.setdefault(meta.storage, call.name)
            self._seen[call.name] = self._version[meta.storage]

    def written(self, call: Call) -> None:
        """After a change in place: its operand is the result, and the whole is too, beside what it was."""
        target, meta = call.refs[0], call.meta
        result = self.draft.entry_of(call.name)
        whole = self._whole.setdefault(meta.storage, target.name)
        if isinstance(result, Constant) and isinstance(self.draft.entry_of(whole), Constant):
            return
        self._version[meta.storage] = self._version.get(meta.storage, 0) + 1
        version = self._version[meta.storage]
        before = self.draft.entry_of(whole)
        self.draft.entries[target.name] = result
        if target.name != whole and self._metas[target.name].shape != before.shape:
            shape = Meta(before.shape, before.dtype)
            parts = [before, result] if isinstance(before, Computed) else [result]
            self.draft.entries[whole] = self.draft.view(call, parts, shape, f"{whole}.after{version}")
        else:
            self.draft.entries[whole] = result
        for name in (target.name, call.name, whole):
            self._seen[name] = version
