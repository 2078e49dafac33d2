/* The ordinary hit of local memory, and its ordinary write, compiled.

A method made here stands in place of one of LocMemCache, or of TieredCache, that is written in Python, and does the
same to the same objects: it reads the slots of handles, entries and counters where Python has laid them out. It takes
up only what happens in almost every call. Where it meets anything else it has changed nothing yet, and hands the very
call to the method in Python, which is all that there is where this file is not compiled. So nothing is decided here
that is not decided there.

Everything is done under the interpreter's lock, and in one piece: nothing runs between the last look at an entry and
its change. A new key takes the map's lock, too, as making its entry may run the collector. A build without the
interpreter's lock keeps the methods in Python. See docs/decisions/0025-compiled-hits.md. */

#include "../../slots.h"
#include "../../eviction/insert.h"
#include "../../storage/joined.h"
#include <time.h>

#define LONGEST_TIMEOUT 1e11 /* as in storeroom.timeouts */
#define MOST_HITS 2          /* as in storeroom.eviction */

#define NOTES 256         /* storage keys that are remembered: at 32 bytes, no more than two pages of memory */
#define MOST_NOTED 1024   /* keys of one function that are remembered */
#define MOST_TOGETHER 8   /* entries that are read together */
#define LONGEST_CALL 6 /* arguments that a coroutine keeps until it is awaited */
#define MOST_TAGS 8    /* of an entry whose tags are looked at here */
#define LONGEST_NOTED 200 /* characters of a key whose storage key is remembered: no large one is kept alive */

/* Objects of Python's: first those that learn() is given, in its order, and the classes first of all. */
enum {
    HANDLE, ENTRY, COUNTERS, SAMPLED, MAP, ALONE, INDEX, ENGINE, LOCK, ENVELOPE, ENVELOPED, FRESHNESS, CLASSES,
    OVERLAYS = CLASSES, CLOCKS, LOADS, RAISE_IF_FOREIGN, ENCODED_MARK, MISSING, DEFAULT_TIMEOUT, PASSED_BY, PARSE_WORDS,
    TAG_PREFIX, UPTIME, GIVEN,
    N_NOW = GIVEN, N_OVERLAY, N_DEFAULT_TIMEOUT, N_TIMEOUT, N_DEFAULT, N_UNREADABLE, N_SAMPLE, N_LET_GO,
    N_GET, N__GET, N_GET_OR_SET, N_AGET_OR_SET, N_CALL, N__OPENED, N_VERSION, N_UPTIME, N_ENVELOPED, NAMED,
    ZERO = NAMED, ONE, ACQUIRE, RELEASE, TIME, METHOD, COROUTINE, READER, KIND, MOST, LOCMEM,
    FUNCTION, COUNTED, HANDLER, CONFIGURATION, CALLS, TIERED = CALLS, TABLE, OBJECTS
};

static const char *const NAMES[NAMED - GIVEN] = {
    "now", "_overlay", "default_timeout", "timeout", "default", "_unreadable", "_sample", "let_go", "get", "_get",
    "get_or_set", "aget_or_set", "__call__", "_opened", "version", "uptime", "_enveloped",
};

/* Slots of the classes: where they lie in an object. */
enum {
    H_HEAD, H_IS_BARE, H_ENTRIES, H_COUNTERS, H_MAP, H_ALONE, H_INDEX, H_LOCK, H_ENGINE, H_NOTED,
    H_CULL_FREQUENCY, H_BOUNDS_ENTRIES, H_BOUNDS_BYTES, H_MAX_ENTRIES, H_MAX_BYTES, H_DEFAULT_TIMEOUT,
    E_KEY, E_VALUE, E_ENCODED, E_EXPIRES_AT, E_FREQ, E_INDEXED,
    C_HITS, C_REUSED, C_MISSES, C_WRITTEN, S_NUMBER, S_DUE, M_HAS_SIZES, M_DROPPED, M_ENTRIES,
    M_CULL_FREQUENCY, M_MAX_ENTRIES, M_MAX_BYTES, A_IS_UNDER_WAY, I_DUE, G_MAX_ENTRIES, G_MAX_BYTES,
    H_TAGS, H_FRESHNESS, T_VALUE, T_FRESH_UNTIL, T_TAGS, T_LEASED_UNTIL, B_EARLY, LEARNT,
    F_ALIAS = LEARNT, F_CACHES, F_CALLED, F_CALLED_BY, F_COUNTED, F_KEY_OF, F_KIND, F_NOTED, F_NOTED_HEAD, F_ANSWERS,
    F_CHOSEN, F_HANDLES, LEARNT_OF_CALLS,
    R_HEAD = LEARNT_OF_CALLS, R_NEAR, R_ENTRIES, R_BELOW, K_TRUSTED_UNTIL, K_DIRECT_HITS, SLOTS
};

static const struct {
    int owner;
    const char *name;
} SLOT_NAMES[SLOTS] = {
    {HANDLE, "_head"}, {HANDLE, "_is_bare"}, {HANDLE, "_entries"}, {HANDLE, "_counters"}, {HANDLE, "_bounded"},
    {HANDLE, "_alone"}, {HANDLE, "_index"}, {HANDLE, "_lock"}, {HANDLE, "_engine"}, {HANDLE, "_noted"},
    {HANDLE, "_cull_frequency"}, {HANDLE, "_bounds_entries"}, {HANDLE, "_bounds_bytes"}, {HANDLE, "_max_entries"},
    {HANDLE, "_max_bytes"}, {HANDLE, "default_timeout"},
    {ENTRY, "key"}, {ENTRY, "value"}, {ENTRY, "encoded"}, {ENTRY, "expires_at"}, {ENTRY, "freq"}, {ENTRY, "indexed"},
    {COUNTERS, "hits"}, {COUNTERS, "reused"}, {COUNTERS, "misses"}, {COUNTERS, "written"},
    {SAMPLED, "number"}, {SAMPLED, "due"}, {MAP, "has_sizes"}, {MAP, "dropped"}, {MAP, "entries"},
    {MAP, "cull_frequency"}, {MAP, "_max_entries"}, {MAP, "_max_bytes"}, {ALONE, "is_under_way"}, {INDEX, "due"},
    {ENGINE, "max_entries"}, {ENGINE, "max_bytes"}, {HANDLE, "_tags"}, {HANDLE, "_freshness"},
    {ENVELOPE, "value"}, {ENVELOPE, "fresh_until"}, {ENVELOPE, "tags"}, {ENVELOPE, "leased_until"},
    {FRESHNESS, "early"},
    {FUNCTION, "_alias"}, {FUNCTION, "_caches"}, {FUNCTION, "_called"}, {FUNCTION, "_called_by"},
    {FUNCTION, "_counted"}, {FUNCTION, "_key_of"}, {FUNCTION, "_kind"}, {FUNCTION, "_noted"},
    {FUNCTION, "_noted_head"}, {COUNTED, "answers"}, {HANDLER, "_chosen"}, {CONFIGURATION, "handles"},
    {TIERED, "_head"}, {TIERED, "_near"}, {TIERED, "_near_entries"}, {TIERED, "_below"}, {TABLE, "trusted_until"},
    {TABLE, "direct_hits"},
};

/* The storage key of a key that was asked for twice by the same object, as a program's literals are. */
typedef struct {
    PyObject *key, *head, *storage_key;
    const void *seen; /* the last key that was no match; compared, and never followed */
} Note;

typedef struct {
    int is_ready;
    PyObject *objects[OBJECTS];
    Py_ssize_t offsets[SLOTS];
    PyCFunction clock; /* the code of time.time(); NULL if that may not be Python's own */
    PyTypeObject *reading; /* the class that was last seen to read as LocMemCache; compared, and never followed */
    unsigned int reading_version; /* its version then */
    uint64_t attributes_version; /* that of the attributes that a handle was last seen to have */
    PyObject *spare; /* the memory of a coroutine that has ended */
    Insertion *insertion; /* the compiled insert of new keys */
    Note notes[NOTES];
} State;

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    PyObject *function; /* the method in Python */
    PyObject *owner; /* the class that it was made for; NULL until it has a name there */
    unsigned int version; /* that of the owner when it was last seen to have this method */
    PyObject *weak_references;
    State *state; /* of the module, which the type keeps alive */
} Method;

/* What reads and writes share -------------------------------------------------------------------------------------- */

/* See that this is a handle, and that nothing stands between it and its storage. */
static int
is_plain(State *state, PyObject *self)
{
    if (!state->is_ready) {
        return PYTHONS;
    }
    if (!IS(self, KIND)) { /* the class of the last handle: most programs have one */
        if (!PyObject_TypeCheck(self, (PyTypeObject *)state->objects[HANDLE])) {
            return PYTHONS;
        }
        PyObject *before = state->objects[KIND];
        state->objects[KIND] = Py_NewRef(Py_TYPE(self));
        Py_XDECREF(before); /* last, as freeing it may run code */
    }
    if (SLOT(self, H_IS_BARE) == Py_True && PyList_GET_SIZE(state->objects[OVERLAYS]) == 0) {
        return OURS; /* it has no overlay of its own now, and the program has made none that depends on the context */
    }
    PyObject *overlay = PyObject_GetAttr(self, state->objects[N_OVERLAY]);
    if (overlay == NULL) {
        return ERROR;
    }
    Py_DECREF(overlay);
    return overlay == Py_None ? OURS : PYTHONS;
}

/* Return a new reference to f"{head}{key}"; NULL, and no error, if that is no mere concatenation. */
static PyObject *
storage_key_of(State *state, PyObject *head, PyObject *key)
{
    if (head == NULL || !PyUnicode_CheckExact(head) || !PyUnicode_CheckExact(key)) {
        return NULL;
    }
    if (Py_REFCNT(key) == 1) { /* nobody but the caller's expression has it: it will not be asked for again */
        return joined(head, key);
    }
    Note *note = &state->notes[((uintptr_t)key >> 4) % NOTES];
    if (note->key == key && note->head == head) {
        return Py_NewRef(note->storage_key);
    }
    PyObject *storage_key = joined(head, key);
    if (storage_key == NULL || note->seen != (void *)key || PyUnicode_GET_LENGTH(storage_key) > LONGEST_NOTED) {
        note->seen = key;
        return storage_key;
    }
    Py_XSETREF(note->key, Py_NewRef(key)); /* these are texts: freeing them runs no code */
    Py_XSETREF(note->head, Py_NewRef(head));
    Py_XSETREF(note->storage_key, Py_NewRef(storage_key));
    return storage_key;
}

/* Look a storage key up: give a new reference to its entry. */
static int
find_stored(State *state, PyObject *entries, PyObject *storage_key, PyObject **entry)
{
    Py_INCREF(entries);
    if (PyDict_CheckExact(entries)) {
        *entry = Py_XNewRef(PyDict_GetItemWithError(entries, storage_key));
    }
    else { /* shards, of which a map of many entries is made */
        *entry = PyObject_CallMethodOneArg(entries, state->objects[N_GET], storage_key);
    }
    Py_DECREF(entries);
    if (IS(*entry, ENTRY)) {
        return OURS;
    }
    Py_CLEAR(*entry);
    return pythons_or_error();
}

/* Look a key up, given a cache's head and entries: give a new reference to its entry. */
static int
find_by(State *state, PyObject *head, PyObject *entries, PyObject *key, PyObject **entry)
{
    PyObject *storage_key = entries == NULL ? NULL : storage_key_of(state, head, key);
    if (storage_key == NULL) {
        return pythons_or_error();
    }
    int answer = find_stored(state, entries, storage_key, entry);
    Py_DECREF(storage_key);
    return answer;
}

