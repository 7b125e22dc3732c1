"""What counts of all the rows in Milvus, which has no transactions: a small collection, `commits`, says it.

Every commit draws a number, its batch, that its rows carry. In this order, each acknowledged before the next begins:

    1. begun    who writes, and since when
    2.          the rows themselves; nobody counts those of a batch that has begun and has no commit
    3. gone     the ids that go with this commit
    4. commit   generation, count and next id: with this one row the batch counts, and what is gone does not

Then the rows that are gone are deleted, and from `commits` what this commit has made superfluous. A writer that dies
before the fourth step has changed nothing; the next one deletes its rows and says that it is `void`, which it stays for
a day, lest an insert that was still on its way count after all. A writer that dies later leaves rows that are gone,
and the next one deletes them. A reader reads `commits` before and after it reads anything else; where a commit or a
beginning has come between, it reads again, so that an answer is always that of one generation.

There is one writer at a time: the lock in the folder sees to that, and for copies of the folder elsewhere what has
`begun`. It is no lock: two that begin within the same moment may both go on, and the one that finds at its end that
another has committed gives up.
"""

from __future__ import annotations

import json
import secrets
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

from seeall.index.milvus.tables import Tables, numbers
from seeall.types import SeeallError

BUSY = 3600
"""Seconds for which a writer elsewhere is believed to be alive."""
_VOID = 86_400
"""Seconds after which no insert of a dead writer can still be on its way."""
_IDS = 3000
"""Ids in one row."""
_FIELDS = ("id", "batch", "body")


@final
@dataclass(frozen=True)
class State:
    """What counts: everything but the batches `void` and the ids `gone`.

    span: the first and the last absolute path there ever was since the index was empty, by their bytes. batch: that of
    the last commit.
    """

    generation: int = 0
    count: int = 0
    next_id: int = 1
    updated: str = ""
    span: tuple[str, str] | None = None
    void: tuple[int, ...] = ()
    gone: tuple[int, ...] = ()
    batch: int = 0

    @property
    def edition(self) -> tuple[int, tuple[int, ...]]:
        """What tells this state from another. What is gone may be deleted meanwhile, which makes no difference."""
        return self.generation, self.void

    def condition(self, own: int | None = None) -> str:
        """What is true of rows that count; own: a batch that does, too."""
        parts = ["id > 0"]
        if void := [batch for batch in self.void if batch != own]:
            parts.append(f"batch not in {numbers(void)}")
        if self.gone:
            parts.append(f"id not in {numbers(self.gone)}")
        return " and ".join(parts)


class Log(NamedTuple):
    """`commits` as it was read: batch → what its rows say, the latest last."""

    begun: dict[int, dict[str, Any]]
    void: dict[int, float]
    gone: dict[int, list[int]]
    commits: dict[int, dict[str, Any]]

    @property
    def unfinished(self) -> list[int]:
        """Batches that have begun, have no commit, and are not void."""
        return [batch for batch in self.state.void if batch not in self.void]

    @property
    def state(self) -> State:
        """What counts."""
        done = {batch: body for batch, body in self.commits.items() if batch not in self.void}
        void = tuple(sorted((self.begun.keys() | self.void.keys()) - done.keys()))
        gone = tuple(sorted({i for batch, ids in self.gone.items() if batch in done for i in ids}))
        if not done:
            return State(void=void)
        batch = max(done, key=lambda batch: int(done[batch]["generation"]))
        last = done[batch]
        span = (last["span"][0], last["span"][1]) if last["span"] else None
        return State(last["generation"], last["count"], last["next_id"], last["updated"], span, void, gone, batch)


def read(tables: Tables) -> Log:
    """What `commits` says now."""
    log = Log({}, {}, {}, {})
    for row in tables.rows(tables.commits, "id > 0", _FIELDS):
        body, batch = json.loads(row["body"]), int(row["batch"])
        kind = body.pop("kind")
        if kind == "begun":
            log.begun[batch] = body
        elif kind == "void":
            log.void[batch] = float(body["time"])
        elif kind == "gone":
            log.gone.setdefault(batch, []).extend(body["ids"])
        else:
            log.commits[batch] = body
    return log


