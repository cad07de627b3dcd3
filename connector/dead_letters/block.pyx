# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The work repeated for each of a million dead letters, in C: parses a block of headers, finds a row by an id.

What each header may hold is said by a `Form`; which headers there are, and what the block means, only
`connector.dead_letters.headers` knows. A value that is not exactly as the connector writes it makes the block incomplete.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeUTF8

cdef enum:
    TEXT, NUMBER, TIME, UUID, TOPIC, WORD, HASH, PATHS

KINDS = {"text": TEXT, "number": NUMBER, "time": TIME, "uuid": UUID, "topic": TOPIC, "word": WORD, "hash": HASH, "paths": PATHS}

cdef uint64_t INT64_MOST = 9223372036854775807
cdef int64_t LEAST_TIME = -62135596800000  # 0001-01-01
cdef int64_t MOST_TIME = 253402300799999  # 9999-12-31


cdef class Form:
    """What a header's value may be, and the name of its field: a kind of `KINDS`, and the bounds of its size or number."""

    cdef readonly str field
    cdef int kind
    cdef int64_t least
    cdef int64_t most

    def __init__(self, str field, str kind, int64_t most=INT64_MOST, int64_t least=0):
        self.field, self.kind, self.least, self.most = field, KINDS[kind], least, most


cdef inline bint _digit(unsigned char byte) noexcept:
    return 48 <= byte <= 57


cdef inline bint _hex(unsigned char byte) noexcept:
    return 48 <= byte <= 57 or 97 <= byte <= 102


cdef bint _is_uuid(const unsigned char* data, Py_ssize_t size) noexcept:
    cdef Py_ssize_t at
    if size != 36:
        return False
    for at in range(36):
        if at == 8 or at == 13 or at == 18 or at == 23:
            if data[at] != 45:
                return False
        elif not _hex(data[at]):
            return False
    return True


cdef bint _is_of(int kind, const unsigned char* data, Py_ssize_t size) noexcept:
    """Whether all characters are those of a topic's name, a lowercase word, or a hash."""
    cdef Py_ssize_t at
    cdef unsigned char byte
    for at in range(size):
        byte = data[at]
        if kind == HASH:
            if not _hex(byte):
                return False
        elif kind == WORD:
            if not (97 <= byte <= 122 or byte == 95):
                return False
        elif not (97 <= byte <= 122 or 65 <= byte <= 90 or 45 <= byte <= 46 or 48 <= byte <= 57 or byte == 95):
            return False
    return True


cdef bint _number(const unsigned char* data, Py_ssize_t size, int64_t* found) noexcept:
    """Read a whole number of 64 bits in plain decimal; false for any other text."""
    cdef bint negative = size > 1 and data[0] == 45
    cdef Py_ssize_t at = negative
    cdef uint64_t number = 0
    # Nineteen digits cannot pass 64 bits without a sign.
    if not 0 < size - at <= 19 or (data[at] == 48 and (size > 1 or negative)):
        return False
    while at < size:
        if not _digit(data[at]):
            return False
        number = number * 10 + data[at] - 48
        at += 1
    if number > INT64_MOST + negative:
        return False
    found[0] = <int64_t> (0 - number) if negative else <int64_t> number
    return True


cdef inline int64_t _digits(const unsigned char* data, int first, int count) noexcept:
    cdef int64_t number = 0
    cdef int at
    for at in range(first, first + count):
        if not _digit(data[at]):
            return -1
        number = number * 10 + data[at] - 48
    return number


cdef int64_t _days(int64_t year, int64_t month, int64_t day) noexcept:
    """Return the days from 1970 to a date of the Gregorian calendar; internally the year begins in March."""
    cdef int64_t shifted = year - (month <= 2)
    cdef int64_t era = shifted // 400
    cdef int64_t of_era = shifted - era * 400
    cdef int64_t of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


