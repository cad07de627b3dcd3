# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Reads Avro data in C. Decoding is the most expensive step of a record; this takes a ninth of fastavro's time.

A writer's schema becomes a tree of nodes. A payload is read from left to right by one cursor, and every step checks it
against the payload's end. The reader is strict: an index, a length or a number that Avro does not allow is a broken
payload, never another value. fastavro is the reference in tests, on good payloads and on broken ones.

- Logical types stay as written: a node gives a `LogicalValue`, which is converted only if a mapping asks for it. So a
  value out of range does no harm in a field that no route uses.
- A writer's schema that differs from the reader's is resolved while the tree is built ("Schema Resolution" of the Avro
  specification); reading stays one pass.
- Work is counted. A payload may take `STEPS`, and `STEPS_A_BYTE` more for each of its bytes: five bytes can claim 30
  million nulls. Records, arrays and maps cost most of the memory, so there may be `CONTAINERS`, and one more for each
  `BYTES_A_CONTAINER` bytes. Records may nest `MOST_LEVELS` deep, so a recursive schema cannot exhaust the stack.
- A map that is only passed on is written as JSON straight away, where that is what its dictionary's JSON would be. `json`
  of a node does so; it returns 0 for a value that has to be looked at.
"""

from libc.float cimport FLT_MIN
from libc.math cimport floor, isfinite, log10
from libc.stdio cimport snprintf
from libc.stdlib cimport strtod, strtof
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DATA, PyUnicode_DecodeUTF8, PyUnicode_New

from copy import deepcopy

from orjson import Fragment, dumps

from connector.codec.schemas import RECORDS, named_types, self_contained
from connector.records import DEDUP_NAMESPACE, LogicalType, LogicalValue, Record

cdef extern from *:
    """
    #include <structmember.h>
    #define ONES 0x0101010101010101ULL

    static Py_ssize_t place_of_slot(PyObject *descriptor) {
        if (!PyObject_TypeCheck(descriptor, &PyMemberDescr_Type)) return -1;
        PyMemberDef *member = ((PyMemberDescrObject *)descriptor)->d_member;
        return member->type == T_OBJECT_EX ? member->offset : -1;
    }
    """
    const uint64_t ONES  # a one in each byte
    bint PyUnicode_IS_ASCII(object text)
    Py_ssize_t place_of_slot(object descriptor)

cdef enum:
    STEPS = 65536
    STEPS_A_BYTE = 8
    CONTAINERS = 131072
    BYTES_A_CONTAINER = 8
    MOST_LEVELS = 64
    MOST_NAMES = 64
    LARGEST_JSON = 65536  # bytes of a payload, from a map on, above which it becomes a dictionary
    ANY_VALUES = -1
    GROWTH = 6  # bytes of JSON that one byte of Avro becomes at most: \u0001
    ROOM = 64


class Broken(ValueError):
    """Not a payload of the schema. The message never contains a value."""


class TooManySteps(Broken):
    """The payload claims far more values or containers than it has bytes for, or nests too many records."""


class Mismatch(ValueError):
    """The writer's schema, or this value of it, cannot be read as the reader's."""


cdef struct Cursor:
    # A payload with its read position and end, and JSON with its written length.
    const unsigned char* data
    Py_ssize_t at
    Py_ssize_t end
    unsigned char* out
    Py_ssize_t size
    int64_t steps  # that are left
    int64_t containers  # that are left
    int levels  # of records that are open


cdef inline int64_t long_of(Cursor* cursor) except? -1:
    """Read a variable-length zigzag number of 64 bits."""
    cdef unsigned char byte
    # Nearly all are lengths and indexes of one byte.
    if cursor.at < cursor.end:
        byte = cursor.data[cursor.at]
        if byte < 128:
            cursor.at += 1
            return (byte >> 1) ^ -<int64_t>(byte & 1)
    return long_number_of(cursor)


cdef int64_t long_number_of(Cursor* cursor) except? -1:
    cdef uint64_t found = 0
    cdef int shift = 0
    cdef unsigned char byte
    while True:
        if cursor.at >= cursor.end:
            raise Broken("truncated")
        byte = cursor.data[cursor.at]
        cursor.at += 1
        if shift == 63 and byte > 1:
            raise Broken("a number of more than 64 bits")
        found |= <uint64_t>(byte & 127) << shift
        if byte < 128:
            return <int64_t>(found >> 1) ^ -<int64_t>(found & 1)
        shift += 7


cdef Py_ssize_t take(Cursor* cursor, int64_t size) except -1:
    """Skip `size` bytes; return where they begin."""
    cdef Py_ssize_t at = cursor.at
    if size < 0 or size > cursor.end - at:
        raise Broken("a length below zero, or past the end of the payload")
    cursor.at = at + size
    return at


cdef void begin(Cursor* cursor, bytes data, Py_ssize_t at) noexcept:
    cursor.data = <const unsigned char*>PyBytes_AS_STRING(data)
    cursor.at, cursor.end = at, PyBytes_GET_SIZE(data)
    cursor.steps = STEPS + STEPS_A_BYTE * (cursor.end - at)
    cursor.containers = CONTAINERS + (cursor.end - at) // BYTES_A_CONTAINER
    cursor.levels = 0


cdef bint spend(Cursor* cursor, int64_t steps) except -1:
    """Count work before it is done."""
    if steps > cursor.steps:
        raise TooManySteps("the payload claims more values than its length allows")
    cursor.steps -= steps
    return 1


cdef bint open_container(Cursor* cursor) except -1:
    """Count a record, an array or a map before it is made."""
    if cursor.containers == 0:
        raise TooManySteps("the payload has more records, arrays and maps than its length allows")
    cursor.containers -= 1
    return 1


cdef int64_t count_of(Cursor* cursor) except -1:
    """Read how many items the next block of an array or a map has; 0 ends it."""
    cdef int64_t found = long_of(cursor)
    if found < 0:
        # A negative count is followed by the block's size in bytes, for readers that skip the block.
        long_of(cursor)
        if found == INT64_MIN:
            raise Broken("a block of more items than a payload can have")
        found = -found
    spend(cursor, found)
    return found


cdef int64_t index_of(Cursor* cursor, Py_ssize_t among) except -1:
    cdef int64_t found = long_of(cursor)
    if found < 0 or found >= among:
        raise Broken("a branch or symbol that does not exist")
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


cdef inline uint64_t odd_bits(uint64_t word) noexcept:
    """Return 0 if all eight bytes are printable ASCII, neither a quotation mark nor a backslash."""
    # The highest bit of a byte is set by a borrow below 32, and by a carry above 126. What an
    # odd byte borrows from its neighbour does not matter: one is enough.
    cdef uint64_t odd = (word - 32 * ONES) | (word + ONES)
    return (odd | ((word ^ 34 * ONES) - ONES) | ((word ^ 92 * ONES) - ONES)) & 128 * ONES


cdef inline uint64_t copied_odd(unsigned char* out, const unsigned char* data, Py_ssize_t size) noexcept:
    """Copy bytes, and return the same for all of them."""
    cdef uint64_t odd = 0, word
    cdef uint32_t half
    cdef Py_ssize_t at = 0
    cdef unsigned char byte
    if size >= 8:
        while at < size:
            at = min(at, size - 8)  # the last eight bytes may overlap those before
            memcpy(&word, data + at, 8)
            memcpy(out + at, &word, 8)
            odd |= odd_bits(word)
            at += 8
        return odd
    if size >= 4:
        memcpy(&half, data, 4)
        memcpy(out, &half, 4)
        word = half
        memcpy(&half, data + size - 4, 4)
        memcpy(out + size - 4, &half, 4)
        return odd_bits(word << 32 | half)
    for at in range(size):
        byte = data[at]
        out[at] = byte
        odd |= (byte < 32) | (byte > 126) | (byte == b'"') | (byte == b"\\")
    return odd


cdef int64_t put_chars(Cursor* cursor, Py_ssize_t at, Py_ssize_t size) except -1:
    """Write a string that was read, with orjson if it is not all ASCII or needs escapes.

    Returns how many characters it has.
    """
    cdef const unsigned char* data = cursor.data + at
    cdef unsigned char* out = cursor.out + cursor.size
    out[0] = b'"'
    if copied_odd(out + 1, data, size):
        text = PyUnicode_DecodeUTF8(<const char*>data, size, NULL)
        put_value(cursor, text)
        return len(text)
    out[size + 1] = b'"'
    cursor.size += size + 2
    return size


cdef int64_t put_text(Cursor* cursor) except -1:
    """Read a string and write it; return how many characters it has."""
    cdef int64_t size = long_of(cursor)
    return put_chars(cursor, take(cursor, size), size)


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
        """Return the value and move the cursor behind it. Raises any exception if the payload is broken."""
        return None

    cdef bint json(self, Cursor* cursor) except -1:
        """Write the value and move the cursor behind it; return 0, with the cursor anywhere, if it is not plain."""
        return 0


cdef bint truth_of(Cursor* cursor) except? 1:
    cdef unsigned char byte = cursor.data[take(cursor, 1)]
    if byte > 1:
        raise Broken("a boolean that is neither 0 nor 1")
    return byte


cdef class _Boolean(Node):
    cdef object read(self, Cursor* cursor):
        return truth_of(cursor) != 0

    cdef bint json(self, Cursor* cursor) except -1:
        if truth_of(cursor):
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


cdef int64_t int_of(Cursor* cursor) except? -1:
    cdef int64_t found = long_of(cursor)
    if found < -2147483648 or found > 2147483647:
        raise Broken("an int of more than 32 bits")
    return found


cdef class _Int(Node):
    cdef object read(self, Cursor* cursor):
        return int_of(cursor)

    cdef bint json(self, Cursor* cursor) except -1:
        put_long(cursor, int_of(cursor))
        return 1


cdef class _Float(Node):
    """A float of 32 bits, as the number with the fewest digits that is this float: 12.99, not 12.989999771118164."""

    cdef object read(self, Cursor* cursor):
        cdef float number
        cdef char text[32]
        cdef int digits
        memcpy(&number, cursor.data + take(cursor, 4), 4)
        if number == 0 or not isfinite(number):
            return number
        # Every normal float keeps 6 digits, and 9 distinguish it from its neighbours; the smallest ones keep fewer than
        # 6.
        for digits in range(6 if -FLT_MIN >= number or number >= FLT_MIN else 1, 10):
            snprintf(text, sizeof(text), "%.*g", digits, <double>number)
            if strtof(text, NULL) == number:
                break
        return strtod(text, NULL)


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


cdef class _Logical(Node):
    """A value of a logical type, as written: `LogicalValue`."""

    cdef object kind
    cdef Node written

    def __init__(self, kind, Node written):
        self.kind = kind
        self.written = written

    cdef object read(self, Cursor* cursor):
        return LogicalValue(self.kind, self.written.read(cursor))


cdef class _Scaled(Node):
    """A point in time in another unit; floored if the reader's unit is coarser."""

    cdef Node written
    cdef int64_t times, divided_by

    def __init__(self, Node written, times, divided_by):
        self.written = written
        self.times = times
        self.divided_by = divided_by

    cdef object read(self, Cursor* cursor):
        return self.written.read(cursor) * self.times // self.divided_by