/* The ways to look an entry of a handle up: by a key, or by a storage key that was noted. */
typedef int Finder(State *, PyObject *, PyObject *, PyObject **);

static int
find(State *state, PyObject *self, PyObject *key, PyObject **entry)
{
    return find_by(state, SLOT(self, H_HEAD), SLOT(self, H_ENTRIES), key, entry);
}

static int
find_noted(State *state, PyObject *self, PyObject *storage_key, PyObject **entry)
{
    PyObject *entries = SLOT(self, H_ENTRIES);
    *entry = NULL;
    return entries == NULL ? PYTHONS : find_stored(state, entries, storage_key, entry);
}

/* Call a clock that is not read here. */
static int
call_clock(PyObject *clock, double *now)
{
    Py_INCREF(clock);
    PyObject *told = PyObject_CallNoArgs(clock);
    Py_DECREF(clock);
    if (told == NULL) {
        return ERROR;
    }
    int is_float = PyFloat_CheckExact(told);
    *now = is_float ? PyFloat_AS_DOUBLE(told) : 0.0;
    Py_DECREF(told);
    return is_float ? OURS : PYTHONS;
}

/* Read timeouts.now(). Where that is Python's own clock, it is read as time.time() reads it, in two thirds of the time
   of a call. A fake one is called: it stands in its place there, or, with time-machine, has taken its code's place. */
static int
read_clock(State *state, double *now)
{
    PyObject *clock = PyDict_GetItemWithError(state->objects[CLOCKS], state->objects[N_NOW]);
    if (clock == NULL) {
        return pythons_or_error();
    }
#ifdef CLOCK_REALTIME
    struct timespec moment;
    if (clock == state->objects[TIME] && state->clock != NULL && PyCFunction_GET_FUNCTION(clock) == state->clock &&
        clock_gettime(CLOCK_REALTIME, &moment) == 0) {
        double nanoseconds = (double)((int64_t)moment.tv_sec * 1000000000 + moment.tv_nsec);
        *now = moment.tv_nsec == 0 ? (double)moment.tv_sec : nanoseconds / 1e9;
        return OURS;
    }
#endif
    return call_clock(clock, now);
}

/* Read timeouts.uptime() likewise. */
static int
read_uptime(State *state, double *now)
{
    PyObject *clock = PyDict_GetItemWithError(state->objects[CLOCKS], state->objects[N_UPTIME]);
    if (clock == NULL) {
        return pythons_or_error();
    }
#ifdef CLOCK_BOOTTIME
    struct timespec moment;
    if (clock == state->objects[UPTIME] && clock_gettime(CLOCK_BOOTTIME, &moment) == 0) {
        *now = (double)moment.tv_sec + (double)moment.tv_nsec * 1e-9;
        return OURS;
    }
#endif
    return call_clock(clock, now);
}

/* Tell whether one can be added to a number in its place, and do so: a record alone has it, so that nobody sees it
   change, and it is none of the small ones that all share. Another would have to be made, and this one freed. */
static int
grows(PyObject *number)
{
    if (number == NULL || !PyLong_CheckExact(number) || Py_REFCNT(number) != 1) {
        return 0;
    }
#if PY_VERSION_HEX >= 0x030C0000
    int has_one = PyUnstable_Long_IsCompact((PyLongObject *)number);
    has_one = has_one && PyUnstable_Long_CompactValue((PyLongObject *)number) > 0;
    digit *last = ((PyLongObject *)number)->long_value.ob_digit;
#else
    int has_one = Py_SIZE(number) == 1;
    digit *last = ((PyLongObject *)number)->ob_digit;
#endif
    int has_room = has_one && *last < PyLong_MASK;
    *last += (digit)has_room;
    return has_room;
}

/* Add one to a number of a record. */
static int
count(State *state, PyObject *record, int slot)
{
    if (grows(SLOT(record, slot))) {
        return OURS;
    }
    PyObject *number = Py_XNewRef(SLOT(record, slot)), *more = NULL;
    int is_long = 0;
    if (number != NULL && PyLong_CheckExact(number)) {
        long long before = PyLong_AsLongLongAndOverflow(number, &is_long);
        more = is_long || before == LLONG_MAX ? NULL : PyLong_FromLongLong(before + 1);
    }
    if (more == NULL && number != NULL && !PyErr_Occurred()) {
        more = PyNumber_Add(number, state->objects[ONE]);
    }
    Py_XDECREF(number);
    if (more == NULL) {
        return pythons_or_error();
    }
    Py_XSETREF(SLOT(record, slot), more);
    return OURS;
}

static PyObject *
in_python(Method *method, PyObject *const *args, size_t nargsf, PyObject *names)
{
    if (method->function == NULL) { /* the collector frees it */
        PyErr_SetString(PyExc_SystemError, "this method is being freed");
        return NULL;
    }
    return PyObject_Vectorcall(method->function, args, nargsf, names);
}

/* Reads ------------------------------------------------------------------------------------------------------------ */

/* An entry that was found live, and what is needed of it: new references. */
typedef struct {
    PyObject *counters, *entry, *value, *pickle; /* either of the last two is NULL */
    int is_enveloped;                            /* whether the object is an envelope, to be opened */
} Hit;

static void
let_go(Hit *hit)
{
    Py_CLEAR(hit->counters);
    Py_CLEAR(hit->entry);
    Py_CLEAR(hit->value);
    Py_CLEAR(hit->pickle);
}

/* Take what an entry keeps: an object, an envelope that stands in place of the bytes, or the pickle of either. */
static int
take(State *state, Hit *hit)
{
    PyObject *value = SLOT(hit->entry, E_VALUE), *encoded = SLOT(hit->entry, E_ENCODED);
    if (value != state->objects[ENCODED_MARK]) {
        hit->value = Py_XNewRef(value);
        return value != NULL;
    }
    int is_envelope = IS(encoded, ENVELOPE);
    hit->is_enveloped = is_envelope || IS(encoded, ENVELOPED);
    if (!hit->is_enveloped && (encoded == NULL || !PyBytes_CheckExact(encoded))) {
        return 0;
    }
    *(is_envelope ? &hit->value : &hit->pickle) = Py_NewRef(encoded);
    return 1;
}

/* Find a live entry whose object, or its pickle, is there. */
static int
find_live(State *state, PyObject *self, Finder *finder, PyObject *key, Hit *hit)
{
    memset(hit, 0, sizeof(Hit));
    int answer = is_plain(state, self);
    if (answer != OURS) {
        return answer;
    }
    PyObject *counters = SLOT(self, H_COUNTERS);
    if (!IS(counters, COUNTERS)) {
        return PYTHONS;
    }
    hit->counters = Py_NewRef(counters);
    double now;
    answer = finder(state, self, key, &hit->entry);
    answer = answer == OURS ? read_clock(state, &now) : answer;
    if (answer == OURS) {
        PyObject *expires_at = SLOT(hit->entry, E_EXPIRES_AT);
        if (IS_FLOAT(expires_at) && PyFloat_AS_DOUBLE(expires_at) > now && take(state, hit)) {
            return OURS;
        }
        answer = PYTHONS;
    }
    let_go(hit);
    return answer;
}

/* Tell the policy of a hit. */
static int
bump(State *state, PyObject *entry)
{
    PyObject *freq = SLOT(entry, E_FREQ);
    if (freq == state->objects[MOST] || freq == NULL || !PyLong_CheckExact(freq)) {
        return OURS;
    }
    long hits = PyLong_AsLong(freq);
    if (hits >= MOST_HITS || (hits == -1 && PyErr_Occurred())) {
        return hits < 0 ? ERROR : OURS;
    }
    PyObject *more = PyLong_FromLong(hits + 1);
    if (more == NULL) {
        return ERROR;
    }
    Py_SETREF(SLOT(entry, E_FREQ), more);
    return OURS;
}

/* Tell whether a tag's entry has this version: is_written() of storeroom.storage.tags. */
static int
is_written(PyObject *found, PyObject *version)
{
    if (!IS_TEXT(found) || !PyUnicode_IS_COMPACT_ASCII(found) || PyUnicode_GET_LENGTH(found) < 17 ||
        !PyLong_CheckExact(version)) {
        return 0;
    }
    unsigned long long rest = PyLong_AsUnsignedLongLong(version);
    if (rest == ULLONG_MAX && PyErr_Occurred()) {
        PyErr_Clear();
        return 0;
    }
    const Py_UCS1 *text = PyUnicode_1BYTE_DATA(found);
    int digit = 15;
    while (digit >= 0 && text[digit] == (Py_UCS1) "0123456789abcdef"[rest & 15]) {
        rest >>= 4;
        digit--;
    }
    return digit < 0 && text[16] == ' ';
}

/* Find the entry of a tag, live and with the version that an envelope remembers: give a new reference. */
static int
find_version(State *state, PyObject *map, PyObject *tag, double now, PyObject **found)
{
    PyObject *entries = SLOT(map, M_ENTRIES);
    if (entries == NULL || !PyTuple_CheckExact(tag) || PyTuple_GET_SIZE(tag) != 2 ||
        !PyUnicode_CheckExact(PyTuple_GET_ITEM(tag, 0))) {
        return PYTHONS;
    }
    int answer = find_stored(state, entries, PyTuple_GET_ITEM(tag, 0), found);
    if (answer != OURS) {
        return answer;
    }
    PyObject *expires_at = SLOT(*found, E_EXPIRES_AT);
    if (IS_FLOAT(expires_at) && PyFloat_AS_DOUBLE(expires_at) > now &&
        is_written(SLOT(*found, E_VALUE), PyTuple_GET_ITEM(tag, 1))) {
        return OURS;
    }
    Py_CLEAR(*found);
    return PYTHONS;
}

/* See that all tags of an envelope have the versions that it remembers, and tell the policy of the hits of these. */
static int
are_current(State *state, PyObject *map, PyObject *tags, double now)
{
    PyObject *found[MOST_TAGS];
    Py_ssize_t each = 0, all = PyTuple_GET_SIZE(tags);
    int answer = all <= MOST_TAGS ? OURS : PYTHONS;
    while (answer == OURS && each < all) {
        answer = find_version(state, map, PyTuple_GET_ITEM(tags, each), now, &found[each]);
        each += answer == OURS;
    }
    while (each-- > 0) {
        answer = answer == OURS ? bump(state, found[each]) : answer;
        Py_DECREF(found[each]);
    }
    return answer;
}

/* Give the value of an envelope that is live; if it is not, nothing has changed. */
static int
open_live(State *state, PyObject *self, PyObject *envelope, PyObject **value)
{
    double now;
    int answer = read_clock(state, &now);
    PyObject *map = SLOT(self, H_TAGS), *tags = SLOT(envelope, T_TAGS), *until = SLOT(envelope, T_FRESH_UNTIL);
    PyObject *kept = SLOT(envelope, T_VALUE);
    int is_fresh = answer == OURS && IS_FLOAT(until) && PyFloat_AS_DOUBLE(until) > now;
    if (!is_fresh || !IS(map, MAP) || tags == NULL || !PyTuple_CheckExact(tags) || kept == NULL) {
        return answer == ERROR ? ERROR : PYTHONS;
    }
    Py_INCREF(map); /* a look into shards may run code */
    Py_INCREF(tags);
    Py_INCREF(kept);
    answer = are_current(state, map, tags, now);
    Py_DECREF(tags);
    Py_DECREF(map);
    if (answer == OURS) {
        *value = kept;
    }
    else {
        Py_DECREF(kept);
    }
    return answer;
}

