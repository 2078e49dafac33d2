/* The ordinary insert of a new key into a map, also a full one, compiled.

It does to the same objects what BoundedMap.insert() and all that it calls do, in their order, and adds up the
same numbers in the same order: so it evicts the same entries. First it looks at all that it will need. Where it meets
anything that is not ordinary it has changed nothing yet, and tells so: the method in Python goes on.

As for the method, the caller has the map's lock and has noted a change under way: so nothing else changes the map, even
if an object that is freed or made here runs code. An error in the midst leaves the map torn, to be mended by the next
change. See docs/decisions/0025-compiled-hits.md. */

#include "../slots.h"
#include "insert.h"

#define PATIENCE 128 /* as in storeroom.eviction.s3fifo */
#define FILLED 3     /* likewise */
#define REMOVED 3    /* likewise: the queue of an entry that is in none */
#define STEP 64      /* as in storeroom.eviction.deadlines */
#define TAUGHT 1     /* as in storeroom.eviction.share: flags of a ghost */
#define MISSED 2
#define PROVEN 4
#define DIGITS 4 /* numbers of hits, and of queues */

#ifdef __GNUC__
#define PREFETCH(object) (__builtin_prefetch(object), __builtin_prefetch((char *)(object) + 64))
#else
#define PREFETCH(object) ((void)(object))
#endif

/* What hot_path.py gives, in its order, and the classes first of all. */
enum {
    ENTRY, MAP, POLICY, GHOSTS, SHARE, INDEX, DEQUE, PINNED, CLASSES,
    ENCODED = CLASSES, NEVER, NOWHERE, MAP_TERMS, SHARE_TERMS, HEAPPUSH,
    GIVEN, N_LARGE = GIVEN, N_SPARE, EMPTY, OBJECTS
};

/* Slots of these classes; those of the queues and of the share in the order of what they are read into. */
#define ALL_SLOTS(_) \
    _(ENTRY, encoded) _(ENTRY, expires_at) _(ENTRY, freq) _(ENTRY, indexed) _(ENTRY, key) _(ENTRY, queue) \
    _(ENTRY, size) _(ENTRY, value) \
    _(MAP, entries) _(MAP, index) _(MAP, _is_torn) _(MAP, _policy) _(MAP, _visible) _(MAP, bytes_used) \
    _(MAP, _debris) _(MAP, _limit) _(MAP, _max_bytes) _(MAP, _tracked) _(MAP, cull_frequency) _(MAP, dropped) \
    _(MAP, evictions) _(MAP, note_removal) \
    _(POLICY, _filling) _(POLICY, _proven) _(POLICY, _small) _(POLICY, ghosts) _(POLICY, share) \
    _(POLICY, _young) _(POLICY, _old) _(POLICY, _main) _(POLICY, _old_kept) _(POLICY, _main_kept) \
    _(GHOSTS, _dropped) _(GHOSTS, _evicted) _(GHOSTS, _known) _(GHOSTS, _room) _(GHOSTS, previous) _(GHOSTS, recent) \
    _(SHARE, _least) _(SHARE, _step) _(SHARE, capacity) _(SHARE, lost) _(SHARE, main_used) _(SHARE, rate) \
    _(SHARE, refilled) _(SHARE, run) _(SHARE, silence) _(SHARE, small_used) _(SHARE, soon) _(SHARE, target) \
    _(SHARE, window) \
    _(INDEX, _heaps) _(INDEX, _last) _(INDEX, _pushed) _(INDEX, _queues) _(INDEX, _room) _(INDEX, _untrack) \
    _(INDEX, due)

#define AS_NUMBER(owner, name) owner##_##name,
#define AS_SLOT(owner, name) {owner, #name},

enum { ALL_SLOTS(AS_NUMBER) SLOTS };

static const struct {
    int owner;
    const char *name;
} SLOT_NAMES[SLOTS] = {ALL_SLOTS(AS_SLOT)};

/* The queues of the policy, of which the first three have the numbers that entries have. */
enum { YOUNG, OLD, MAIN, OLD_KEPT, MAIN_KEPT, QUEUES };

/* The numbers of storeroom.eviction.share, and its constants, which are explained there. */
typedef struct {
    double least, step, capacity, lost, main_used, rate, refilled, run, silence, small_used, soon, target, window;
} Share;

#define ALL_TERMS(_) \
    _(FIRST) _(SILENT) _(LIVELY) _(HELD) _(REPEATED) _(FILL) _(FILLED_HITS) _(ALIVE) _(CHANGING) _(WIDE) _(PLENTY) \
    _(FADING) _(SHORTENED) _(SPARING) _(RARE) _(SCARCE) _(LOST) _(LOST_RATE) _(UNFILLED_SOON) _(DOWN_STEP) \
    _(UNFILLED_UP) _(UNFILLED_DOWN) _(RUN) _(LONGEST) _(FALL) _(SILENCE) _(BEYOND) _(MOST) _(LEAD) _(SMALL_LEAD) \
    _(REFILL_WEIGHT)

#define AS_TERM(name) T_##name,
#define AS_NAME(name) "_" #name, /* some are without the underscore */

enum { ALL_TERMS(AS_TERM) TERMS };

static const char *const TERM_NAMES[TERMS] = {ALL_TERMS(AS_NAME)};

#define TERM(name) (state->terms[T_##name])

