# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Scans the columns of the index in C, so that a page about a million dead letters takes milliseconds.

Rows are numbers in arrays of type `I`. A column is an array of type `H`, `I`, `i` or `q` with an entry for each row.
"""

from array import array

from cpython cimport array as arrays
from libc.stdint cimport int64_t, uint64_t

cdef arrays.array _ROWS = array("I")


cdef inline int64_t _at(arrays.array column, char kind, Py_ssize_t row) noexcept:
    if kind == 72:  # H
        return column.data.as_ushorts[row]
    if kind == 73:  # I
        return column.data.as_uints[row]
    if kind == 105:  # i
        return column.data.as_ints[row]
    return column.data.as_longlongs[row]


cdef inline char _kind(arrays.array column):
    return <char> ord(column.typecode)


def merged(arrays.array order, arrays.array fresh, arrays.array failed):
    """Merge two orders of rows, each with the highest of `failed` first; of equal rows those of `fresh` come first."""
    cdef Py_ssize_t a = 0, b = 0, at = 0, of_a = len(fresh), of_b = len(order)
    cdef arrays.array out = arrays.clone(_ROWS, of_a + of_b, False)
    cdef unsigned int* new = fresh.data.as_uints
    cdef unsigned int* old = order.data.as_uints
    cdef long long* key = failed.data.as_longlongs
    while a < of_a or b < of_b:
        if b == of_b or (a < of_a and key[new[a]] >= key[old[b]]):
            out.data.as_uints[at] = new[a]
            a += 1
        else:
            out.data.as_uints[at] = old[b]
            b += 1
        at += 1
    return out


def below(arrays.array rows, Py_ssize_t begin, Py_ssize_t end, const unsigned char[:] states, int most):
    """Return the rows between two places whose state is below `most`."""
    cdef arrays.array out = arrays.clone(_ROWS, max(0, end - begin), False)
    cdef Py_ssize_t at, count = 0
    cdef unsigned int row
    for at in range(begin, end):
        row = rows.data.as_uints[at]
        if states[row] < most:
            out.data.as_uints[count] = row
            count += 1
    arrays.resize(out, count)
    return out


def equal(arrays.array rows, arrays.array column, int64_t number):
    """Return the rows that have this number in a column."""
    cdef arrays.array out = arrays.clone(_ROWS, len(rows), False)
    cdef Py_ssize_t at, count = 0
    cdef unsigned int row
    cdef char kind = _kind(column)
    for at in range(len(rows)):
        row = rows.data.as_uints[at]
        if _at(column, kind, row) == number:
            out.data.as_uints[count] = row
            count += 1
    arrays.resize(out, count)
    return out


def judged(arrays.array rows, arrays.array noted, const unsigned char[:] verdicts, int verdict):
    """Return the rows with this verdict; `noted` maps rows to verdicts."""
    cdef arrays.array out = arrays.clone(_ROWS, len(rows), False)
    cdef Py_ssize_t at, count = 0
    cdef unsigned int row
    for at in range(len(rows)):
        row = rows.data.as_uints[at]
        if verdicts[noted.data.as_uints[row]] == verdict:
            out.data.as_uints[count] = row
            count += 1
    arrays.resize(out, count)
    return out


def tally(arrays.array rows, arrays.array column, Py_ssize_t texts):
    """Return how many rows have each number of a column of type `H`, whose numbers are below `texts`."""
    cdef arrays.array out = arrays.clone(_ROWS, texts, True)
    cdef Py_ssize_t at
    for at in range(len(rows)):
        out.data.as_uints[column.data.as_ushorts[rows.data.as_uints[at]]] += 1
    return out


def bins(arrays.array rows, arrays.array failed, arrays.array cause, int64_t first, int64_t width, Py_ssize_t number):
    """Return, for each number of `cause`, how many rows failed in each bin of this width."""
    cdef Py_ssize_t at
    cdef unsigned int row
    cdef uint64_t place
    cdef dict found = {}
    cdef arrays.array counts = None
    cdef int last = -1
    for at in range(len(rows)):
        row = rows.data.as_uints[at]
        if failed.data.as_longlongs[row] < first:
            continue
        # Unsigned, because the difference of two times may exceed a signed number of 64 bits.
        place = (<uint64_t>failed.data.as_longlongs[row] - <uint64_t>first) // <uint64_t>width
        if place >= <uint64_t>number:
            continue
        if cause.data.as_ushorts[row] != last:
            last = cause.data.as_ushorts[row]
            counts = found.get(last)
            if counts is None:
                counts = found[last] = arrays.clone(_ROWS, number, True)
        counts.data.as_uints[place] += 1
    return found


def kinds(arrays.array rows, arrays.array failed, arrays.array cause, arrays.array code, arrays.array destination):
    """Return the rows by the numbers of three columns: how many, and the first and last time. Rows come newest first."""
    cdef Py_ssize_t at
    cdef unsigned int row
    cdef unsigned long long kind, last = 0
    cdef dict found = {}
    cdef arrays.array numbers = None
    cdef arrays.array empty = array("q", [0, 0, 0])
    for at in range(len(rows)):
        row = rows.data.as_uints[at]
        kind = cause.data.as_ushorts[row]
        kind = (kind << 16 | code.data.as_ushorts[row]) << 16 | destination.data.as_ushorts[row]
        if numbers is None or kind != last:
            last = kind
            numbers = found.get(kind)
            if numbers is None:
                numbers = found[kind] = arrays.copy(empty)
                numbers.data.as_longlongs[2] = failed.data.as_longlongs[row]
        numbers.data.as_longlongs[0] += 1
        numbers.data.as_longlongs[1] = failed.data.as_longlongs[row]
    return [
        ((kind >> 32, kind >> 16 & 65535, kind & 65535), numbers.tolist()) for kind, numbers in found.items()
    ]
