# Part of `reader.pyx`: writes a vendor's items from plain payloads, without an object for the event or its fields.
#
# A vendor states its shape (`vendors.base.Shape`): for each field the JSON name, the kind, bounds, and what a missing
# value means. The vendor's own `encode` does all that the shape says, and alone raises refusals. Here only what is
# plain is written; the first record that is not ends the run and goes through `encode`. A property test holds both to
# the same bytes.
#
# A field is read in the writer's order and its JSON is put into `room`. The body takes these pieces in the shape's
# order, so the order of a writer's fields does not show.

cdef enum:
    MOST_FIELDS = 64
    LONG = 1
    TEXT = 2
    JSON = 3
    EMPTY = 4
    NEEDED = 0  # what a missing or empty value means: it is not plain,
    LEFT_OUT = 1  # the field is left out,
    DEDUP_ID = 2  # the dedup id is sent,
    DEFAULT = 3  # or a default
    ID_SIZE = 38  # a UUID as JSON text

_KINDS = {"long": LONG, "text": TEXT, "json": JSON, "empty": EMPTY}
_MISSING = {"needed": NEEDED, "left_out": LEFT_OUT, "dedup_id": DEDUP_ID, "default": DEFAULT}


cdef class Items:
    """Writes the items of one writer's schema for one vendor's shape: see `items_of`."""

    cdef list nodes  # the fields as they were written
    cdef list heads  # the fields as they are sent: `"name":`
    cdef list defaults  # of these, as JSON
    cdef list choices  # of these, as JSON; None where any string will do
    cdef int[MOST_FIELDS] place  # of each written field: its place among those that are sent, or -1
    cdef int[MOST_FIELDS] kind
    cdef int[MOST_FIELDS] missing
    cdef int fields, timed
    cdef int64_t past, future
    cdef bint expires
    cdef Py_ssize_t heads_size, room

    def __call__(self, list records not None, bytes prefix not None, bytes identity not None, int64_t now,
                 int64_t ahead, Py_ssize_t room, int64_t charge, item, make, tracker, bit):
        """Return deliveries of the first records, up to the one that is not plain.

        `prefix` is what their values begin with, `identity` what each one's identity begins with (its offset follows).
        `now` is epoch milliseconds, by a vendor's clock that is `ahead` of ours. `room` is the size of the largest
        item, `charge` the fixed charge of a delivery. `item` and `make` make an item and a delivery.
        """
        cdef list found = []
        cdef bytes value, body
        cdef Py_ssize_t start = PyBytes_GET_SIZE(prefix), needed
        cdef bytearray scratch = bytearray(4096)
        cdef Cursor cursor
        cdef int64_t moment
        for record in records:
            found_value, key = record.value, record.key
            if type(found_value) is not bytes or record.headers:
                break
            value = found_value
            begin(&cursor, value, 0)
            if cursor.end < start or memcmp(cursor.data, PyBytes_AS_STRING(prefix), start) != 0:
                break
            if cursor.end > LARGEST_JSON:
                break
            needed = GROWTH * cursor.end + self.room
            if len(scratch) < needed:
                scratch = bytearray(needed)
            cursor.at, cursor.out, cursor.size = start, <unsigned char*>scratch, 0
            name = b"%b%d" % (identity, record.offset)
            moment = 0
            try:
                body = self.body(&cursor, name, now, &moment)
            except Exception:
                break
            if body is None or cursor.at != cursor.end or PyBytes_GET_SIZE(body) > room:
                break
            size = charge + cursor.end + (0 if key is None else len(key)) + PyBytes_GET_SIZE(body)
            made = item(body, 1, None, moment + self.past - ahead if self.expires else None)
            found.append(make(record, tracker, bit, made, name.decode(), size))
        return found

    cdef bytes body(self, Cursor* cursor, bytes identity, int64_t now, int64_t* moment):
        """Return an item's body and move the cursor behind the payload; None where it is not plain."""
        cdef Py_ssize_t starts[MOST_FIELDS]
        cdef Py_ssize_t sizes[MOST_FIELDS]
        cdef int index, place
        cdef Py_ssize_t total = 2 + self.heads_size
        cdef Node node
        cdef bytes body, head, default
        cdef unsigned char* out
        spend(cursor, 1 + len(self.nodes))
        for place in range(self.fields):
            sizes[place] = 0
        for index in range(len(self.nodes)):
            node, place = <Node>self.nodes[index], self.place[index]
            if place < 0:
                node.read(cursor)
                continue
            if type(node) is _Union:
                node = <Node>(<_Union>node).branches[index_of(cursor, len((<_Union>node).branches))]
            starts[place] = cursor.size
            if not self.put_field(cursor, node, place, now, moment):
                return None
            sizes[place] = cursor.size - starts[place]
        for place in range(self.fields):
            if sizes[place] == 0 and self.missing[place] == DEDUP_ID:
                starts[place], sizes[place] = cursor.size, ID_SIZE
                put_id(cursor, identity)
            elif sizes[place] == 0 and self.missing[place] == DEFAULT:
                default = <bytes>self.defaults[place]
                starts[place], sizes[place] = cursor.size, PyBytes_GET_SIZE(default)
                put_all(cursor, PyBytes_AS_STRING(default), PyBytes_GET_SIZE(default))
            if sizes[place]:
                total += sizes[place] + 1
            elif self.missing[place] == NEEDED:
                return None
            else:
                total -= PyBytes_GET_SIZE(<bytes>self.heads[place])
        body = PyBytes_FromStringAndSize(NULL, total - 1)
        out = <unsigned char*>PyBytes_AS_STRING(body)
        out[0] = b"{"
        out += 1
        for place in range(self.fields):
            if sizes[place]:
                head = <bytes>self.heads[place]
                memcpy(out, PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head))
                out += PyBytes_GET_SIZE(head)
                memcpy(out, cursor.out + starts[place], sizes[place])
                out += sizes[place]
                out[0] = b","
                out += 1
        out[-1] = b"}"
        return body

    cdef bint put_field(self, Cursor* cursor, Node node, int place, int64_t now, int64_t* moment) except -1:
        """Write a field's value, nothing where it is missing; return 0 where it is not plain."""
        cdef int64_t number
        cdef Py_ssize_t start = cursor.size
        cdef int kind = self.kind[place]
        if type(node) is Node:
            return 1
        if kind == LONG:
            if type(node) is _Long:
                number = long_of(cursor)
            elif type(node) is _Int:
                number = int_of(cursor)
            elif type(node) is _Scaled:
                number = node.read(cursor)
            else:
                return 0
            if place == self.timed:
                if number > now + self.future or number < now - self.past:
                    return 0
                moment[0] = number
            put_long(cursor, number)
            return 1
        if kind == TEXT:
            if type(node) is not _String:
                return 0
            put_text(cursor)
            if cursor.size == start + 2:
                cursor.size = start
                return self.missing[place] != LEFT_OUT
            choices = self.choices[place]
            return choices is None or <bytes>cursor.out[start:cursor.size] in choices
        if cursor.at < cursor.end and cursor.data[cursor.at] == 0:
            cursor.at += 1
            return 1
        return kind == JSON and type(node) is _JsonMap and node.json(cursor)