cdef bint _time(const unsigned char* data, Py_ssize_t size, int64_t* found) noexcept:
    """Read a time as epoch milliseconds: 2026-11-21T09:30:00.250Z, or a number for times that this form cannot have."""
    cdef int64_t year, month, day, hour, minute, second, millis, last
    if size != 24 or data[10] != 84:
        return _number(data, size, found)
    if data[4] != 45 or data[7] != 45 or data[13] != 58 or data[16] != 58 or data[19] != 46 or data[23] != 90:
        return False
    year, month, day = _digits(data, 0, 4), _digits(data, 5, 2), _digits(data, 8, 2)
    hour, minute, second = _digits(data, 11, 2), _digits(data, 14, 2), _digits(data, 17, 2)
    millis = _digits(data, 20, 3)
    if year < 1 or not 1 <= month <= 12 or not 0 <= hour < 24 or not 0 <= minute < 60 or not 0 <= second < 60:
        return False
    last = 30 if month == 4 or month == 6 or month == 9 or month == 11 else 31
    if month == 2:
        last = 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    if not 1 <= day <= last or millis < 0:
        return False
    found[0] = (((_days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second) * 1000 + millis
    return True


cdef object _value(Form form, bytes value):
    """Return a header's parsed value; None if it is not as the connector writes it."""
    cdef const unsigned char* data = <const unsigned char*> PyBytes_AS_STRING(value)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(value)
    cdef int64_t number = 0
    cdef int kind = form.kind
    if kind == NUMBER:
        return number if _number(data, size, &number) and form.least <= number <= form.most else None
    if kind == TIME:
        return number if _time(data, size, &number) else None
    if not form.least < size <= form.most:
        return None
    if kind == UUID:
        if not _is_uuid(data, size):
            return None
    elif kind == TOPIC or kind == WORD or kind == HASH:
        if not _is_of(kind, data, size):
            return None
    try:
        text = PyUnicode_DecodeUTF8(<const char*> data, size, NULL)
    except UnicodeDecodeError:
        return None
    return tuple(text.split()) if kind == PATHS else text


def time_text(int64_t millis):
    """Return epoch milliseconds as ISO 8601 in UTC, such as 2026-11-21T09:30:00.250Z.

    Outside the years 1 to 9999, which ISO 8601 cannot write, the number.
    """
    cdef int64_t days, of_day, shifted, era, of_era, of_year, of_march, year, month, day
    cdef char text[32]
    if not LEAST_TIME <= millis <= MOST_TIME:
        return str(millis)
    # Moved to the first of March of the year 0, so that nothing is negative.
    millis += 62162035200000
    days, of_day = millis // 86400000, millis % 86400000
    shifted = days
    era, of_era = shifted // 146097, shifted % 146097
    of_year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    day = of_era - (365 * of_year + of_year // 4 - of_year // 100)
    of_march = (5 * day + 2) // 153
    month = of_march + (3 if of_march < 10 else -9)
    year = of_year + era * 400 + (month <= 2)
    snprintf(
        text, sizeof(text), b"%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", <int> year, <int> month,
        <int> (day - (153 * of_march + 2) // 5 + 1), <int> (of_day // 3600000), <int> (of_day // 60000 % 60),
        <int> (of_day // 1000 % 60), <int> (of_day % 1000),
    )
    return PyUnicode_DecodeUTF8(text, 24, NULL)


def id_of(headers, str name, str first, bytes version):
    """Return the value of the header `name` inside the last block, which the header `first` begins; None without one.

    Nothing else of the block is read. None too if the block's version is another.
    """
    cdef Py_ssize_t index = len(headers) - 1
    found = None
    while index >= 0:
        header, value = headers[index]
        if header == name and found is None:
            found = value
        elif header == first:
            return found.decode(errors="replace") if found and value == version else None
        index -= 1
    return None


def start_of(headers, str first):
    """Return where the block begins: at the last header with the name `first`; -1 if there is none."""
    cdef Py_ssize_t index = len(headers) - 1
    while index >= 0:
        if headers[index][0] == first:
            return index
        index -= 1
    return -1


def read_block(headers, str first, bytes version, dict forms, frozenset ignored):
    """Return the fields of the last block, by name, and the record's own headers; None if there is no whole block.

    `first` is the name of the header that begins it, and `version` its value. Headers that no form has, and which are not
    to be `ignored`, are the record's own.
    """
    cdef Py_ssize_t start = start_of(headers, first)
    cdef Py_ssize_t index
    cdef Form form
    if start < 0 or headers[start][1] != version:
        return None
    cdef list own = list(headers[:start])
    cdef dict values = {}
    for index in range(start + 1, len(headers)):
        header = headers[index]
        name, value = header
        found = forms.get(name)
        if found is None:
            if name not in ignored:
                own.append(header)
            continue
        form = <Form> found
        if value is None or form.field in values:
            return None
        read = _value(form, value)
        if read is None:
            return None
        values[form.field] = read
    return values, tuple(own)


cdef class RowIndex:
    """The rows of ids, numbered as they come, in 8 bytes of each id's hash and some 6 of a table.

    64 bits of Python's keyed hash: the chance that any two ids of a million share them is 1 in 37 million.
    """

    # An open-addressing hash table of row numbers plus one; at most two thirds of it are used.
    cdef uint32_t* _table
    cdef uint64_t* _hashes
    cdef uint64_t _last
    cdef uint32_t _rows
    cdef uint32_t _room

    def __cinit__(self):
        self._last, self._rows, self._room = 1023, 0, 682
        self._table = <uint32_t*> calloc(self._last + 1, sizeof(uint32_t))
        self._hashes = <uint64_t*> calloc(self._room, sizeof(uint64_t))
        if self._table == NULL or self._hashes == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self._table)
        free(self._hashes)

    def row(self, str identity not None):
        """Return the row of an id; None if it has none."""
        cdef uint32_t found = self._table[self._slot(<uint64_t> <Py_hash_t> hash(identity))]
        return found - 1 if found else None

    def add(self, str identity not None):
        """Return the row of an id; a new one if it has none."""
        cdef uint64_t value = <uint64_t> <Py_hash_t> hash(identity)
        cdef uint64_t slot = self._slot(value)
        if self._table[slot]:
            return self._table[slot] - 1
        if self._rows == self._room:
            self._grow()
            slot = self._slot(value)
        self._hashes[self._rows] = value
        self._rows += 1
        self._table[slot] = self._rows
        return self._rows - 1

    cdef uint64_t _slot(self, uint64_t value) noexcept:
        """Return the slot of a hash, or the free slot for it."""
        cdef uint64_t slot = value & self._last
        while self._table[slot] and self._hashes[self._table[slot] - 1] != value:
            slot = (slot + 1) & self._last
        return slot

    cdef int _grow(self) except -1:
        """Double the table. At most 2,863,311,530 rows."""
        cdef uint64_t last = 2 * self._last + 1
        cdef uint32_t room = <uint32_t> ((last + 1) * 2 // 3)
        cdef uint32_t row
        cdef uint64_t* hashes
        cdef uint32_t* table
        if last >= 0xFFFFFFFF:
            raise MemoryError
        hashes = <uint64_t*> realloc(self._hashes, room * sizeof(uint64_t))
        if hashes == NULL:
            raise MemoryError
        self._hashes = hashes
        table = <uint32_t*> calloc(last + 1, sizeof(uint32_t))
        if table == NULL:
            raise MemoryError
        free(self._table)
        self._table, self._last, self._room = table, last, room
        for row in range(self._rows):
            self._table[self._slot(hashes[row])] = row + 1
        return 0
