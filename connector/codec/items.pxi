# Part of `reader.pyx`: writes a vendor's items from plain payloads, without an object for the event or its fields.
# A vendor states its shape (`vendors.base.Shape`): for each field the JSON name, the kind, bounds, and what a missing
# value means. The vendor's own `encode` does all that the shape says, and alone raises refusals. Here only what is
# plain is written; the first record that is not ends the run and goes through `encode`. A property test holds both to
# the same bytes.
#
# A field is read in the writer's order and its JSON is put into `room`. The body takes these pieces in the shape's
# order, so the order of a writer's fields does not show. The fields are those of the contract schema, or the sources
# that a route maps to them (`vendors.base.ShapeMapping`).

cdef enum:
    MOST_FIELDS = 64
    MOST_WRITTEN = 256
    LONG = 1
    TEXT = 2
    JSON = 3
    TEXTS = 4
    EMPTY = 5
    NEEDED = 0  # what a missing or empty value means: it is not plain,
    LEFT_OUT = 1  # the field is left out,
    DEDUP_ID = 2  # the dedup id is sent,
    DEFAULT = 3  # or a default,
    RECORD_SECONDS = 4  # or the record's timestamp in seconds if it is within the bounds
    UNUSED = -1  # instead of a field's index: the value is read and not used,
    GROUP = -2  # it is the group,
    IDENTITY = -3  # it is the event's own id,
    BELOW = -4  # it is a record with such fields,
    CONDITION = -5  # it is compared; the next condition has the number below
    AS_WRITTEN = 0  # what happens to a number: nothing,
    TO_MILLIS = 1  # it becomes milliseconds
    TO_SECONDS = 2  # or seconds

_KINDS = {"long": LONG, "text": TEXT, "json": JSON, "texts": TEXTS, "empty": EMPTY}
_MISSING = {
    "needed": NEEDED,
    "left_out": LEFT_OUT,
    "dedup_id": DEDUP_ID,
    "default": DEFAULT,
    "record_seconds": RECORD_SECONDS,
}
_MAPPED = {
    LONG: {"long", "millis", "seconds"},
    TEXT: {"string"},
    JSON: {"map"},
    TEXTS: {"string_map"},
    EMPTY: {"strings", "records", "string_records"},
}
"""The types of mapped fields that can be converted here, by the kind that is written."""
_TIMES = {"millis": TO_MILLIS, "seconds": TO_SECONDS}

cdef int64_t FIRST_SECOND = -62135596800  # of the year 1, as in `routing.conversions`
cdef int64_t LAST_SECOND = 253402300799  # of the year 9999


cdef Py_ssize_t slot(kind, str name) except -1:
    """Return where a record keeps a field: reading it there costs a tenth of a look-up by name."""
    cdef Py_ssize_t place = place_of_slot(getattr(kind, name))
    if place < 0:
        raise TypeError(f"{name} is not a slot of {kind}")
    return place


cdef Py_ssize_t OFFSET = slot(Record, "offset")
cdef Py_ssize_t TIMESTAMP = slot(Record, "timestamp")
cdef Py_ssize_t KEY = slot(Record, "key")
cdef Py_ssize_t VALUE = slot(Record, "value")
cdef Py_ssize_t HEADERS = slot(Record, "headers")


cdef inline object field_of(record, Py_ssize_t place):
    """Return a field of a record, by its slot."""
    cdef PyObject* field = (<PyObject**>(<char*><PyObject*>record + place))[0]
    if field is NULL:
        raise AttributeError("a record without one of its fields")
    return <object>field


cdef str numbered(str text, number):
    """Return a text with a number that is not negative after it: as formatting does, in half of the time."""
    cdef unsigned char digits[20]
    cdef int first = 20
    cdef uint64_t rest = number
    cdef Py_ssize_t size = len(text)
    if not PyUnicode_IS_ASCII(text):
        return f"{text}{number}"
    while True:
        first -= 1
        digits[first] = 48 + rest % 10
        rest //= 10
        if rest == 0:
            break
    made = PyUnicode_New(size + 20 - first, 127)
    memcpy(PyUnicode_DATA(made), PyUnicode_DATA(text), size)
    memcpy(<char*>PyUnicode_DATA(made) + size, &digits[first], 20 - first)
    return made


cdef struct Found:
    # The state of one record's fields.
    Py_ssize_t starts[MOST_FIELDS]
    Py_ssize_t sizes[MOST_FIELDS]  # 0: missing
    int64_t moment  # the timed field
    int group
    Py_ssize_t id_start  # where the event's own id is in the payload
    Py_ssize_t id_size
    int conditions  # that are met


