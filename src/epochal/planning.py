"""The planner of an iteration: it looks at the machine once, and at each epoch's order anew."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from epochal.errors import BudgetError
from epochal.execute.probe import Measured, probe
from epochal.execute.scratch import scratch_folder
from epochal.plan.choose import choose
from epochal.plan.machine import Machine
from epochal.plan.order import Order
from epochal.plan.plan import Plan
from epochal.plan.readers import readers
from epochal.stores.ragged import AnySource

__all__ = ["Planner", "Settings"]


@dataclass(frozen=True)
class Settings:
    """How batches are made; never which rows come, nor in which order."""

    budget_bytes: int
    threads: int
    scratch: str | os.PathLike[str] | bool | None = None
    strategies: tuple[str, ...] | None = None
    machine: Machine | None = None
    progress: bool = False
    on_error: str = "raise"
    more_threads: bool = False  # where sources are far: the caller did not say how many


class Planner:
    """Plans epochs of some sources.

    Parameters
    ----------
    sources
        By name, in the batch's order.
    settings
        What may be held and used.
    measured
        What others have measured of these sources: shared, and added to.
    """

    def __init__(
        self, sources: Mapping[str, AnySource], settings: Settings, measured: Measured
    ) -> None:
        self.settings = settings
        self.without_scratch = False
        self._sources = sources
        self._measured = measured
        self._machine = settings.machine
        self._plan: Plan | None = None
        self._epoch = -1

    @property
    def folder(self) -> Path | None:
        """Where scratch goes; None where none may."""
        if self.settings.scratch is False or self.without_scratch:
            return None
        given = self.settings.scratch
        return scratch_folder(None if given is None or given is True else given)

    def plan(self, order: Order) -> Plan:
        """How the next epoch will run; made at the first asking."""
        if self._plan is None:
            self._plan = self._choose(order)
            self._epoch = order.scheme.epoch
        return self._plan

    def plan_from(self, order: Order, start_batch: int) -> Plan:
        """How an epoch will run from a batch on. The first plan serves every epoch that its spool
        is rolled into; others touch other chunks, so each is counted anew.
        """
        if start_batch:
            return self._choose(order, start_batch)
        plan = self.plan(order)
        epoch = order.scheme.epoch
        if self._epoch != epoch and not any(feed.roll for feed in plan.feeds):
            plan = self._plan = self._choose(order, only=(plan.strategy,))
        self._epoch = epoch
        return plan

    def ran(self, plan: Plan) -> None:
        """Note what the page cache has once an epoch of a plan is over: later ones are planned with
        that.
        """
        loaded = [feed.source for feed in plan.feeds if feed.loads]
        if loaded and self._machine is not None:
            self._machine = self._machine.loaded(loaded)
            self._measured.sources.update({name: self._machine.of(name) for name in loaded})

    def constrain(self, **changes: Any) -> None:
        """Other settings from now on. Users cannot force a strategy, for it changes nothing that
        they could want; tests and benchmarks can.
        """
        self.settings = replace(self.settings, **changes)
        self._machine = self.settings.machine
        self.forget()

    def forget(self) -> None:
        """Plan anew when next asked."""
        self._plan = None

    def _choose(
        self, order: Order, start_batch: int = 0, only: tuple[str, ...] | None = None
    ) -> Plan:
        settings, machine = self.settings, self._machine
        folder, threads, budget_bytes = self.folder, settings.threads, settings.budget_bytes
        if machine is None:
            machine = probe(self._sources, threads, folder, self._measured, budget_bytes)
            self._machine = machine
        elif folder is None:
            machine = replace(machine, scratch_free_bytes=0, scratch_why="no scratch is allowed")
        layouts = {name: source.layout for name, source in self._sources.items()}
        threads = machine.threads
        if settings.more_threads:
            threads = readers(layouts, threads, budget_bytes)

        def with_threads(threads: int) -> Plan:
            return choose(
                order,
                layouts,
                budget_bytes=budget_bytes,
                machine=replace(machine, threads=threads),
                start_batch=start_batch,
                only=only or settings.strategies,
            )

        while threads > machine.threads:
            with suppress(BudgetError):
                return with_threads(threads)
            threads //= 2
        return with_threads(machine.threads)