cdef class _Array(Node):
    cdef Node items
    cdef bint of_text

    def __init__(self, Node items):
        self.items = items
        self.of_text = type(items) is _String

    cdef object read(self, Cursor* cursor):
        cdef list found = []
        cdef int64_t count
        open_container(cursor)
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
        open_container(cursor)
        while count := count_of(cursor):
            while count:
                name = text_of(cursor)
                found[name] = self.values.read(cursor)
                count -= 1
        return found


cdef class _JsonMap(_Map):
    """A map that is passed on as JSON: a `Fragment`, or a dictionary if it is empty, large, or not plain."""

    cdef bytearray room

    def __init__(self, Node values):
        super().__init__(values)
        self.room = bytearray()

    cdef object read(self, Cursor* cursor):
        cdef Py_ssize_t start = cursor.at, needed = GROWTH * (cursor.end - start) + ROOM
        cdef bytearray room = self.room
        if cursor.end - start > LARGEST_JSON or cursor.data[start] == 0:
            return _Map.read(self, cursor)
        # Taken away, so that another thread that reads at the same time makes room of its own.
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
        return put_map(cursor, self.values, 0, ANY_VALUES, 0)


cdef int64_t put_as_text(Cursor* cursor, Node node, bint converts) except -1:
    """Read a value and write it as text, with `converts` as a mapping does; return its length in characters, 0 for
    none.

    Numbers are in decimal, lists are JSON text; what is neither that nor a string is not plain.
    """
    if type(node) is _String:
        return put_text(cursor)
    if not converts or type(node) not in (_Long, _Int, _Boolean, _Double, _Array):
        return 0
    if type(node) is _Array and not (<_Array>node).of_text:
        return 0
    value = node.read(cursor)
    if type(value) is float:
        if not isfinite(value):
            return 0
        text = repr(value)
    else:
        text = dumps(value).decode()
    put_value(cursor, text)
    return len(text)


