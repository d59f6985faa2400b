"""Makes a sequence that shows a difference as short as it gets, by leaving out commands while it still shows it."""

import time
from collections.abc import Callable
from dataclasses import replace

from steps import Broken, Command, Overlap, Pipeline, Step

Shows = Callable[[list[Step]], bool]


def shrink(steps: list[Step], shows: Shows, seconds: float) -> list[Step]:
    """The shortest sequence found in that time. `shows` tells whether a sequence still has the difference."""
    deadline = time.monotonic() + seconds
    apart = separate(steps)
    best = fewer_steps(apart if shows(apart) else steps, shows, deadline)
    best = fewer_steps(unblocked(best, shows, deadline), shows, deadline)
    return fewer_steps(fewer_words(best, shows, deadline), shows, deadline)


def fewer_steps(steps: list[Step], shows: Shows, deadline: float) -> list[Step]:
    """Without the steps that do not matter: first halves, then quarters, down to single ones."""
    best = steps
    size = max(len(best) // 2, 1)
    while True:
        at = 0
        removed = False
        while at < len(best):
            if time.monotonic() >= deadline:
                return best
            shorter = best[:at] + best[at + size :]
            if shorter and shows(shorter):
                best = shorter
                removed = True
            else:
                at += size
        if size == 1 and not removed:
            return best
        size = max(size // 2, 1)


def separate(steps: list[Step]) -> list[Step]:
    """One command at a time."""
    apart: list[Step] = []
    for step in steps:
        if isinstance(step, Pipeline):
            apart += [Pipeline([command], step.connection) for command in step.commands]
        else:
            apart.append(step)
    return apart


def unblocked(steps: list[Step], shows: Shows, deadline: float) -> list[Step]:
    """Without what need not happen while a command blocks, and without the command that blocks if it need not."""
    best = steps
    for step in steps:
        if not isinstance(step, Overlap):
            continue
        kept: Step = step
        for command in step.blocked[:0:-1]:
            if isinstance(kept, Overlap):
                fewer = replace(kept, blocked=[other for other in kept.blocked if other is not command])
                best, kept = swapped(best, kept, fewer, shows, deadline)
        for command in step.commands:
            if isinstance(kept, Overlap):
                fewer = replace(kept, commands=[other for other in kept.commands if other is not command])
                best, kept = swapped(best, kept, fewer, shows, deadline)
        best, kept = swapped(best, kept, Pipeline(step.commands), shows, deadline)
    return separate(best)


def swapped(steps: list[Step], old: Step, new: Step, shows: Shows, deadline: float) -> tuple[list[Step], Step]:
    """With `new` in place of `old` if that still shows it. Also says which of the two is there."""
    changed = [new if step is old else step for step in steps]
    if time.monotonic() < deadline and shows(changed):
        return changed, new
    return steps, old


def fewer_words(steps: list[Step], shows: Shows, deadline: float) -> list[Step]:
    """Without arguments that do not matter, two at a time and one at a time, from the last on; single commands only."""
    best = steps
    for step in steps:
        if not isinstance(step, Pipeline) or len(step.commands) != 1 or step.commands[0].wire is not None:
            continue
        plain: Step = Pipeline([Command(step.commands[0].arguments)], step.connection)
        best, kept = swapped(best, step, plain, shows, deadline)
        for width in (2, 1):
            at = len(step.commands[0].arguments) - width
            while at > 0 and isinstance(kept, Pipeline):
                words = kept.commands[0].arguments
                fewer = Pipeline([Command(words[:at] + words[at + width :])], step.connection)
                before = kept
                if at + width <= len(words):
                    best, kept = swapped(best, kept, fewer, shows, deadline)
                at -= width if kept is not before else 1
    return best