/* Return the value of an envelope; MISSING if it is not live, which the method in Python finds out. */
static PyObject *
opened(State *state, PyObject *self, PyObject *envelope)
{
    PyObject *value = NULL;
    int answer = open_live(state, self, envelope, &value);
    return answer == PYTHONS ? PyObject_CallMethodOneArg(self, state->objects[N__OPENED], envelope) : value;
}

/* Take the exception that is set, as `except Exception` does; NULL if that would not. */
static PyObject *
caught(void)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        return NULL;
    }
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (traceback != NULL) {
        PyException_SetTraceback(error, traceback);
    }
    Py_DECREF(type);
    Py_XDECREF(traceback);
    return error;
#endif
}

/* Return the object of a hit, which is counted; `absent` if its pickle cannot be read. */
static PyObject *
answer_of(State *state, PyObject *self, Hit *hit, PyObject *absent)
{
    if (bump(state, hit->entry) == ERROR) {
        return NULL;
    }
    PyObject *value = Py_XNewRef(hit->value);
    if (hit->pickle != NULL) {
        value = PyObject_CallOneArg(state->objects[LOADS], hit->pickle);
    }
    if (value == NULL) {
        PyObject *error = caught();
        if (error != NULL) {
            value = PyObject_CallMethodObjArgs(self, state->objects[N_UNREADABLE], hit->pickle, error, NULL);
            Py_DECREF(error);
        }
    }
    if (hit->is_enveloped && IS(value, ENVELOPE)) {
        Py_SETREF(value, opened(state, self, value));
    }
    int is_missing = (hit->pickle != NULL || hit->is_enveloped) && value == state->objects[MISSING];
    if (is_missing) {
        Py_SETREF(value, Py_NewRef(absent));
    }
    if (value != NULL && count(state, hit->counters, is_missing ? C_MISSES : C_HITS) == ERROR) {
        Py_CLEAR(value);
    }
    return value;
}

/* Tell whether these are arguments of get() without a version. */
static int
asks_simply(State *state, PyObject *const *args, Py_ssize_t given, PyObject *names)
{
    Py_ssize_t named = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    if (named == 0) {
        return given >= 2 && (given <= 3 || (given == 4 && args[3] == Py_None));
    }
    return given == 2 && named == 1 && PyTuple_GET_ITEM(names, 0) == state->objects[N_DEFAULT];
}

/* get(self, key, default=None, version=None) */
static PyObject *
get(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *names)
{
    Method *method = (Method *)callable;
    State *state = method->state;
    Py_ssize_t given = PyVectorcall_NARGS(nargsf), named = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    Hit hit;
    int answer = asks_simply(state, args, given, names) ? find_live(state, args[0], find, args[1], &hit) : PYTHONS;
    if (answer != OURS) {
        return answer == ERROR ? NULL : in_python(method, args, nargsf, names);
    }
    PyObject *value = answer_of(state, args[0], &hit, given + named > 2 ? args[2] : Py_None);
    let_go(&hit);
    return value;
}

/* Tell whether the arguments are such that a hit of get_or_set() passes by all of them but the key. */
static int
passes_by(State *state, PyObject *const *args, Py_ssize_t given, PyObject *names)
{
    Py_ssize_t named = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    if (!state->is_ready || given < 3 || given > 5 || (given == 5 && args[4] != Py_None)) {
        return 0;
    }
    PyObject *passed_by = state->objects[PASSED_BY]; /* the timeout first, which is the third argument, too */
    for (Py_ssize_t each = 0; each < named; each++) {
        Py_ssize_t known = given > 3, all = PyTuple_GET_SIZE(passed_by);
        PyObject *name = PyTuple_GET_ITEM(names, each);
        while (known < all && PyTuple_GET_ITEM(passed_by, known) != name) {
            known++;
        }
        int is_own_version = name == state->objects[N_VERSION] && given < 5 && args[given + each] == Py_None;
        if (known == all && !is_own_version) {
            return 0;
        }
    }
    return 1;
}

/* Tell whether get_or_set() with arguments of these names serves any live envelope that nobody computes anew. */
static int
serves_envelopes(State *state, PyObject *self, PyObject *names)
{
    PyObject *freshness = SLOT(self, H_FRESHNESS), *passed_by = state->objects[PASSED_BY];
    PyObject *early = IS(freshness, FRESHNESS) ? SLOT(freshness, B_EARLY) : NULL;
    int serves = IS_FLOAT(early) && PyFloat_AS_DOUBLE(early) == 0;
    for (Py_ssize_t each = 0; names != NULL && each < PyTuple_GET_SIZE(names); each++) {
        PyObject *name = PyTuple_GET_ITEM(names, each); /* others are options, which may have wrong values */
        serves = serves && (name == PyTuple_GET_ITEM(passed_by, 0) || name == PyTuple_GET_ITEM(passed_by, 1) ||
                            name == state->objects[N_VERSION]);
    }
    return serves;
}

/* Find the value of an envelope that get_or_set() serves, and does nothing else. */
static int
serve(State *state, PyObject *self, Hit *hit)
{
    PyObject *leased_until = IS(hit->value, ENVELOPE) ? SLOT(hit->value, T_LEASED_UNTIL) : NULL, *value = NULL;
    int is_left = IS_FLOAT(leased_until) && PyFloat_AS_DOUBLE(leased_until) == 0;
    int answer = is_left ? open_live(state, self, hit->value, &value) : PYTHONS;
    Py_XSETREF(hit->value, value);
    return answer;
}

/* Read the pickle of a hit, if it has one. That it is not readable, the method in Python finds out, too. */
static int
load(State *state, Hit *hit)
{
    if (hit->pickle != NULL) {
        hit->value = PyObject_CallOneArg(state->objects[LOADS], hit->pickle);
    }
    if (hit->value != NULL) {
        return OURS;
    }
    PyObject *error = caught();
    if (error == NULL) {
        return ERROR;
    }
    PyObject *terms[] = {error, state->objects[LOADS], hit->pickle};
    PyObject *none = PyObject_Vectorcall(state->objects[RAISE_IF_FOREIGN], terms, 3, NULL);
    Py_DECREF(error);
    Py_XDECREF(none);
    return none == NULL ? ERROR : PYTHONS;
}

/* Find the object of a live entry for get_or_set(), and count it. */
static int
reuse(State *state, PyObject *self, Finder *finder, PyObject *key, PyObject *names, PyObject **value)
{
    Hit hit;
    int answer = find_live(state, self, finder, key, &hit);
    if (answer == OURS && hit.is_enveloped && !serves_envelopes(state, self, names)) {
        answer = PYTHONS;
        let_go(&hit);
    }
    if (answer != OURS) {
        return answer;
    }
    answer = load(state, &hit);
    answer = answer == OURS && hit.is_enveloped ? serve(state, self, &hit) : answer;
    if (answer == OURS && (bump(state, hit.entry) == ERROR || count(state, hit.counters, C_REUSED) == ERROR)) {
        answer = ERROR;
    }
    *value = answer == OURS ? Py_NewRef(hit.value) : NULL;
    let_go(&hit);
    return answer;
}

/* get_or_set(self, key, default, timeout=DEFAULT_TIMEOUT, version=None, tags=(), ...) */
static PyObject *
get_or_set(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *names)
{
    Method *method = (Method *)callable;
    PyObject *value = NULL;
    int is_simple = passes_by(method->state, args, PyVectorcall_NARGS(nargsf), names);
    int answer = is_simple ? reuse(method->state, args[0], find, args[1], names, &value) : PYTHONS;
    return answer == PYTHONS ? in_python(method, args, nargsf, names) : value;
}

/* Find an entry of a near tier that is to be believed, and its object. */
static int
find_near(State *state, PyObject *self, PyObject *key, Hit *hit)
{
    memset(hit, 0, sizeof(Hit));
    PyTypeObject *tiered = (PyTypeObject *)state->objects[TIERED];
    PyObject *near = tiered != NULL && PyObject_TypeCheck(self, tiered) ? SLOT(self, R_NEAR) : NULL;
    if (!IS(near, TABLE)) {
        return PYTHONS;
    }
    hit->counters = Py_NewRef(near);
    PyObject *overlay = PyObject_GetAttr(self, state->objects[N_OVERLAY]);
    int answer = overlay == NULL ? ERROR : overlay == SLOT(self, R_BELOW) ? OURS : PYTHONS;
    Py_XDECREF(overlay);
    double now;
    answer = answer == OURS ? find_by(state, SLOT(self, R_HEAD), SLOT(self, R_ENTRIES), key, &hit->entry) : answer;
    answer = answer == OURS ? read_uptime(state, &now) : answer;
    if (answer == OURS) {
        PyObject *expires_at = SLOT(hit->entry, E_EXPIRES_AT), *trusted_until = SLOT(near, K_TRUSTED_UNTIL);
        int is_believed = IS_FLOAT(expires_at) && PyFloat_AS_DOUBLE(expires_at) > now && IS_FLOAT(trusted_until) &&
                          now < PyFloat_AS_DOUBLE(trusted_until);
        answer = is_believed && take(state, hit) ? load(state, hit) : PYTHONS;
    }
    if (answer != OURS) {
        let_go(hit);
    }
    return answer;
}

/* TieredCache.get(self, key, default=None, version=None) */
static PyObject *
get_near(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *names)
{
    Method *method = (Method *)callable;
    State *state = method->state;
    Py_ssize_t given = PyVectorcall_NARGS(nargsf), named = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    Hit hit;
    int answer = asks_simply(state, args, given, names) ? find_near(state, args[0], args[1], &hit) : PYTHONS;
    if (answer != OURS) {
        return answer == ERROR ? NULL : in_python(method, args, nargsf, names);
    }
    PyObject *value = NULL, *absent = given + named > 2 ? args[2] : Py_None;
    if (bump(state, hit.entry) == OURS) {
        if ((hit.is_enveloped || hit.pickle != NULL) && IS(hit.value, ENVELOPE)) {
            PyObject *terms[] = {args[0], args[1], hit.value, absent};
            value = PyObject_VectorcallMethod(state->objects[N_ENVELOPED], terms, 4, NULL);
        }
        else if (count(state, hit.counters, K_DIRECT_HITS) == OURS) {
            value = Py_NewRef(hit.value);
        }
    }
    let_go(&hit);
    return value;
}

/* Writes ----------------------------------------------------------------------------------------------------------- */

/* Tell whether an object is kept as it is: IMMUTABLE of storeroom.storage.copies. */
static int
is_immutable(PyObject *value)
{
    return PyUnicode_CheckExact(value) || PyLong_CheckExact(value) || PyFloat_CheckExact(value) ||
           PyBool_Check(value) || value == Py_None || PyBytes_CheckExact(value) || PyComplex_CheckExact(value);
}

/* Read a timeout that is seconds, or words for them; NULL is the default one. */
static int
read_timeout(State *state, PyObject *self, PyObject *timeout, double *seconds)
{
    int is_default = timeout == NULL || timeout == state->objects[DEFAULT_TIMEOUT];
    PyObject *term = Py_XNewRef(is_default ? SLOT(self, H_DEFAULT_TIMEOUT) : timeout);
    if (term == NULL) { /* a subclass has it in another way */
        term = PyObject_GetAttr(self, state->objects[N_DEFAULT_TIMEOUT]);
    }
    if (term != NULL && PyUnicode_CheckExact(term)) {
        Py_SETREF(term, PyObject_CallOneArg(state->objects[PARSE_WORDS], term)); /* which remembers many */
    }
    if (term == NULL) {
        return ERROR;
    }
    *seconds = -1.0;
    if (PyFloat_CheckExact(term)) {
        *seconds = PyFloat_AS_DOUBLE(term);
    }
    else if (PyLong_CheckExact(term)) {
        *seconds = PyLong_AsDouble(term);
        PyErr_Clear(); /* larger than any float: more than the longest */
    }
    Py_DECREF(term);
    return 0 < *seconds && *seconds < LONGEST_TIMEOUT ? OURS : PYTHONS;
}