def items_of(read, shape):
    """Return what writes the items of payloads that `read` decodes, in a vendor's shape; None where none are plain."""
    cdef Items items = Items()
    cdef _Record record
    if type(read) is not Read or type((<Read>read).root) is not _Record:
        return None
    record = <_Record>(<Read>read).root
    places = {field.name: place for place, field in enumerate(shape.fields)}
    if len(record.fields) > MOST_FIELDS or len(places) > MOST_FIELDS:
        return None
    defaults = record.defaults or {}
    if any(value not in (None, {}) for name, value in defaults.items() if name in places):
        return None
    items.nodes, items.heads = list(record.fields), [b'"%b":' % field.name.encode() for field in shape.fields]
    items.defaults = [dumps(field.default) for field in shape.fields]
    items.choices = [frozenset(map(dumps, field.choices)) or None for field in shape.fields]
    items.heads_size, items.fields = sum(map(len, items.heads)), len(places)
    # Next to the longest JSON of the values: what is sent where there are none.
    items.room = ROOM * MOST_FIELDS + sum(map(len, items.defaults))
    items.timed, items.past, items.future, items.expires = -1, shape.past, shape.future, shape.expires
    for place, field in enumerate(shape.fields):
        items.kind[place], items.missing[place] = _KINDS[field.kind], _MISSING[field.missing]
        if field.timed:
            items.timed = place
    for index, name in enumerate(record.names):
        items.place[index] = places.get(name, -1)
    return items