struct Insertion {
    PyObject *objects[OBJECTS], *digits[DIGITS];
    Py_ssize_t offsets[SLOTS];
    double terms[TERMS];
    PyCFunction append, appendleft, popleft; /* of a deque: a call of them by name takes five times as long */
};

typedef struct Insertion State;

/* An insert under way: objects of the map, which keeps them alive, and its numbers. */
typedef struct {
    PyObject *map, *entries, *policy, *ghosts, *index, *queues[QUEUES], *deadlines[2], *items[2];
    int is_full, is_known; /* is_known: the key is among the ghosts */
    long long small, proven, small_before, proven_before, evicted[2];
    Share share;
} Insert;

/* Numbers, and queues ---------------------------------------------------------------------------------------------- */

static void
set_slot(State *state, PyObject *object, int slot, PyObject *value)
{
    PyObject *before = SLOT(object, slot);
    SLOT(object, slot) = value; /* a reference that is given away */
    Py_XDECREF(before);
}

/* Put a number that was made for it into a slot. */
static int
set_number(State *state, PyObject *object, int slot, PyObject *number)
{
    if (number == NULL) {
        return ERROR;
    }
    set_slot(state, object, slot, number);
    return OURS;
}

static void
set_digit(State *state, PyObject *object, int slot, int digit)
{
    set_slot(state, object, slot, Py_NewRef(state->digits[digit])); /* small numbers are the same objects everywhere */
}

static int
read_whole(PyObject *object, long long *number)
{
    int overflow = 1;
    if (object != NULL && PyLong_CheckExact(object)) {
        *number = PyLong_AsLongLongAndOverflow(object, &overflow);
    }
    return !overflow;
}

static int
has_hits(State *state, PyObject *entry)
{
    return SLOT(entry, ENTRY_freq) != state->digits[0];
}

static int
hits_of(State *state, PyObject *entry)
{
    return SLOT(entry, ENTRY_freq) == state->digits[1] ? 1 : has_hits(state, entry) ? 2 : 0;
}

static int
append(State *state, PyObject *queue, PyObject *item)
{
    PyObject *none = state->append(queue, item);
    Py_XDECREF(none);
    return none == NULL ? ERROR : OURS;
}

/* Take the first entry that was not removed, from the first of three queues that has any: a new reference. */
static PyObject *
take_live(State *state, PyObject *first, PyObject *second, PyObject *third)
{
    for (;;) {
        PyObject *queue = PyObject_Size(first) > 0 ? first : PyObject_Size(second) > 0 ? second : third;
        PyObject *entry = state->popleft(queue, NULL);
        if (entry == NULL || SLOT(entry, ENTRY_queue) != state->digits[REMOVED]) {
            return entry;
        }
        Py_DECREF(entry);
    }
}

/* Put an entry at the end of one of the policy's queues. */
static int
enqueue(State *state, Insert *it, PyObject *entry, int queue)
{
    set_digit(state, entry, ENTRY_queue, queue);
    return append(state, it->queues[queue], entry);
}

/* The share -------------------------------------------------------------------------------------------------------- */

static void
aim(State *state, Share *share, double target)
{
    double most = TERM(FIRST) * share->capacity;
    target = most < target ? most : target;
    share->target = target > share->least ? target : share->least;
    share->window = share->target / 2 < share->soon ? share->target / 2 : share->soon;
}

static double
room(State *state, const Share *share, double entries)
{
    double room = share->target, capacity = share->capacity, used = share->small_used, least = room, most = room;
    if (used > TERM(MOST) && used - share->main_used > TERM(LEAD)) {
        least = TERM(LIVELY) * capacity;
    }
    else if (share->refilled < TERM(MOST)) {
        if (used > TERM(CHANGING)) {
            int is_fading = used > TERM(PLENTY) && share->main_used < TERM(FADING);
            least = (is_fading ? TERM(WIDE) : TERM(FIRST)) * capacity;
        }
        else if (used < TERM(RARE)) {
            *(share->lost > TERM(LOST) ? &least : &most) =
                (share->lost > TERM(LOST) ? TERM(FIRST) : TERM(SCARCE)) * capacity;
        }
        else if (share->main_used - used > TERM(SMALL_LEAD) && room < TERM(SHORTENED) * capacity) {
            most = TERM(SPARING) * capacity;
        }
    }
    room = least > room ? least : most < room ? most : room;
    return entries >= capacity ? room : room * entries / capacity;
}

/* Return the step that a key which returns makes. */
static double
step_by(State *state, const Share *share, int proven, int refills)
{
    double up = refills ? 1.0 : TERM(UNFILLED_UP), down = refills ? -TERM(DOWN_STEP) : TERM(UNFILLED_DOWN);
    double step = (proven ? down : up) * share->step, times = share->run / TERM(RUN);
    if (proven || (refills && share->small_used < TERM(CHANGING))) {
        return step;
    }
    times = times > 1.0 ? times : 1.0;
    return step * (TERM(LONGEST) < times ? TERM(LONGEST) : times);
}