/* Tell whether an entry can be overwritten where it is, as nobody is in the midst of a change, and nothing else is due.
   Whoever makes one has noted it while the interpreter's lock may change hands: so the map's own lock is not needed. */
static int
may_overwrite(State *state, PyObject *self, PyObject *entry, double now, double until)
{
    PyObject *map = SLOT(self, H_MAP), *alone = SLOT(self, H_ALONE), *index = SLOT(self, H_INDEX);
    if (!IS(map, MAP) || !IS(alone, ALONE) || !IS(index, INDEX)) {
        return 0;
    }
    PyObject *key = SLOT(entry, E_KEY), *due = SLOT(index, I_DUE), *indexed = SLOT(entry, E_INDEXED);
    int is_in_map = key != NULL && PyUnicode_CheckExact(key) && PyUnicode_GET_LENGTH(key) > 0;
    return is_in_map && SLOT(alone, A_IS_UNDER_WAY) == Py_False && SLOT(map, M_HAS_SIZES) == Py_False &&
           IS_FLOAT(due) && now < PyFloat_AS_DOUBLE(due) && now < until &&
           IS_FLOAT(indexed) && !(until < PyFloat_AS_DOUBLE(indexed));
}

/* Do the rest of a write: free what others have dropped, count, and look at one key in some. */
static int
end_write(State *state, PyObject *self, PyObject *map, PyObject *written, PyObject *key)
{
    PyObject *dropped = SLOT(map, M_DROPPED), *none = NULL;
    Py_ssize_t waiting = dropped == NULL ? 0 : PyObject_Size(dropped);
    if (waiting != 0) {
        none = waiting < 0 ? NULL : PyObject_CallMethodNoArgs(map, state->objects[N_LET_GO]);
        if (none == NULL) {
            return ERROR;
        }
        Py_DECREF(none);
    }
    if (count(state, written, S_NUMBER) == ERROR) {
        return ERROR;
    }
    PyObject *number = SLOT(written, S_NUMBER), *due = SLOT(written, S_DUE);
    int is_due = number != NULL && due != NULL ? PyObject_RichCompareBool(number, due, Py_GE) : 0;
    if (is_due <= 0) {
        return is_due < 0 ? ERROR : OURS;
    }
    none = PyObject_CallMethodOneArg(self, state->objects[N_SAMPLE], key);
    Py_XDECREF(none);
    return none == NULL ? ERROR : OURS;
}

/* Put a value into an entry, and do the rest of the write. */
static int
overwrite(State *state, PyObject *self, PyObject *entry, PyObject *key, PyObject *value, PyObject *until)
{
    PyObject *counters = SLOT(self, H_COUNTERS), *written = IS(counters, COUNTERS) ? SLOT(counters, C_WRITTEN) : NULL;
    if (!IS(written, SAMPLED)) {
        return PYTHONS;
    }
    PyObject *map = Py_NewRef(SLOT(self, H_MAP));
    PyObject *before[] = {SLOT(entry, E_VALUE), SLOT(entry, E_ENCODED), SLOT(entry, E_EXPIRES_AT)};
    SLOT(entry, E_VALUE) = Py_NewRef(value);
    SLOT(entry, E_ENCODED) = Py_NewRef(Py_None);
    SLOT(entry, E_EXPIRES_AT) = Py_NewRef(until);
    Py_INCREF(written);
    int answer = end_write(state, self, map, written, key);
    Py_DECREF(written);
    Py_DECREF(map);
    for (size_t each = 0; each < 3; each++) { /* freed last, as that may run code of a program's */
        Py_XDECREF(before[each]);
    }
    return answer;
}

static int
are_same(PyObject *one, PyObject *other)
{
    return one == other || (one != NULL && PyLong_CheckExact(one) && other != NULL && PyLong_CheckExact(other) &&
                            PyObject_RichCompareBool(one, other, Py_EQ) == 1);
}

/* Tell whether all is as this handle's _store() left it: its head is noted, and the bounds are its own. */
static int
is_settled(State *state, PyObject *self, PyObject *map)
{
    PyObject *engine = SLOT(self, H_ENGINE), *head = SLOT(self, H_HEAD);
    if (!IS(engine, ENGINE) || head == NULL || head != SLOT(self, H_NOTED) ||
        SLOT(self, H_ENTRIES) != SLOT(map, M_ENTRIES) || SLOT(self, H_CULL_FREQUENCY) != SLOT(map, M_CULL_FREQUENCY)) {
        return 0;
    }
    int own_entries = SLOT(self, H_BOUNDS_ENTRIES) == Py_True, own_bytes = SLOT(self, H_BOUNDS_BYTES) == Py_True;
    PyObject *max_entries = own_entries ? SLOT(self, H_MAX_ENTRIES) : SLOT(engine, G_MAX_ENTRIES);
    PyObject *max_bytes = own_bytes ? SLOT(self, H_MAX_BYTES) : SLOT(engine, G_MAX_BYTES);
    return are_same(SLOT(map, M_MAX_ENTRIES), max_entries) && SLOT(map, M_HAS_SIZES) == Py_False &&
           SLOT(map, M_MAX_BYTES) == Py_None && max_bytes == Py_None;
}

/* Insert a new key under the lock, noted as a change under way. */
static int
insert(State *state, PyObject *self, PyObject *map, PyObject *storage_key, PyObject *value, PyObject *until, double now)
{
    PyObject *alone = SLOT(self, H_ALONE);
    if (!IS(alone, ALONE) || SLOT(alone, A_IS_UNDER_WAY) != Py_False || !is_settled(state, self, map)) {
        return PYTHONS;
    }
    Py_INCREF(alone);
    PyObject *terms[] = {map, storage_key, value, Py_None, until, state->objects[ZERO]};
    Py_SETREF(SLOT(alone, A_IS_UNDER_WAY), Py_NewRef(Py_True));
    int answer = insertion_insert(state->insertion, terms, now);
    if (answer != ERROR) { /* else it was cut short, which the next change finds out */
        Py_SETREF(SLOT(alone, A_IS_UNDER_WAY), Py_NewRef(Py_False));
    }
    Py_DECREF(alone);
    return answer;
}

/* Put a new key into the map, and do the rest of the write. Nothing runs between the look for the key and the taking of
   the lock, which does not wait: where another thread has it, the method in Python does. */
static int
put_new(State *state, PyObject *self, PyObject *key, PyObject *storage_key, PyObject *value, PyObject *until,
        double now)
{
    PyObject *map = SLOT(self, H_MAP), *lock = SLOT(self, H_LOCK), *counters = SLOT(self, H_COUNTERS), *written;
    written = IS(counters, COUNTERS) ? SLOT(counters, C_WRITTEN) : NULL;
    int is_tag = PyUnicode_READ_CHAR(storage_key, 0) == PyUnicode_READ_CHAR(state->objects[TAG_PREFIX], 0);
    if (!IS(map, MAP) || !IS(written, SAMPLED) || state->insertion == NULL || is_tag || lock == NULL ||
        !PyObject_TypeCheck(lock, (PyTypeObject *)state->objects[LOCK]) ||
        !Py_IS_TYPE(state->objects[ACQUIRE], &PyMethodDescr_Type)) { /* a lock in Python may run other code */
        return PYTHONS;
    }
    PyObject *terms[] = {lock, Py_False}, *taken = PyObject_Vectorcall(state->objects[ACQUIRE], terms, 2, NULL);
    Py_XDECREF(taken);
    if (taken != Py_True) {
        return taken == NULL ? ERROR : PYTHONS;
    }
    Py_INCREF(map);
    Py_INCREF(lock);
    Py_INCREF(written);
    PyObject *type, *error, *traceback;
    int answer = insert(state, self, map, storage_key, value, until, now);
    PyErr_Fetch(&type, &error, &traceback);
    PyObject *none = PyObject_Vectorcall(state->objects[RELEASE], terms, 1, NULL);
    PyErr_Restore(type, error, traceback);
    answer = answer == OURS ? end_write(state, self, map, written, key) : answer;
    Py_XDECREF(none);
    Py_DECREF(written);
    Py_DECREF(lock);
    Py_DECREF(map);
    return answer;
}

static int
put(State *state, PyObject *self, PyObject *key, PyObject *value, PyObject *timeout)
{
    double seconds, now;
    PyObject *entry = NULL, *storage_key = NULL;
    int answer = is_immutable(value) ? is_plain(state, self) : PYTHONS;
    if (answer == OURS && !(IS_TEXT(SLOT(self, H_HEAD)) && PyUnicode_CheckExact(key))) {
        return PYTHONS; /* an error of the key comes before one of the timeout */
    }
    answer = answer == OURS ? read_timeout(state, self, timeout, &seconds) : answer;
    answer = answer == OURS ? read_clock(state, &now) : answer;
    if (answer != OURS || (storage_key = storage_key_of(state, self, key)) == NULL) {
        return answer == OURS ? pythons_or_error() : answer;
    }
    PyObject *until = PyFloat_FromDouble(now + seconds);
    answer = until == NULL ? ERROR : find_noted(state, self, storage_key, &entry);
    if (answer == OURS) {
        int may = may_overwrite(state, self, entry, now, now + seconds);
        answer = may ? overwrite(state, self, entry, key, value, until) : PYTHONS;
    }
    else if (answer == PYTHONS) {
        answer = put_new(state, self, key, storage_key, value, until, now);
    }
    Py_XDECREF(until);
    Py_DECREF(storage_key);
    Py_XDECREF(entry);
    return answer;
}

/* set(self, key, value, timeout=DEFAULT_TIMEOUT, version=None, *, tags=()) */
static PyObject *
set(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *names)
{
    Method *method = (Method *)callable;
    State *state = method->state;
    Py_ssize_t given = PyVectorcall_NARGS(nargsf), named = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    int is_simple = given >= 3 && (given <= 4 || (given == 5 && args[4] == Py_None)) && named == 0;
    is_simple = is_simple || (given == 3 && named == 1 && PyTuple_GET_ITEM(names, 0) == state->objects[N_TIMEOUT]);
    int answer = is_simple ? put(state, args[0], args[1], args[2], given + named > 3 ? args[3] : NULL) : PYTHONS;
    if (answer == OURS) {
        Py_RETURN_NONE;
    }
    return answer == ERROR ? NULL : in_python(method, args, nargsf, names);
}

/* Coroutines ------------------------------------------------------------------------------------------------------- */

/* A call of aget() or aget_or_set(). Where it is awaited and finds a live entry, no coroutine of Python's is made. For
   whatever else is done with it there is one, made of the same arguments, which does it: it is thrown into, waits for a
   computation, tells of its frame, or warns that it was never awaited. */
typedef struct {
    PyObject_HEAD
    Method *method;
    PyObject *args[LONGEST_CALL], *names;
    Py_ssize_t given, kept; /* arguments by position, and all of them */
    PyObject *python; /* the coroutine of Python's; NULL until there is one */
    PyObject *weak_references;
    enum { NEW, RUNNING, ENDED, HANDED_ON } stage;
    int is_finalized;
} Coroutine;

