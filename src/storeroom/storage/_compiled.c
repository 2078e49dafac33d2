/* What operations on many entries do with each of them, compiled: see batches.py.

Each function here takes up what happens with almost every key, value and record: texts, and frames that need no
serializer. It leaves the others to Python: all of them, by returning None, or each by itself. No code of a program's
runs meanwhile, but for what a garbage collection may run where a container is made: so whatever is in use is held, and
each list or dict is looked at anew. The functions in Python, in batches.py and where that is turned to, are the equals
of these. See docs/decisions/0025-compiled-hits.md. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include "joined.h"

#ifdef Py_GIL_DISABLED
#error "This file relies on the interpreter's lock; a build without it keeps the functions in Python."
#endif

#define MOST_HITS 2   /* as in storeroom.eviction */
#define TIME_BYTES 8  /* of the time at which a record begins, where it begins with one */
#define SLOT_AT 16    /* of a record of files: see backends/filebased/records.py */
#define FRAME_AT 20
#define LONGEST_KEY 500
#define MOST_BYTES 4   /* of a character in UTF-8 */
#define MOST_DIGITS 18 /* of a whole number that has 64 bits at most */

/* First bytes of frames: storeroom.serializers.frames. */
enum { TEXT = 0x02, BYTES = 0x03, NONE = 0x05, TRUE = 0x06, FALSE = 0x07, FLOAT = 0x0b };

/* Return a new reference to the next of the keys of a list, a tuple or a dict; NULL behind the last. */
static PyObject *
next_of(PyObject *keys, Py_ssize_t *at)
{
    PyObject *key = NULL;
    if (PyDict_CheckExact(keys)) {
        PyDict_Next(keys, at, &key, NULL);
    }
    else if (*at < PySequence_Fast_GET_SIZE(keys)) {
        key = PySequence_Fast_GET_ITEM(keys, (*at)++);
    }
    return Py_XNewRef(key);
}

static int
is_row(PyObject *keys)
{
    return PyList_CheckExact(keys) || PyTuple_CheckExact(keys) || PyDict_CheckExact(keys);
}

/* Return what a function has made; None where that is NULL, and no error is set. */
static PyObject *
made_or_none(PyObject *made)
{
    return made == NULL && !PyErr_Occurred() ? Py_NewRef(Py_None) : made;
}

/* Forget an error that is the data's own; return whether it was one. */
static int
forgive(PyObject *kind)
{
    int is_own = PyErr_ExceptionMatches(kind);
    if (is_own) {
        PyErr_Clear();
    }
    return is_own;
}

/* Keys ------------------------------------------------------------------------------------------------------------- */

/* named(head, keys) -> dict from storage keys to keys */
static PyObject *
named(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    if (given != 2 || !PyUnicode_CheckExact(args[0]) || !is_row(args[1])) {
        Py_RETURN_NONE;
    }
    PyObject *typed = PyDict_New(), *key;
    Py_ssize_t at = 0;
    while (typed != NULL && (key = next_of(args[1], &at)) != NULL) {
        PyObject *storage_key = PyUnicode_CheckExact(key) ? joined(args[0], key) : NULL;
        if (storage_key == NULL || PyDict_SetItem(typed, storage_key, key) < 0) {
            Py_CLEAR(typed);
        }
        Py_XDECREF(storage_key);
        Py_DECREF(key);
    }
    return made_or_none(typed);
}

/* renamed(typed, values) -> dict from the keys in `typed` to the values */
static PyObject *
renamed(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    if (given != 2 || !PyDict_CheckExact(args[0]) || !PyDict_CheckExact(args[1])) {
        Py_RETURN_NONE;
    }
    PyObject *found = PyDict_New(), *storage_key, *value;
    Py_ssize_t at = 0;
    while (found != NULL && PyDict_Next(args[1], &at, &storage_key, &value)) {
        PyObject *key = PyUnicode_CheckExact(storage_key) ? PyDict_GetItemWithError(args[0], storage_key) : NULL;
        if (key == NULL || !PyUnicode_CheckExact(key) || PyDict_SetItem(found, key, value) < 0) {
            Py_CLEAR(found);
        }
    }
    return made_or_none(found);
}