/* Learn from an evicted key that is written. */
static void
learn_of_return(State *state, Share *share, double age, long long flags, int proven, double evictions)
{
    if (flags & MISSED) {
        share->refilled += (1 - share->refilled) * TERM(REFILL_WEIGHT);
    }
    int refills = share->refilled >= TERM(MOST);
    if (flags & TAUGHT || age >= (refills ? share->soon : TERM(UNFILLED_SOON) * share->capacity)) {
        return;
    }
    double silence = share->capacity - TERM(SILENCE);
    share->silence = refills && silence < 0.0 ? silence : 0.0;
    int is_early = !proven && evictions < share->soon;
    aim(state, share,
        is_early ? TERM(FIRST) * share->capacity : share->target + step_by(state, share, proven, refills));
    share->run = proven ? 0.0 : share->run + 1;
}

/* Learn from the oldest of small, which goes on to main while the cache fills; return the hits it keeps. */
static int
fill(State *state, Share *share, int hits)
{
    share->small_used += ((hits > 0) - share->small_used) * share->rate;
    share->main_used += ((hits > 1) - share->main_used) * share->rate;
    if (share->main_used > TERM(REPEATED) && share->target > TERM(HELD) * share->capacity) {
        aim(state, share, share->target - TERM(FILL));
    }
    return share->small_used > TERM(ALIVE) ? 2 - (hits > 0) : hits < TERM(FILLED_HITS) ? hits : (int)TERM(FILLED_HITS);
}

/* The policy ------------------------------------------------------------------------------------------------------- */

static PyObject *
hash_of(PyObject *key)
{
    Py_hash_t hash = PyObject_Hash(key);
    return hash == -1 ? NULL : PyLong_FromSsize_t(hash);
}

/* Remember a key that is being evicted. */
static int
remember(State *state, Insert *it, PyObject *entry, int proven)
{
    PyObject *hashed = hash_of(SLOT(entry, ENTRY_key)), *recent = SLOT(it->ghosts, GHOSTS_recent);
    PyObject *note = PyLong_FromLongLong(it->evicted[proven] * 8 + PROVEN * proven);
    PyObject *number = PyLong_FromLongLong(++it->evicted[proven]);
    int is_short = hashed == NULL || note == NULL || number == NULL || PyDict_SetItem(recent, hashed, note) < 0;
    Py_XDECREF(hashed);
    Py_XDECREF(note);
    if (is_short) {
        Py_XDECREF(number);
        return ERROR;
    }
    return PyList_SetItem(SLOT(it->ghosts, GHOSTS__evicted), proven, number) < 0 ? ERROR : OURS;
}

/* Let the share learn from a key that returns, and forget it. Tell, by OURS, whether it is known to have left small. */
static int
teach(State *state, Insert *it, PyObject *hashed)
{
    PyObject *generation = SLOT(it->ghosts, GHOSTS_recent), *found = PyDict_GetItemWithError(generation, hashed);
    if (found == NULL && !PyErr_Occurred()) {
        generation = SLOT(it->ghosts, GHOSTS_previous);
        found = PyDict_GetItemWithError(generation, hashed);
    }
    long long note;
    if (!read_whole(found, &note) || PyDict_DelItem(generation, hashed) < 0) {
        return pythons_or_error();
    }
    int proven = (note & PROVEN) > 0;
    double age = (double)(it->evicted[proven] - (note >> 3));
    if (!(age <= PyFloat_AS_DOUBLE(PyList_GET_ITEM(SLOT(it->ghosts, GHOSTS__known), proven)))) {
        return PYTHONS;
    }
    learn_of_return(state, &it->share, age, note & (TAUGHT | MISSED), proven, (double)it->evicted[proven]);
    return proven ? PYTHONS : OURS;
}

/* Move the oldest of small to main, used or not, and return it: main has it. */
static PyObject *
promote_oldest(State *state, Insert *it)
{
    PyObject *entry = take_live(state, it->queues[OLD_KEPT], it->queues[OLD], it->queues[YOUNG]);
    if (entry == NULL || enqueue(state, it, entry, MAIN) == ERROR) {
        Py_XDECREF(entry);
        return NULL;
    }
    Py_DECREF(entry);
    it->small--;
    it->proven++;
    return entry;
}

/* Take the oldest of small: OURS if it is to be evicted, PYTHONS if it goes on to main. */
static int
judge_small(State *state, Insert *it, PyObject **entry, int *patience)
{
    Share *share = &it->share;
    *entry = take_live(state, it->queues[OLD_KEPT], it->queues[OLD], it->queues[YOUNG]);
    if (*entry == NULL) {
        return ERROR;
    }
    it->small--;
    int used = SLOT(*entry, ENTRY_queue) == state->digits[OLD] && has_hits(state, *entry);
    share->small_used += (used - share->small_used) * share->rate;
    if (used || (share->small_used > TERM(ALIVE) && it->proven && *patience)) {
        *patience -= !used;
        set_digit(state, *entry, ENTRY_freq, 0);
        it->proven++;
        return PYTHONS;
    }
    share->silence += 1;
    share->lost *= 1 - share->rate * TERM(LOST_RATE);
    if (share->silence > share->capacity && share->target > TERM(SILENT) * share->capacity) {
        aim(state, share, share->target - TERM(FALL));
    }
    return remember(state, it, *entry, 0);
}