static int answer_cached(State *, PyObject *, PyObject *const *, Py_ssize_t, PyObject **);
static PyObject *acached(PyObject *, PyObject *const *, size_t, PyObject *);

/* Keep the arguments of a call for when it is awaited. */
static PyObject *
awaitable(Method *method, PyObject *self, PyObject *const *args, Py_ssize_t given, PyObject *names)
{
    State *state = method->state;
    PyTypeObject *type = (PyTypeObject *)state->objects[COROUTINE];
    Coroutine *made = (Coroutine *)state->spare;
    if (made != NULL) {
        state->spare = NULL;
        PyObject_Init((PyObject *)made, type);
    }
    else if ((made = PyObject_GC_New(Coroutine, type)) == NULL) {
        return NULL;
    }
    made->method = (Method *)Py_NewRef(method);
    made->given = given + 1;
    made->names = Py_XNewRef(names);
    made->kept = made->given + (names == NULL ? 0 : PyTuple_GET_SIZE(names));
    made->args[0] = Py_NewRef(self);
    for (Py_ssize_t each = 1; each < made->kept; each++) {
        made->args[each] = Py_NewRef(args[each - 1]);
    }
    made->python = made->weak_references = NULL;
    made->stage = NEW;
    made->is_finalized = 0;
    PyObject_GC_Track(made);
    return (PyObject *)made;
}

/* Tell whether a call can be kept: whoever wants to know where coroutines were made gets Python's own. */
static int
can_be_kept(Py_ssize_t given, PyObject *names)
{
    Py_ssize_t all = given + (names == NULL ? 0 : PyTuple_GET_SIZE(names));
    return all <= LONGEST_CALL && PyThreadState_Get()->coroutine_origin_tracking_depth == 0;
}

/* aget(self, key, default=None, version=None) */
static PyObject *
aget(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *names)
{
    Method *method = (Method *)callable;
    Py_ssize_t given = PyVectorcall_NARGS(nargsf);
    int is_simple = given >= 2 && given <= 4 && names == NULL && can_be_kept(given, names);
    return is_simple ? awaitable(method, args[0], args + 1, given - 1, NULL) : in_python(method, args, nargsf, names);
}

/* aget_or_set(self, key, default, timeout=DEFAULT_TIMEOUT, version=None, tags=(), ...) */
static PyObject *
aget_or_set(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *names)
{
    Method *method = (Method *)callable;
    Py_ssize_t given = PyVectorcall_NARGS(nargsf);
    int is_simple = passes_by(method->state, args, given, names) && can_be_kept(given, names);
    return is_simple ? awaitable(method, args[0], args + 1, given - 1, names) : in_python(method, args, nargsf, names);
}

static int
coroutine_clear(PyObject *self)
{
    Coroutine *it = (Coroutine *)self;
    Py_ssize_t kept = it->kept;
    it->kept = 0; /* freeing them may run code that looks at this */
    for (Py_ssize_t each = 0; each < kept; each++) {
        Py_DECREF(it->args[each]);
    }
    Py_CLEAR(it->names);
    Py_CLEAR(it->python);
    return 0;
}

/* Let go of the arguments: the call has ended. */
static void
end(Coroutine *it)
{
    it->stage = ENDED;
    coroutine_clear((PyObject *)it);
}

/* Hand the call on to a coroutine of Python's. */
static int
hand_on(Coroutine *it)
{
    PyObject *made = in_python(it->method, it->args, (size_t)it->given, it->names);
    if (made == NULL) {
        end(it);
        return ERROR;
    }
    end(it);
    it->python = made;
    it->stage = HANDED_ON;
    return OURS;
}

/* Do as Python does with a StopIteration that a coroutine raises: it would be taken for the result. */
static void
refuse_stop_iteration(void)
{
    if (PyErr_ExceptionMatches(PyExc_StopIteration)) {
        PyObject *stop = caught();
        PyErr_SetString(PyExc_RuntimeError, "coroutine raised StopIteration");
        PyObject *error = caught();
        PyException_SetCause(error, Py_NewRef(stop));
        PyException_SetContext(error, stop);
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
    }
}

/* See that a class has the get(), _get(), get_or_set() and aget_or_set() of LocMemCache: by these all others read. */
static int
class_reads_as_ours(State *state, PyTypeObject *type)
{
    if (type == state->reading && type->tp_version_tag != 0 && type->tp_version_tag == state->reading_version) {
        return OURS;
    }
    PyObject *owner = state->objects[LOCMEM];
    for (int name = N_GET; name <= N_AGET_OR_SET; name++) {
        PyObject *own = owner == NULL ? NULL : PyObject_GetAttr(owner, state->objects[name]);
        PyObject *found = own == NULL ? NULL : PyObject_GetAttr((PyObject *)type, state->objects[name]);
        int is_ours = own != NULL && found == own && (name != N_GET || IS(own, METHOD));
        if (is_ours && name == N_GET) {
            Py_XSETREF(state->objects[READER], Py_NewRef(own));
        }
        Py_XDECREF(own);
        Py_XDECREF(found);
        if (!is_ours) {
            return pythons_or_error();
        }
    }
    state->reading = type;
    state->reading_version = type->tp_version_tag;
    return OURS;
}

/* See that a handle reads so, too: that nobody has replaced these methods in the instance. */
static int
reads_as_ours(State *state, PyObject *self)
{
    int answer = class_reads_as_ours(state, Py_TYPE(self));
    PyObject *own = answer == OURS ? PyObject_GenericGetDict(self, NULL) : NULL;
    if (own == NULL) {
        return answer == OURS ? ERROR : answer;
    }
#if PY_VERSION_HEX < 0x030C0000
    if (((PyDictObject *)own)->ma_version_tag == state->attributes_version) { /* no two dicts ever have the same */
        Py_DECREF(own);
        return OURS;
    }
#endif
    for (int name = N_GET; answer == OURS && name <= N_AGET_OR_SET; name++) {
        int has = PyDict_Contains(own, state->objects[name]);
        answer = has == 0 ? OURS : has > 0 ? PYTHONS : ERROR;
    }
#if PY_VERSION_HEX < 0x030C0000
    state->attributes_version = answer == OURS ? ((PyDictObject *)own)->ma_version_tag : 0;
#endif
    Py_DECREF(own);
    return answer;
}

/* Return the object that an entry keeps, or its envelope; NULL if it is over, or has a pickle. Borrowed. */
static PyObject *
kept_in(State *state, PyObject *entry, double now)
{
    PyObject *expires_at = IS(entry, ENTRY) ? SLOT(entry, E_EXPIRES_AT) : NULL;
    if (!IS_FLOAT(expires_at) || !(PyFloat_AS_DOUBLE(expires_at) > now)) {
        return NULL;
    }
    PyObject *value = SLOT(entry, E_VALUE), *encoded = SLOT(entry, E_ENCODED);
    return value != state->objects[ENCODED_MARK] ? value : IS(encoded, ENVELOPE) ? encoded : NULL;
}

/* The entries that are asked for together, and their objects as they were, if somebody has them. */
typedef struct {
    PyObject *storage_keys, *before, *entries[MOST_TOGETHER], *values[MOST_TOGETHER]; /* all borrowed */
    Py_ssize_t size;
} Together;

/* Look the entries up, whose objects have to be there. */
static int
look_up(State *state, PyObject *self, Together *asked, double now)
{
    PyObject *entries = SLOT(self, H_ENTRIES);
    if (entries == NULL || !PyDict_CheckExact(entries)) { /* others are for very many entries */
        return PYTHONS;
    }
    for (Py_ssize_t each = 0; each < asked->size; each++) {
        PyObject *storage_key = PyTuple_GET_ITEM(asked->storage_keys, each);
        PyObject *entry = PyUnicode_CheckExact(storage_key) ? PyDict_GetItemWithError(entries, storage_key) : NULL;
        asked->entries[each] = entry;
        asked->values[each] = entry == NULL ? NULL : kept_in(state, entry, now);
        if (asked->values[each] == NULL) {
            return pythons_or_error();
        }
    }
    return OURS;
}

/* Return the objects in a tuple; in that of before, if they are the same. */
static PyObject *
tuple_of(Together *asked)
{
    Py_ssize_t same = 0;
    while (asked->before != NULL && same < asked->size &&
           PyTuple_GET_ITEM(asked->before, same) == asked->values[same]) {
        same++;
    }
    if (asked->before != NULL && same == asked->size) {
        return Py_NewRef(asked->before);
    }
    for (Py_ssize_t each = 0; each < asked->size; each++) { /* the collector may run, and free them */
        Py_INCREF(asked->values[each]);
    }
    PyObject *found = PyTuple_New(asked->size);
    for (Py_ssize_t each = 0; each < asked->size; each++) {
        if (found == NULL) {
            Py_DECREF(asked->values[each]);
        }
        else {
            PyTuple_SET_ITEM(found, each, asked->values[each]);
        }
    }
    return found;
}

/* Read the entries, all of them or none; nothing runs between the first look and the last. */
static int
read_together(State *state, PyObject *self, Together *asked, PyObject **found)
{
    double now;
    int answer = is_plain(state, self);
    answer = answer == OURS ? reads_as_ours(state, self) : answer;
    answer = answer == OURS ? read_clock(state, &now) : answer;
    answer = answer == OURS ? look_up(state, self, asked, now) : answer;
    for (Py_ssize_t each = 0; answer == OURS && each < asked->size; each++) {
        answer = bump(state, asked->entries[each]);
    }
    if (answer == OURS && (*found = tuple_of(asked)) == NULL) {
        answer = ERROR;
    }
    return answer;
}

/* _get_together(self, storage_keys, before=()) */
static PyObject *
get_together(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *names)
{
    Method *method = (Method *)callable;
    Py_ssize_t given = PyVectorcall_NARGS(nargsf);
    PyObject *found = NULL;
    int answer = PYTHONS;
    if ((given == 2 || given == 3) && names == NULL && PyTuple_CheckExact(args[1])) {
        Together asked = {.storage_keys = args[1], .size = PyTuple_GET_SIZE(args[1])};
        int fits = given == 3 && PyTuple_CheckExact(args[2]) && PyTuple_GET_SIZE(args[2]) == asked.size;
        asked.before = fits ? args[2] : NULL;
        answer = asked.size <= MOST_TOGETHER ? read_together(method->state, args[0], &asked, &found) : PYTHONS;
    }
    return answer == PYTHONS ? in_python(method, args, nargsf, names) : found;
}

/* Do what the call does, if it is an ordinary one. */
static int
answer_call(Coroutine *it, PyObject **value)
{
    State *state = it->method->state;
    PyObject *self = it->args[0];
    if (it->method->call == acached) {
        return answer_cached(state, self, it->args + 1, it->given - 1, value);
    }
    int answer = is_plain(state, self);
    answer = answer == OURS ? reads_as_ours(state, self) : answer;
    if (answer != OURS) {
        return answer;
    }
    if (it->method->call == aget_or_set) {
        return reuse(state, self, find, it->args[1], it->names, value);
    }
    PyObject *const *args = it->args;
    int is_simple = it->given < 4 || args[3] == Py_None;
    Hit hit;
    answer = is_simple ? find_live(state, self, find, args[1], &hit) : PYTHONS;
    if (answer == OURS) {
        *value = answer_of(state, self, &hit, it->given > 2 ? args[2] : Py_None);
        let_go(&hit);
    }
    else if (answer == PYTHONS) {
        *value = in_python((Method *)state->objects[READER], args, (size_t)it->given, NULL);
    }
    return *value == NULL ? ERROR : OURS;
}

