# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The text of a UUID, in C: every record has one."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeASCII

cdef const char* HEXADECIMAL = b"0123456789abcdef"


def uuid5_of(namespace, str name not None):
    """Return the UUIDv5 of a name (RFC 9562, 5.5) as text; `namespace` is SHA-1 that has seen the namespace's bytes."""
    cdef bytes digest
    cdef const unsigned char* data
    cdef unsigned char byte
    cdef char text[36]
    cdef int index, at = 0
    sha1 = namespace.copy()
    sha1.update(name.encode())
    digest = sha1.digest()
    data = <const unsigned char*>PyBytes_AS_STRING(digest)
    if PyBytes_GET_SIZE(digest) != 20:
        raise ValueError("no SHA-1")
    for index in range(16):
        byte = data[index]
        if index == 6:
            byte = (byte & 0x0F) | 0x50
        elif index == 8:
            byte = (byte & 0x3F) | 0x80
        if index in (4, 6, 8, 10):
            text[at] = b"-"
            at += 1
        text[at] = HEXADECIMAL[byte >> 4]
        text[at + 1] = HEXADECIMAL[byte & 15]
        at += 2
    return PyUnicode_DecodeASCII(text, 36, NULL)