/* Take the oldest of main, likewise. One that was passed by before is evicted in its place if it has fewer hits. */
static int
judge_main(State *state, Insert *it, PyObject **entry, int *patience, PyObject **passed)
{
    Share *share = &it->share;
    PyObject *kept = it->queues[MAIN_KEPT], *queue = it->queues[MAIN];
    *entry = take_live(state, kept, queue, queue);
    if (*entry == NULL) {
        return ERROR;
    }
    int hits = hits_of(state, *entry);
    share->main_used += ((hits > 0) - share->main_used) * share->rate;
    if (hits && *patience) {
        --*patience;
        hits = share->small_used > TERM(CHANGING) ? 0 : hits - 1;
        set_digit(state, *entry, ENTRY_freq, hits);
        *passed = *passed == NULL || hits < hits_of(state, *passed) ? *entry : *passed;
        return PYTHONS;
    }
    if (*passed != NULL && hits_of(state, *passed) < hits) {
        PyObject *none = state->appendleft(PyObject_Size(kept) > 0 ? kept : queue, *entry);
        Py_SETREF(*entry, Py_NewRef(*passed)); /* its position goes when its turn comes */
        if (none == NULL) {
            return ERROR;
        }
        Py_DECREF(none);
    }
    if ((double)it->small >= share->target) {
        share->small_used -= share->small_used * share->rate * TERM(BEYOND);
    }
    it->proven--;
    return remember(state, it, *entry, 1);
}

/* Choose the entry to evict, take it out of its queue, and return it: a new reference. */
static PyObject *
evict(State *state, Insert *it)
{
    Share *share = &it->share;
    set_slot(state, it->policy, POLICY__filling, Py_NewRef(Py_False));
    double small_room = room(state, share, (double)(it->small + it->proven));
    if (share->silence > share->capacity && (double)it->small >= small_room + 2 && promote_oldest(state, it) == NULL) {
        return NULL;
    }
    PyObject *entry = NULL, *passed = NULL; /* the latter is in main */
    for (int patience = PATIENCE;;) {
        int answer = (double)it->small >= small_room || it->proven <= 0
                         ? judge_small(state, it, &entry, &patience)
                         : judge_main(state, it, &entry, &patience, &passed);
        if (answer == OURS) {
            set_digit(state, entry, ENTRY_queue, REMOVED);
            return entry;
        }
        if (answer == ERROR || enqueue(state, it, entry, MAIN) == ERROR) {
            Py_XDECREF(entry);
            return NULL;
        }
        Py_CLEAR(entry);
    }
}

/* Put a new entry into small, and pass on those that have become older by that. */
static int
admit_to_small(State *state, Insert *it, PyObject *entry)
{
    if (enqueue(state, it, entry, YOUNG) == ERROR) {
        return ERROR;
    }
    it->small++;
    while ((double)PyObject_Size(it->queues[YOUNG]) > it->share.window) {
        PyObject *grown = state->popleft(it->queues[YOUNG], NULL);
        int answer = grown == NULL ? ERROR : OURS;
        if (grown != NULL && SLOT(grown, ENTRY_queue) == state->digits[YOUNG]) {
            set_digit(state, grown, ENTRY_freq, 0);
            answer = enqueue(state, it, grown, OLD);
        }
        Py_XDECREF(grown);
        if (answer == ERROR) {
            return ERROR;
        }
    }
    int is_filling = SLOT(it->policy, POLICY__filling) == Py_True;
    for (int each = 0; is_filling && each < FILLED && (double)it->small > it->share.target; each++) {
        PyObject *oldest = promote_oldest(state, it);
        if (oldest == NULL) {
            return ERROR;
        }
        set_digit(state, oldest, ENTRY_freq, fill(state, &it->share, hits_of(state, oldest)));
    }
    return OURS;
}

/* Write the numbers back that have changed. */
static int
store_numbers(State *state, Insert *it)
{
    PyObject *share = SLOT(it->policy, POLICY_share);
    const double *number = (double *)&it->share;
    for (int slot = SHARE__least; slot <= SHARE_window; slot++, number++) {
        PyObject *before = SLOT(share, slot);
        if (PyFloat_AS_DOUBLE(before) == *number) {
            continue;
        }
        if (Py_REFCNT(before) == 1) { /* nobody but the slot has it */
            ((PyFloatObject *)before)->ob_fval = *number;
        }
        else if (set_number(state, share, slot, PyFloat_FromDouble(*number)) == ERROR) {
            return ERROR;
        }
    }
    if (it->small != it->small_before &&
        set_number(state, it->policy, POLICY__small, PyLong_FromLongLong(it->small)) == ERROR) {
        return ERROR;
    }
    return it->proven == it->proven_before
               ? OURS
               : set_number(state, it->policy, POLICY__proven, PyLong_FromLongLong(it->proven));
}

/* Put a new entry into a queue; if there is no room, evict another one: a new reference. */
static int
admit(State *state, Insert *it, PyObject *entry, PyObject **victim)
{
    int returning = PYTHONS;
    if (it->is_known) {
        PyObject *hashed = hash_of(SLOT(entry, ENTRY_key));
        returning = hashed == NULL ? ERROR : teach(state, it, hashed);
        Py_XDECREF(hashed);
    }
    if (returning == ERROR || (it->is_full && (*victim = evict(state, it)) == NULL)) {
        return ERROR;
    }
    int answer = returning == OURS ? enqueue(state, it, entry, MAIN) : admit_to_small(state, it, entry);
    it->proven += returning == OURS;
    return answer == OURS ? store_numbers(state, it) : ERROR;
}