static PySendResult
send_on(Coroutine *it, PyObject *sent, PyObject **result)
{
    PyObject *python = Py_NewRef(it->python); /* it may be dropped meanwhile */
    PySendResult how = PyIter_Send(python, sent, result);
    Py_DECREF(python);
    return how;
}

static PySendResult
coroutine_am_send(PyObject *self, PyObject *sent, PyObject **result)
{
    Coroutine *it = (Coroutine *)self;
    *result = NULL;
    if (it->stage == NEW) {
        if (sent != NULL && sent != Py_None) {
            PyErr_SetString(PyExc_TypeError, "can't send non-None value to a just-started coroutine");
            return PYGEN_ERROR;
        }
        it->stage = RUNNING;
        int answer = answer_call(it, result);
        if (answer == PYTHONS) {
            return hand_on(it) == OURS ? send_on(it, Py_None, result) : PYGEN_ERROR;
        }
        end(it);
        if (answer == ERROR) {
            refuse_stop_iteration();
        }
        return answer == OURS ? PYGEN_RETURN : PYGEN_ERROR;
    }
    if (it->stage == HANDED_ON) {
        return send_on(it, sent, result);
    }
    if (it->stage == RUNNING) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
    }
    else {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
    }
    return PYGEN_ERROR;
}

static PyObject *
coroutine_send(PyObject *self, PyObject *sent)
{
    PyObject *result;
    PySendResult how = coroutine_am_send(self, sent, &result);
    if (how == PYGEN_RETURN) { /* an exception of its own: a tuple would be taken for several arguments */
        PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);
        Py_CLEAR(result);
        if (stop != NULL) {
            PyErr_SetObject(PyExc_StopIteration, stop);
            Py_DECREF(stop);
        }
    }
    return result;
}

static PyObject *
coroutine_next(PyObject *self)
{
    return coroutine_send(self, Py_None);
}

/* Return the coroutine of Python's, for what it alone can do; NULL and an error if this one is being awaited. */
static PyObject *
python_of(Coroutine *it)
{
    if (it->stage == RUNNING) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return NULL;
    }
    return it->stage == NEW && hand_on(it) == ERROR ? NULL : it->python;
}

static PyObject *
coroutine_throw(PyObject *self, PyObject *const *args, Py_ssize_t given)
{
    Coroutine *it = (Coroutine *)self;
    PyObject *python = python_of(it);
    if (python == NULL) {
        if (it->stage == ENDED && !PyErr_Occurred()) {
            PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        }
        return NULL;
    }
    PyObject *throw = PyObject_GetAttrString(python, "throw");
    PyObject *result = throw == NULL ? NULL : PyObject_Vectorcall(throw, args, (size_t)given, NULL);
    Py_XDECREF(throw);
    return result;
}

static PyObject *
coroutine_close(PyObject *self, PyObject *Py_UNUSED(none))
{
    Coroutine *it = (Coroutine *)self;
    if (it->stage == HANDED_ON) {
        return PyObject_CallMethod(it->python, "close", NULL);
    }
    if (it->stage == RUNNING) {
        return python_of(it); /* the error */
    }
    end(it);
    Py_RETURN_NONE;
}

static PyObject *
coroutine_await(PyObject *self)
{
    Coroutine *it = (Coroutine *)self;
    if (it->stage == HANDED_ON) {
        PyObject *awaited = PyObject_GetAttrString(it->python, "cr_await");
        int is_free = awaited == Py_None;
        Py_XDECREF(awaited);
        if (!is_free) {
            if (awaited != NULL) {
                PyErr_SetString(PyExc_RuntimeError, "coroutine is being awaited already");
            }
            return NULL;
        }
    }
    return Py_NewRef(self);
}

static PyObject *
coroutine_iter(PyObject *self) /* for generators that types.coroutine() has made, as those may await by `yield from` */
{
    return coroutine_await(self);
}

/* Return an attribute of a coroutine that is being awaited without one of Python's, or has ended so. */
static PyObject *
attribute_without_frame(Coroutine *it, const char *name)
{
    if (strcmp(name, "cr_code") == 0 && it->method->function != NULL) {
        return PyObject_GetAttrString(it->method->function, "__code__");
    }
    if (strcmp(name, "cr_running") == 0 || strcmp(name, "cr_suspended") == 0) {
        return PyBool_FromLong(it->stage == RUNNING && name[3] == 'r');
    }
    Py_RETURN_NONE;
}

/* An attribute of its own, or else of the coroutine in Python: its name, its frame, its code, and whom it awaits. */
static PyObject *
coroutine_getattro(PyObject *self, PyObject *name)
{
    Coroutine *it = (Coroutine *)self;
    PyObject *found = PyObject_GenericGetAttr(self, name);
    if (found != NULL || !PyErr_ExceptionMatches(PyExc_AttributeError)) {
        return found;
    }
    const char *text = PyUnicode_AsUTF8(name);
    int is_name = text != NULL && (strcmp(text, "__name__") == 0 || strcmp(text, "__qualname__") == 0);
    PyObject *source = is_name ? it->method->function : NULL;
    if (text != NULL && strncmp(text, "cr_", 3) == 0) {
        if ((it->stage == RUNNING || it->stage == ENDED) && PyObject_HasAttr((PyObject *)&PyCoro_Type, name)) {
            PyErr_Clear();
            return attribute_without_frame(it, text);
        }
        if (it->stage == NEW || it->stage == HANDED_ON) {
            PyErr_Clear();
            source = python_of(it);
        }
    }
    if (source == NULL) {
        return NULL;
    }
    PyErr_Clear();
    return PyObject_GetAttr(source, name);
}

/* To isinstance() it is a coroutine, so that inspect.iscoroutine() and its kin know it. */
static PyObject *
coroutine_class(PyObject *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    return Py_NewRef(&PyCoro_Type);
}

static PyObject *
coroutine_repr(PyObject *self)
{
    PyObject *name = PyObject_GetAttrString(self, "__qualname__");
    PyObject *text = name == NULL ? NULL : PyUnicode_FromFormat("<coroutine object %S at %p>", name, self);
    Py_XDECREF(name);
    return text;
}