cdef inline uint32_t left(uint32_t value, int bits) noexcept:
    return (value << bits) | (value >> (32 - bits))


cdef void sha1_block(uint32_t* state, const unsigned char* data) noexcept:
    """Take 64 bytes into the state (RFC 3174, 6.1)."""
    cdef uint32_t w[80]
    cdef uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], mixed
    cdef int t
    for t in range(16):
        w[t] = (<uint32_t>data[4 * t] << 24 | <uint32_t>data[4 * t + 1] << 16
                | <uint32_t>data[4 * t + 2] << 8 | <uint32_t>data[4 * t + 3])
    for t in range(16, 80):
        w[t] = left(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1)
    for t in range(20):
        mixed = left(a, 5) + (d ^ (b & (c ^ d))) + e + w[t] + 0x5A827999U
        e = d; d = c; c = left(b, 30); b = a; a = mixed
    for t in range(20, 40):
        mixed = left(a, 5) + (b ^ c ^ d) + e + w[t] + 0x6ED9EBA1U
        e = d; d = c; c = left(b, 30); b = a; a = mixed
    for t in range(40, 60):
        mixed = left(a, 5) + ((b & c) | (d & (b | c))) + e + w[t] + 0x8F1BBCDCU
        e = d; d = c; c = left(b, 30); b = a; a = mixed
    for t in range(60, 80):
        mixed = left(a, 5) + (b ^ c ^ d) + e + w[t] + 0xCA62C1D6U
        e = d; d = c; c = left(b, 30); b = a; a = mixed
    state[0] += a
    state[1] += b
    state[2] += c
    state[3] += d
    state[4] += e


cdef bint put_id(Cursor* cursor, bytes identity) except -1:
    """Write the dedup id of an identity, as `records.uuid5_text` makes it, as JSON text."""
    cdef uint32_t state[5]
    cdef unsigned char block[64]
    cdef bytes message = DEDUP_NAMESPACE + identity
    cdef const unsigned char* data = <const unsigned char*>PyBytes_AS_STRING(message)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(message), at = 0
    cdef int index
    cdef unsigned char byte
    state[0], state[1], state[2], state[3], state[4] = 0x67452301U, 0xEFCDAB89U, 0x98BADCFEU, 0x10325476U, 0xC3D2E1F0U
    while size - at >= 64:
        sha1_block(state, data + at)
        at += 64
    memset(block, 0, 64)
    memcpy(block, data + at, size - at)
    block[size - at] = 0x80
    if size - at >= 56:
        sha1_block(state, block)
        memset(block, 0, 64)
    for index in range(8):
        block[63 - index] = <unsigned char>((<uint64_t>size * 8) >> (8 * index))
    sha1_block(state, block)
    put(cursor, b'"')
    for index in range(16):
        byte = <unsigned char>(state[index // 4] >> (24 - 8 * (index % 4)))
        if index == 6:
            byte = (byte & 0x0F) | 0x50
        elif index == 8:
            byte = (byte & 0x3F) | 0x80
        if index in (4, 6, 8, 10):
            put(cursor, b"-")
        put(cursor, HEX[byte >> 4])
        put(cursor, HEX[byte & 15])
    put(cursor, b'"')
    return 1


cdef const unsigned char* HEX = b"0123456789abcdef"
