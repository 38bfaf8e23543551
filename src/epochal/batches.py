"""Batches: the only object with a position."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from epochal.errors import MismatchError, ScratchError
from epochal.execute.meter import Meter, Stats
from epochal.execute.pool import Pool
from epochal.execute.probe import probe
from epochal.execute.run import Run
from epochal.execute.scratch import scratch_folder
from epochal.plan.choose import choose
from epochal.plan.machine import Machine, Rates
from epochal.plan.order import Order, Rows
from epochal.plan.page import compare
from epochal.plan.plan import Plan, Prediction
from epochal.schemes.scheme import Scheme
from epochal.schemes.shuffled import ShuffledSequential
from epochal.stores.store import Source

__all__ = ["Batches", "Report", "Settings"]

STATE_VERSION = 1


@dataclass(frozen=True)
class Settings:
    """How batches are made; never which rows come, nor in which order."""

    budget_bytes: int
    threads: int
    scratch: str | os.PathLike[str] | bool | None = None
    strategies: tuple[str, ...] | None = None
    machine: Machine | None = None
    progress: bool = False


@dataclass(frozen=True)
class Report:
    """A plan and what came of it; prints as one page.

    ``measured`` is None before the first batch.
    """

    plan: Plan
    predicted: Prediction
    measured: Prediction | None

    def as_dict(self) -> dict[str, Any]:
        """The same, JSON-able."""
        measured = None if self.measured is None else vars(self.measured)
        return {**self.plan.as_dict(), "predicted": vars(self.predicted), "measured": measured}

    def __str__(self) -> str:
        page = str(self.plan)
        if self.measured is not None:
            page += "\n\n" + compare(self.predicted, self.measured)
        return page


class Batches:
    """Mini-batches of some sources in the order of a scheme.

    Iterating runs one epoch. Iterating again after it was exhausted runs the next one and keeps what it can: resident
    rows, the spool, the first batches. An abandoned iteration does not count: the next one starts the same epoch
    again, or, after `load_state_dict`, at that very row. Only one iteration is alive at a time.

    Made by `Dataset.batches`. Pickles as its configuration and position.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        scheme: Scheme,
        settings: Settings,
        *,
        selection: Rows | None = None,
        finish: Callable[[tuple[Any, ...]], Any] = tuple,
        rates: dict[str, Rates] | None = None,
    ) -> None:
        self._sources = dict(sources)
        self._settings = settings
        self._finish = finish
        self._rates = rates if rates is not None else {}
        self._order = Order(_fitted(scheme, settings.budget_bytes), selection)
        self._start = self._batch = 0
        self._reset()

    def _reset(self) -> None:
        self._plan: Plan | None = None
        self._run: Run | None = None
        self._pool: Pool | None = None
        self._pid = os.getpid()
        self._kept: dict[str, Any] = {}
        self._kept_epoch = self._planned_epoch = -1
        self._next_order: Order | None = None
        self._meter = Meter()
        self._report: Report | None = None
        self._later = False
        self._no_scratch = False

    # Order and position -------------------------------------------------------------------------------------------

    @property
    def scheme(self) -> Scheme:
        """The order of the epoch that runs, or runs next."""
        return self._order.scheme

    @property
    def epoch(self) -> int:
        """The epoch that runs, or runs next."""
        return self._order.scheme.epoch

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self._order.n_batches

    def __repr__(self) -> str:
        return f"<Batches {', '.join(self._sources)}: {self.scheme!r}>"

    def state_dict(self) -> dict[str, Any]:
        """The position: a few integers, and what the order depends on. JSON-able.

        The position counts rows of the global order, so it may be loaded by another number of ranks.
        """
        return {
            "version": STATE_VERSION,
            "epoch": self.epoch,
            "row": self._batch * self._group if self._batch < len(self) else self._all_rows,
            "scheme": self.scheme.config(),
            "sources": list(self._sources),
        }

    @property
    def _group(self) -> int:
        return self.scheme.batch_size * self.scheme.world

    @property
    def _all_rows(self) -> int:
        return -1  # the end of an epoch, wherever that is

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a position: the next iteration yields the batches that were left, bit for bit.

        Raises
        ------
        MismatchError
            If the state is that of another order, or lies inside one of this iteration's global batches.
        """
        batch = self._position_of(state)
        self._stop()
        self._order = self._order.at(int(state["epoch"]))
        self._start = self._batch = batch
        self._drop_kept()

    def _position_of(self, state: Mapping[str, Any]) -> int:
        if state.get("version") != STATE_VERSION:
            raise MismatchError(
                f"this is no state that can be loaded: version {state.get('version')!r}, not {STATE_VERSION}"
            )
        mine, theirs = self.scheme.config(), dict(state["scheme"])
        free = {"epoch", "shard", "batch_size"}
        for key in sorted((mine.keys() | theirs.keys()) - free):
            if mine.get(key) != _plain(theirs.get(key)):
                raise MismatchError(
                    f"the state is of another order: its {key} is {theirs.get(key)!r}, here it is {mine.get(key)!r}"
                )
        if list(state["sources"]) != list(self._sources):
            raise MismatchError(
                f"the state is of the sources {', '.join(state['sources'])}; here they are {', '.join(self._sources)}"
            )
        row = int(state["row"])
        if row == self._all_rows:
            return len(self)
        if row % self._group:
            raise MismatchError(
                f"the state lies at row {row} of the order, inside a global batch of {self._group} rows "
                f"({self.scheme.batch_size} a rank, {self.scheme.world} ranks): use a batch size that divides it"
            )
        return min(row // self._group, len(self))

    # Iteration ----------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        self._stop()
        if self._start >= len(self) > 0 and self._start_is_end():
            return iter(())
        return self._iterate(self._start)

    def _start_is_end(self) -> bool:
        """A state saved after the last batch: nothing is left of that epoch, and the next one follows."""
        self._advance({}, keep=False)
        return True

    def _iterate(self, start: int) -> Iterator[Any]:
        self._batch = start
        mine: Run | None = None
        try:
            while True:
                try:
                    if mine is None or self._run is None:
                        mine = self._prepare(self._batch)
                    batch = next(mine)
                except ScratchError:
                    if self._no_scratch:
                        raise
                    self._stop()
                    self._drop_kept()
                    self._no_scratch, self._plan, mine = True, None, None
                    continue
                except StopIteration:
                    break
                self._batch += 1
                yield batch
                if self._run is not mine:
                    raise RuntimeError("this iteration ended: another one was started, or a state was loaded")
            self._record()
            self._advance(mine.leave() if mine else {}, keep=True)
        finally:
            if mine is not None and self._run is mine:
                self._abandon()

    def _abandon(self) -> None:
        self._record()
        self._stop()
        self._batch = self._start

    def _prepare(self, start: int) -> Run:
        """Plan the epoch and set up its run."""
        if self._pid != os.getpid():  # threads do not survive a fork
            self._reset()
        if self._pool is None:
            self._pool = Pool(self._settings.threads)
        if self._kept_epoch != self.epoch or start:
            self._drop_kept()
        if self._next_order is not None and self._next_order.scheme.epoch == self.epoch:
            self._order = self._next_order
        plan = self._plan_for(start)
        spools = any(feed.kind == "spool" and feed.roll for feed in plan.feeds)
        self._next_order = self._order.at(self.epoch + 1) if spools and not start else None
        meter = Meter(plan.strategy, sum(n for what, n in plan.held[:2]))
        meter.carry_from(self._meter, bool(self._kept))
        self._meter = meter
        self._later = bool(self._kept)
        self._run = Run(
            plan,
            self._order,
            self._next_order,
            self._sources,
            pool=self._pool,
            meter=meter,
            scratch=self._folder or Path("."),
            finish=self._finish,
            kept=self._kept,
            start_batch=start,
        )
        self._kept = {}
        return self._run

    def _plan_for(self, start: int) -> Plan:
        """The first plan serves every epoch, but that windows are counted anew: each epoch touches other chunks."""
        if start:
            return self._choose(start)
        first = self.plan
        if first.strategy in ("spool", "resident") or self._planned_epoch == self.epoch:
            return first
        self._planned_epoch = self.epoch
        self._plan = self._choose(only=(first.strategy,))
        return self._plan

    def _advance(self, kept: dict[str, Any], keep: bool) -> None:
        """An epoch is over: the next one follows."""
        self._run = None
        self._kept, self._kept_epoch = kept, self.epoch + 1
        self._order = self._order.at(self.epoch + 1)
        self._start = self._batch = 0
        if not any(part is not None for part in kept.values()):
            self._kept = {}

    def _drop_kept(self) -> None:
        self._kept, self._next_order = {}, None

    def _stop(self) -> None:
        """Stop the run that is going on: its threads end, its scratch is gone."""
        if self._run is not None:
            self._run = None
            if self._pool is not None and self._pid == os.getpid():
                self._pool.close()
            self._pool = None
            self._drop_kept()

    def close(self) -> None:
        """Stop, and let go of all that is kept between epochs."""
        self._stop()
        self._drop_kept()
        if self._pool is not None and self._pid == os.getpid():
            self._pool.close()
        self._pool = None

    # Plans --------------------------------------------------------------------------------------------------------

    @property
    def _folder(self) -> Path | None:
        if self._settings.scratch is False or self._no_scratch:
            return None
        given = self._settings.scratch
        return scratch_folder(None if given is None or given is True else given)

    def _choose(self, start: int = 0, only: tuple[str, ...] | None = None) -> Plan:
        machine = self._settings.machine
        if machine is None:
            machine = probe(self._sources, self._settings.threads, self._folder, self._rates)
        elif self._folder is None:
            machine = replace(machine, scratch_free_bytes=0, scratch_why="no scratch is allowed")
        return choose(
            self._order,
            {name: source.layout for name, source in self._sources.items()},
            budget_bytes=self._settings.budget_bytes,
            machine=machine,
            start_batch=start,
            only=only or self._settings.strategies,
        )

    @property
    def plan(self) -> Plan:
        """How the next epoch will run; made at the first asking."""
        if self._plan is None:
            self._plan = self._choose()
            self._planned_epoch = self.epoch
        return self._plan

    @property
    def stats(self) -> Stats:
        """What the epoch that runs, or ran last, has done so far."""
        return self._meter.stats

    def explain(self) -> Report:
        """The plan, and beside its prediction what the last epoch measured, once there is one."""
        if self._report is not None:
            return self._report
        plan = self.plan
        return Report(plan, plan.predicted, None)

    def _record(self) -> None:
        """Put what was measured beside what was predicted."""
        if self._run is None:
            return
        plan, stats = self._run.plan, self._meter.stats
        measured = Prediction(
            rows=stats.rows,
            read_bytes=stats.bytes_read,
            decoded_bytes=stats.bytes_decoded,
            chunks_decoded=stats.chunks_decoded,
            spilled_bytes=stats.bytes_spilled,
            held_bytes=stats.peak_bytes,
            seconds=stats.seconds,
            first_batch_seconds=stats.first_batch_seconds,
        )
        self._report = Report(plan, plan.later if self._later else plan.predicted, measured)

    # Pickling -----------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        return {
            "sources": self._sources,
            "settings": self._settings,
            "finish": self._finish,
            "order": self._order,
            "batch": self._batch,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._sources = state["sources"]
        self._settings = state["settings"]
        self._finish = state["finish"]
        self._rates = {}
        self._order = state["order"]
        self._start = self._batch = state["batch"]
        self._reset()

    def __del__(self) -> None:
        if getattr(self, "_pool", None) is not None:
            self.close()


def _fitted(scheme: Scheme, budget_bytes: int) -> Scheme:
    """The same order, held whole if that takes an eighth of the budget, else pile by pile in a sixteenth."""
    if not isinstance(scheme, ShuffledSequential) or scheme.keys is None:
        return scheme
    whole = scheme.n_rows * 8 <= budget_bytes // 8
    return scheme.holding(max(scheme.n_rows, 1) if whole else max(budget_bytes // 128, 1 << 12))


def _plain(value: Any) -> Any:
    """What JSON makes of a value: tuples come back as lists."""
    return tuple(value) if isinstance(value, list) else value