/* picked(typed, data) -> dict from storage keys to the values that `data` has for their keys */
static PyObject *
picked(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    if (given != 2 || !PyDict_CheckExact(args[0]) || !PyDict_CheckExact(args[1])) {
        Py_RETURN_NONE;
    }
    PyObject *values = PyDict_New(), *storage_key, *key;
    Py_ssize_t at = 0;
    while (values != NULL && PyDict_Next(args[0], &at, &storage_key, &key)) {
        int are_texts = PyUnicode_CheckExact(storage_key) && PyUnicode_CheckExact(key);
        PyObject *value = are_texts ? PyDict_GetItemWithError(args[1], key) : NULL;
        if (value == NULL || PyDict_SetItem(values, storage_key, value) < 0) {
            Py_CLEAR(values);
        }
    }
    return made_or_none(values);
}

/* extent(keys) -> the first and the last of texts, in their order */
static PyObject *
extent(PyObject *module, PyObject *keys)
{
    PyObject *first = NULL, *last = NULL, *both = NULL, *key;
    Py_ssize_t at = 0;
    while (is_row(keys) && (key = next_of(keys, &at)) != NULL) {
        if (!PyUnicode_CheckExact(key)) {
            Py_CLEAR(first);
            Py_DECREF(key);
            break;
        }
        if (first == NULL || PyUnicode_Compare(key, first) < 0) {
            Py_XSETREF(first, Py_NewRef(key));
        }
        if (last == NULL || PyUnicode_Compare(key, last) > 0) {
            Py_XSETREF(last, Py_NewRef(key));
        }
        Py_DECREF(key);
    }
    if (first != NULL) {
        both = PyTuple_Pack(2, first, last);
    }
    Py_XDECREF(first);
    Py_XDECREF(last);
    return made_or_none(both);
}

/* has_kind(values, kind) -> whether one of the values of a dict is of that very class */
static PyObject *
has_kind(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    if (given != 2 || !PyDict_CheckExact(args[0]) || !PyType_Check(args[1])) {
        Py_RETURN_NONE;
    }
    PyObject *value;
    Py_ssize_t at = 0;
    while (PyDict_Next(args[0], &at, NULL, &value)) {
        if (Py_IS_TYPE(value, (PyTypeObject *)args[1])) {
            Py_RETURN_TRUE;
        }
    }
    Py_RETURN_FALSE;
}

/* Tell whether a name may be written as it is. */
static int
is_writable(const char *name, Py_ssize_t size, Py_ssize_t longest, int has_words)
{
    if (size > longest || memchr(name, 0, (size_t)size) != NULL) {
        return 0;
    }
    for (Py_ssize_t each = 0; !has_words && each < size; each++) {
        if (name[each] <= ' ' || name[each] > '~' || name[each] == '#') {
            return 0;
        }
    }
    return 1;
}

/* Return the bytes of a name behind a head in ASCII; NULL, and no error, if it is not written as it is. */
static PyObject *
written(PyObject *head, PyObject *name, Py_ssize_t longest, int has_words)
{
    PyObject *encoded = NULL, *made = NULL;
    const char *text;
    Py_ssize_t size, before = PyUnicode_GET_LENGTH(head);
    if (PyUnicode_IS_COMPACT_ASCII(name)) {
        text = (const char *)PyUnicode_1BYTE_DATA(name);
        size = PyUnicode_GET_LENGTH(name);
    }
    else if ((encoded = PyUnicode_AsUTF8String(name)) != NULL) {
        text = PyBytes_AS_STRING(encoded);
        size = PyBytes_GET_SIZE(encoded);
    }
    else {
        forgive(PyExc_UnicodeEncodeError);
        return NULL;
    }
    if (is_writable(text, size, longest, has_words) &&
        (made = PyBytes_FromStringAndSize(NULL, before + size)) != NULL) {
        memcpy(PyBytes_AS_STRING(made), PyUnicode_1BYTE_DATA(head), (size_t)before);
        memcpy(PyBytes_AS_STRING(made) + before, text, (size_t)size);
    }
    Py_XDECREF(encoded);
    return made;
}

