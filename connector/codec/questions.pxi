# Part of `reader.pyx`: writes a query vendor's items from plain payloads, as `items.pxi` does for events.


cdef class Questions:
    """Makes items from one writer's schema for a vendor's `QuestionShape`."""

    cdef list groups  # of each branch of the union; None if its questions are not plain
    cdef object context

    def __call__(self, list records not None, bytes prefix not None, bytes identity not None, int64_t now,
                 int64_t ahead, Py_ssize_t room, int64_t charge, item, make, offer, tracker, bit):
        """Return offers for the leading plain records; see `Items`."""
        cdef list offers = [], found = None
        cdef bytes value, body
        cdef Py_ssize_t start = PyBytes_GET_SIZE(prefix)
        cdef Cursor cursor
        cdef int64_t number, size, total = 0
        cdef str own = identity.decode()
        group = None
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
            cursor.at = start
            try:
                name = text_of(&cursor)
                next_group = self.groups[index_of(&cursor, len(self.groups))]
                if next_group is None:
                    break
                number = long_of(&cursor)
            except Exception:
                break
            if number < 0 or cursor.at != cursor.end:
                break
            body = b"%d" % number
            if PyBytes_GET_SIZE(body) > room:
                break
            if found is None or next_group != group:
                if found is not None:
                    offers.append(offer(group, found, total))
                found, group, total = [], next_group, 0
            size = charge + cursor.end + (0 if key is None else len(key)) + PyBytes_GET_SIZE(body)
            total += size
            made = item(body, 1, number, None, self.context(name, group, number, (), now - ahead))
            found.append(make(record, tracker, bit, made, numbered(own, field_of(record, OFFSET)), size))
        if found is not None:
            offers.append(offer(group, found, total))
        return offers


def questions_of(read, shape):
    """Return an object that writes items from questions that `read` decodes; None if the schema has another form."""
    cdef Questions questions = Questions()
    cdef _Record record
    if type(read) is not Read or type((<Read>read).root) is not _Record:
        return None
    root = <_Record>(<Read>read).root
    if root.names != [shape.id, shape.query] or root.defaults is not None:
        return None
    if type(root.fields[0]) is not _String or type(root.fields[1]) is not _Union:
        return None
    groups, questions.groups, questions.context = dict(shape.groups), [], shape.context
    for branch in (<_Union>root.fields[1]).branches:
        group = None
        if type(branch) is _Named and type((<_Named>branch).record) is _Record:
            record = <_Record>(<_Named>branch).record
            if record.names == [shape.subject] and record.defaults is None and type(record.fields[0]) is _Long:
                group = groups.get((<_Named>branch).name)
        questions.groups.append(group)
    return questions
