"""The machine: runs a script on a recorded disk, cuts the power anywhere, looks at what is left.

A case is named by what happened, such as ``short / 417 sectors 3 / 12 whole 0``: the script, then
the power cuts: after so many events of the record, in which mode and with which seed (see
``power_vfs``). ``Machine.play`` does a case again, exactly (only SQLite's random salts differ).
"""

import hashlib
import itertools
import random
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar, final

import apsw
import pytest

from holdfast.disk import folder as disk_folder
from holdfast.errors import StoreError
from tests.store.power_vfs import (
    Disk,
    Event,
    Images,
    Lie,
    PowerVfs,
    left_by_a_cut,
    whole_files,
)

# A mode beside those of the disk: the process ends, and the cache stays. The seed is 0, or the
# count of the flush that fails after the next start.
KILLED: Final = "killed"

_vfs_numbers = itertools.count(1)


class Closable(Protocol):
    """What works on the files: a store, or an outbox file."""

    def close(self) -> None:
        """Close them."""


class Digested(Protocol):
    """All that it shows at one moment; ``str`` tells it to a person."""

    @property
    def digest(self) -> str:
        """The same for the same content alone."""


Opened = TypeVar("Opened", bound=Closable)
Model = TypeVar("Model")
Shown = TypeVar("Shown", bound=Digested)


@dataclass(frozen=True, slots=True)
class Cut:
    """One end: after so many events, in a mode, with its seed."""

    at: int
    mode: str
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.at} {self.mode} {self.seed}"