cdef bint put_map(Cursor* cursor, Node values, bint drops_null, int64_t most, bint converts) except -1:
    """Read a map and write it, unless a value is not plain, or a name is empty, there twice, or one of too many.

    `drops_null`: entries without a value are left out. `most`: the characters of each name and value, which then are
    strings that are not empty; 0 for strings of any length, `ANY_VALUES` for all values that are plain. `converts`:
    other scalars become such strings. Returns 0 also if no entry is left.
    """
    cdef Py_ssize_t starts[MOST_NAMES]
    cdef Py_ssize_t sizes[MOST_NAMES]
    cdef Py_ssize_t start, size, before
    cdef int64_t count, characters
    cdef int names = 0, sent = 0, other
    cdef Node value
    put(cursor, b"{")
    while count := count_of(cursor):
        while count:
            count -= 1
            size = long_of(cursor)
            start = take(cursor, size)
            if names == MOST_NAMES or size == 0:
                return 0
            for other in range(names):
                if sizes[other] == size and memcmp(cursor.data + starts[other], cursor.data + start, size) == 0:
                    return 0
            starts[names], sizes[names] = start, size
            names += 1
            before = cursor.size
            if sent:
                put(cursor, b",")
            characters = put_chars(cursor, start, size)
            put(cursor, b":")
            value = values
            if type(value) is _Union:
                value = <Node>(<_Union>value).branches[index_of(cursor, len((<_Union>value).branches))]
            if type(value) is Node and drops_null:
                cursor.size = before
                continue
            if most == ANY_VALUES:
                if not value.json(cursor):
                    return 0
            elif most and characters > most:
                return 0
            else:
                before = cursor.size
                characters = put_as_text(cursor, value, converts)
                if cursor.size == before or most and not 0 < characters <= most:
                    return 0
            sent += 1
    put(cursor, b"}")
    return sent > 0


