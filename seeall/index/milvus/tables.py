"""Three collections in Milvus, and what can be asked of them: the only file that knows pymilvus.

    seeall_<uuid>           id, vector, key (of the path, 64 bits of its SHA-256), batch, path, label, metadata, and
                            marks, 64 bits of the SHA-256 of each of what `seeall.index.marks` says of an item
    seeall_<uuid>_commits   batch, body: what `log` makes of it
    seeall_<uuid>_files     id, size, changed, digest: stamps

Every read is of consistency level Strong. Conditions hold whole numbers and names of fields, and never any text, so
nobody's text can be taken for part of one.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final
from urllib.parse import urlsplit

from seeall.index.protocol import Away
from seeall.index.segments import Floats
from seeall.types import SeeallError

ADDRESS = "milvus:"
"""How the address of an index in Milvus begins."""
TOKEN = "SEEALL_MILVUS_TOKEN"
"""The variable of the environment that holds a token, or USER:PASSWORD."""
MOST = 16_384
"""Rows in one answer and neighbours of one query: Milvus gives no more."""
LONGEST = 65_535
"""Bytes of a text in Milvus."""
KINDS = {"exact": "FLAT", "ivf": "IVF_FLAT", "hnsw": "HNSW", "auto": "AUTOINDEX"}
"""Our names of structures, and Milvus's."""
_BYTES = 1 << 23
"""Of vectors that one message holds."""
_PATIENCE = 60.0
"""Seconds for which an answer is waited for; a tenth of them for the first."""
_STRONG = {"consistency_level": "Strong"}
_QUIET = {"grpc.keepalive_time_ms": 300_000}
"""A server hangs up on those who make sure of it more often."""
_DUMMY = [1.0, 0.0]
"""Milvus has no collection without vectors."""


def address(text: str) -> str:
    """The address as an index keeps it, the path of a file being absolute.

    Raises: SeeallError for what is none, or holds a password.

    >>> address("milvus:http://db.example.org:19530")
    'milvus:http://db.example.org:19530'
    """
    uri = text.removeprefix(ADDRESS)
    wanted = f"want {ADDRESS}http://HOST:19530, or {ADDRESS}FILE.db, which milvus-lite keeps"
    if uri == text or not uri:
        raise SeeallError(f"--store {text}: {wanted}")
    if "://" not in uri:
        if not uri.endswith(".db"):
            raise SeeallError(f"--store {text}: {wanted}")
        path = Path(uri).expanduser().resolve()
        if not path.parent.is_dir():
            raise SeeallError(f"--store {text}: there is no folder {path.parent}")
        return f"{ADDRESS}{path}"
    try:
        parts = urlsplit(uri)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good:
        raise SeeallError(f"--store {text}: {wanted}")
    if "@" in parts.netloc:
        raise SeeallError(f"--store {ADDRESS}{parts.hostname}: no password goes into an address: put it into {TOKEN}")
    return text