/* The index -------------------------------------------------------------------------------------------------------- */

/* Look at some positions, and drop those that are stale. */
static int
drop_stale(State *state, Insert *it)
{
    PyObject *deadlines[STEP], *items[STEP];
    int answer = OURS;
    for (int each = 0; each < STEP; each++) {
        deadlines[each] = state->popleft(it->deadlines[0], NULL);
        items[each] = state->popleft(it->items[0], NULL);
        PREFETCH(items[each]); /* old ones: each costs a wait for the memory */
    }
    for (int each = 0; each < STEP; each++) {
        PyObject *deadline = deadlines[each], *item = items[each];
        PyObject *indexed = deadline == NULL || item == NULL ? NULL : SLOT(item, ENTRY_indexed);
        int is_kept = indexed == NULL ? ERROR : indexed == deadline;
        if (!is_kept && indexed != state->objects[NOWHERE]) { /* most are one or the other */
            is_kept = PyObject_RichCompareBool(indexed, deadline, Py_EQ);
        }
        if (is_kept > 0) {
            is_kept = append(state, it->deadlines[1], deadline) == OURS ? append(state, it->items[1], item) : ERROR;
        }
        answer = is_kept == ERROR ? ERROR : answer;
        Py_XDECREF(deadline);
        Py_XDECREF(item);
    }
    return answer;
}

/* Put a position that is not the last into the heap. */
static int
push(State *state, Insert *it, PyObject *entry, PyObject *deadline)
{
    PyObject *number = PyNumber_Add(SLOT(it->index, INDEX__pushed), state->digits[1]);
    PyObject *position = number == NULL ? NULL : PyTuple_Pack(3, deadline, number, entry), *none = NULL;
    if (set_number(state, it->index, INDEX__pushed, number) == OURS && position != NULL) {
        if (SLOT(it->index, INDEX__untrack) != Py_None) {
            PyObject_GC_UnTrack(position);
        }
        PyObject *terms[] = {PyList_GET_ITEM(SLOT(it->index, INDEX__heaps), 0), position};
        none = PyObject_Vectorcall(state->objects[HEAPPUSH], terms, 2, NULL);
    }
    Py_XDECREF(position);
    Py_XDECREF(none);
    return none == NULL ? ERROR : OURS;
}

/* Give an entry a position at its deadline. */
static int
add_to_index(State *state, Insert *it, PyObject *entry)
{
    PyObject *deadline = SLOT(entry, ENTRY_expires_at), *index = it->index;
    double moment = PyFloat_AS_DOUBLE(deadline);
    set_slot(state, entry, ENTRY_indexed, Py_NewRef(deadline));
    int answer;
    if (moment >= PyFloat_AS_DOUBLE(SLOT(index, INDEX__last))) {
        set_slot(state, index, INDEX__last, Py_NewRef(deadline));
        answer = append(state, it->deadlines[0], deadline);
        answer = answer == OURS ? append(state, it->items[0], entry) : ERROR;
    }
    else {
        answer = push(state, it, entry, deadline);
    }
    if (moment < PyFloat_AS_DOUBLE(SLOT(index, INDEX_due))) {
        set_slot(state, index, INDEX_due, Py_NewRef(deadline));
    }
    long long left = 0;
    read_whole(SLOT(index, INDEX__room), &left);
    answer = answer == OURS ? set_number(state, index, INDEX__room, PyLong_FromLongLong(left - 1)) : ERROR;
    return answer == OURS && left < 1 ? drop_stale(state, it) : answer;
}

/* The map ---------------------------------------------------------------------------------------------------------- */

/* Tell whether an object runs no code when it is freed: _HARMLESS of storeroom.eviction.dropping. */
static int
is_harmless(PyObject *object)
{
    return object == Py_None || PyUnicode_CheckExact(object) || PyBytes_CheckExact(object) ||
           PyLong_CheckExact(object) || PyFloat_CheckExact(object) || PyBool_Check(object) ||
           Py_IS_TYPE(object, &PyBaseObject_Type);
}

/* Add a number to one of the map's. */
static int
add(State *state, PyObject *map, int slot, PyObject *number, PyObject *(*operation)(PyObject *, PyObject *))
{
    return number == state->digits[0] ? OURS : set_number(state, map, slot, operation(SLOT(map, slot), number));
}

/* Let go of all that an evicted entry holds. */
static int
forget(State *state, Insert *it, PyObject *entry)
{
    PyObject *value = SLOT(entry, ENTRY_value), *encoded = SLOT(entry, ENTRY_encoded);
    if (PyDict_DelItem(it->entries, SLOT(entry, ENTRY_key)) < 0 ||
        add(state, it->map, MAP_bytes_used, SLOT(entry, ENTRY_size), PyNumber_Subtract) == ERROR) {
        return ERROR;
    }
    if (!is_harmless(value) || !is_harmless(encoded)) {
        PyObject *both = PyTuple_Pack(2, value, encoded);
        int answer = both == NULL ? ERROR : append(state, SLOT(it->map, MAP_dropped), both);
        Py_XDECREF(both);
        if (answer == ERROR) {
            return ERROR;
        }
    }
    set_slot(state, entry, ENTRY_key, Py_NewRef(state->objects[EMPTY]));
    set_slot(state, entry, ENTRY_value, Py_NewRef(state->objects[ENCODED]));
    set_slot(state, entry, ENTRY_encoded, Py_NewRef(Py_None));
    set_slot(state, entry, ENTRY_indexed, Py_NewRef(state->objects[NOWHERE]));
    return OURS;
}

