# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Reads Avro data in C: decoding is the most expensive step of a record, and this takes a ninth of fastavro's time.

A schema becomes a tree of nodes. One cursor reads a payload from left to right, and every step checks it against the
payload's end. Logical types and schema resolution are left to fastavro, and so is everything if this module was not
compiled. fastavro is the reference: a property test compares both on valid and on broken payloads.

A map that is only passed on is written as JSON at once, without a dictionary in between, if the result is the same.
`json` of a node does that; it returns 0 for a value that needs the dictionary.
"""

from libc.math cimport isfinite
from libc.stdint cimport INT64_MIN, int64_t, uint64_t
from libc.string cimport memcmp, memcpy
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8

from orjson import Fragment, dumps

cdef enum:
    MOST_NAMES = 64
    LARGEST_JSON = 65536  # bytes of a payload, from a map on, above which it becomes a dictionary
    GROWTH = 6  # bytes of JSON that one byte of Avro becomes at most: \u0001
    ROOM = 64


class Unsupported(Exception):
    """The schema has a type that this module does not read; fastavro decodes it."""


cdef struct Cursor:
    # A payload, how far it is read and where it ends; and JSON, and how much of it is written.
    const unsigned char* data
    Py_ssize_t at
    Py_ssize_t end
    unsigned char* out
    Py_ssize_t size


cdef int64_t long_of(Cursor* cursor) except? -1:
    """Read a variable-length zigzag number of 64 bits."""
    cdef uint64_t found = 0
    cdef int shift = 0
    cdef unsigned char byte
    while True:
        if cursor.at >= cursor.end:
            raise EOFError("the payload ends early")
        byte = cursor.data[cursor.at]
        cursor.at += 1
        if shift == 63 and byte > 1:
            raise ValueError("a number of more than 64 bits")
        found |= <uint64_t>(byte & 127) << shift
        if byte < 128:
            return <int64_t>(found >> 1) ^ -<int64_t>(found & 1)
        shift += 7


cdef Py_ssize_t take(Cursor* cursor, int64_t size) except -1:
    """Step over so many bytes; return where they begin."""
    cdef Py_ssize_t at = cursor.at
    if size < 0:
        raise ValueError("a length below zero")
    if size > cursor.end - at:
        raise EOFError("a length past the end of the payload")
    cursor.at = at + size
    return at


cdef int64_t count_of(Cursor* cursor) except -1:
    """Read how many items the next block of an array or a map has; 0 ends it."""
    cdef int64_t found = long_of(cursor)
    if found < 0:
        # A negative count is followed by the block's size in bytes, for readers that skip it.
        long_of(cursor)
        if found == INT64_MIN:
            raise ValueError("a block of more items than a payload can have")
        found = -found
    return found


cdef int64_t index_of(Cursor* cursor, Py_ssize_t among) except -1:
    cdef int64_t found = long_of(cursor)
    if found < 0 or found >= among:
        raise IndexError("no such branch or symbol")
    return found


cdef str text_of(Cursor* cursor):
    cdef int64_t size = long_of(cursor)
    cdef Py_ssize_t at = take(cursor, size)
    return PyUnicode_DecodeUTF8(<const char*>cursor.data + at, size, NULL)


cdef void put(Cursor* cursor, unsigned char byte) noexcept:
    cursor.out[cursor.size] = byte
    cursor.size += 1


cdef void put_all(Cursor* cursor, const char* data, Py_ssize_t size) noexcept:
    memcpy(cursor.out + cursor.size, data, size)
    cursor.size += size


cdef bint put_value(Cursor* cursor, value) except -1:
    """Write a value as orjson does."""
    cdef bytes json = dumps(value)
    put_all(cursor, PyBytes_AS_STRING(json), PyBytes_GET_SIZE(json))
    return 1


cdef bint put_text(Cursor* cursor) except -1:
    """Read a string and write it; through orjson if it is not plain ASCII or needs escapes."""
    cdef int64_t size = long_of(cursor)
    cdef Py_ssize_t at = take(cursor, size), index
    cdef const unsigned char* data = cursor.data + at
    cdef unsigned char* out = cursor.out + cursor.size
    cdef unsigned char byte, odd = 0
    out[0] = b'"'
    for index in range(size):
        byte = data[index]
        out[index + 1] = byte
        odd |= (byte < 32) | (byte > 126) | (byte == b'"') | (byte == b"\\")
    if odd:
        return put_value(cursor, PyUnicode_DecodeUTF8(<const char*>data, size, NULL))
    out[size + 1] = b'"'
    cursor.size += size + 2
    return 1


cdef void put_long(Cursor* cursor, int64_t number) noexcept:
    cdef unsigned char digits[20]
    cdef int first = 20
    cdef uint64_t rest = <uint64_t>number
    if number < 0:
        rest = 0 - rest
        put(cursor, b"-")
    while True:
        first -= 1
        digits[first] = 48 + rest % 10
        rest //= 10
        if rest == 0:
            break
    put_all(cursor, <const char*>&digits[first], 20 - first)


cdef class Node:
    """One node of a schema. The base class is null."""

    cdef object read(self, Cursor* cursor):
        """Return the value and move the cursor behind it. Raises anything for a broken payload."""
        return None

    cdef bint json(self, Cursor* cursor) except -1:
        """Write the value and move the cursor behind it; return 0, the cursor anywhere, if that needs the dictionary."""
        return 0


cdef class _Boolean(Node):
    cdef object read(self, Cursor* cursor):
        return cursor.data[take(cursor, 1)] != 0

    cdef bint json(self, Cursor* cursor) except -1:
        if cursor.data[take(cursor, 1)] != 0:
            put_all(cursor, b"true", 4)
        else:
            put_all(cursor, b"false", 5)
        return 1


cdef class _Long(Node):
    cdef object read(self, Cursor* cursor):
        return long_of(cursor)

    cdef bint json(self, Cursor* cursor) except -1:
        put_long(cursor, long_of(cursor))
        return 1


cdef class _Float(Node):
    cdef object read(self, Cursor* cursor):
        cdef float number
        memcpy(&number, cursor.data + take(cursor, 4), 4)
        return number


cdef class _Double(Node):
    cdef object read(self, Cursor* cursor):
        cdef double number
        memcpy(&number, cursor.data + take(cursor, 8), 8)
        return number

    cdef bint json(self, Cursor* cursor) except -1:
        cdef double number
        memcpy(&number, cursor.data + take(cursor, 8), 8)
        return isfinite(number) and put_value(cursor, number)


cdef class _Bytes(Node):
    cdef object read(self, Cursor* cursor):
        cdef int64_t size = long_of(cursor)
        return PyBytes_FromStringAndSize(<const char*>cursor.data + take(cursor, size), size)


cdef class _String(Node):
    cdef object read(self, Cursor* cursor):
        return text_of(cursor)

    cdef bint json(self, Cursor* cursor) except -1:
        return put_text(cursor)


cdef class _Fixed(Node):
    cdef Py_ssize_t size

    def __init__(self, size):
        self.size = size

    cdef object read(self, Cursor* cursor):
        return PyBytes_FromStringAndSize(<const char*>cursor.data + take(cursor, self.size), self.size)


cdef class _Enum(Node):
    cdef list symbols

    def __init__(self, symbols):
        self.symbols = list(symbols)

    cdef object read(self, Cursor* cursor):
        return self.symbols[index_of(cursor, len(self.symbols))]


cdef class _Array(Node):
    cdef Node items
    cdef bint of_text

    def __init__(self, Node items):
        self.items = items
        self.of_text = type(items) is _String

    cdef object read(self, Cursor* cursor):
        cdef list found = []
        cdef int64_t count
        while count := count_of(cursor):
            while count:
                found.append(self.items.read(cursor))
                count -= 1
        return found

    cdef bint json(self, Cursor* cursor) except -1:
        cdef int64_t count
        cdef bint first = 1
        if not self.of_text:
            return 0
        put(cursor, b"[")
        while count := count_of(cursor):
            while count:
                if not first:
                    put(cursor, b",")
                first = 0
                put_text(cursor)
                count -= 1
        put(cursor, b"]")
        return 1


cdef class _Map(Node):
    cdef Node values

    def __init__(self, Node values):
        self.values = values

    cdef object read(self, Cursor* cursor):
        cdef dict found = {}
        cdef int64_t count
        while count := count_of(cursor):
            while count:
                name = text_of(cursor)
                found[name] = self.values.read(cursor)
                count -= 1
        return found


cdef class _JsonMap(_Map):
    """A map that is passed on as JSON, as a `Fragment`; a dictionary if it is empty, large or not plain."""

    cdef bytearray room

    def __init__(self, Node values):
        super().__init__(values)
        self.room = bytearray()

    cdef object read(self, Cursor* cursor):
        cdef Py_ssize_t start = cursor.at, needed = GROWTH * (cursor.end - start) + ROOM
        cdef bytearray room = self.room
        if cursor.end - start > LARGEST_JSON or cursor.data[start] == 0:
            return _Map.read(self, cursor)
        # A thread that reads at the same time allocates its own buffer.
        self.room = None
        if room is None or len(room) < needed:
            room = bytearray(needed)
        cursor.out, cursor.size = <unsigned char*>room, 0
        plain = self.json(cursor)
        found = Fragment(PyBytes_FromStringAndSize(<const char*>cursor.out, cursor.size)) if plain else None
        self.room = room
        if found is None:
            cursor.at = start
            return _Map.read(self, cursor)
        return found

    cdef bint json(self, Cursor* cursor) except -1:
        """Write the map, unless a value is not plain, or names are empty, repeated or too many."""
        cdef Py_ssize_t starts[MOST_NAMES]
        cdef Py_ssize_t sizes[MOST_NAMES]
        cdef Py_ssize_t start, size
        cdef int64_t count
        cdef int names = 0, other
        put(cursor, b"{")
        while count := count_of(cursor):
            while count:
                if names == MOST_NAMES:
                    return 0
                if names:
                    put(cursor, b",")
                start = cursor.size
                put_text(cursor)
                size = cursor.size - start
                if size == 2:
                    return 0
                for other in range(names):
                    if sizes[other] == size and memcmp(cursor.out + starts[other], cursor.out + start, size) == 0:
                        return 0
                starts[names], sizes[names] = start, size
                names += 1
                put(cursor, b":")
                if not self.values.json(cursor):
                    return 0
                count -= 1
        put(cursor, b"}")
        return 1


cdef class _Union(Node):
    cdef list branches

    def __init__(self, branches):
        self.branches = branches

    cdef object read(self, Cursor* cursor):
        return (<Node>self.branches[index_of(cursor, len(self.branches))]).read(cursor)

    cdef bint json(self, Cursor* cursor) except -1:
        return (<Node>self.branches[index_of(cursor, len(self.branches))]).json(cursor)


cdef class _Record(Node):
    # Registered by name first, so that an error of the schema names the type.
    cdef list names, fields

    cdef object read(self, Cursor* cursor):
        cdef dict found = {}
        cdef Py_ssize_t index
        for index in range(len(self.names)):
            found[self.names[index]] = (<Node>self.fields[index]).read(cursor)
        return found


cdef class _Named(Node):
    """A record in a union of several: `(full name, datum)`."""

    cdef str name
    cdef Node record

    def __init__(self, name, record):
        self.name = name
        self.record = record

    cdef object read(self, Cursor* cursor):
        return self.name, self.record.read(cursor)


cdef class Read:
    """Decodes payloads of one schema: see `reader_of`."""

    cdef Node root

    def __call__(self, bytes data not None, Py_ssize_t at):
        cdef Cursor cursor
        if at < 0 or at > PyBytes_GET_SIZE(data):
            raise EOFError("the payload ends before it begins")
        cursor.data = <const unsigned char*>PyBytes_AS_STRING(data)
        cursor.at, cursor.end = at, PyBytes_GET_SIZE(data)
        found = self.root.read(&cursor)
        return found, cursor.at


def reader_of(tree, *, tagged=False, as_json=()):
    """Return a function that decodes payloads of a schema that fastavro accepts, without recursion.

    It takes the bytes and an index, and returns the datum and the index after it; it raises anything for a broken or
    truncated payload. `tagged`: a record in a union of several records becomes `(full name, datum)`. `as_json`
    are fields, as (full name of the record, name), whose maps become `orjson.Fragment` if they are plain. Raises
    `Unsupported` for a schema that is fastavro's to decode.
    """
    cdef Read read = Read()
    read.root = _Builder(tagged, frozenset(as_json)).reader(tree)
    return read


def read_run(list records not None, dict writers not None, kind not None):
    """Return the data of the first records, each as a `kind` of its writer's name and the datum.

    `writers` are keyed by a value's first 5 or 10 bytes. It ends before a record with headers, without a known writer,
    with a guarded writer or one of fastavro's, or with a broken payload: the caller decodes that one by itself.
    """
    cdef list found = []
    cdef bytes value, before = None
    cdef Py_ssize_t start = 0
    cdef Cursor cursor
    cdef Read read = None
    name = None
    for record in records:
        found_value = record.value
        if type(found_value) is not bytes or record.headers:
            break
        value = found_value
        cursor.data = <const unsigned char*>PyBytes_AS_STRING(value)
        cursor.end = PyBytes_GET_SIZE(value)
        if before is None or cursor.end < start or memcmp(cursor.data, PyBytes_AS_STRING(before), start) != 0:
            start = 5
            writer = writers.get(value[:5])
            if writer is None:
                start = 10
                writer = writers.get(value[:10])
            if writer is None or writer.steps is not None or type(writer.read) is not Read:
                break
            before, read, name = value, writer.read, writer.name
        cursor.at = start
        try:
            datum = read.root.read(&cursor)
        except Exception:
            break
        if cursor.at != cursor.end:
            break
        found.append(kind(name, datum))
    return found


class _Builder:
    """Makes the nodes of one schema."""

    def __init__(self, tagged, as_json):
        self.tagged = tagged
        self.as_json = as_json
        self.map = _Map
        self.named = {}
        self.records = set()

    def reader(self, node):
        if isinstance(node, list):
            return self.union(node)
        if isinstance(node, str):
            found = self.named.get(node) or _PRIMITIVES.get(node)
            if found is None:
                raise Unsupported
            return found
        if "logicalType" in node:
            raise Unsupported
        kind = node["type"]
        if kind in {"array", "map"}:
            # A map inside another type is decoded with it.
            make, self.map = _Array if kind == "array" else self.map, _Map
            return make(self.reader(node["items" if kind == "array" else "values"]))
        return self.complex(node, kind) if "name" in node else self.reader(kind)

    def complex(self, node, kind):
        """Make the node of a named type."""
        name = _full_name(node)
        if kind == "enum":
            self.named[name] = _Enum(node["symbols"])
        elif kind == "fixed":
            self.named[name] = _Fixed(node["size"])
        elif kind in {"record", "error"}:
            self.named[name] = self.record(name, node["fields"])
        else:
            raise Unsupported
        return self.named[name]

    def record(self, name, fields):
        cdef _Record record = _Record()
        self.named[name] = record
        self.records.add(name)
        record.names = [field["name"] for field in fields]
        record.fields = []
        for field in fields:
            self.map = _JsonMap if (name, field["name"]) in self.as_json else _Map
            record.fields.append(self.reader(field["type"]))
        self.map = _Map
        return record

    def union(self, branches):
        readers = [self.reader(branch) for branch in branches]
        names = [branch if isinstance(branch, str) else _name_of(branch) for branch in branches]
        if self.tagged and sum(name in self.records for name in names) > 1:
            readers = [
                _Named(name, reader) if name in self.records else reader
                for name, reader in zip(names, readers, strict=True)
            ]
        return _Union(readers)


def _name_of(branch):
    return _full_name(branch) if "name" in branch else ""


def _full_name(node):
    name, namespace = node["name"], node.get("namespace")
    return name if "." in name or not namespace else f"{namespace}.{name}"


_PRIMITIVES = {
    "null": Node(),
    "boolean": _Boolean(),
    "int": _Long(),
    "long": _Long(),
    "float": _Float(),
    "double": _Double(),
    "bytes": _Bytes(),
    "string": _String(),
}