@final
class Tables:
    """The collections of the index `uuid` at an address, all three or none.

    Raises: SeeallError where pymilvus is missing, or nobody answers there or lets us in.
    """

    def __init__(self, store: str, uuid: str) -> None:
        self.uri = store.removeprefix(ADDRESS)
        self.items = f"seeall_{uuid}"
        self.commits, self.files = f"{self.items}_commits", f"{self.items}_files"
        local = "://" not in self.uri
        _require("pymilvus", "pip install 'seeall[milvus]'")
        if local:
            _require("milvus_lite", "pip install --no-deps milvus-lite (it runs with the FAISS that is here)")
        for name in ("pymilvus", "milvus_lite"):  # what they have to say is said by us, in a line
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        from pymilvus import MilvusClient

        try:
            self._client: Any = MilvusClient(
                self.uri, token=os.environ.get(TOKEN, ""), timeout=_PATIENCE / 10, grpc_options=_QUIET
            )
            self.lite = "lite" in str(self._client.get_server_version())
        except Exception as fault:  # pymilvus raises errors of its own, of gRPC and of Python
            raise self._refused(fault) if local else self._fault(fault) from None

    def create(self, dim: int, structure: str) -> None:
        """Make the collections, for vectors (D,) in the structure that is so called."""
        from pymilvus import DataType, MilvusClient

        number: tuple[Any, dict[str, Any]] = (DataType.INT64, {})
        text = (DataType.VARCHAR, {"max_length": LONGEST})
        some = (DataType.VARCHAR, {"max_length": LONGEST, "nullable": True})
        several = (DataType.ARRAY, {"element_type": DataType.INT64, "max_capacity": 4096})
        columns: dict[str, dict[str, Any]] = {
            self.items: {
                "key": number,
                "batch": number,
                "path": text,
                "label": some,
                "metadata": text,
                "marks": several,
            },
            self.files: {"size": number, "changed": number, "digest": text},
            self.commits: {"batch": number, "body": text},
        }
        exact = structure == "exact" or (self.lite and structure == "auto")
        with self._talking():
            for name, fields in columns.items():
                kind = "FLAT" if exact or name != self.items else KINDS[structure]
                schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
                schema.add_field("id", DataType.INT64, is_primary=True)
                schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim if name == self.items else len(_DUMMY))
                for field, (form, more) in fields.items():
                    schema.add_field(field, form, **more)
                indexes = MilvusClient.prepare_index_params()
                indexes.add_index("vector", index_type=kind, metric_type="IP", params=_built(kind))
                if name == self.items:
                    for field in ("key",) if self.lite else ("key", "marks"):
                        indexes.add_index(field, index_type="INVERTED")
                self._client.create_collection(name, schema=schema, **_STRONG)
                self._client.create_index(name, indexes, sync=False)  # of nothing, which takes no time
                self._client.load_collection(name, timeout=_PATIENCE)

    def open(self, dim: int) -> None:
        """Make sure that all is there, and ready. Raises: SeeallError where it is not, or of another dimension."""
        with self._talking():
            told = self._client.describe_collection(self.items)
            self._load()
        width = next((int(f["params"]["dim"]) for f in told["fields"] if f["name"] == "vector"), 0)
        if width != dim:
            raise SeeallError(
                f"the collection {self.items} at {self.uri} holds vectors of {width} dimensions, and the index"
                f" {dim}: build it again with --overwrite"
            )

    def drop(self) -> None:
        """Delete the collections that there are."""
        with self._talking():
            for name in (self.items, self.commits, self.files):
                self._client.drop_collection(name)

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def rows(self, table: str, condition: str, fields: Sequence[str]) -> list[dict[str, Any]]:
        """Of at most MOST rows that fulfil a condition, what `fields` say; in no order."""
        return list(
            self._asked(
                self._client.query, table, filter=condition, output_fields=list(fields), limit=MOST,
                timeout=_PATIENCE, **_STRONG,
            )
        )  # fmt: skip

    def count(self, table: str, condition: str) -> int:
        """How many rows fulfil a condition."""
        found = self._asked(
            self._client.query, table, filter=condition, output_fields=["count(*)"], timeout=_PATIENCE, **_STRONG
        )
        return int(found[0]["count(*)"])

    def among(
        self, table: str, field: str, values: Sequence[int], condition: str, fields: Sequence[str], step: int = 4096
    ) -> Iterator[dict[str, Any]]:
        """The rows, any number, whose `field` is one of `values`, `step` of them at a time."""
        for start in range(0, len(values), step):
            some = f"{field} in {numbers(values[start : start + step])}"
            yield from self.rows(table, f"({some}) and ({condition})", fields)

    def nearest(
        self, queries: Floats, limit: int, condition: str, kind: str
    ) -> Iterator[tuple[int, list[tuple[int, float, list[float]]]]]:
        """For each of `queries` (n, D): its number, and (id, cosine, vector) of at most `limit` rows, best first."""
        step = max(1, min(MOST // 8, _BYTES // (4 * queries.shape[1] * limit)))
        for start in range(0, len(queries), step):
            answers = self._asked(
                self._client.search, self.items, data=list(queries[start : start + step]), filter=condition,
                limit=limit, output_fields=["vector"], anns_field="vector", timeout=_PATIENCE, **_STRONG,
                search_params={"metric_type": "IP", "params": _sought(kind, limit)},
            )  # fmt: skip
            for number, hits in enumerate(answers, start):
                yield number, [(int(h["id"]), float(h["distance"]), h["entity"]["vector"]) for h in hits]

    def insert(self, table: str, rows: Sequence[dict[str, Any]]) -> None:
        """Add rows; those of the two small tables need no vector."""
        start, size = 0, 0
        for number, row in enumerate(rows):
            row.setdefault("vector", _DUMMY)
            texts = sum(len(value) for value in row.values() if isinstance(value, str))
            size += 4 * len(row["vector"]) + 8 * len(row.get("marks", ())) + texts + 64
            if size > _BYTES or number == len(rows) - 1:
                self._put(table, rows[start : number + 1])
                start, size = number + 1, 0

    def renew(self, table: str, rows: Sequence[dict[str, Any]]) -> None:
        """Add rows in place of those of the same ids, if there are such."""
        for start in range(0, len(rows), MOST):
            with self._talking():
                some = [{"vector": _DUMMY, **row} for row in rows[start : start + MOST]]
                self._client.upsert(table, some, timeout=_PATIENCE)

    def delete(self, table: str, condition: str) -> None:
        """Delete the rows that fulfil a condition."""
        with self._talking():
            self._client.delete(table, filter=condition, timeout=_PATIENCE)

    def force(self, *tables: str) -> None:
        """Have what was written on disk. A server has it in its log before it says so; milvus-lite is told to."""
        if self.lite:
            with self._talking():
                for table in tables:
                    self._client.flush(table, timeout=_PATIENCE)

    def _asked(self, ask: Callable[..., Any], *what: Any, **how: Any) -> Any:
        """What Milvus answers; asked once more where it has begun anew and has not loaded the collections yet."""
        with self._talking():
            try:
                return ask(*what, **how)
            except Exception as fault:
                if not re.search(r"not loaded|load\(\)|released", str(fault)):
                    raise
                self._load()
                return ask(*what, **how)

    def _load(self) -> None:
        for name in (self.items, self.commits, self.files):
            self._client.load_collection(name, timeout=_PATIENCE)

    def _put(self, table: str, rows: Sequence[dict[str, Any]]) -> None:
        with self._talking():
            self._client.insert(table, list(rows), timeout=_PATIENCE)

    @contextmanager
    def _talking(self) -> Iterator[None]:
        """What pymilvus says of a failure, in a line."""
        try:
            yield
        except (SeeallError, AssertionError):
            raise
        except Exception as fault:  # pymilvus raises errors of its own, of gRPC and of Python
            raise self._fault(fault) from None

    def _fault(self, fault: Exception) -> Away:
        lines = str(getattr(fault, "message", "") or fault).strip().splitlines()
        said = re.sub(r"\s+", " ", lines[0] if lines else type(fault).__name__)[:200]
        code = getattr(fault, "code", None)
        small = f"{code} {said}".lower()
        if re.search(r"unauthenticated|auth check|permission ?denied|privilege|api key", small):
            return Away(f"Milvus at {self.uri} does not let us in ({said}): put the right token into {TOKEN}")
        if code == 100 or "collection not found" in small or "can't find collection" in small:
            return Away(
                f"Milvus at {self.uri} has no collection {self.items}: it is gone; build the index again with"
                " --overwrite, or give the address where it is"
            )
        away = ("unavailable", "fail connecting", "deadline", "retry", "closed channel", "connection refused")
        if any(word in small for word in away):
            return Away(f"Milvus at {self.uri} does not answer: is it running, and is that the address?")
        return Away(f"Milvus at {self.uri} refuses: {said}")

    def _refused(self, fault: Exception) -> SeeallError:
        return SeeallError(
            f"{self.uri} cannot be opened by milvus-lite ({type(fault).__name__}): it serves one process at a time;"
            f" several can share `milvus-lite server --data-dir {self.uri}`"
        )


def numbers(values: Sequence[int]) -> str:
    """Whole numbers as a list in a condition."""
    return "[" + ",".join(str(int(value)) for value in values) + "]"


def window(dim: int) -> int:
    """How many rows with vectors of `dim` dimensions are asked for at a time."""
    return max(1, min(MOST, _BYTES // (4 * dim)))


def _require(module: str, how: str) -> None:
    if find_spec(module) is None:
        raise SeeallError(f"an index in Milvus needs {module}: {how}")


def _built(kind: str) -> dict[str, int]:
    return {"IVF_FLAT": {"nlist": 1024}, "HNSW": {"M": 32, "efConstruction": 200}}.get(kind, {})


def _sought(kind: str, limit: int) -> dict[str, int]:
    return {"ivf": {"nprobe": 64}, "hnsw": {"ef": max(128, 2 * limit)}}.get(kind, {})