/* encoded(head, names, longest, has_words) -> list of bytes: each name, of so many bytes at most, behind the head */
static PyObject *
encoded(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    int is_ours = given == 4 && PyUnicode_CheckExact(args[0]) && PyUnicode_IS_COMPACT_ASCII(args[0]);
    if (!is_ours || !is_row(args[1])) {
        Py_RETURN_NONE;
    }
    Py_ssize_t longest = PyLong_AsSsize_t(args[2]), at = 0;
    PyObject *all = PyErr_Occurred() ? NULL : PyList_New(0), *name;
    while (all != NULL && (name = next_of(args[1], &at)) != NULL) {
        int is_text = PyUnicode_CheckExact(name);
        PyObject *made = is_text ? written(args[0], name, longest, args[3] == Py_True) : NULL;
        if (made == NULL || PyList_Append(all, made) < 0) {
            Py_CLEAR(all);
        }
        Py_XDECREF(made);
        Py_DECREF(name);
    }
    return made_or_none(all);
}

/* Reading ---------------------------------------------------------------------------------------------------------- */

/* Return the whole number that a frame is; NULL, and no error, if it may be none. */
static PyObject *
integer_of(const char *frame, Py_ssize_t size)
{
    int is_negative = frame[0] == '-';
    long long number = 0;
    if (size <= is_negative || size - is_negative > MOST_DIGITS) {
        return NULL;
    }
    for (Py_ssize_t each = is_negative; each < size; each++) {
        if (frame[each] < '0' || frame[each] > '9') {
            return NULL;
        }
        number = 10 * number + (frame[each] - '0');
    }
    return PyLong_FromLongLong(is_negative ? -number : number);
}

/* Return the value of a frame that needs no serializer; NULL, and no error, for any other. */
static PyObject *
value_of(const char *frame, Py_ssize_t size)
{
    PyObject *value;
    switch (frame[0]) {
    case TEXT:
        value = PyUnicode_DecodeUTF8(frame + 1, size - 1, NULL);
        if (value == NULL) {
            forgive(PyExc_UnicodeDecodeError);
        }
        return value;
    case BYTES:
        return PyBytes_FromStringAndSize(frame + 1, size - 1);
    case NONE:
        return size == 1 ? Py_NewRef(Py_None) : NULL;
    case TRUE:
        return size == 1 ? Py_NewRef(Py_True) : NULL;
    case FALSE:
        return size == 1 ? Py_NewRef(Py_False) : NULL;
    case FLOAT:
        return size == 1 + (Py_ssize_t)sizeof(double) ? PyFloat_FromDouble(PyFloat_Unpack8(frame + 1, 0)) : NULL;
    default:
        return integer_of(frame, size);
    }
}

/* A reading of many records. */
typedef struct {
    PyObject *keys, *records;
    PyObject *values; /* key -> value; None for one that Python reads, which so keeps its turn */
    PyObject *left;   /* key -> record of these; of files their numbers, and those of absent ones */
    Py_ssize_t start;
    const char *first, *behind; /* the header of the earliest live record, and one behind the latest; or NULL */
    uint32_t *slots;            /* of the records of files that were read; else NULL */
    Py_ssize_t slot_count;
} Reading;

enum { OURS, PYTHONS, OVER };