cdef class _Union(Node):
    cdef list branches

    def __init__(self, branches):
        self.branches = branches

    cdef object read(self, Cursor* cursor):
        return (<Node>self.branches[index_of(cursor, len(self.branches))]).read(cursor)

    cdef bint json(self, Cursor* cursor) except -1:
        return (<Node>self.branches[index_of(cursor, len(self.branches))]).json(cursor)


cdef class _Record(Node):
    # Filled after its name is registered, so that a type can contain itself.
    cdef list names, fields
    # For a resolved record: the defaults of fields that the writer does not have, by name. A field without a name is
    # read and dropped.
    cdef dict defaults

    cdef object read(self, Cursor* cursor):
        cdef dict found = {} if self.defaults is None else deepcopy(self.defaults)
        cdef Py_ssize_t index
        spend(cursor, 1 + len(self.names))
        open_container(cursor)
        if cursor.levels == MOST_LEVELS:
            raise TooManySteps("the payload nests records deeper than 64 levels")
        cursor.levels += 1
        for index in range(len(self.names)):
            value = (<Node>self.fields[index]).read(cursor)
            name = self.names[index]
            if name is not None:
                found[name] = value
        cursor.levels -= 1
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


cdef class _Symbols(Node):
    """An enum read as another one: the reader's symbol for each of the writer's."""

    cdef list found

    def __init__(self, written, wanted, default):
        known = set(wanted)
        self.found = [symbol if symbol in known else default for symbol in written]

    cdef object read(self, Cursor* cursor):
        symbol = self.found[index_of(cursor, len(self.found))]
        if symbol is None:
            raise Mismatch("the reader's enum does not have the symbol, and has no default")
        return symbol


cdef class _Text(Node):
    """Bytes that are read as a string."""

    cdef object read(self, Cursor* cursor):
        return text_of(cursor)