def begin(tables: Tables, root: Path) -> int:
    """Step 1. Returns: the batch."""
    batch = secrets.randbits(62) + 1
    _say(tables, batch, [{"kind": "begun", "by": _name(root), "time": time.time()}])
    return batch


def finish(tables: Tables, batch: int, state: State, gone: Sequence[int]) -> None:
    """Steps 3 and 4: `state` is what counts from now on. Raises: SeeallError where another has written meanwhile."""
    log = read(tables)
    if batch in log.void or log.state.generation != state.generation - 1:
        raise SeeallError(
            f"another process has written to Milvus at {tables.uri} meanwhile: nothing of this commit is kept;"
            " try again"
        )
    parts = [gone[start : start + _IDS] for start in range(0, len(gone), _IDS)]
    _say(tables, batch, [{"kind": "gone", "ids": list(part)} for part in parts])
    facts = {**asdict(state), "kind": "commit"}
    del facts["void"], facts["gone"], facts["batch"]
    _say(tables, batch, [facts])
    tables.force(tables.commits)


def undo(tables: Tables, batches: Iterable[int]) -> None:
    """Say that these batches will never count, and delete their rows."""
    for batch in batches:
        _say(tables, batch, [{"kind": "void", "time": time.time()}])
        tables.delete(tables.items, f"batch == {batch}")


def recover(tables: Tables, root: Path) -> State:
    """Clear up after writers that died. The caller holds the lock of the folder.

    Raises: SeeallError where one elsewhere may be alive.
    """
    log = read(tables)
    state = log.state
    dead = log.unfinished
    for batch in dead:
        writer = log.begun[batch]
        if writer["by"] != _name(root) and time.time() - writer["time"] < BUSY:
            raise SeeallError(
                f"Milvus at {tables.uri} is being written from {writer['by']}: try again when it is done; if it died,"
                f" in {BUSY // 60} minutes"
            )
    undo(tables, dead)
    if dead or log.void:
        tables.delete(tables.files, f"id >= {state.next_id}")
    tidy(tables)
    return read(tables).state


def tidy(tables: Tables) -> None:
    """Delete what is gone, and what `commits` need not say any more. A kill between two steps costs nothing."""
    log = read(tables)
    state = log.state
    for start in range(0, len(state.gone), _IDS):
        some = f"id in {numbers(state.gone[start : start + _IDS])}"
        tables.delete(tables.items, some)
        tables.delete(tables.files, some)
    if state.gone:
        tables.force(tables.items)
    if log.void:  # what came in late, or was not come to
        tables.delete(tables.items, f"batch in {numbers(list(log.void))}")
        tables.force(tables.items)
    done = [batch for batch in log.commits if batch not in log.void]
    last = max(done, key=lambda batch: int(log.commits[batch]["generation"]), default=0)
    old = [batch for batch in done if batch != last]
    stale = [batch for batch, since in log.void.items() if time.time() - since > _VOID]
    # A commit that is void goes before what says so, and one that counted after its beginning, which would be void.
    for batches, commits in ((stale, True), ([*stale, *old, last], False), (old, True)):
        if superfluous := _ids(tables, batches, commits=commits):
            tables.delete(tables.commits, f"id in {numbers(superfluous)}")


def _ids(tables: Tables, batches: Sequence[int], *, commits: bool) -> list[int]:
    """The rows of `commits` that belong to these batches, and are commits or are not."""
    found = tables.rows(tables.commits, f"batch in {numbers(batches)}", _FIELDS) if batches else []
    return [int(row["id"]) for row in found if (json.loads(row["body"])["kind"] == "commit") == commits]


def _say(tables: Tables, batch: int, bodies: Sequence[dict[str, Any]]) -> None:
    rows = [{"id": secrets.randbits(62) + 1, "batch": batch, "body": json.dumps(body)} for body in bodies]
    if rows:
        tables.insert(tables.commits, rows)


def _name(root: Path) -> str:
    """Who writes: the folder, and the machine that it is on."""
    return f"{socket.gethostname()}:{root}"