/* Tell whether a record of files may begin with the storage key, as that is long. */
static int
may_be_hashed(PyObject *key)
{
    Py_ssize_t most = PyUnicode_IS_COMPACT_ASCII(key) ? 1 : MOST_BYTES;
    return PyUnicode_GET_LENGTH(key) > LONGEST_KEY / most;
}

static int
judged(Reading *it, PyObject *key, PyObject *record)
{
    int is_of_file = it->slots != NULL;
    if (!PyBytes_CheckExact(record) || PyBytes_GET_SIZE(record) < it->start + is_of_file) {
        return PYTHONS;
    }
    const char *data = PyBytes_AS_STRING(record);
    if (it->first != NULL && (memcmp(data, it->first, TIME_BYTES) < 0 || memcmp(data, it->behind, TIME_BYTES) >= 0)) {
        return OVER;
    }
    return PyBytes_GET_SIZE(record) > it->start && !(is_of_file && may_be_hashed(key)) ? OURS : PYTHONS;
}

/* Leave a record to Python. */
static int
leave(Reading *it, Py_ssize_t number, PyObject *key, PyObject *record)
{
    if (it->slots == NULL) {
        return record == Py_None ? 0 : PyDict_SetItem(it->left, key, record);
    }
    PyObject *counted = PyLong_FromSsize_t(number);
    int failed = counted == NULL ? -1 : PyList_Append(it->left, counted);
    Py_XDECREF(counted);
    return failed;
}

static void
note_slot(Reading *it, const char *data)
{
    const unsigned char *slot = (const unsigned char *)data + SLOT_AT;
    it->slots[it->slot_count++] =
        (uint32_t)slot[0] << 24 | (uint32_t)slot[1] << 16 | (uint32_t)slot[2] << 8 | (uint32_t)slot[3];
}

/* Read one record, or leave it to Python; return -1 with an error set, else 0. */
static int
read_one(Reading *it, Py_ssize_t number, PyObject *key, PyObject *record)
{
    int answer = judged(it, key, record);
    PyObject *value = NULL;
    if (answer == OVER) {
        return 0;
    }
    if (answer == OURS) {
        value = value_of(PyBytes_AS_STRING(record) + it->start, PyBytes_GET_SIZE(record) - it->start);
    }
    if (value == NULL) {
        int is_absent = record == Py_None;
        if (PyErr_Occurred() || leave(it, number, key, record) < 0) {
            return -1;
        }
        return is_absent ? 0 : PyDict_SetItem(it->values, key, Py_None);
    }
    if (it->slots != NULL) {
        note_slot(it, PyBytes_AS_STRING(record));
    }
    int failed = PyDict_SetItem(it->values, key, value);
    Py_DECREF(value);
    return failed;
}

static int
read_all(Reading *it)
{
    Py_ssize_t count = PyList_GET_SIZE(it->records);
    for (Py_ssize_t each = 0; each < count; each++) {
        if (each >= PyList_GET_SIZE(it->records) || each >= PyList_GET_SIZE(it->keys)) {
            PyErr_SetString(PyExc_RuntimeError, "the keys or the records have changed meanwhile");
            return -1;
        }
        PyObject *key = Py_NewRef(PyList_GET_ITEM(it->keys, each));
        PyObject *record = Py_NewRef(PyList_GET_ITEM(it->records, each));
        int failed = PyUnicode_CheckExact(key) ? read_one(it, each, key, record) : -1;
        Py_DECREF(key);
        Py_DECREF(record);
        if (failed) {
            return -1;
        }
    }
    return 0;
}

/* Count the reads of entries of files, where their readers do: in memory that processes share. */
static int
count_hits(Reading *it, PyObject *hits)
{
    Py_buffer view;
    if (!PyMemoryView_Check(hits)) { /* the files were closed, and the reader has its last records */
        return 0;
    }
    if (PyObject_GetBuffer(hits, &view, PyBUF_WRITABLE) < 0) {
        return -1;
    }
    unsigned char *counts = view.buf;
    for (Py_ssize_t each = 0; each < it->slot_count; each++) {
        if (it->slots[each] < view.len && counts[it->slots[each]] < MOST_HITS) {
            counts[it->slots[each]]++;
        }
    }
    PyBuffer_Release(&view);
    return 0;
}