static int
coroutine_traverse(PyObject *self, visitproc visit, void *arg)
{
    Coroutine *it = (Coroutine *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(it->method);
    for (Py_ssize_t each = 0; each < it->kept; each++) {
        Py_VISIT(it->args[each]);
    }
    Py_VISIT(it->names);
    Py_VISIT(it->python);
    return 0;
}

/* Let Python warn that it was never awaited: of the coroutine that would have been. */
static void
coroutine_finalize(PyObject *self)
{
    ((Coroutine *)self)->is_finalized = 1;
    if (((Coroutine *)self)->stage == NEW) {
        PyObject *type, *error, *traceback;
        PyErr_Fetch(&type, &error, &traceback);
        if (hand_on((Coroutine *)self) == ERROR) {
            PyErr_WriteUnraisable(self);
        }
        Py_CLEAR(((Coroutine *)self)->python);
        ((Coroutine *)self)->stage = ENDED;
        PyErr_Restore(type, error, traceback);
    }
}

static void
coroutine_dealloc(PyObject *self)
{
    Coroutine *it = (Coroutine *)self;
    int was_awaited = it->stage != NEW;
    if (!was_awaited && PyObject_CallFinalizerFromDealloc(self) < 0) {
        return; /* somebody has it again */
    }
    PyObject_GC_UnTrack(self);
    if (it->weak_references != NULL) {
        PyObject_ClearWeakRefs(self);
    }
    coroutine_clear(self);
    PyTypeObject *type = Py_TYPE(self);
    Method *method = it->method;
    State *state = method->state;
    if (was_awaited && state->is_ready && state->spare == NULL && !it->is_finalized) {
        state->spare = self;
    }
    else {
        PyObject_GC_Del(self);
    }
    Py_DECREF(method);
    Py_DECREF(type);
}

static PyMemberDef coroutine_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Coroutine, weak_references), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef coroutine_getset[] = {
    {"__class__", coroutine_class, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef coroutine_methods[] = {
    {"send", coroutine_send, METH_O, NULL},
    {"throw", (PyCFunction)(void (*)(void))coroutine_throw, METH_FASTCALL, NULL},
    {"close", coroutine_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot coroutine_slots[] = {
    {Py_am_await, coroutine_await},
    {Py_am_send, coroutine_am_send},
    {Py_tp_iter, coroutine_iter},
    {Py_tp_iternext, coroutine_next},
    {Py_tp_getattro, coroutine_getattro},
    {Py_tp_repr, coroutine_repr},
    {Py_tp_traverse, coroutine_traverse},
    {Py_tp_clear, coroutine_clear},
    {Py_tp_finalize, coroutine_finalize},
    {Py_tp_dealloc, coroutine_dealloc},
    {Py_tp_members, coroutine_members},
    {Py_tp_getset, coroutine_getset},
    {Py_tp_methods, coroutine_methods},
    {0, NULL},
};

static PyType_Spec coroutine_spec = {
    .name = "storeroom.backends.locmem._compiled.Coroutine",
    .basicsize = sizeof(Coroutine),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = coroutine_slots,
};

/* Calls of functions that are @cached ------------------------------------------------------------------------------ */

/* Tell whether an argument is such that a key with it may be remembered: its equals have the same text, for ever. */
static int
is_literal(PyObject *argument)
{
    int overflow = 0;
    if (PyLong_CheckExact(argument)) {
        PyLong_AsLongLongAndOverflow(argument, &overflow); /* a program sets how many digits Python writes */
        return !overflow;
    }
    return argument == Py_None || PyUnicode_CheckExact(argument);
}

/* Tell whether a call's key may be remembered: so is none that depends on more than the call, or on other objects. */
static int
is_remembered(State *state, PyObject *self, PyObject *const *args, Py_ssize_t given)
{
    PyObject *noted = SLOT(self, F_NOTED);
    int is_literals = noted != NULL && PyDict_CheckExact(noted);
    for (Py_ssize_t each = 0; is_literals && each < given; each++) {
        is_literals = is_literal(args[each]);
    }
    return is_literals;
}

/* Note the storage key of a call, in the very text that its entry has: a look by it touches no other. */
static int
note_key(State *state, PyObject *self, PyObject *cache, PyObject *call, PyObject *key)
{
    PyObject *noted = Py_XNewRef(SLOT(self, F_NOTED)), *head = Py_XNewRef(SLOT(self, F_NOTED_HEAD)), *entry = NULL;
    int answer = find_noted(state, cache, key, &entry);
    PyObject *text = answer == OURS ? SLOT(entry, E_KEY) : NULL;
    int is_of_now = SLOT(self, F_NOTED) == noted && SLOT(self, F_NOTED_HEAD) == head; /* else another thread called */
    if (is_of_now && noted != NULL && PyDict_CheckExact(noted) && IS_TEXT(text) && PyUnicode_Compare(text, key) == 0) {
        if (PyDict_GET_SIZE(noted) >= MOST_NOTED) {
            PyDict_Clear(noted);
        }
        answer = PyDict_SetItem(noted, call, text) < 0 ? ERROR : OURS;
    }
    Py_XDECREF(entry);
    Py_XDECREF(head);
    Py_XDECREF(noted);
    return answer;
}

/* Give the storage key of a call that is not noted, by the key that the function's code makes. */
static int
make_key(State *state, PyObject *self, PyObject *cache, PyObject *call, PyObject *const *args, Py_ssize_t given,
         PyObject **key)
{
    PyObject *head = Py_NewRef(SLOT(self, F_NOTED_HEAD)), *maker = Py_XNewRef(SLOT(self, F_KEY_OF));
    PyObject *made = maker == NULL ? NULL : PyObject_Vectorcall(maker, args, (size_t)given, NULL);
    *key = IS_TEXT(made) ? joined(head, made) : NULL;
    int answer = *key == NULL ? pythons_or_error() : OURS; /* wrong arguments, in the words of the key's code, too */
    if (answer == OURS && PyUnicode_GET_LENGTH(*key) <= LONGEST_NOTED) {
        answer = SLOT(self, F_NOTED_HEAD) == head ? note_key(state, self, cache, call, *key) : OURS;
    }
    Py_XDECREF(made);
    Py_XDECREF(maker);
    Py_DECREF(head);
    return answer;
}

/* Give the storage key of a call in a cache; `call` stands for its arguments. */
static int
key_of(State *state, PyObject *self, PyObject *cache, PyObject *call, PyObject *const *args, Py_ssize_t given,
       PyObject **key)
{
    PyObject *noted = SLOT(self, F_NOTED), *head = SLOT(cache, H_HEAD);
    if (!IS_TEXT(head) || noted == NULL || !PyDict_CheckExact(noted)) {
        return PYTHONS;
    }
    if (SLOT(self, F_NOTED_HEAD) != head) { /* a cache with another prefix or version; freeing these runs no code */
        PyDict_Clear(noted);
        Py_XSETREF(SLOT(self, F_NOTED_HEAD), Py_NewRef(head));
    }
    *key = Py_XNewRef(PyDict_GetItemWithError(noted, call));
    if (*key != NULL || PyErr_Occurred()) {
        return *key != NULL ? OURS : ERROR;
    }
    return make_key(state, self, cache, call, args, given, key);
}

/* Give the cache of an alias at this moment, as CacheHandler does: NULL, and no error, if that has to find it first. */
static PyObject *
cache_of(State *state, PyObject *caches, PyObject *alias)
{
    PyObject *handles = caches, *first, *found;
    Py_ssize_t from = 0;
    if (IS(caches, HANDLER)) {
        PyObject *chosen = SLOT(caches, F_CHOSEN), *configuration = NULL; /* one at most */
        int has_one = chosen != NULL && PyDict_CheckExact(chosen) && PyDict_Next(chosen, &from, NULL, &configuration);
        handles = has_one && IS(configuration, CONFIGURATION) ? SLOT(configuration, F_HANDLES) : NULL;
    }
    if (handles == NULL || !PyDict_CheckExact(handles)) {
        return NULL;
    }
    from = 0;
    if (PyDict_Next(handles, &from, &first, &found) && first == alias) { /* most programs have one: no hash is needed */
        return Py_NewRef(found);
    }
    Py_INCREF(handles);
    found = Py_XNewRef(PyDict_GetItemWithError(handles, alias));
    Py_DECREF(handles);
    return found;
}

/* Find the stored result of a call in this cache. */
static int
answer_from(State *state, PyObject *self, PyObject *cache, PyObject *call, PyObject *const *args, Py_ssize_t given,
            PyObject **value)
{
    PyObject *key = NULL, *counted = Py_XNewRef(SLOT(self, F_COUNTED));
    int answer = (PyObject *)Py_TYPE(cache) == SLOT(self, F_KIND) && IS(counted, COUNTED) ? OURS : PYTHONS;
    answer = answer == OURS ? is_plain(state, cache) : answer;
    answer = answer == OURS ? reads_as_ours(state, cache) : answer;
    answer = answer == OURS ? key_of(state, self, cache, call, args, given, &key) : answer;
    answer = answer == OURS ? reuse(state, cache, find_noted, key, NULL, value) : answer;
    if (answer == OURS && count(state, counted, F_ANSWERS) == ERROR) {
        Py_CLEAR(*value);
        answer = ERROR;
    }
    Py_XDECREF(key);
    Py_XDECREF(counted);
    return answer;
}

/* Find the stored result of a call whose key may be remembered. */
static int
answer_cached(State *state, PyObject *self, PyObject *const *args, Py_ssize_t given, PyObject **value)
{
    PyObject *call = given == 1 ? Py_NewRef(args[0]) : PyTuple_New(given);
    if (call == NULL) {
        return ERROR;
    }
    for (Py_ssize_t each = 0; given != 1 && each < given; each++) {
        PyTuple_SET_ITEM(call, each, Py_NewRef(args[each]));
    }
    PyObject *caches = SLOT(self, F_CACHES), *alias = SLOT(self, F_ALIAS);
    PyObject *cache = caches != NULL && IS_TEXT(alias) ? cache_of(state, caches, alias) : NULL;
    int answer = cache == NULL ? pythons_or_error() : answer_from(state, self, cache, call, args, given, value);
    Py_XDECREF(cache);
    Py_DECREF(call);
    return answer;
}

/* Answer a call of a cached function, or hand it to the method in Python. */
static PyObject *
answer_or_hand_on(Method *method, PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    State *state = method->state;
    Py_ssize_t given = PyVectorcall_NARGS(nargsf);
    if (names == NULL && state->is_ready && is_remembered(state, self, args, given)) {
        PyObject *value = NULL;
        if (method->call == acached) {
            if (can_be_kept(given + 1, NULL)) {
                return awaitable(method, self, args, given, NULL);
            }
        }
        else if (answer_cached(state, self, args, given, &value) != PYTHONS) {
            return value;
        }
    }
    PyObject *bound = PyMethod_New(method->function, self);
    PyObject *value = bound == NULL ? NULL : PyObject_Vectorcall(bound, args, nargsf, names);
    Py_XDECREF(bound);
    return value;
}

/* Call a cached function without the way by its class: CPython builds no tuple for this, and looks up no method. */
static PyObject *
at_once(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    PyTypeObject *type = Py_TYPE(self);
    vectorcallfunc *called = (vectorcallfunc *)((char *)self + type->tp_vectorcall_offset);
    Method *method = *(Method **)(called + 1); /* see learn_calls() */
    if (method == NULL || method->function == NULL || type->tp_version_tag != method->version) {
        *called = NULL; /* the class is another, and has perhaps another method; else this one will be back */
        return PyObject_Vectorcall(self, args, nargsf, names);
    }
    Py_INCREF(method);
    PyObject *value = answer_or_hand_on(method, self, args, nargsf, names);
    Py_DECREF(method);
    return value;
}

/* Let the next calls of a function come at once. On Python 3.12 and newer a class loses the flag when it gets another
   `__call__`; before that, and to be sure, its version tells. */
static void
quicken(Method *method, PyObject *self)
{
    State *state = method->state;
    PyTypeObject *type = Py_TYPE(self);
    vectorcallfunc *called = (vectorcallfunc *)&SLOT(self, F_CALLED);
    if (state->is_ready && type->tp_version_tag != 0 &&
        (*called == NULL || !PyType_HasFeature(type, Py_TPFLAGS_HAVE_VECTORCALL)) &&
        PyDict_GetItemWithError(type->tp_dict, state->objects[N_CALL]) == (PyObject *)method) {
        method->version = type->tp_version_tag;
        Py_XSETREF(SLOT(self, F_CALLED_BY), Py_NewRef(method));
        *called = at_once;
        type->tp_vectorcall_offset = state->offsets[F_CALLED];
        type->tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL;
    }
}

/* CachedFunction.__call__(self, *args, **kwargs) */
static PyObject *
cached(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *names)
{
    Method *method = (Method *)callable;
    Py_ssize_t given = PyVectorcall_NARGS(nargsf);
    if (given == 0 || method->owner == NULL || method->function == NULL ||
        !Py_IS_TYPE(args[0], (PyTypeObject *)method->owner)) {
        return in_python(method, args, nargsf, names);
    }
    quicken(method, args[0]);
    return answer_or_hand_on(method, args[0], args + 1, (size_t)(given - 1) | PY_VECTORCALL_ARGUMENTS_OFFSET, names);
}

/* CachedCoroutineFunction.__call__(self, *args, **kwargs) */
static PyObject *
acached(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *names)
{
    return cached(callable, args, nargsf, names);
}

/* Return the compiled call of a class of cached functions, by the method in Python. */
static vectorcallfunc
call_of_kind(PyObject *function)
{
    PyObject *code = PyObject_GetAttrString(function, "__code__");
    int is_coroutine = code != NULL && PyCode_Check(code) && ((PyCodeObject *)code)->co_flags & CO_COROUTINE;
    vectorcallfunc call = code == NULL ? NULL : is_coroutine ? acached : cached;
    Py_XDECREF(code);
    PyErr_Clear();
    return call;
}

/* Methods, which look like those in Python ------------------------------------------------------------------------- */

static PyObject *
method_get(PyObject *self, PyObject *instance, PyObject *Py_UNUSED(owner))
{
    return instance == NULL || instance == Py_None ? Py_NewRef(self) : PyMethod_New(self, instance);
}

/* An attribute of its own, or else of the method in Python: its name, for example, its defaults and its code. */
static PyObject *
method_getattro(PyObject *self, PyObject *name)
{
    PyObject *function = ((Method *)self)->function, *found = NULL;
    int is_of_function = function != NULL && PyUnicode_CompareWithASCIIString(name, "__module__") == 0;
    if (!is_of_function) {
        found = PyObject_GenericGetAttr(self, name);
        if (found != NULL || function == NULL || !PyErr_ExceptionMatches(PyExc_AttributeError)) {
            return found;
        }
        PyErr_Clear();
    }
    return PyObject_GetAttr(function, name);
}

static PyObject *
method_doc(PyObject *self, void *Py_UNUSED(closure))
{
    PyObject *function = ((Method *)self)->function;
    return function == NULL ? Py_NewRef(Py_None) : PyObject_GetAttrString(function, "__doc__");
}

static PyObject *
method_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<compiled %R>", ((Method *)self)->function);
}

static PyObject *
method_reduce(PyObject *self, PyObject *Py_UNUSED(none))
{
    PyObject *owner = ((Method *)self)->owner; /* pickled by name, as functions are */
    if (owner == NULL) {
        return PyObject_GetAttrString(self, "__qualname__");
    }
    PyObject *builtins = PyEval_GetBuiltins(), *getter = PyMapping_GetItemString(builtins, "getattr");
    PyObject *name = getter == NULL ? NULL : PyObject_GetAttrString(self, "__name__");
    return name == NULL ? (Py_XDECREF(getter), NULL) : Py_BuildValue("N(ON)", getter, owner, name);
}

static PyObject *
method_set_name(PyObject *self, PyObject *const *args, Py_ssize_t given)
{
    Method *method = (Method *)self;
    if (given == 2 && method->owner == NULL) { /* it may have another name elsewhere, later */
        method->owner = Py_NewRef(args[0]);
        if (method->state->objects[LOCMEM] == NULL) {
            method->state->objects[LOCMEM] = Py_NewRef(args[0]);
        }
    }
    Py_RETURN_NONE;
}

static int
method_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Method *)self)->function);
    Py_VISIT(((Method *)self)->owner);
    return 0;
}

static int
method_clear(PyObject *self)
{
    Py_CLEAR(((Method *)self)->function);
    Py_CLEAR(((Method *)self)->owner);
    return 0;
}