@final
class Call(Generic[Opened, Model]):
    """One call, and what it does to the model.

    ``is_promise``: when it has returned, no power cut may undo it. After one of the name "reopen",
    which closes, the machine opens again.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Opened], object],
        foresee: Callable[[Model], None],
        *,
        is_promise: bool,
    ) -> None:
        self.name = name
        self.run = run
        self.foresee = foresee
        self.is_promise = is_promise


class Subject(ABC, Generic[Opened, Model, Shown]):
    """What the machine works with: how it is opened, what it shows, and its model."""

    file_name: str  # of the SQLite file
    test_file: str  # that plays a case again

    @abstractmethod
    def patch(self, patch: pytest.MonkeyPatch) -> None:
        """Set limits so that there is much upkeep."""

    @abstractmethod
    def open(self, folder: Path, vfs: str | None) -> Opened:
        """Open the files in a folder; what then happens is always the same."""

    @abstractmethod
    def observe(self, opened: Opened) -> Shown:
        """What it shows."""

    @abstractmethod
    def new_model(self) -> Model:
        """The model of one that holds nothing."""

    @abstractmethod
    def model_of(self, shown: Shown) -> Model:
        """A model that goes on from there."""

    @abstractmethod
    def shown_by(self, model: Model) -> Shown:
        """What a model shows."""

    @abstractmethod
    def agree(self, model: Model, shown: Shown) -> None:
        """Raise AssertionError if the model does not allow this."""

    @abstractmethod
    def after(self, model: Model) -> "Iterator[Call[Opened, Model]]":
        """What shows that all works on after a power cut."""


@dataclass(slots=True)
class Step(Generic[Shown]):
    """One call, or the opening, and what was shown after it."""

    name: str
    start: int  # events that came before
    stop: int
    shown: Shown | None  # None if it failed
    is_promise: bool


@dataclass(slots=True)
class Record(Generic[Shown]):
    """A run: where it began, what happened on the disk, and what was shown."""

    start: Disk
    before: dict[str, Shown]  # what may be found until it is open
    events: list[Event] = field(default_factory=list)
    steps: list[Step[Shown]] = field(default_factory=list)

    def disk(self, at: int) -> Disk:
        """The disk after so many events."""
        disk = self.start.copy()
        for event in self.events[:at]:
            disk.apply(event)
        return disk

    def allowed(self, at: int) -> dict[str, Shown]:
        """What may be shown after an end at this point, by digest.

        From what was promised last up to what is done, and what is under way.
        """
        found = dict(self.before)
        for step in self.steps:
            if step.start >= at and step.stop > at:
                break  # it comes later
            if step.shown is None:
                continue  # see ``Machine.record``: both are there already
            if step.stop <= at and step.is_promise:
                found = {}
            found[step.shown.digest] = step.shown
        return found

    def doing(self, at: int) -> str:
        """What happens at this point."""
        event = f"after {self.events[at - 1]}" if at > 0 else "at the start"
        names = [step.name for step in self.steps if step.start < at < step.stop]
        done = [step.name for step in self.steps if step.stop <= at]
        during = f"during {names[0]}" if names else f"when this was done: {(done or ['-'])[-1]}"
        return f"{event}, {during}"


class Machine(Generic[Opened, Model, Shown]):
    """Works in a folder of its own and keeps what it found for each content of the files."""

    def __init__(
        self,
        subject: Subject[Opened, Model, Shown],
        folder: Path,
        starts: Callable[[str], "Start[Opened, Model, Shown]"],
        thorough: int = 3,
    ) -> None:
        """Of the different contents one in ``thorough`` is worked on with, not only looked at."""
        self.subject: Final = subject
        self._folder = folder
        self._starts = starts
        self._thorough = thorough
        self._found: dict[bytes, Shown] = {}  # by the files' content
        self.cuts = 0

    @property
    def different(self) -> int:
        """How many different contents of the files were opened."""
        return len(self._found)

    def begin(self, name: str) -> Record[Shown]:
        """Do what the cases of this name begin with."""
        try:
            return self._starts(name).record(self)
        except AssertionError as error:
            raise self.failure(name, str(error)) from error

    def record(
        self,
        start: Disk,
        script: Callable[[Model], Iterator[Call[Opened, Model]]],
        before: dict[str, Shown],
        lie: Lie | None = None,
        reached: int | None = None,
    ) -> Record[Shown]:
        """Open a store on this disk and do what the script says.

        A call that fails ends it: nothing more may be committed, and either of the states before
        and after it may be found.
        """
        made: Record[Shown] = Record(start, before)
        folder = self._write(start.cached())
        vfs = PowerVfs(f"power {next(_vfs_numbers)}", folder, start)
        vfs.lie, vfs.reached = lie, reached
        made.events = vfs.events
        with pytest.MonkeyPatch.context() as patch:
            self.subject.patch(patch)
            patch.setattr(disk_folder, "sync_folder", vfs.folder_synced)
            self._run(made, vfs, folder, script)
        vfs.unregister()
        shutil.rmtree(folder)
        return made

    def _run(
        self,
        made: Record[Shown],
        vfs: PowerVfs,
        folder: Path,
        script: Callable[[Model], Iterator[Call[Opened, Model]]],
    ) -> None:
        subject = self.subject
        events = vfs.events
        try:
            opened = subject.open(folder, vfs.name)
        except StoreError:
            assert vfs.lie is not None  # nothing else is wrong
            made.steps.append(Step("opening", 0, len(events), None, is_promise=False))
            return
        shown = subject.observe(opened)
        made.steps.append(Step("opening", 0, len(events), shown, is_promise=True))
        model = subject.model_of(shown)
        for call in script(model):
            first = len(events)
            try:
                call.run(opened)
                if call.name == "reopen":
                    opened = subject.open(folder, vfs.name)
            except StoreError:
                assert vfs.lie is not None
                self._must_refuse(opened, model, events)
                failed = subject.model_of(shown)
                if call.is_promise and len(events) > first:
                    call.foresee(failed)
                shown = subject.shown_by(failed)
                name = f"{call.name}, which failed"
                made.steps.append(Step(name, first, len(events), shown, is_promise=False))
                opened.close()
                return
            call.foresee(model)
            shown = subject.observe(opened)
            subject.agree(model, shown)
            is_promise = call.is_promise and len(events) > first
            made.steps.append(Step(call.name, first, len(events), shown, is_promise))
        first = len(events)
        opened.close()
        made.steps.append(Step("close", first, len(events), shown, vfs.lie is None))

    def cut(self, made: Record[Shown], cut: Cut) -> Disk:
        """The disk that the next start finds."""
        disk = made.disk(cut.at)
        return disk if cut.mode == KILLED else Disk(left_by_a_cut(disk, cut.mode, cut.seed))

    def check(self, case: str, made: Record[Shown], cut: Cut, images: Images) -> Shown:
        """Open what is left by a cut; it must show what is allowed, and work on."""
        self.cuts += 1
        try:
            return self._judge(images, made.allowed(cut.at))
        except Exception as error:
            raise self.failure(f"{case} / {cut}", f"{made.doing(cut.at)}: {error!r}") from error

    def failure(self, case: str, what: str) -> AssertionError:
        return AssertionError(
            f"{what}\n  again: HOLDFAST_POWER_CASE={case!r} pytest -k plays_again"
            f" {self.subject.test_file}"
        )

    def _judge(self, images: Images, allowed: dict[str, Shown]) -> Shown:
        hashed = hashlib.blake2b(digest_size=16)
        for name, content in sorted(images.items()):
            hashed.update(b"%s %d " % (name.encode(), len(content)))
            hashed.update(content)
        key = hashed.digest()
        if key not in self._found:
            self._found[key] = self._open(images)
        found = self._found[key]
        if found.digest not in allowed:
            expected = "\n    or ".join(str(shown) for shown in allowed.values())
            raise AssertionError(f"found {found}\n  expected {expected}\n")
        return found

    def _open(self, images: Images) -> Shown:
        """What is shown from these files; it must work on, and show that after another start."""
        folder = self._write(images)
        opened = self.subject.open(folder, None)
        try:
            found = self.subject.observe(opened)
            path = folder / self.subject.file_name
            with closing(apsw.Connection(str(path))) as connection:
                assert connection.pragma("integrity_check") == "ok"
            if self.different % self._thorough == 0:
                opened = self._work_on(opened, folder, found)
        finally:
            opened.close()
        shutil.rmtree(folder)
        return found

    def _work_on(self, opened: Opened, folder: Path, found: Shown) -> Opened:
        subject = self.subject
        model = subject.model_of(found)
        for call in subject.after(model):
            call.run(opened)
            call.foresee(model)
        subject.agree(model, subject.observe(opened))
        opened.close()
        reopened = subject.open(folder, None)
        subject.agree(model, subject.observe(reopened))
        return reopened

    def _must_refuse(self, opened: Opened, model: Model, events: list[Event]) -> None:
        """After a failure nothing more may be committed, nor written."""
        written = len(events)
        for call in self.subject.after(model):
            try:
                call.run(opened)
            except StoreError:
                continue
            raise AssertionError(f"{call.name} was accepted after a failure")
        assert len(events) == written, "something was written after a failure"

    def _write(self, images: Images) -> Path:
        folder = self._folder / f"{next(_vfs_numbers)}"
        folder.mkdir(parents=True)
        for name, content in images.items():
            (folder / name).write_bytes(content)
        return folder

    def _cuts_of(
        self, made: Record[Shown], points: list[int], seeds: int
    ) -> Iterator[tuple[Cut, Images]]:
        """At each of these points the cuts of all modes, with so many seeds each."""
        disk = made.start.copy()
        applied = 0
        for at in points:
            for event in made.events[applied:at]:
                disk.apply(event)
            applied = at
            wholes = whole_files(disk)
            for seed in wholes:
                yield (Cut(at, "whole", seed), left_by_a_cut(disk, "whole", seed))
            if len(wholes) == 1:
                continue  # there is nothing to lose
            for mode in ("torn", "last", "size", "some", "sectors"):
                for seed in range(seeds):
                    number = at * seeds + seed if mode != "last" else seed
                    yield (Cut(at, mode, number), left_by_a_cut(disk, mode, number))

    def try_all(
        self,
        case: str,
        made: Record[Shown],
        points: list[int],
        seeds: int,
        again: int,
        rng: random.Random,
    ) -> None:
        """Cut at these points; of the different contents one in ``again`` gets further cuts."""
        for cut, images in self._cuts_of(made, points, seeds):
            known = self.different
            self.check(case, made, cut, images)
            if again and self.different > known and rng.randrange(again) == 0:
                self.cut_again(f"{case} / {cut}", made, cut, rng)

    def cut_again(
        self, case: str, made: Record[Shown], cut: Cut, rng: random.Random, points_max: int = 25
    ) -> None:
        """Start on what a cut left, and cut again: during the start, and afterwards."""
        try:
            following = self._following(made, cut)
        except Exception as error:
            raise self.failure(case, f"{made.doing(cut.at)}, then: {error!r}") from error
        opening = following.steps[0].shown
        if opening is not None and opening.digest not in following.before:
            raise self.failure(case, f"{made.doing(cut.at)}: found {opening}")
        points = list(range(len(following.events) + 1))
        if cut.mode == KILLED and cut.seed > 0:
            end = Cut(points[-1], KILLED)
            self.cut_again(f"{case} / {end}", following, end, rng, points_max)
        chosen = sorted(rng.sample(points, min(points_max, len(points))))
        self.try_all(case, following, chosen, 1, 0, rng)

    def _following(self, made: Record[Shown], cut: Cut) -> Record[Shown]:
        """What happens after a cut."""
        lie: Lie | None = None
        if cut.mode == KILLED and cut.seed > 0:
            lie = flush(cut.seed - 1)
        return self.record(self.cut(made, cut), self.subject.after, made.allowed(cut.at), lie)

    def play(self, case: str) -> None:
        """Do a case again."""
        name, *ends = case.split(" / ")
        made = self.begin(name)
        for index, end in enumerate(ends):
            at, mode, seed = end.split()
            cut = Cut(int(at), mode, int(seed))
            if index + 1 < len(ends) or mode == KILLED:
                made = self._following(made, cut)
            else:
                images = left_by_a_cut(made.disk(cut.at), cut.mode, cut.seed)
                self.check(" / ".join([name, *ends[:index]]), made, cut, images)


@dataclass(frozen=True, slots=True)
class Start(Generic[Opened, Model, Shown]):
    """How a case begins."""

    script: Callable[[Model], Iterator[Call[Opened, Model]]]
    images: Images | None = None
    expected: Shown | None = None  # what its files hold; None: nothing
    lie: Lie | None = None
    reached: int | None = None

    def record(self, machine: Machine[Opened, Model, Shown]) -> Record[Shown]:
        subject = machine.subject
        shown = self.expected
        if shown is None:
            shown = subject.shown_by(subject.new_model())
        return machine.record(
            Disk(self.images), self.script, {shown.digest: shown}, self.lie, self.reached
        )


def flush(number: int) -> Lie:
    """Has the flush fail that comes after so many others."""
    return lambda _name, before: before == number
