"""Batches: the only object with a position."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from typing import Any

import numpy as np

from epochal.errors import DamageWarning, MismatchError, ScratchError
from epochal.execute.meter import Meter, Stats
from epochal.execute.pool import Pool
from epochal.execute.probe import Measured
from epochal.execute.run import Run, discard
from epochal.execute.skip import Ledger, skipping
from epochal.plan.order import Order, Rows
from epochal.plan.plan import Plan, Prediction
from epochal.plan.report import Report
from epochal.planning import Planner, Settings
from epochal.progress import batch_bar, no_bar
from epochal.schemes.scheme import Scheme
from epochal.schemes.shuffled import ShuffledSequential
from epochal.stores.ragged import AnySource, RaggedSource
from epochal.stores.store import version_of

__all__ = ["Batches"]

STATE_VERSION = 1
TOLD = 80  # characters

# Orders of rows that do not depend on the batch size: a state of theirs may be loaded with another.
ELASTIC = {
    "sequential",
    "shuffled_sequential",
    "even_sequential",
    "even_shuffled_sequential",
    "chunkwise_shuffled_sequential",
}


class Batches:
    """Mini-batches of some sources in the order of a scheme.

    Iterating runs one epoch. Iterating again after it was exhausted runs the next one and keeps
    what it can: resident rows, the spool, the first batches. An abandoned iteration does not count:
    the next one starts the same epoch again, or, after `load_state_dict`, at that very row. Only
    one iteration is alive at a time.

    Made by `Dataset.batches`. Pickles as its configuration and position.
    """

    def __init__(
        self,
        sources: Mapping[str, AnySource],
        scheme: Scheme,
        settings: Settings,
        *,
        selection: Rows | None = None,
        finish: Callable[[tuple[Any, ...]], Any] = tuple,
        finish_is_cheap: bool = True,
        measured: Measured | None = None,
    ) -> None:
        self._ledger = Ledger() if settings.on_error == "skip" else None
        self._warned = False
        self._originals = self._sources = dict(sources)
        self._versions = self._versions_now()
        if self._ledger is not None:
            self._sources = {
                name: skipping(name, source, self._ledger) for name, source in sources.items()
            }
        self._finish = finish
        self._finish_is_cheap = finish_is_cheap
        ragged = any(isinstance(source, RaggedSource) for source in self._sources.values())
        fitted = _fitted(scheme, settings.budget_bytes, whole=ragged)
        self._order = Order(fitted, selection)
        self._start = self._batch = self._turn = 0
        self._planner = Planner(self._sources, settings, measured or Measured())
        self._reset()

    def _reset(self) -> None:
        self._running: Run | None = None
        self._primed: Run | None = None
        self._pool: Pool | None = None
        self._pid = os.getpid()
        self._kept: dict[str, Any] = {}
        self._next_order: Order | None = None
        self._meter = Meter()
        self._report: Report | None = None

    # Order and position ----------------------------------------------------------------

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

        The position counts rows of the global order, so it may be loaded by another number of
        ranks.
        """
        return {
            "version": STATE_VERSION,
            "epoch": self.epoch,
            "row": self.scheme.done(self._batch),
            "global_batch": self._global_batch,
            "scheme": self.scheme.config(),
            "sources": list(self._sources),
        }

    @property
    def _global_batch(self) -> int:
        return self.scheme.batch_size * self.scheme.world

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a position: the next iteration yields the batches that were left, bit for bit.
        Where no seed was given, that of the state is taken.

        Raises
        ------
        MismatchError
            If the state is that of another order, or lies inside one of this iteration's global
            batches.
        """
        try:
            if state["version"] != STATE_VERSION:
                raise MismatchError(
                    f"no state that can be loaded: version {state['version']!r} and not "
                    f"{STATE_VERSION}"
                )
            group, epoch, row = (_whole(state, key) for key in ("global_batch", "epoch", "row"))
            theirs, sources = dict(state["scheme"]), list(state["sources"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MismatchError(f"this is no state of a Batches: {error!r}") from error
        order = self._order.seeded_as(theirs)
        self._check_order(order.scheme.config(), theirs, sources, group)
        there = order.scheme.at(epoch)
        batch = there.resumed(row)
        if batch is None:
            raise MismatchError(
                f"the state lies at row {row} of the order, inside a global batch of "
                f"{self._global_batch} rows ({there.batch_size} a rank, {there.world} ranks): "
                f"use a batch size that divides it"
            )
        self._go_to(order, epoch, batch)

    def _check_order(
        self, mine: Mapping[str, Any], theirs: Mapping[str, Any], sources: list[str], group: int
    ) -> None:
        for key in sorted((mine.keys() | theirs.keys()) - {"epoch", "shard", "batch_size"}):
            if mine.get(key) != theirs.get(key):
                raise MismatchError(
                    f"the state is of another order: its {key} is {_told(theirs.get(key))}, "
                    f"here it is {_told(mine.get(key))}"
                )
        if sources != list(self._sources):
            raise MismatchError(
                f"the state is of the sources {', '.join(sources)}; "
                f"here they are {', '.join(self._sources)}"
            )
        if self.scheme.name not in ELASTIC and group != self._global_batch:
            raise MismatchError(
                f"the state is of global batches of {group} rows, here they have "
                f"{self._global_batch}: the order of {self.scheme.name} depends on that"
            )

    # Iteration ----------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        if self._running is not None:
            self._abandon(self._running)
        self._turn += 1
        if self._start >= len(self) > 0:
            # A state saved after the last batch: nothing is left of that epoch, and the next one
            # follows.
            self._go_to(self._order, self.epoch + 1, 0)
            return iter(())
        return self._iterate(self._start, self._turn)

    def _iterate(self, start: int, turn: int) -> Iterator[Any]:
        self._check_turn(turn)
        self._batch = start
        run = self._begin(start)
        show = batch_bar if self._planner.settings.progress else no_bar
        try:
            with show(len(self), start, f"epoch {self.epoch}") as advance:
                while True:
                    if self._pid != os.getpid():  # carried over a fork: its threads were not
                        self._reset()
                        self._running = run = self._new_run(self._batch)
                    try:
                        batch = next(run)
                    except StopIteration:
                        break
                    except CancelledError:
                        self._check_turn(turn)
                        raise
                    except ScratchError:
                        if self._planner.without_scratch:
                            raise
                        run = self._without_scratch()
                        continue
                    self._batch += 1
                    self._warn()
                    yield batch
                    advance()
                    self._check_turn(turn)
            self._finish_epoch(run)
        finally:
            if self._running is run:  # abandoned: the next iteration starts where this one did
                self._abandon(run)

    def _warn(self) -> None:
        """Name rows that are left out, once."""
        if self._ledger and not self._warned:
            self._warned = True
            first = self._ledger.entries()[0]
            warnings.warn(
                f"rows {first.first_row} to {first.stop_row - 1} cannot be read and are left out: "
                f"{first.why}. Others may follow: see stats.skipped",
                DamageWarning,
                stacklevel=3,
            )

    def _check_turn(self, turn: int) -> None:
        if turn != self._turn:
            raise MismatchError(
                "this iteration ended when another was started, a state was loaded, or its Batches "
                "was closed: iterate again"
            )

    def _begin(self, start: int) -> Run:
        """The run of this epoch: the one that was primed, or a new one."""
        if self._pid != os.getpid():  # threads do not survive a fork
            self._reset()
        versions = self._versions_now()
        if versions != self._versions:  # rows were assigned to: what was kept has the old ones
            self._halt()
            self._forget()
            self._versions = versions
            self._planner.forget()
        run, self._primed = self._primed, None
        if run is None:
            run = self._new_run(start)
        self._meter = run.meter
        self._running = run
        return run

    def _versions_now(self) -> tuple[int, ...]:
        return tuple(version_of(source) for source in self._originals.values())

    def _new_run(self, start: int) -> Run:
        """Plan the epoch and set up its run."""
        following = self._next_order
        if following is not None and following.scheme.epoch == self.epoch:
            self._order = following
        plan = self._planner.plan_from(self._order, start)
        pool = self._pool
        warm = pool is not None and pool.threads == plan.pool_threads
        if pool is None or not warm:
            self._close_pool()
            pool = self._pool = Pool(plan.pool_threads)
        rolls = not start and any(feed.roll for feed in plan.feeds)
        self._next_order = self._order.at(self.epoch + 1) if rolls else None
        kept, self._kept = self._kept, {}
        held_bytes = plan.common_bytes + sum(one.nbytes for one in kept.values())
        return Run(
            plan,
            self._order,
            self._next_order,
            self._sources,
            pool=pool,
            meter=Meter(plan.strategy, held_bytes),
            scratch=self._planner.folder,
            finish=self._finish,
            finish_is_cheap=self._finish_is_cheap,
            kept=kept,
            start_batch=start,
            warm=warm,
            ledger=self._ledger,
        )

    def _without_scratch(self) -> Run:
        """Scratch gave out: plan the rest of the epoch anew, without it."""
        self._halt()
        self._forget()
        self._planner.without_scratch = True
        self._planner.forget()
        self._running = run = self._new_run(self._batch)
        self._meter = run.meter
        return run

    def _finish_epoch(self, run: Run) -> None:
        """Keep what the next epoch can use, and start on its first batches."""
        self._record(run)
        self._planner.ran(run.plan)
        following, kept = self._order.at(self.epoch + 1), run.leave()
        # Ctrl-C interrupts calls, and there is none here: what is kept is always of this order.
        self._order, self._kept, self._running = following, kept, None
        self._start = self._batch = 0
        if run.begins_at_once:
            self._prime()

    def _prime(self) -> None:
        """Start on the first batches of the next epoch. The last one is over, whatever happens
        here: errors are those of the next iteration, which meets them again.
        """
        run: Run | None = None
        try:
            run = self._new_run(0)
            run.prime()
            self._primed = run
        except BaseException as error:
            self._halt()
            self._forget()
            if run is not None:
                discard(run.salvage())
            if not isinstance(error, Exception):
                raise

    def _abandon(self, run: Run) -> None:
        self._running, self._batch = None, self._start
        self._record(run)
        self._halt()
        self._kept = run.salvage()

    def _go_to(self, order: Order, epoch: int, batch: int) -> None:
        """Another position: whatever was kept for this one is of no use there."""
        self._turn += 1
        self._halt()
        self._forget()
        self._order = order.at(epoch)
        self._start = self._batch = batch

    def _halt(self, *, wait: bool = True) -> None:
        """Stop what is going on: no thread is left."""
        runs = (self._running, self._primed)
        self._running = self._primed = self._next_order = None
        self._close_pool(wait=wait)
        for run in runs:
            if run is not None and wait:
                discard(run.salvage())

    def _forget(self) -> None:
        """Let go of what was kept for the next iteration."""
        kept, self._kept = self._kept, {}
        discard(kept)

    def _close_pool(self, *, wait: bool = True) -> None:
        pool, self._pool = self._pool, None
        if pool is not None and self._pid == os.getpid():
            pool.close(wait=wait)

    def close(self) -> None:
        """Stop, and let go of all that is kept between epochs: memory, threads and scratch."""
        self._turn += 1
        self._halt()
        self._forget()

    # Plans ----------------------------------------------------------------

    @property
    def plan(self) -> Plan:
        """How the next epoch will run; made at the first asking."""
        return self._planner.plan(self._order)

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

    def _record(self, run: Run) -> None:
        """Put what was measured beside what was predicted."""
        plan, stats = run.plan, run.meter.stats
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
        self._report = Report(plan, run.predicted, measured)

    # Pickling ----------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        return {
            "sources": self._sources,
            "settings": self._planner.settings,
            "finish": self._finish,
            "finish_is_cheap": self._finish_is_cheap,
            "order": self._order,
            "batch": self._batch,
            "ledger": self._ledger,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._originals = self._sources = state["sources"]  # one that was changed does not pickle
        self._versions = self._versions_now()
        self._ledger = state["ledger"]
        self._warned = False
        self._finish = state["finish"]
        self._finish_is_cheap = state["finish_is_cheap"]
        self._order = state["order"]
        self._start = self._batch = state["batch"]
        self._turn = 0
        self._planner = Planner(self._sources, state["settings"], Measured())
        self._reset()

    def __del__(self) -> None:
        # The collector may run on any thread, in the middle of anything: never wait for one here.
        if getattr(self, "_pool", None) is not None:
            self._halt(wait=False)


def _whole(state: Mapping[str, Any], key: str) -> int:
    """A number of a state."""
    value = state[key]
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not (whole and 0 <= value < 1 << 64):
        raise ValueError(f"{key}={value!r}")
    return int(value)


def _told(value: object) -> str:
    """A part of a state in a message: that of NumPy's generators is 624 numbers."""
    text = repr(value)
    return text if len(text) <= TOLD else f"{text[:TOLD]}…"


def _fitted(scheme: Scheme, budget_bytes: int, *, whole: bool) -> Scheme:
    """The same order, held `whole` or if that takes an eighth of the budget, else pile by pile in
    a sixteenth. (Rows of varying length are placed by an order that is held.)
    """
    if not isinstance(scheme, ShuffledSequential) or scheme.keys is None:
        return scheme
    whole = whole or scheme.n_rows * 8 <= budget_bytes // 8
    return scheme.holding(max(scheme.n_rows, 1) if whole else max(budget_bytes // 128, 1 << 12))