cdef class _Unreadable(Node):
    """A branch of the writer's union that the reader does not accept: only a value of that branch is a mismatch."""

    cdef str why

    def __init__(self, why):
        self.why = why

    cdef object read(self, Cursor* cursor):
        raise Mismatch(self.why)


cdef class Read:
    """Decodes payloads of one schema: see `reader_of`."""

    cdef Node root

    def __call__(self, bytes data not None, Py_ssize_t at):
        cdef Cursor cursor
        if at < 0 or at > PyBytes_GET_SIZE(data):
            raise Broken("truncated")
        begin(&cursor, data, at)
        found = self.root.read(&cursor)
        return found, cursor.at


def reader_of(writer, reader=None, *, tagged=False, as_json=(), logical=True):
    """Return a `Read` for payloads of the writer's schema, resolved to the reader's schema if one is given.

    Both are trees with full names (`schemas.Schema.tree`). The result is given the bytes and an index, returns the datum
    and the index after it, and raises any exception if the payload is broken or ends early. `tagged`: a record in a union
    of several records becomes `(full name, datum)`. `as_json` are fields, as (full name of the record, name), whose maps
    become `orjson.Fragment` where they are plain. `logical`: values of logical types become `LogicalValue`; without it
    they are the numbers or bytes that were written. Raises `Mismatch` if no datum of the writer could be read.
    """
    cdef Read read = Read()
    builder = _Builder(tagged, frozenset(as_json), logical)
    read.root = builder.reader(writer) if reader is None else _Resolver(builder, writer, reader).node(writer, reader)
    return read