/* Forget the entry that was chosen, or another one if it is pinned. Takes the reference to it. */
static int
forget_victim(State *state, Insert *it, PyObject *entry, PyObject *victim)
{
    PyObject *encoded = SLOT(victim, ENTRY_encoded);
    if (PyObject_TypeCheck(encoded, (PyTypeObject *)state->objects[PINNED])) {
        Py_SETREF(victim, PyObject_CallMethodObjArgs(it->map, state->objects[N_SPARE], victim, entry, NULL));
    }
    if (victim == NULL) {
        return ERROR;
    }
    int answer = forget(state, it, victim);
    Py_DECREF(victim);
    return answer == OURS ? add(state, it->map, MAP_evictions, state->digits[1], PyNumber_Add) : ERROR;
}

/* Keep an entry in the map that was looked at. */
static int
keep(State *state, Insert *it, PyObject *entry)
{
    PyObject *victim = NULL, *encoded = SLOT(entry, ENTRY_encoded);
    int is_hidden = SLOT(it->map, MAP__visible) != NULL && PyLong_AsLong(SLOT(it->map, MAP__visible)) < 0;
    set_slot(state, it->map, MAP__is_torn, Py_NewRef(Py_True));
    if (is_hidden) { /* as _hide() does: an entry that is added puts the dict back, too */
        PyObject_GC_UnTrack(entry);
        if (PyObject_GC_IsTracked(encoded)) {
            PyObject_GC_UnTrack(encoded);
        }
    }
    if (admit(state, it, entry, &victim) == ERROR) {
        Py_XDECREF(victim);
        return ERROR;
    }
    if ((victim != NULL && forget_victim(state, it, entry, victim) == ERROR) ||
        PyDict_SetItem(it->entries, SLOT(entry, ENTRY_key), entry) < 0) {
        return ERROR;
    }
    if (is_hidden) {
        PyObject_GC_UnTrack(it->entries);
    }
    if (add(state, it->map, MAP_bytes_used, SLOT(entry, ENTRY_size), PyNumber_Add) == ERROR ||
        (PyFloat_AS_DOUBLE(SLOT(entry, ENTRY_expires_at)) < Py_HUGE_VAL && add_to_index(state, it, entry) == ERROR)) {
        return ERROR;
    }
    set_slot(state, it->map, MAP__is_torn, Py_NewRef(Py_False));
    return OURS;
}

/* Is it ordinary? -------------------------------------------------------------------------------------------------- */

#define EMPTY_LIST(object) ((object) != NULL && PyList_CheckExact(object) && PyList_GET_SIZE(object) == 0)
#define LIST_OF(count, object) ((object) != NULL && PyList_CheckExact(object) && PyList_GET_SIZE(object) == (count))

/* Look at the numbers of the share, and at the queues. */
static int
look_at_policy(State *state, Insert *it)
{
    it->policy = SLOT(it->map, MAP__policy);
    PyObject *share = IS(it->policy, POLICY) ? SLOT(it->policy, POLICY_share) : NULL;
    if (!IS(share, SHARE) || !read_whole(SLOT(it->policy, POLICY__small), &it->small) ||
        !read_whole(SLOT(it->policy, POLICY__proven), &it->proven)) {
        return PYTHONS;
    }
    for (int queue = 0; queue < QUEUES; queue++) {
        it->queues[queue] = SLOT(it->policy, POLICY__young + queue);
        if (!IS(it->queues[queue], DEQUE)) {
            return PYTHONS;
        }
    }
    double *number = (double *)&it->share;
    for (int slot = SHARE__least; slot <= SHARE_window; slot++, number++) {
        if (!IS_FLOAT(SLOT(share, slot))) {
            return PYTHONS;
        }
        *number = PyFloat_AS_DOUBLE(SLOT(share, slot));
    }
    it->small_before = it->small;
    it->proven_before = it->proven;
    return OURS;
}

/* Look at the ghosts: whether the key is among them, and whether one more goes without a new generation. */
static int
look_at_ghosts(State *state, Insert *it, PyObject *key, Py_ssize_t large)
{
    it->ghosts = SLOT(it->policy, POLICY_ghosts);
    if (!IS(it->ghosts, GHOSTS)) {
        return PYTHONS;
    }
    PyObject *recent = SLOT(it->ghosts, GHOSTS_recent), *previous = SLOT(it->ghosts, GHOSTS_previous);
    PyObject *evicted = SLOT(it->ghosts, GHOSTS__evicted), *known = SLOT(it->ghosts, GHOSTS__known);
    PyObject *most = SLOT(it->ghosts, GHOSTS__room);
    if (recent == NULL || !PyDict_CheckExact(recent) || previous == NULL || !PyDict_CheckExact(previous) ||
        !LIST_OF(2, evicted) || !LIST_OF(2, known) || !EMPTY_LIST(SLOT(it->ghosts, GHOSTS__dropped)) ||
        !IS_FLOAT(most) || (double)(PyDict_GET_SIZE(recent) + 1) >= PyFloat_AS_DOUBLE(most) ||
        PyDict_GET_SIZE(recent) > large) {
        return PYTHONS;
    }
    for (int each = 0; each < 2; each++) {
        int is_number = read_whole(PyList_GET_ITEM(evicted, each), &it->evicted[each]);
        if (!is_number || !IS_FLOAT(PyList_GET_ITEM(known, each))) {
            return PYTHONS;
        }
    }
    it->is_known = 0;
    if (PyDict_GET_SIZE(recent) + PyDict_GET_SIZE(previous) > 0) {
        PyObject *hashed = hash_of(key);
        it->is_known = hashed == NULL ? -1 : PyDict_Contains(recent, hashed);
        it->is_known = it->is_known == 0 ? PyDict_Contains(previous, hashed) : it->is_known;
        Py_XDECREF(hashed);
    }
    return it->is_known < 0 ? ERROR : OURS;
}