static void
method_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (((Method *)self)->weak_references != NULL) {
        PyObject_ClearWeakRefs(self);
    }
    method_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMemberDef method_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Method, call), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Method, weak_references), READONLY, NULL},
    {"__wrapped__", T_OBJECT_EX, offsetof(Method, function), READONLY, NULL}, /* by which inspect has the signature */
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef method_getset[] = {
    {"__doc__", method_doc, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef method_methods[] = {
    {"__reduce__", method_reduce, METH_NOARGS, NULL},
    {"__set_name__", (PyCFunction)(void (*)(void))method_set_name, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot method_slots[] = {
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_descr_get, method_get},
    {Py_tp_getattro, method_getattro},
    {Py_tp_repr, method_repr},
    {Py_tp_traverse, method_traverse},
    {Py_tp_clear, method_clear},
    {Py_tp_dealloc, method_dealloc},
    {Py_tp_members, method_members},
    {Py_tp_getset, method_getset},
    {Py_tp_methods, method_methods},
    {0, NULL},
};

static PyType_Spec method_spec = {
    .name = "storeroom.backends.locmem._compiled.Method",
    .basicsize = sizeof(Method),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR |
             Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = method_slots,
};

/* The module ------------------------------------------------------------------------------------------------------- */

static PyObject *
learn(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    State *state = PyModule_GetState(module);
    int fits = !state->is_ready && given == GIVEN && PyList_CheckExact(args[OVERLAYS]) &&
               PyDict_Check(args[CLOCKS]) && PyTuple_Check(args[PASSED_BY]) && IS_TEXT(args[TAG_PREFIX]);
    for (int each = 0; fits && each < CLASSES; each++) {
        fits = PyType_Check(args[each]);
    }
    if (!fits) {
        PyErr_SetString(PyExc_TypeError, "learn() is called once, with the terms of its own hot_path.py");
        return NULL;
    }
    for (int each = 0; each < GIVEN; each++) {
        Py_XSETREF(state->objects[each], Py_NewRef(args[each]));
    }
    for (int each = 0; each < LEARNT; each++) {
        if (learn_offset(args[SLOT_NAMES[each].owner], SLOT_NAMES[each].name, &state->offsets[each]) == ERROR) {
            return NULL;
        }
    }
    state->objects[ACQUIRE] = PyObject_GetAttrString(args[LOCK], "acquire");
    state->objects[RELEASE] = PyObject_GetAttrString(args[LOCK], "release");
    if (PyErr_Occurred()) {
        return NULL;
    }
    state->is_ready = 1;
    Py_RETURN_NONE;
}

/* Let the slot `_called` hold the address of code, where CPython looks for it: to the collector, and to attributes, it
   has a number from now on. No function has anything there yet. The slot behind it has the method of that call. */
static int
open_slot(State *state, PyObject *functions)
{
    PyObject *found = PyObject_GetAttrString(functions, "_called");
    int is_followed = state->offsets[F_CALLED_BY] == state->offsets[F_CALLED] + (Py_ssize_t)sizeof(vectorcallfunc);
    if (found != NULL && is_followed) {
        PyMemberDef *member = ((PyMemberDescrObject *)found)->d_member;
        member->type = T_PYSSIZET;
        member->flags = READONLY;
    }
    else if (found != NULL) {
        PyErr_Format(PyExc_TypeError, "%R has no slot behind _called for its method", functions);
    }
    Py_XDECREF(found);
    return found != NULL && is_followed ? OURS : ERROR;
}

/* Take classes whose methods are compiled later than those of local memory, and find out where their slots lie. */
static int
learn_more(State *state, PyObject *const *args, int first, int end, int slot, int last)
{
    for (; slot < last; slot++) {
        PyObject *owner = args[SLOT_NAMES[slot].owner - first];
        if (learn_offset(owner, SLOT_NAMES[slot].name, &state->offsets[slot]) == ERROR) {
            return ERROR;
        }
    }
    for (int each = first; each < end; each++) {
        Py_XSETREF(state->objects[each], Py_NewRef(args[each - first]));
    }
    return OURS;
}

static PyObject *
learn_calls(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    State *state = PyModule_GetState(module);
    int fits = given == CALLS - FUNCTION;
    for (Py_ssize_t each = 0; fits && each < given; each++) {
        fits = PyType_Check(args[each]);
    }
    if (!fits) {
        PyErr_SetString(PyExc_TypeError, "learn_calls() takes the classes of its own hot_path.py");
        return NULL;
    }
    if (state->objects[FUNCTION] == args[0]) { /* another thread was here at the same time */
        Py_RETURN_NONE;
    }
    int answer = learn_more(state, args, FUNCTION, CALLS, LEARNT, LEARNT_OF_CALLS);
    answer = answer == OURS ? open_slot(state, args[0]) : answer;
    return answer == ERROR ? NULL : Py_NewRef(Py_None);
}

static PyObject *
learn_tiers(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    State *state = PyModule_GetState(module);
    if (given != OBJECTS - TIERED || !PyType_Check(args[0]) || !PyType_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "learn_tiers() takes the two classes of its own hot_path.py");
        return NULL;
    }
    return learn_more(state, args, TIERED, OBJECTS, LEARNT_OF_CALLS, SLOTS) == ERROR ? NULL : Py_NewRef(Py_None);
}

static PyObject *
learn_insert(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    State *state = PyModule_GetState(module);
    Insertion *learnt = insertion_new(args, given);
    if (learnt == NULL) {
        return NULL;
    }
    insertion_free(state->insertion);
    state->insertion = learnt;
    Py_RETURN_NONE;
}

/* insert(map, key, value, encoded, expires_at, size, now) */
static PyObject *
insert_into(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    State *state = PyModule_GetState(module);
    int is_simple = state->insertion != NULL && given == 7 && IS_FLOAT(args[6]);
    int answer = is_simple ? insertion_insert(state->insertion, args, PyFloat_AS_DOUBLE(args[6])) : PYTHONS;
    return answer == ERROR ? NULL : PyBool_FromLong(answer == OURS);
}

/* The compiled forms, by the names of the methods. */
static const struct {
    const char *name;
    vectorcallfunc call;
} FORMS[] = {
    {"TieredCache.get", get_near}, {"get", get}, {"aget", aget}, {"get_or_set", get_or_set},
    {"aget_or_set", aget_or_set}, {"set", set}, {"_get_together", get_together},
};

/* Find the form of a method: by its name within its class, or by both names. */
static vectorcallfunc
form_of(PyObject *function, const char *name)
{
    const char *dot = strrchr(name, '.'), *last = dot == NULL ? name : dot + 1;
    for (size_t each = 0; each < sizeof(FORMS) / sizeof(FORMS[0]); each++) {
        if (strcmp(name, FORMS[each].name) == 0 || strcmp(last, FORMS[each].name) == 0) {
            return FORMS[each].call;
        }
    }
    return strcmp(last, "__call__") == 0 ? call_of_kind(function) : NULL;
}

static PyObject *
compiled(PyObject *module, PyObject *function)
{
    State *state = PyModule_GetState(module);
    PyObject *name = PyObject_GetAttrString(function, "__qualname__");
    const char *text = name == NULL ? NULL : PyUnicode_AsUTF8(name);
    vectorcallfunc call = text == NULL ? NULL : form_of(function, text);
    Method *made = NULL;
    if (call != NULL) {
        PyTypeObject *type = (PyTypeObject *)state->objects[METHOD];
        made = (Method *)type->tp_alloc(type, 0);
    }
    else if (text != NULL) {
        PyErr_Format(PyExc_ValueError, "%R has no compiled form", function);
    }
    if (made != NULL) {
        made->call = call;
        made->function = Py_NewRef(function);
        made->state = state;
    }
    Py_XDECREF(name);
    return (PyObject *)made;
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = PyModule_GetState(module);
    for (int each = 0; each < OBJECTS; each++) {
        Py_VISIT(state->objects[each]);
    }
    return insertion_traverse(state->insertion, visit, arg);
}

static int
module_clear(PyObject *module)
{
    State *state = PyModule_GetState(module);
    state->is_ready = 0;
    if (state->spare != NULL) {
        PyObject_GC_Del(state->spare);
        state->spare = NULL;
    }
    insertion_free(state->insertion);
    state->insertion = NULL;
    for (int each = 0; each < OBJECTS; each++) {
        Py_CLEAR(state->objects[each]);
    }
    for (int each = 0; each < NOTES; each++) {
        Py_CLEAR(state->notes[each].key);
        Py_CLEAR(state->notes[each].head);
        Py_CLEAR(state->notes[each].storage_key);
    }
    return 0;
}

static void
module_free(void *module)
{
    module_clear(module);
}

static int
module_exec(PyObject *module)
{
    State *state = PyModule_GetState(module);
    PyObject **objects = state->objects;
    for (int each = GIVEN; each < NAMED; each++) {
        if ((objects[each] = PyUnicode_InternFromString(NAMES[each - GIVEN])) == NULL) {
            return -1;
        }
    }
    PyObject *time = PyImport_ImportModule("time");
    objects[TIME] = time == NULL ? NULL : PyObject_GetAttrString(time, "time");
    Py_XDECREF(time);
    objects[ZERO] = PyLong_FromLong(0);
    objects[ONE] = PyLong_FromLong(1);
    objects[MOST] = PyLong_FromLong(MOST_HITS); /* small numbers are the same objects everywhere */
    objects[METHOD] = PyType_FromModuleAndSpec(module, &method_spec, NULL);
    objects[COROUTINE] = PyType_FromModuleAndSpec(module, &coroutine_spec, NULL);
    if (objects[TIME] == NULL || objects[ZERO] == NULL || objects[ONE] == NULL || objects[MOST] == NULL ||
        objects[METHOD] == NULL || objects[COROUTINE] == NULL) {
        return -1;
    }
    PyTypeObject *coroutine = (PyTypeObject *)objects[COROUTINE];
    if (PyDict_DelItemString(coroutine->tp_dict, "__iter__") < 0) { /* coroutines have none; collections.abc looks */
        return -1;
    }
    PyType_Modified(coroutine);
    int is_own = PyDict_GetItemString(PyImport_GetModuleDict(), "time_machine") == NULL; /* else it may be replaced */
    state->clock = is_own && PyCFunction_CheckExact(objects[TIME]) ? PyCFunction_GET_FUNCTION(objects[TIME]) : NULL;
    return 0;
}

static PyMethodDef module_methods[] = {
    {"compiled", compiled, METH_O, "Return the compiled form of a method of LocMemCache, known by its name."},
    {"learn_calls", (PyCFunction)(void (*)(void))learn_calls, METH_FASTCALL, "Take the classes of cached functions."},
    {"learn_tiers", (PyCFunction)(void (*)(void))learn_tiers, METH_FASTCALL, "Take the classes of tiers."},
    {"learn_insert", (PyCFunction)(void (*)(void))learn_insert, METH_FASTCALL, "Take the terms of insert()."},
    {"insert", (PyCFunction)(void (*)(void))insert_into, METH_FASTCALL,
     "Do as BoundedMap.insert(); False if that is no ordinary case: then nothing was done."},
    {"learn", (PyCFunction)(void (*)(void))learn, METH_FASTCALL, "Take the classes and objects that methods turn to."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED}, /* all that changes is the module's own */
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "storeroom.backends.locmem._compiled",
    .m_doc = "The ordinary hit of local memory, and its ordinary write, compiled: see hot_path.py.",
    .m_size = sizeof(State),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__compiled(void)
{
    return PyModuleDef_Init(&module_definition);
}