/* Take the terms of a reading; return 0 if these are not ours. */
static int
begin_reading(Reading *it, PyObject *const *args, Py_ssize_t given)
{
    memset(it, 0, sizeof(Reading));
    if (given != 5 || !PyList_CheckExact(args[0]) || !PyList_CheckExact(args[1]) ||
        PyList_GET_SIZE(args[0]) != PyList_GET_SIZE(args[1])) {
        return 0;
    }
    it->keys = args[0];
    it->records = args[1];
    it->start = PyLong_AsSsize_t(args[2]);
    if (args[3] != Py_None) {
        if (it->start < TIME_BYTES || !PyTuple_CheckExact(args[3]) || PyTuple_GET_SIZE(args[3]) != 2) {
            return 0;
        }
        PyObject *first = PyTuple_GET_ITEM(args[3], 0), *behind = PyTuple_GET_ITEM(args[3], 1);
        if (!PyBytes_CheckExact(first) || !PyBytes_CheckExact(behind) || PyBytes_GET_SIZE(first) != TIME_BYTES ||
            PyBytes_GET_SIZE(behind) != TIME_BYTES) {
            return 0;
        }
        it->first = PyBytes_AS_STRING(first);
        it->behind = PyBytes_AS_STRING(behind);
    }
    return it->start >= 0 && (args[4] == Py_None || it->start == FRAME_AT);
}

/* values_of(keys, records, start, live, hits) -> values by key, and what is left of keys and records */
static PyObject *
values_of(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    Reading it;
    PyObject *both = NULL;
    if (!begin_reading(&it, args, given)) {
        return made_or_none(NULL);
    }
    int is_of_file = args[4] != Py_None;
    if (is_of_file) {
        it.slots = PyMem_New(uint32_t, (size_t)PyList_GET_SIZE(it.records) + 1);
        if (it.slots == NULL) {
            return PyErr_NoMemory();
        }
    }
    it.values = PyDict_New();
    it.left = is_of_file ? PyList_New(0) : PyDict_New();
    int is_read = it.values != NULL && it.left != NULL && read_all(&it) == 0;
    if (is_read && (!is_of_file || count_hits(&it, args[4]) == 0)) {
        both = PyTuple_Pack(2, it.values, it.left);
    }
    PyMem_Free(it.slots);
    Py_XDECREF(it.values);
    Py_XDECREF(it.left);
    return made_or_none(both);
}

/* raw(data, flags) -> data: pylibmc's way to make a value of what it finds */
static PyObject *
raw(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    if (given != 2) {
        PyErr_SetString(PyExc_TypeError, "raw() takes bytes and their flags");
        return NULL;
    }
    return Py_NewRef(args[0]);
}

/* Writing ---------------------------------------------------------------------------------------------------------- */

/* Return a frame of that first byte, and these behind it. */
static PyObject *
frame_with(char first, const char *data, Py_ssize_t size)
{
    PyObject *frame = PyBytes_FromStringAndSize(NULL, size + 1);
    if (frame != NULL) {
        PyBytes_AS_STRING(frame)[0] = first;
        memcpy(PyBytes_AS_STRING(frame) + 1, data, (size_t)size);
    }
    return frame;
}

/* Return the frame of a whole number of 64 bits; NULL, and no error, for any other. */
static PyObject *
frame_of_integer(PyObject *value)
{
    int is_long;
    long long number = PyLong_AsLongLongAndOverflow(value, &is_long);
    if (is_long || (number == -1 && PyErr_Occurred())) {
        return NULL;
    }
    char digits[24];
    return PyBytes_FromStringAndSize(digits, PyOS_snprintf(digits, sizeof(digits), "%lld", number));
}