def read_run(list records not None, dict writers not None, kind not None):
    """Return the data of the first records, each as a `kind` of its writer's name and the datum.

    `writers` are known by what a value begins with: 5 bytes, or 10. The first record that has headers, no known writer,
    one that is no single record, or a broken payload, ends it: that one is the caller's to judge.
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
        begin(&cursor, value, 0)
        if before is None or cursor.end < start or memcmp(cursor.data, PyBytes_AS_STRING(before), start) != 0:
            start = 5
            writer = writers.get(value[:5])
            if writer is None:
                start = 10
                writer = writers.get(value[:10])
            if writer is None or type(writer.read) is not Read:
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


include "dedup_id.pxi"
include "items.pxi"
include "questions.pxi"
include "writer.pxi"


class _Builder:
    """Makes the nodes of one schema."""

    def __init__(self, tagged, as_json, logical):
        self.tagged = tagged
        self.as_json = as_json
        self.logical = logical
        self.map = _Map
        self.named = {}
        self.records = set()

    def reader(self, node):
        if isinstance(node, list):
            return self.union(node)
        if isinstance(node, str):
            return self.named[node] if node in self.named else _PRIMITIVES[node]
        found = self.plain(node)
        kind = logical_type(node) if self.logical else None
        return found if kind is None else _Logical(kind, found)

    def plain(self, node):
        """Make the node of a type without its logical type."""
        kind = node["type"]
        if kind in {"array", "map"}:
            # A map inside another type is handled together with that type.
            make, self.map = _Array if kind == "array" else self.map, _Map
            return make(self.reader(node["items" if kind == "array" else "values"]))
        return self.complex(node, kind) if "name" in node else self.reader(kind)

    def complex(self, node, kind):
        """Make the node of a type that has a name."""
        name = node["name"]
        if kind == "enum":
            found = _Enum(node["symbols"])
        elif kind == "fixed":
            found = _Fixed(node["size"])
        else:
            return self.record(name, node["fields"])
        wanted = logical_type(node) if self.logical else None
        # A name that is used again has the logical type of its definition.
        self.named[name] = found if wanted is None else _Logical(wanted, found)
        return found

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
        names = [branch if isinstance(branch, str) else branch.get("name", "") for branch in branches]
        if self.tagged and sum(name in self.records for name in names) > 1:
            readers = [
                _Named(name, reader) if name in self.records else reader
                for name, reader in zip(names, readers, strict=True)
            ]
        return _Union(readers)


class _Resolver:
    """Makes the nodes that read one schema's payloads as another's data (Avro specification, "Schema Resolution")."""

    def __init__(self, builder, writer, reader):
        self.builder = builder
        self.written = named_types(writer)
        self.wanted = named_types(reader)
        self.done = {}

    def node(self, writer, reader):
        writer, reader = self.written.get(writer, writer) if isinstance(writer, str) else writer, self._wanted(reader)
        if isinstance(writer, list):
            return _Union([self._branch(branch, reader) for branch in writer])
        if isinstance(reader, list):
            return self._chosen(writer, reader)
        if not _alike(writer, reader, promoted=True):
            raise Mismatch(f"{_shown(writer)} cannot be read as {_shown(reader)}")
        return self._one(writer, reader)

    def _wanted(self, reader):
        return self.wanted.get(reader, reader) if isinstance(reader, str) else reader

    def _branch(self, writer, reader):
        try:
            return self.node(writer, reader)
        except Mismatch as mismatch:
            return _Unreadable(str(mismatch))

    def _chosen(self, writer, branches):
        """Read one type as a union: by its first branch of the same type, else by the first that accepts it."""
        branches = [self._wanted(branch) for branch in branches]
        records = [branch for branch in branches if _kind(branch) in RECORDS]
        for promoted in (False, True):
            for branch in branches:
                if _alike(writer, branch, promoted=promoted):
                    found = self.node(writer, branch)
                    tagged = self.builder.tagged and len(records) > 1 and branch in records
                    return _Named(branch["name"], found) if tagged else found
        raise Mismatch(f"{_shown(writer)} is no branch of {', '.join(map(_shown, branches))}")

    def _one(self, writer, reader):
        kind, wanted = _kind(writer), _kind(reader)
        if kind in RECORDS:
            return self._record(writer, reader)
        if kind == "array":
            return _Array(self.node(writer["items"], reader["items"]))
        if kind == "map":
            make, self.builder.map = self.builder.map, _Map
            return make(self.node(writer["values"], reader["values"]))
        if kind == "enum":
            return _Symbols(writer["symbols"], reader["symbols"], reader.get("default"))
        if kind == "fixed":
            return _Fixed(writer["size"])
        if kind == "bytes" and wanted == "string":
            return _Text()
        found = _PRIMITIVES["bytes"] if kind == "string" and wanted == "bytes" else _PRIMITIVES[kind]
        unit, other = (_A_SECOND.get(_logical_name(node)) for node in (writer, reader))
        if unit and other and unit != other:
            return _Scaled(found, other, unit)
        return found

    def _record(self, writer, reader):
        cdef _Record record
        pair = writer["name"], reader["name"]
        if pair in self.done:
            return self.done[pair]
        record = self.done[pair] = _Record()
        name = reader["name"]
        written = {field["name"]: field for field in writer["fields"]}
        source = {
            next((one for one in (field["name"], *field.get("aliases", ())) if one in written), None): field
            for field in reader["fields"]
        }
        record.defaults = {}
        for field in reader["fields"]:
            if not any(one in written for one in (field["name"], *field.get("aliases", ()))):
                if "default" not in field:
                    raise Mismatch(f"the writer's {writer['name']} has no field {field['name']}, which has no default")
                record.defaults[field["name"]] = self._default(field["type"], field["default"])
        record.defaults = record.defaults or None
        record.names, record.fields = [], []
        for field in writer["fields"]:
            wanted = source.get(field["name"])
            record.names.append(None if wanted is None else wanted["name"])
            if wanted is None:
                record.fields.append(self._dropped(field["type"]))
                continue
            self.builder.map = _JsonMap if (name, wanted["name"]) in self.builder.as_json else _Map
            record.fields.append(self.node(field["type"], wanted["type"]))
        self.builder.map = _Map
        return record

    def _dropped(self, tree):
        """Make the node of a field that only the writer has; its types may be defined anywhere in the writer's schema."""
        builder = _Builder(False, frozenset(), False)
        return builder.reader(self_contained(tree, self.written))

    def _default(self, reader, value):
        """Return a default as a datum. A union's default is of its first branch (since Avro 1.12, of any branch)."""
        reader = self._wanted(reader)
        if isinstance(reader, list):
            for branch in reader:
                try:
                    return self._default(branch, value)
                except Mismatch:
                    continue
            raise Mismatch("a default is of no branch of its union")
        kind = _kind(reader)
        if kind in RECORDS and isinstance(value, dict):
            return {
                field["name"]: self._default(field["type"], value.get(field["name"], field.get("default")))
                for field in reader["fields"]
            }
        if kind == "map" and isinstance(value, dict):
            return {key: self._default(reader["values"], inner) for key, inner in value.items()}
        if kind == "array" and isinstance(value, list):
            return [self._default(reader["items"], inner) for inner in value]
        if kind in ("bytes", "fixed") and isinstance(value, str):
            return value.encode("latin-1")
        if kind in ("float", "double") and type(value) in (int, float):
            return float(value)
        if type(value) is _JSON_KINDS.get(kind):
            return value
        raise Mismatch(f"a default is no {_shown(reader)}")