/* Look at the index: whether nothing is due, and one more position ends no pass. */
static int
look_at_index(State *state, Insert *it, double now, double until)
{
    it->index = SLOT(it->map, MAP_index);
    if (!IS(it->index, INDEX)) {
        return PYTHONS;
    }
    PyObject *due = SLOT(it->index, INDEX_due), *last = SLOT(it->index, INDEX__last);
    PyObject *queues = SLOT(it->index, INDEX__queues), *heaps = SLOT(it->index, INDEX__heaps);
    long long left;
    if (!IS_FLOAT(due) || PyFloat_AS_DOUBLE(due) <= now || !IS_FLOAT(last) || !LIST_OF(2, queues) ||
        !LIST_OF(2, heaps) || !read_whole(SLOT(it->index, INDEX__room), &left)) {
        return PYTHONS;
    }
    for (int each = 0; each < 2; each++) {
        PyObject *queue = PyList_GET_ITEM(queues, each), *heap = PyList_GET_ITEM(heaps, each);
        if (!PyTuple_CheckExact(queue) || PyTuple_GET_SIZE(queue) != 2 || !PyList_CheckExact(heap)) {
            return PYTHONS;
        }
        it->deadlines[each] = PyTuple_GET_ITEM(queue, 0);
        it->items[each] = PyTuple_GET_ITEM(queue, 1);
        if (!IS(it->deadlines[each], DEQUE) || !IS(it->items[each], DEQUE)) {
            return PYTHONS;
        }
    }
    int has_heaps = PyList_GET_SIZE(PyList_GET_ITEM(heaps, 0)) > 0 || PyList_GET_SIZE(PyList_GET_ITEM(heaps, 1)) > 0 ||
                    until < PyFloat_AS_DOUBLE(last);
    int is_pass = until < Py_HUGE_VAL && left < 1;
    return is_pass && (has_heaps || PyObject_Size(it->deadlines[0]) < STEP) ? PYTHONS : OURS;
}

/* Look at the map's own: whether it is whole, counts no bytes, and evicts one entry at the most. */
static int
look_at_map(State *state, Insert *it, Py_ssize_t large)
{
    PyObject *map = it->map, *limit = SLOT(map, MAP__limit), *visible = SLOT(map, MAP__visible);
    it->entries = SLOT(map, MAP_entries);
    long long most = LLONG_MAX, seen;
    int is_bounded = limit != NULL && !PyFloat_CheckExact(limit); /* a float is the infinite */
    if (it->entries == NULL || !PyDict_CheckExact(it->entries) || PyDict_GET_SIZE(it->entries) > large ||
        SLOT(map, MAP__is_torn) != Py_False || SLOT(map, MAP__max_bytes) != Py_None ||
        SLOT(map, MAP_note_removal) != Py_None ||
        !EMPTY_LIST(SLOT(map, MAP__debris)) || !EMPTY_LIST(SLOT(map, MAP__tracked)) ||
        !IS(SLOT(map, MAP_dropped), DEQUE) || limit == NULL || (is_bounded && !read_whole(limit, &most)) ||
        !read_whole(visible, &seen)) {
        return PYTHONS;
    }
    Py_ssize_t count = PyDict_GET_SIZE(it->entries);
    it->is_full = count >= most;
    int is_culled = count > most || (it->is_full && SLOT(map, MAP_cull_frequency) != Py_None);
    if (is_culled || (count > seen && seen >= 0)) {
        return PYTHONS;
    }
    return OURS;
}

/* Read the largest number of entries in one dict: where it stands, as tests change it. */
static Py_ssize_t
read_large(State *state)
{
    PyObject *large = PyDict_GetItemWithError(state->objects[MAP_TERMS], state->objects[N_LARGE]);
    return large == NULL || !PyLong_CheckExact(large) ? 0 : PyLong_AsSsize_t(large);
}

static int
look(State *state, Insert *it, PyObject *key, double until, double now)
{
    Py_ssize_t large = read_large(state);
    int answer = look_at_map(state, it, large);
    answer = answer == OURS ? look_at_index(state, it, now, until) : answer;
    answer = answer == OURS ? look_at_policy(state, it) : answer;
    return answer == OURS ? look_at_ghosts(state, it, key, large) : answer;
}