/* Return the frame of a value of one of these types, that is shorter than so many bytes; NULL, and no error, else. */
static PyObject *
frame_of(PyObject *value, Py_ssize_t shortest)
{
    char packed[sizeof(double)];
    if (PyUnicode_CheckExact(value)) {
        int fits = PyUnicode_IS_COMPACT_ASCII(value) && PyUnicode_GET_LENGTH(value) + 1 < shortest;
        return fits ? frame_with(TEXT, (char *)PyUnicode_1BYTE_DATA(value), PyUnicode_GET_LENGTH(value)) : NULL;
    }
    if (PyBytes_CheckExact(value)) {
        int fits = PyBytes_GET_SIZE(value) + 1 < shortest;
        return fits ? frame_with(BYTES, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)) : NULL;
    }
    if (PyLong_CheckExact(value)) { /* which is never compressed */
        return frame_of_integer(value);
    }
    if (shortest <= 1 + (Py_ssize_t)sizeof(double)) {
        return NULL;
    }
    if (PyFloat_CheckExact(value)) {
        int failed = PyFloat_Pack8(PyFloat_AS_DOUBLE(value), packed, 0);
        return failed ? NULL : frame_with(FLOAT, packed, sizeof(double));
    }
    if (PyBool_Check(value) || value == Py_None) {
        return frame_with(value == Py_None ? NONE : value == Py_True ? TRUE : FALSE, "", 0);
    }
    return NULL;
}

/* frames_of(values, shortest) -> list of the frames of a dict's values; None for one that Python writes */
static PyObject *
frames_of(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    if (given != 2 || !PyDict_CheckExact(args[0])) {
        Py_RETURN_NONE;
    }
    Py_ssize_t shortest = PyLong_AsSsize_t(args[1]), at = 0;
    PyObject *all = PyErr_Occurred() ? NULL : PyList_New(0), *value;
    while (all != NULL && PyDict_Next(args[0], &at, NULL, &value)) {
        PyObject *frame = frame_of(value, shortest);
        if ((frame == NULL && PyErr_Occurred()) || PyList_Append(all, frame == NULL ? Py_None : frame) < 0) {
            Py_CLEAR(all);
        }
        Py_XDECREF(frame);
    }
    return all;
}

/* Tell whether a record may be overwritten where it is, and its slot left alone: Table.put_all() of files says why. */
static int
may_renew(PyObject *key, PyObject *frame, PyObject *old, PyObject *head, PyObject *doubtful)
{
    if (!PyBytes_CheckExact(key) || !PyBytes_CheckExact(frame) || !PyBytes_CheckExact(old)) {
        return 0;
    }
    Py_ssize_t size = PyBytes_GET_SIZE(frame);
    if (size == 0 || PyBytes_GET_SIZE(key) == 0 || PyBytes_GET_SIZE(old) != FRAME_AT + size) {
        return 0;
    }
    const char *before = PyBytes_AS_STRING(old), *is_doubtful = PyBytes_AS_STRING(doubtful);
    return memcmp(before, PyBytes_AS_STRING(head), TIME_BYTES) <= 0 &&
           !is_doubtful[(unsigned char)before[FRAME_AT]] &&
           !is_doubtful[(unsigned char)PyBytes_AS_STRING(frame)[0]] && !is_doubtful[(unsigned char)PyBytes_AS_STRING(key)[0]];
}

/* Return the key, and the record that takes the place of the old one. */
static PyObject *
renewal(PyObject *key, PyObject *frame, PyObject *old, PyObject *head)
{
    Py_ssize_t size = PyBytes_GET_SIZE(frame);
    PyObject *record = PyBytes_FromStringAndSize(NULL, FRAME_AT + size), *pair = NULL;
    if (record != NULL) {
        char *data = PyBytes_AS_STRING(record);
        memcpy(data, PyBytes_AS_STRING(head), SLOT_AT);
        memcpy(data + SLOT_AT, PyBytes_AS_STRING(old) + SLOT_AT, FRAME_AT - SLOT_AT);
        memcpy(data + FRAME_AT, PyBytes_AS_STRING(frame), (size_t)size);
        pair = PyTuple_Pack(2, key, record);
        Py_DECREF(record);
    }
    return pair;
}