_JSON_KINDS = {"null": type(None), "boolean": bool, "int": int, "long": int, "string": str, "enum": str}
_PROMOTED = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}
_A_SECOND = {"timestamp-millis": 1_000, "timestamp-micros": 1_000_000, "timestamp-nanos": 1_000_000_000, "seconds": 1}
"""How many units a second has, by logical type; `seconds` marks plain numbers of seconds in the contract schemas."""

_LOGICAL = {
    "date": ("int",),
    "time-millis": ("int",),
    "time-micros": ("long",),
    **dict.fromkeys(("timestamp-millis", "timestamp-micros", "timestamp-nanos"), ("long",)),
    **dict.fromkeys(("local-timestamp-millis", "local-timestamp-micros", "local-timestamp-nanos"), ("long",)),
    "decimal": ("bytes", "fixed"),
    "uuid": ("fixed",),
}
"""Logical types and their underlying types. A uuid with an underlying string is already text."""


def _kind(node):
    """Return the name of a type: `record`, `long`, `union`."""
    while isinstance(node, dict):
        node = node["type"]
    return "union" if isinstance(node, list) else node


def _logical_name(node):
    while isinstance(node, dict):
        if isinstance(node.get("logicalType"), str):
            return node["logicalType"]
        node = node["type"]
    return None


def logical_type(node):
    """Return a type's `LogicalType`; None if it has none, or one that the specification says to ignore.

    "Language implementations must ignore unknown logical types when reading, and should use the underlying Avro type.
    If a logical type is invalid, for example a decimal with scale greater than its precision, then implementations
    should ignore the logical type." (Avro specification, "Logical Types")
    """
    name, kind = node.get("logicalType"), _kind(node)
    if not isinstance(name, str) or kind not in _LOGICAL.get(name, ()):
        return None
    if name == "uuid":
        return LogicalType(name) if node["size"] == 16 else None
    if name != "decimal":
        return LogicalType(name)
    precision, scale = node.get("precision"), node.get("scale", 0)
    if type(precision) is not int or type(scale) is not int or not 0 <= scale <= precision or precision < 1:
        return None
    # The most digits that a fixed of this size holds. By logarithm, because the size may be any number.
    if kind == "fixed" and precision > floor((8 * node["size"] - 1) * log10(2)):
        return None
    return LogicalType(name, scale)


def _alike(writer, reader, promoted):
    """Return whether a type may be read as another. `promoted`: even if the numeric types or names differ."""
    kind, wanted = _kind(writer), _kind(reader)
    if kind in RECORDS and wanted in RECORDS or kind == wanted and kind in ("enum", "fixed"):
        names = {writer["name"]} if not promoted else {writer["name"], writer["name"].rpartition(".")[2]}
        others = {reader["name"], *_aliases(reader)}
        if promoted:
            others |= {name.rpartition(".")[2] for name in others}
        return bool(names & others) and (kind != "fixed" or writer["size"] == reader["size"])
    return kind == wanted or promoted and wanted in _PROMOTED.get(kind, ())


def _aliases(node):
    space = node["name"].rpartition(".")[0]
    return [name if "." in name or not space else f"{space}.{name}" for name in node.get("aliases", ())]


def _shown(node):
    return node["name"] if isinstance(node, dict) and "name" in node else _kind(node)


_PRIMITIVES = {
    "null": Node(),
    "boolean": _Boolean(),
    "int": _Int(),
    "long": _Long(),
    "float": _Float(),
    "double": _Double(),
    "bytes": _Bytes(),
    "string": _String(),
}
