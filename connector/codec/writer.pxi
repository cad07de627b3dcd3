# Part of `reader.pyx`: writes data of the connector's own schemas as Avro, for the results of query vendors and for exports.
#
# fastavro writes everything else, and is the reference: a schema with a form that is not here has no native writer, and
# a datum that is not of the plain Python types raises `Unwritten`, so that fastavro judges it.


class Unwritten(Exception):
    """This datum is left to fastavro."""


cdef struct Output:
    unsigned char* data
    Py_ssize_t size
    Py_ssize_t room


cdef bint reserve(Output* out, Py_ssize_t more) except -1:
    """Make room for so many bytes."""
    cdef void* moved
    if out.size + more <= out.room:
        return 1
    out.room = 2 * (out.size + more)
    moved = PyMem_Realloc(out.data, out.room)
    if moved == NULL:
        raise MemoryError
    out.data = <unsigned char*>moved
    return 1


cdef bint write_long(Output* out, int64_t number) except -1:
    """Write a number as a variable-length zigzag number of 64 bits."""
    cdef uint64_t rest = (<uint64_t>number << 1) ^ <uint64_t>(number >> 63)
    reserve(out, 10)
    while rest > 127:
        out.data[out.size] = <unsigned char>(rest & 127 | 128)
        out.size += 1
        rest >>= 7
    out.data[out.size] = <unsigned char>rest
    out.size += 1
    return 1


cdef bint write_sized(Output* out, const char* data, Py_ssize_t size) except -1:
    """Write bytes after their length."""
    write_long(out, size)
    reserve(out, size)
    memcpy(out.data + out.size, data, size)
    out.size += size
    return 1


cdef bint write_text(Output* out, datum) except -1:
    cdef Py_ssize_t size
    cdef const char* text
    if type(datum) is not str:
        raise Unwritten
    text = PyUnicode_AsUTF8AndSize(datum, &size)
    return write_sized(out, text, size)


cdef class Form:
    """Writes data of one node of a schema. The base class is null."""

    cdef bint write(self, Output* out, datum) except -1:
        if datum is not None:
            raise Unwritten
        return 1


cdef class _LongForm(Form):
    cdef bint write(self, Output* out, datum) except -1:
        if type(datum) is not int:
            raise Unwritten
        return write_long(out, datum)


cdef class _IntForm(Form):
    cdef bint write(self, Output* out, datum) except -1:
        if type(datum) is not int or not -0x80000000 <= datum <= 0x7FFFFFFF:
            raise Unwritten
        return write_long(out, datum)


cdef class _BytesForm(Form):
    cdef bint write(self, Output* out, datum) except -1:
        if type(datum) is not bytes:
            raise Unwritten
        return write_sized(out, PyBytes_AS_STRING(datum), PyBytes_GET_SIZE(datum))


cdef class _TextForm(Form):
    cdef bint write(self, Output* out, datum) except -1:
        return write_text(out, datum)


cdef class _EnumForm(Form):
    cdef dict symbols

    def __init__(self, symbols):
        self.symbols = {symbol: index for index, symbol in enumerate(symbols)}

    cdef bint write(self, Output* out, datum) except -1:
        if type(datum) is not str:
            raise Unwritten
        return write_long(out, self.symbols[datum])


cdef class _MapForm(Form):
    cdef Form values

    def __init__(self, Form values):
        self.values = values

    cdef bint write(self, Output* out, datum) except -1:
        if type(datum) is not dict:
            raise Unwritten
        if datum:
            write_long(out, len(datum))
            for name, value in (<dict>datum).items():
                write_text(out, name)
                self.values.write(out, value)
        return write_long(out, 0)


cdef class _ArrayForm(Form):
    cdef Form items

    def __init__(self, Form items):
        self.items = items

    cdef bint write(self, Output* out, datum) except -1:
        if type(datum) is not list and type(datum) is not tuple:
            raise Unwritten
        if len(datum):
            write_long(out, len(datum))
            for item in datum:
                self.items.write(out, item)
        return write_long(out, 0)


cdef class _UnionForm(Form):
    """A union of simple types with distinct Python types: the datum's type determines the branch."""

    cdef list forms
    cdef dict indexes

    def __init__(self, branches):
        self.forms = [_FORMS[branch] for branch in branches]
        self.indexes = {_TYPES[branch]: index for index, branch in enumerate(branches)}

    cdef bint write(self, Output* out, datum) except -1:
        index = self.indexes.get(type(datum))
        if index is None:
            raise Unwritten
        write_long(out, index)
        return (<Form>self.forms[index]).write(out, datum)


cdef class _RecordForm(Form):
    """A record: a dictionary, or a tuple of the fields' values in order."""

    cdef list names, forms

    def __init__(self, names, forms):
        self.names, self.forms = names, forms

    cdef bint write(self, Output* out, datum) except -1:
        cdef Py_ssize_t index
        cdef bint by_name = type(datum) is dict
        # A field that is missing may have a default.
        if not (by_name or type(datum) is tuple) or len(datum) != len(self.names):
            raise Unwritten
        for index in range(len(self.names)):
            (<Form>self.forms[index]).write(out, datum[self.names[index]] if by_name else (<tuple>datum)[index])
        return 1


cdef class Written:
    """Encodes data of one schema: see `writer_of`."""

    cdef Form form

    def __call__(self, datum):
        cdef Output out
        out.data, out.size, out.room = NULL, 0, 0
        try:
            reserve(&out, 512)
            self.form.write(&out, datum)
            return PyBytes_FromStringAndSize(<const char*>out.data, out.size)
        finally:
            PyMem_Free(out.data)


def writer_of(tree):
    """Return a `Written` for data of a schema, or None if the schema is left to fastavro.

    It takes plain Python values with every field of a record present, and raises anything for others.
    """
    cdef Written written = Written()
    form = _form(tree)
    written.form = form
    return None if form is None else written


def _form(tree):
    if isinstance(tree, list):
        simple = all(isinstance(branch, str) and branch in _FORMS for branch in tree)
        return _UnionForm(tree) if simple and len({_TYPES[branch] for branch in tree}) == len(tree) else None
    if isinstance(tree, str):
        return _FORMS.get(tree)
    kind = tree["type"]
    if kind in RECORDS:
        forms = [_form(field["type"]) for field in tree["fields"]]
        return None if None in forms else _RecordForm([field["name"] for field in tree["fields"]], forms)
    if kind == "enum":
        return _EnumForm(tree["symbols"])
    if kind == "map":
        values = _form(tree["values"])
        return None if values is None else _MapForm(values)
    if kind == "array":
        items = _form(tree["items"])
        return None if items is None else _ArrayForm(items)
    # A point in time is written as its plain number.
    if tree.get("logicalType", "timestamp-millis") != "timestamp-millis":
        return None
    return _form(kind) if isinstance(kind, str) else None


_FORMS = {"null": Form(), "int": _IntForm(), "long": _LongForm(), "bytes": _BytesForm(), "string": _TextForm()}
_TYPES = {"null": type(None), "int": int, "long": int, "bytes": bytes, "string": str}