cdef class _Level:
    """The fields of one record of the writer's schema, and what to do with each."""

    cdef list nodes, below
    cdef int[MOST_WRITTEN] place


cdef class Items:
    """Writes the items of one writer's schema for one vendor's shape: see `items_of`."""

    cdef _Level top
    cdef list heads  # the fields as they are sent: `"name":`
    cdef list defaults  # of these, as JSON; None if there is none
    cdef list choices  # of these, as JSON; None if any string will do
    cdef list conditions  # the texts that each condition accepts
    cdef dict groups  # the places of the groups, by name
    cdef list group_names
    cdef list needs  # for each group: bits of fields of which at least one must be present
    cdef list without  # for each group: bits of fields that must be absent
    cdef int[MOST_FIELDS] kind
    cdef int[MOST_FIELDS] missing
    cdef int[MOST_FIELDS] unit  # what happens to a number: `AS_WRITTEN`, or it becomes a time
    cdef int[MOST_FIELDS] times  # a plain number that becomes a time is multiplied by this first,
    cdef int[MOST_FIELDS] parts  # then divided by this
    cdef int[MOST_FIELDS] compared  # 1 if a condition applies to the field too: its texts are the choices
    cdef int compares, identity  # how many conditions there are; the field that is the event's own id too, or -1
    cdef int64_t[MOST_FIELDS] least
    cdef int64_t[MOST_FIELDS] most
    cdef int fields, timed, only_group
    cdef bint mapped
    cdef int64_t past, future
    cdef bint expires
    cdef Py_ssize_t heads_size, room

    def __call__(self, list records not None, bytes prefix not None, bytes identity not None, int64_t now,
                 int64_t ahead, Py_ssize_t room, int64_t charge, item, make, offer, tracker, bit):
        """Return offers for the leading plain records: one offer for each run of a group.

        `prefix` is what their values begin with, `identity` what each one's identity begins with (its offset follows).
        `now` is epoch milliseconds by the vendor's clock; items expire `ahead` milliseconds sooner by ours. `room` is
        the size of the largest item, `charge` the fixed charge of a delivery. `item`, `make` and `offer` make an item, a delivery, an offer.
        """
        cdef list offers = [], found = None
        cdef bytes value, body
        cdef str name, position = identity.decode()
        cdef Py_ssize_t start = PyBytes_GET_SIZE(prefix), needed
        cdef bytearray scratch = bytearray(4096)
        cdef Cursor cursor
        cdef Found fields
        cdef int group = -1
        cdef int64_t size, total = 0
        for record in records:
            if type(record) is not Record:
                break
            found_value, key = field_of(record, VALUE), field_of(record, KEY)
            if type(found_value) is not bytes or field_of(record, HEADERS):
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
            try:
                if not self.read(&cursor, &fields, now):
                    break
                if fields.id_size:
                    name = "id:" + value[fields.id_start : fields.id_start + fields.id_size].decode()
                else:
                    name = numbered(position, field_of(record, OFFSET))
                body = self.body(&cursor, &fields, name, field_of(record, TIMESTAMP))
            except Exception:
                break
            if body is None or PyBytes_GET_SIZE(body) > room:
                break
            if found is None or fields.group != group:
                if found is not None:
                    offers.append(offer(self.group_names[group], found, total))
                found, group, total = [], fields.group, 0
            size = charge + cursor.end + (0 if key is None else len(key)) + PyBytes_GET_SIZE(body)
            total += size
            made = item(body, 1, None, fields.moment + self.past - ahead if self.expires else None)
            found.append(make(record, tracker, bit, made, name, size))
        if found is not None:
            offers.append(offer(self.group_names[group], found, total))
        return offers

    cdef bint read(self, Cursor* cursor, Found* found, int64_t now) except -1:
        """Read a payload and write its values; return 0, with the cursor anywhere, if it is not plain."""
        cdef int place
        for place in range(self.fields):
            found.sizes[place] = 0
        found.moment, found.group, found.id_size, found.conditions = 0, self.only_group, 0, 0
        if not self.fields_of(cursor, found, self.top, now):
            return 0
        return cursor.at == cursor.end and found.group >= 0 and found.conditions == self.compares

    cdef bint fields_of(self, Cursor* cursor, Found* found, _Level level, int64_t now) except -1:
        """Read a record's fields; return 0 if one of them is not plain."""
        cdef int index, place
        cdef Node node
        # Count as `_Record.read` does, so that both ways refuse the same payloads as too large.
        spend(cursor, 1 + len(level.nodes))
        open_container(cursor)
        cursor.levels += 1
        for index in range(len(level.nodes)):
            node, place = <Node>level.nodes[index], level.place[index]
            if place == UNUSED:
                node.read(cursor)
                continue
            if type(node) is _Union:
                node = <Node>(<_Union>node).branches[index_of(cursor, len((<_Union>node).branches))]
            if place >= 0:
                found.starts[place] = cursor.size
                if not self.put_field(cursor, found, node, place, now):
                    return 0
                found.sizes[place] = cursor.size - found.starts[place]
            elif place == BELOW:
                # Without the record all of its fields are missing.
                if type(node) is not Node and not self.fields_of(cursor, found, <_Level>level.below[index], now):
                    return 0
            elif not self.take_field(cursor, found, node, place):
                return 0
        cursor.levels -= 1
        return 1

    cdef bint take_field(self, Cursor* cursor, Found* found, Node node, int place) except -1:
        """Read a value that is not sent: a group, an id, or what is compared; return 0 if it is not plain."""
        if place == IDENTITY:
            if type(node) is Node:
                return 1
            if type(node) is not _String:
                return 0
            found.id_size = long_of(cursor)
            found.id_start = take(cursor, found.id_size)
            PyUnicode_DecodeUTF8(<const char*>cursor.data + found.id_start, found.id_size, NULL)
            return 1
        if type(node) not in (_String, _Enum, _Symbols):
            return 0
        text = node.read(cursor)
        if place == GROUP:
            found.group = self.groups.get(text, -1)
            return found.group >= 0
        found.conditions += 1
        return text in self.conditions[CONDITION - place]

    cdef bytes body(self, Cursor* cursor, Found* found, str identity, int64_t timestamp):
        """Return an item's body; None if the fields together are not plain."""
        cdef int place
        cdef Py_ssize_t total = 2 + self.heads_size
        cdef bytes body, head
        cdef unsigned char* out
        cdef uint64_t present = 0
        for place in range(self.fields):
            if found.sizes[place] == 0:
                found.starts[place] = cursor.size
                self.put_missing(cursor, place, identity, timestamp)
                found.sizes[place] = cursor.size - found.starts[place]
            if found.sizes[place]:
                total += found.sizes[place] + 1
                present |= <uint64_t>1 << place
            elif self.missing[place] == NEEDED:
                return None
            else:
                total -= PyBytes_GET_SIZE(<bytes>self.heads[place])
        if present & <uint64_t>self.without[found.group]:
            return None
        for needed in self.needs[found.group]:
            if not present & <uint64_t>needed:
                return None
        body = PyBytes_FromStringAndSize(NULL, total - 1)
        out = <unsigned char*>PyBytes_AS_STRING(body)
        out[0] = b"{"
        out += 1
        for place in range(self.fields):
            if found.sizes[place]:
                head = <bytes>self.heads[place]
                memcpy(out, PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head))
                out += PyBytes_GET_SIZE(head)
                memcpy(out, cursor.out + found.starts[place], found.sizes[place])
                out += found.sizes[place]
                out[0] = b","
                out += 1
        out[-1] = b"}"
        return body

    cdef bint put_missing(self, Cursor* cursor, int place, str identity, int64_t timestamp) except -1:
        """Write what is sent for a field without a value; nothing if it is left out."""
        cdef bytes default
        cdef int missing = self.missing[place]
        if missing == DEDUP_ID:
            put_id(cursor, identity, HAS_SHA1_INSTRUCTIONS)
        elif missing == RECORD_SECONDS:
            if self.least[place] <= floor_divided(timestamp, 1000) <= self.most[place]:
                put_long(cursor, floor_divided(timestamp, 1000))
        elif self.defaults[place] is not None:
            default = <bytes>self.defaults[place]
            put_all(cursor, PyBytes_AS_STRING(default), PyBytes_GET_SIZE(default))
        return 1

    cdef bint put_field(self, Cursor* cursor, Found* found, Node node, int place, int64_t now) except -1:
        """Write a field's value, or nothing if it is missing; return 0 if it is not plain."""
        cdef int64_t number = 0
        cdef Py_ssize_t start = cursor.size
        cdef int kind = self.kind[place]
        if type(node) is Node:
            return 1
        if kind == LONG:
            if not self.number_of(cursor, node, place, &number):
                return 0
            if number < self.least[place] or number > self.most[place]:
                return 0
            if place == self.timed:
                if number > now + self.future or number < now - self.past:
                    return 0
                found.moment = number
            put_long(cursor, number)
            return 1
        if kind == TEXT:
            if type(node) is _String:
                number = long_of(cursor)
                if place == self.identity:
                    found.id_start, found.id_size = cursor.at, number
                number = put_chars(cursor, take(cursor, number), number)
                if number == 0:
                    cursor.size = start
                    return self.missing[place] != LEFT_OUT and self.choices[place] is None
            elif not self.mapped or place == self.identity or self.choices[place] is not None:
                return 0
            elif type(node) is _Enum:
                text = node.read(cursor)
                put_value(cursor, text)
                number = len(text)
            elif type(node) in (_Long, _Int):
                put(cursor, b'"')
                put_long(cursor, long_of(cursor) if type(node) is _Long else int_of(cursor))
                put(cursor, b'"')
                number = cursor.size - start - 2
            else:
                return 0
            if number < self.least[place] or number > self.most[place]:
                return 0
            choices = self.choices[place]
            found.conditions += self.compared[place]
            return choices is None or <bytes>cursor.out[start:cursor.size] in choices
        if not (type(node) is _Array if kind == EMPTY else isinstance(node, _Map)):
            return 0
        if type(node) is not _JsonMap:
            open_container(cursor)
        if cursor.at < cursor.end and cursor.data[cursor.at] == 0:
            cursor.at += 1
            return 1
        if kind == EMPTY:
            return 0
        return put_map(
            cursor, (<_Map>node).values, 1, self.most[place] if kind == TEXTS else ANY_VALUES, self.mapped
        )

    cdef bint number_of(self, Cursor* cursor, Node node, int place, int64_t* number) except -1:
        """Read a whole number, or a point in time; return 0 if it is neither."""
        cdef int unit = self.unit[place]
        cdef int64_t written, parts
        if type(node) is _Scaled:
            number[0] = node.read(cursor)
            return 1
        if type(node) is _Logical:
            parts = _A_SECOND.get((<_Logical>node).kind.name, 0)
            if unit == AS_WRITTEN or parts == 0 or type((<_Logical>node).written) is not _Long:
                return 0
            written = long_of(cursor)
            number[0] = floor_divided(written, parts)
            if not FIRST_SECOND <= number[0] <= LAST_SECOND:
                return 0
            if unit == TO_MILLIS:
                number[0] = floor_divided(written, parts // 1000)
            return 1
        if type(node) is _Long:
            written = long_of(cursor)
        elif type(node) is _Int:
            written = int_of(cursor)
        else:
            return 0
        if self.times[place] != 1 and not -MOST_SECONDS < written < MOST_SECONDS:
            return 0
        number[0] = floor_divided(written * self.times[place], self.parts[place])
        return 1


cdef int64_t MOST_SECONDS = 9000000000000000  # times a thousand is a number of 64 bits


cdef inline int64_t floor_divided(int64_t number, int64_t by) noexcept:
    """Divide as Python does: towards the lower number."""
    cdef int64_t found = number // by
    return found - 1 if found * by > number else found


def items_of(read, shape, mapping=None):
    """Return an `Items` that writes a vendor's items from payloads that `read` decodes; None if none can be plain.

    Without a `mapping` (`vendors.base.ShapeMapping`) the payloads are the vendor's contract schema's.
    """
    cdef Items items = Items()
    if type(read) is not Read or type((<Read>read).root) is not _Record or len(shape.fields) > MOST_FIELDS:
        return None
    root = <_Record>(<Read>read).root
    places = {field.name: place for place, field in enumerate(shape.fields)}
    items.mapped = mapping is not None
    items.heads = [b'"%b":' % field.name.encode() for field in shape.fields]
    items.defaults = [dumps(field.default) if field.missing == "default" else None for field in shape.fields]
    items.choices = [frozenset(map(dumps, field.choices)) or None for field in shape.fields]
    items.heads_size, items.fields = sum(map(len, items.heads)), len(places)
    items.timed, items.past, items.future, items.expires = -1, shape.past, shape.future, shape.expires
    items.groups = {group.name: index for index, group in enumerate(shape.groups)}
    items.group_names = [*items.groups] or [None]
    items.only_group = -1 if shape.groups else 0
    items.needs = [[_bits(places, names) for names in group.one_of] for group in shape.groups] or [[]]
    items.without = [_bits(places, group.without) for group in shape.groups] or [0]
    items.conditions, items.compares, items.identity = [], 0, -1
    for place, field in enumerate(shape.fields):
        items.kind[place], items.missing[place] = _KINDS[field.kind], _MISSING[field.missing]
        items.least[place] = INT64_MIN if field.least is None else field.least
        items.most[place] = INT64_MAX if field.most is None else field.most
        if field.kind == "texts" and field.most is None:
            items.most[place] = 0
        items.unit[place] = AS_WRITTEN
        items.times[place] = items.parts[place] = 1
        items.compared[place] = 0
        if field.timed:
            items.timed = place
    if mapping is None:
        wanted = {(name,): places.get(name, GROUP if name == shape.group else UNUSED) for name in root.names}
        defaults = root.defaults or {}
        if any(value not in (None, {}, []) for name, value in defaults.items() if name in places):
            return None
    else:
        wanted = _sources(items, shape, mapping, places)
    items.top = None if wanted is None else _level(items, root, (), wanted)
    if items.top is None or wanted and mapping is not None:
        return None
    # In addition to the longest JSON of the values: what is sent for missing ones.
    items.room = ROOM * MOST_FIELDS + sum(len(default or b"") for default in items.defaults)
    return items


def _bits(places, names):
    return sum(1 << places[name] for name in names)


def _sources(Items items, shape, mapping, places):
    """Return the place of each source's path; None if a source gives no plain value, or two have one path."""
    cdef int place
    wanted = {}
    for source in mapping.sources:
        place = GROUP if source.field == shape.group else places.get(source.field, UNUSED)
        if place == UNUSED or source.path in wanted:
            return None
        wanted[source.path] = place
        if place >= 0 and source.type not in _MAPPED[items.kind[place]]:
            # `any` keeps a string as it is, and a number too: only with choices are numbers left alone.
            if source.type != "any" or items.kind[place] != TEXT or items.choices[place] is None:
                return None
        if place >= 0 and source.type in _TIMES:
            items.unit[place] = _TIMES[source.type]
            items.times[place] = 1000 if (source.type, source.unit) == ("millis", "s") else 1
            items.parts[place] = 1000 if (source.type, source.unit) == ("seconds", "ms") else 1
    for name, value in mapping.constants:
        if name == shape.group:
            if value not in items.groups:
                return None
            items.only_group = items.groups[value]
            continue
        place = places.get(name, UNUSED)
        if place == UNUSED or items.kind[place] != TEXT or type(value) is not str or not value:
            return None
        if not items.least[place] <= len(value) <= items.most[place]:
            return None
        if items.choices[place] is not None and dumps(value) not in items.choices[place]:
            return None
        items.defaults[place], items.missing[place] = dumps(value), DEFAULT
    for path, accepted in mapping.conditions:
        items.compares += 1
        place = wanted.get(path, UNUSED)
        if place == UNUSED:
            wanted[path] = CONDITION - len(items.conditions)
            items.conditions.append(accepted)
        elif place >= 0 and items.kind[place] == TEXT and items.choices[place] is None:
            items.compared[place], items.choices[place] = 1, frozenset(map(dumps, accepted))
        else:
            return None
    if mapping.identity is not None:
        items.identity = wanted.setdefault(mapping.identity, IDENTITY)
        if items.identity != IDENTITY and (items.identity < 0 or items.kind[items.identity] != TEXT):
            return None
    return wanted


def _level(Items items, _Record record, tuple path, dict wanted):
    """Return what to do with a record's fields, and remove their paths from `wanted`; None if none are plain."""
    cdef _Level level = _Level()
    cdef Node node
    if len(record.names) > MOST_WRITTEN:
        return None
    level.nodes, level.below = list(record.fields), [None] * len(record.fields)
    for index, name in enumerate(record.names):
        own = (*path, name)
        node = <Node>record.fields[index]
        level.place[index] = wanted.pop(own, UNUSED)
        if level.place[index] != UNUSED:
            if items.mapped and not _may_be_plain(items, node, level.place[index]):
                return None
        elif any(other[: len(own)] == own for other in wanted):
            inner = [branch for branch in _branches(node) if type(branch) is not Node]
            if len(inner) != 1 or type(inner[0]) is not _Record or (<_Record>inner[0]).defaults is not None:
                return None
            level.place[index], level.below[index] = BELOW, _level(items, inner[0], own, wanted)
            if level.below[index] is None:
                return None
    return level


cdef list _branches(Node node):
    return (<_Union>node).branches if type(node) is _Union else [node]


def _may_be_plain(Items items, Node node, int place):
    """Return whether a mapped source can have plain values at all. If not, trying each record would be in vain."""
    if place < 0:
        return any(type(branch) in (_String, _Enum) for branch in _branches(node))
    kinds = {
        LONG: (_Long, _Int, _Logical) if items.unit[place] else (_Long, _Int),
        TEXT: (_String, _Enum, _Long, _Int),
        JSON: (_Map,),
        TEXTS: (_Map,),
        EMPTY: (_Array,),
    }
    return any(type(branch) in kinds[items.kind[place]] for branch in _branches(node))