static PyObject *
new_entry(State *state, PyObject *const *args)
{
    PyTypeObject *type = (PyTypeObject *)state->objects[ENTRY];
    PyObject *entry = type->tp_alloc(type, 0);
    if (entry != NULL) {
        SLOT(entry, ENTRY_key) = Py_NewRef(args[1]);
        SLOT(entry, ENTRY_value) = Py_NewRef(args[2]);
        SLOT(entry, ENTRY_encoded) = Py_NewRef(args[3]);
        SLOT(entry, ENTRY_expires_at) = Py_NewRef(args[4]);
        SLOT(entry, ENTRY_size) = Py_NewRef(args[5]);
        SLOT(entry, ENTRY_freq) = Py_NewRef(state->digits[0]);
        SLOT(entry, ENTRY_indexed) = Py_NewRef(state->objects[NEVER]);
    }
    return entry;
}

int
insertion_insert(State *state, PyObject *const *terms, double now)
{
    int is_likely = state->append != NULL && state->appendleft != NULL && state->popleft != NULL &&
                    IS(terms[0], MAP) && IS_TEXT(terms[1]) && IS_FLOAT(terms[4]) && PyLong_CheckExact(terms[5]);
    if (!is_likely) {
        return PYTHONS;
    }
    PyObject *entry = new_entry(state, terms); /* before all looks, as the collector may run */
    Insert it;
    it.map = terms[0];
    int answer = entry == NULL ? ERROR : look(state, &it, terms[1], PyFloat_AS_DOUBLE(terms[4]), now);
    answer = answer == OURS ? keep(state, &it, entry) : answer;
    Py_XDECREF(entry);
    return answer;
}

/* Terms ------------------------------------------------------------------------------------------------------------ */

/* Find the code of a method of deques; NULL if it is called in another way than it was so far. */
static PyCFunction
code_of(PyObject *deque, const char *name, int flags)
{
    PyObject *found = PyObject_GetAttrString(deque, name);
    int is_method = found != NULL && Py_IS_TYPE(found, &PyMethodDescr_Type);
    PyMethodDef *method = is_method ? ((PyMethodDescrObject *)found)->d_method : NULL;
    Py_XDECREF(found); /* the class has it */
    return method != NULL && method->ml_flags == flags ? method->ml_meth : NULL;
}

static int
learn_slots(State *state)
{
    for (int each = 0; each < SLOTS; each++) {
        PyObject *owner = state->objects[SLOT_NAMES[each].owner];
        if (learn_offset(owner, SLOT_NAMES[each].name, &state->offsets[each]) == ERROR) {
            return ERROR;
        }
    }
    state->append = code_of(state->objects[DEQUE], "append", METH_O);
    state->appendleft = code_of(state->objects[DEQUE], "appendleft", METH_O);
    state->popleft = code_of(state->objects[DEQUE], "popleft", METH_NOARGS);
    return PyErr_Occurred() ? ERROR : OURS;
}

/* Read the constants of storeroom.eviction.share. */
static int
learn_terms(State *state)
{
    for (int each = 0; each < TERMS; each++) {
        PyObject *terms = state->objects[SHARE_TERMS], *term = PyDict_GetItemString(terms, TERM_NAMES[each]);
        term = term == NULL ? PyDict_GetItemString(terms, TERM_NAMES[each] + 1) : term;
        if (term == NULL) {
            PyErr_Format(PyExc_NameError, "storeroom.eviction.share has no %s", TERM_NAMES[each]);
            return ERROR;
        }
        state->terms[each] = PyFloat_AsDouble(term);
    }
    return PyErr_Occurred() ? ERROR : OURS;
}

static int
learn_objects(State *state, PyObject *const *terms)
{
    for (int each = 0; each < GIVEN; each++) {
        state->objects[each] = Py_NewRef(terms[each]);
    }
    for (int each = 0; each < DIGITS; each++) {
        if ((state->digits[each] = PyLong_FromLong(each)) == NULL) {
            return ERROR;
        }
    }
    state->objects[N_LARGE] = PyUnicode_InternFromString("LARGE");
    state->objects[N_SPARE] = PyUnicode_InternFromString("_spare");
    state->objects[EMPTY] = PyUnicode_InternFromString("");
    return PyErr_Occurred() ? ERROR : OURS;
}

Insertion *
insertion_new(PyObject *const *terms, Py_ssize_t given)
{
    int fits = given == GIVEN && PyDict_Check(terms[MAP_TERMS]) && PyDict_Check(terms[SHARE_TERMS]);
    for (int each = 0; fits && each < CLASSES; each++) {
        fits = PyType_Check(terms[each]);
    }
    if (!fits) {
        PyErr_SetString(PyExc_TypeError, "learn_insert() takes the terms of its own hot_path.py");
        return NULL;
    }
    State *state = PyMem_Calloc(1, sizeof(State));
    if (state == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    if (learn_objects(state, terms) == ERROR || learn_slots(state) == ERROR || learn_terms(state) == ERROR) {
        insertion_free(state);
        return NULL;
    }
    return state;
}

int
insertion_traverse(State *state, visitproc visit, void *arg)
{
    for (int each = 0; state != NULL && each < OBJECTS; each++) {
        Py_VISIT(state->objects[each]);
    }
    return 0;
}

void
insertion_free(State *state)
{
    for (int each = 0; state != NULL && each < OBJECTS; each++) {
        Py_CLEAR(state->objects[each]);
    }
    for (int each = 0; state != NULL && each < DIGITS; each++) {
        Py_CLEAR(state->digits[each]);
    }
    PyMem_Free(state);
}