/* Put one entry to those that are renewed, or to the others. */
static int
sort_one(PyObject *const *lists, Py_ssize_t each, PyObject *const *terms, PyObject *renewed, PyObject *others)
{
    for (int list = 0; list < 3; list++) {
        if (each >= PyList_GET_SIZE(lists[list])) {
            PyErr_SetString(PyExc_RuntimeError, "the entries have changed meanwhile");
            return -1;
        }
    }
    PyObject *key = Py_NewRef(PyList_GET_ITEM(lists[0], each)), *frame = Py_NewRef(PyList_GET_ITEM(lists[1], each));
    PyObject *old = Py_NewRef(PyList_GET_ITEM(lists[2], each));
    int may = may_renew(key, frame, old, terms[0], terms[1]);
    PyObject *pair = may ? renewal(key, frame, old, terms[0]) : PyTuple_Pack(2, key, frame);
    int failed = pair == NULL ? -1 : PyList_Append(may ? renewed : others, pair);
    Py_XDECREF(pair);
    Py_DECREF(key);
    Py_DECREF(frame);
    Py_DECREF(old);
    return failed;
}

/* renewals(keys, frames, olds, head, doubtful) -> those that overwrite a record and leave its slot alone, and others */
static PyObject *
renewals(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    int is_ours = given == 5 && PyBytes_CheckExact(args[3]) && PyBytes_GET_SIZE(args[3]) == SLOT_AT &&
                  PyBytes_CheckExact(args[4]) && PyBytes_GET_SIZE(args[4]) == 256;
    for (int list = 0; is_ours && list < 3; list++) {
        is_ours = PyList_CheckExact(args[list]) && PyList_GET_SIZE(args[list]) == PyList_GET_SIZE(args[0]);
    }
    if (!is_ours) {
        Py_RETURN_NONE;
    }
    PyObject *renewed = PyList_New(0), *others = PyList_New(0), *both = NULL;
    int failed = renewed == NULL || others == NULL;
    Py_ssize_t count = PyList_GET_SIZE(args[0]);
    for (Py_ssize_t each = 0; !failed && each < count; each++) {
        failed = sort_one(args, each, args + 3, renewed, others);
    }
    if (!failed) {
        both = PyTuple_Pack(2, renewed, others);
    }
    Py_XDECREF(renewed);
    Py_XDECREF(others);
    return both;
}

/* The module ------------------------------------------------------------------------------------------------------- */

#define FUNCTION(name, text) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, text}

static PyMethodDef module_methods[] = {
    FUNCTION(named, "Return storage key to key."),
    FUNCTION(renamed, "Return the values by the keys that callers typed."),
    FUNCTION(picked, "Return the values by storage key."),
    {"extent", extent, METH_O, "Return the first and the last of texts."},
    FUNCTION(has_kind, "Tell whether a value is of that very class."),
    FUNCTION(encoded, "Return names in UTF-8, each behind a head."),
    FUNCTION(values_of, "Return the values of plain frames, and what is left."),
    FUNCTION(raw, "Return bytes, whatever their flags say."),
    FUNCTION(frames_of, "Return the frames of plain values."),
    FUNCTION(renewals, "Sort entries by whether they leave their slots alone."),
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED}, /* it keeps nothing */
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "storeroom.storage._compiled",
    .m_doc = "What operations on many entries do with each of them, compiled: see batches.py.",
    .m_size = 0,
    .m_methods = module_methods,
    .m_slots = module_slots,
};

PyMODINIT_FUNC
PyInit__compiled(void)
{
    return PyModuleDef_Init(&module_definition);
}
