/* A new key of a file cache, compiled: what it changes in the file of slots.

Each function here does what a method in Python does in the ordinary case, to the same bytes and in the same order, and
says so; else it has changed nothing, and the method goes on. So nothing is decided here that is not decided there.

A process may be killed between any two of the stores, and the next one finds what they have left: they are volatile,
so that they are made in the order in which they are written here. No object is kept, and no code of Python's runs
between the first store and the last. See docs/decisions/0025-compiled-hits.md. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

/* The layout, as in slotfile.py, slots.py and queues.py: a test compares. */
enum {
    COUNT = 1, IS_REPLACED = 3, ATTEMPT = 4, LOGGED = 5, NUMBERS = 8, BACKUP = 24, LEAVING_AT = 38, EVICTED = 47,
    ROOM = 57, UNUSED = 58, UNUSED_LIMIT = 59, LOG = 128, BLOCKS = 512, HEADER = 1536, LOG_ROOM = BLOCKS - LOG,
    ENTRIES = 0, SIZE = 1, IN_SMALL = 2, YOUNG = 4, TAIL = 5, SMALL_HAND = 6, HEAD = 8, END = 9, CHOSEN = 13, NUMBER_COUNT = 14,
    FREE = 0, SMALL = 1, MAIN = 2, LEAVING = 5, LEAVING_MAIN = 6, IN_LOG = 1, PROVEN = 4, WAYS = 2, BITS_OF_EVICTIONS = 29,
    CELL = 64, LENGTH_AT = 16, FLAG_AT = 17, KEY_AT = 18, LONGEST_KEY = CELL - KEY_AT, LONGEST_SIZE = 1 << 18,
    SLOT = 1 + 1 + 4 + 8 + CELL,
    MOST_AT_ONCE = 128, /* more entries than are evicted at once are left to Python */
};

static const int LAYOUT[] = {
    COUNT, IS_REPLACED, ATTEMPT, LOGGED, NUMBERS, BACKUP, LEAVING_AT, EVICTED, ROOM, UNUSED, UNUSED_LIMIT, LOG, BLOCKS,
    HEADER, ENTRIES, SIZE, IN_SMALL, YOUNG, TAIL, SMALL_HAND, HEAD, END, CHOSEN, NUMBER_COUNT, FREE, SMALL, MAIN, LEAVING,
    LEAVING_MAIN, IN_LOG, PROVEN, WAYS, BITS_OF_EVICTIONS, CELL, LENGTH_AT, FLAG_AT, LONGEST_KEY, LONGEST_SIZE,
};

typedef struct {
    Py_buffer buffer;
    volatile uint64_t *words;
    volatile uint64_t *numbers;
    volatile uint8_t *kinds;
    volatile uint8_t *hits;
    volatile uint64_t *ghosts;
    volatile uint8_t *cells;
    uint64_t count;
} File;

/* Take hold of the mapped file; let_loose() it afterwards. Return -1, with an error set, if it is none. */
static int
take_hold(File *file, PyObject *mapped)
{
    if (PyObject_GetBuffer(mapped, &file->buffer, PyBUF_WRITABLE) < 0) {
        return -1;
    }
    uint8_t *start = file->buffer.buf;
    size_t length = (size_t)file->buffer.len;
    file->words = (uint64_t *)start;
    uint64_t count = length >= HEADER * 8 ? file->words[COUNT] : 0;
    /* whole blocks of slots, so that no array is out of step; a power of two */
    if (count < HEADER - BLOCKS || count & (count - 1) || count > length / SLOT || length != HEADER * 8 + count * SLOT) {
        PyBuffer_Release(&file->buffer);
        PyErr_SetString(PyExc_ValueError, "this is no file of slots");
        return -1;
    }
    file->count = count;
    file->numbers = file->words + NUMBERS;
    file->kinds = start + HEADER * 8;
    file->hits = file->kinds + count;
    file->ghosts = (volatile uint64_t *)(file->kinds + 6 * count);
    file->cells = file->kinds + 14 * count;
    return 0;
}

static void
let_loose(File *file)
{
    PyBuffer_Release(&file->buffer);
}

static volatile uint64_t *
ghosts_of(const File *file, uint32_t checksum)
{
    return file->ghosts + (checksum & (file->count - 1) & ~(uint64_t)(WAYS - 1));
}

/* As zlib's crc32(): four bits at a time, with the numbers that the polynomial makes of each. */
static uint32_t
checksum_of(const uint8_t *key, Py_ssize_t length)
{
    static const uint32_t parts[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };
    uint32_t checksum = ~UINT32_C(0);
    for (Py_ssize_t each = 0; each < length; each++) {
        checksum ^= key[each];
        checksum = checksum >> 4 ^ parts[checksum & 15];
        checksum = checksum >> 4 ^ parts[checksum & 15];
    }
    return ~checksum;
}

static uint64_t
size_of(const File *file, uint64_t slot)
{
    uint64_t size;
    memcpy(&size, (const uint8_t *)file->cells + slot * CELL + 8, sizeof size);
    return size;
}

/* See Queues._remember(). */
static void
remember(const File *file, uint32_t checksum, uint64_t note)
{
    volatile uint64_t *ghosts = ghosts_of(file, checksum);
    for (int each = WAYS - 1; each > 0; each--) {
        ghosts[each] = ghosts[each - 1];
    }
    ghosts[0] = (uint64_t)checksum << 32 | note;
}

static double
as_float(const volatile uint64_t *word)
{
    uint64_t bits = *word;
    double number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

static void
log_kind(const File *file, uint64_t slot, uint64_t kind)
{
    uint64_t end = file->words[LOGGED];
    file->words[LOG + end] = slot << 8 | kind;
    file->words[LOGGED] = end + 1;
}

/* begin ------------------------------------------------------------------------------------------------------------ */

PyDoc_STRVAR(begin_doc, "begin(file, number): as Slots.begin() where this transaction follows the last one; else False.");

static PyObject *
begin(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t given)
{
    File file;
    if (given != 2) {
        PyErr_SetString(PyExc_TypeError, "begin() takes a file and a number");
        return NULL;
    }
    uint64_t number = PyLong_AsUnsignedLongLong(arguments[1]);
    if (PyErr_Occurred() || take_hold(&file, arguments[0]) < 0) {
        return NULL;
    }
    volatile uint64_t *words = file.words;
    int follows = number > 0 && words[ATTEMPT] >> 2 == number - 1 && !words[IS_REPLACED];
    if (follows) {
        for (int each = 0; each < NUMBER_COUNT; each++) {
            words[BACKUP + each] = file.numbers[each];
        }
        words[LOGGED] = 0;
        words[ATTEMPT] = number << 2 | IN_LOG;
    }
    let_loose(&file);
    return PyBool_FromLong(follows);
}

/* enter ------------------------------------------------------------------------------------------------------------ */

/* Tell whether a slot is free, and was free when the transaction began. */
static int
is_free(const File *file, uint64_t slot)
{
    uint64_t end = file->words[LOGGED];
    if (slot >= file->count || file->kinds[slot] != FREE || end >= LOG_ROOM) {
        return 0;
    }
    for (uint64_t each = 0; each < end; each++) {
        if (file->words[LOG + each] >> 8 == slot) {
            return 0;
        }
    }
    return 1;
}

static int
is_remembered(const File *file, uint32_t checksum)
{
    volatile uint64_t *ghosts = ghosts_of(file, checksum);
    for (int each = 0; each < WAYS; each++) {
        if (ghosts[each] >> 32 == checksum) {
            return 1;
        }
    }
    return 0;
}

static void
write_cell(const File *file, uint64_t slot, PyObject *key, uint64_t size, double expires_at)
{
    uint8_t cell[CELL] = {0};
    memcpy(cell, &expires_at, 8);
    memcpy(cell + 8, &size, 8);
    cell[LENGTH_AT] = (uint8_t)PyBytes_GET_SIZE(key);
    memcpy(cell + KEY_AT, PyBytes_AS_STRING(key), (size_t)PyBytes_GET_SIZE(key));
    memcpy((uint8_t *)file->cells + slot * CELL, cell, CELL);
}

/* Put a new entry into small, if it is an ordinary one; return its slot, or -1. */
static int64_t
entered(const File *file, PyObject *key, uint64_t size, double expires_at, double settled_at)
{
    volatile uint64_t *numbers = file->numbers;
    uint64_t slot = numbers[TAIL], young = numbers[YOUNG] + 1;
    if (PyBytes_GET_SIZE(key) > LONGEST_KEY || (double)young > settled_at || !is_free(file, slot) ||
        is_remembered(file, checksum_of((const uint8_t *)PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))) ||
        expires_at < as_float(file->words + BLOCKS + slot / (file->count / (HEADER - BLOCKS)))) {
        return -1;
    }
    numbers[ENTRIES] += 1;
    numbers[SIZE] += size;
    numbers[IN_SMALL] += 1;
    numbers[YOUNG] = young;
    log_kind(file, slot, FREE);
    numbers[TAIL] = slot + 1;
    file->kinds[slot] = SMALL;
    file->hits[slot] = 0;
    write_cell(file, slot, key, size, expires_at);
    return (int64_t)slot;
}

PyDoc_STRVAR(
    enter_doc,
    "enter(file, entry_key, size, expires_at, settled_at): as Queues.enter() where the key goes to small, "
    "and its cell is all there is to write; return the slot, else -1.");

static PyObject *
enter(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t given)
{
    File file;
    if (given != 5 || !PyBytes_CheckExact(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "enter() takes a file, the bytes of a key, and three numbers");
        return NULL;
    }
    uint64_t size = PyLong_AsUnsignedLongLong(arguments[2]);
    double expires_at = PyFloat_AsDouble(arguments[3]), settled_at = PyFloat_AsDouble(arguments[4]);
    if (PyErr_Occurred() || take_hold(&file, arguments[0]) < 0) {
        return NULL;
    }
    int64_t slot = entered(&file, arguments[1], size, expires_at, settled_at);
    let_loose(&file);
    return PyLong_FromLongLong(slot);
}

/* let_go ----------------------------------------------------------------------------------------------------------- */

/* Return the slot whose entry goes next, if it was not read; -1 where there is none. */
static int64_t
next_to_go(const File *file, int64_t kept)
{
    volatile uint64_t *words = file->words, *numbers = file->numbers;
    uint64_t position = numbers[CHOSEN], slot = file->count, hand = numbers[SMALL_HAND];
    if (position) {
        const volatile uint32_t *leaving = (const volatile uint32_t *)(words + LEAVING_AT);
        slot = position <= 2 * (EVICTED - 1 - LEAVING_AT) ? leaving[position - 1] : file->count;
    } else if (
        (double)numbers[IN_SMALL] >= as_float(words + ROOM) && words[UNUSED] < words[UNUSED_LIMIT] && hand < file->count
    ) {
        const uint8_t *kinds = (const uint8_t *)file->kinds;
        const uint8_t *found = memchr(kinds + hand, SMALL, (size_t)(file->count - hand));
        slot = found == NULL ? file->count : (uint64_t)(found - kinds);
    }
    if (slot >= file->count || file->hits[slot] || (int64_t)slot == kept || words[LOGGED] >= LOG_ROOM) {
        return -1;
    }
    uint8_t kind = file->kinds[slot];
    return (position ? kind == LEAVING || kind == LEAVING_MAIN : kind == SMALL) ? (int64_t)slot : -1;
}

static int
is_plain(const File *file, uint64_t slot)
{
    const uint8_t *cell = (const uint8_t *)file->cells + slot * CELL;
    uint64_t size = size_of(file, slot);
    return cell[LENGTH_AT] <= LONGEST_KEY && !cell[FLAG_AT] && 0 < size && size <= LONGEST_SIZE;
}

/* Delete the record of a slot from the tree. Return 1, 0 if there is none, or -1 with an error set. */
static int
delete_record(const File *file, uint64_t slot, PyObject *delete, PyObject *freed)
{
    const char *cell = (const char *)file->cells + slot * CELL;
    PyObject *key = PyBytes_FromStringAndSize(cell + KEY_AT, (uint8_t)cell[LENGTH_AT]);
    PyObject *number = key == NULL ? NULL : PyLong_FromUnsignedLongLong(slot);
    PyObject *answer = number == NULL || PySet_Add(freed, number) < 0 ? NULL : PyObject_CallOneArg(delete, key);
    int is_deleted = answer == NULL ? -1 : answer == Py_True;
    Py_XDECREF(answer);
    Py_XDECREF(number);
    Py_XDECREF(key);
    return is_deleted;
}

/* Note in the table of ghosts, and count, that the entry of a slot was evicted. */
static void
note_eviction(const File *file, uint64_t slot, int is_proven)
{
    volatile uint64_t *evictions = file->words + EVICTED + is_proven;
    uint64_t number = *evictions & ((UINT64_C(1) << BITS_OF_EVICTIONS) - 1);
    const uint8_t *cell = (const uint8_t *)file->cells + slot * CELL;
    remember(file, checksum_of(cell + KEY_AT, cell[LENGTH_AT]), number << 3 | (is_proven ? PROVEN : 0));
    *evictions += 1;
}

/* Change all but the tree for an entry that goes. */
static uint64_t
let_slot_go(const File *file, uint64_t slot)
{
    volatile uint64_t *words = file->words, *numbers = file->numbers;
    uint64_t position = numbers[CHOSEN], kind = file->kinds[slot], size = size_of(file, slot);
    log_kind(file, slot, kind);
    file->kinds[slot] = FREE;
    if (position) {
        numbers[CHOSEN] = position - 1;
    } else {
        numbers[SMALL_HAND] = slot + 1;
        numbers[IN_SMALL] -= 1;
        words[UNUSED] += 1;
    }
    numbers[SIZE] -= size;
    numbers[ENTRIES] -= 1;
    note_eviction(file, slot, kind == LEAVING_MAIN);
    return size;
}

PyDoc_STRVAR(
    let_go_doc,
    "let_go(file, kept, freed, delete): as Queues.let_go() where nobody notes removals.");

static PyObject *
let_go(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t given)
{
    File file;
    if (given != 4 || !PySet_CheckExact(arguments[2])) {
        PyErr_SetString(PyExc_TypeError, "let_go() takes a file, a slot, a set and a function");
        return NULL;
    }
    int64_t kept = PyLong_AsLongLong(arguments[1]);
    if (PyErr_Occurred() || take_hold(&file, arguments[0]) < 0) {
        return NULL;
    }
    int64_t slot = next_to_go(&file, kept);
    int is_deleted = 0;
    if (slot >= 0 && is_plain(&file, (uint64_t)slot)) {
        is_deleted = delete_record(&file, (uint64_t)slot, arguments[3], arguments[2]);
    }
    uint64_t size = is_deleted > 0 ? let_slot_go(&file, (uint64_t)slot) : 0;
    let_loose(&file);
    return is_deleted < 0 ? NULL : PyLong_FromUnsignedLongLong(size);
}

/* bury ------------------------------------------------------------------------------------------------------------- */

/* Read the slots of a list, which are to be logged; return how many they are, 0 where Python is to look. */
static int
read_slots(const File *file, PyObject *chosen, uint64_t *slots, int are_plain)
{
    Py_ssize_t count = PyList_GET_SIZE(chosen);
    if (count > MOST_AT_ONCE || file->words[LOGGED] > (uint64_t)(LOG_ROOM - count)) {
        return 0;
    }
    for (Py_ssize_t each = 0; each < count; each++) {
        slots[each] = PyLong_AsUnsignedLongLong(PyList_GET_ITEM(chosen, each));
        if (PyErr_Occurred()) {
            return -1;
        }
        if (slots[each] >= file->count || (are_plain && !is_plain(file, slots[each]))) {
            return 0;
        }
    }
    return (int)count;
}

/* Change the kind of so many slots, and log what it was. */
static void
change_kinds(const File *file, const uint64_t *slots, int count, uint8_t kind)
{
    uint64_t end = file->words[LOGGED];
    for (int each = 0; each < count; each++) {
        file->words[LOG + end + (uint64_t)each] = slots[each] << 8 | file->kinds[slots[each]];
    }
    file->words[LOGGED] = end + (uint64_t)count;
    for (int each = 0; each < count; each++) {
        file->kinds[slots[each]] = kind;
    }
}

/* Bury the entries of so many slots; return their bytes, or -1 with an error set. */
static int64_t
buried(const File *file, const uint64_t *slots, int count, PyObject *delete, PyObject *freed)
{
    uint8_t kinds[MOST_AT_ONCE];
    uint64_t size = 0;
    for (int each = 0; each < count; each++) {
        kinds[each] = file->kinds[slots[each]];
        size += size_of(file, slots[each]);
    }
    change_kinds(file, slots, count, FREE);
    for (int each = 0; each < count; each++) {
        int is_deleted = delete_record(file, slots[each], delete, freed);
        if (is_deleted <= 0) {
            if (!is_deleted) {
                PyErr_SetString(PyExc_LookupError, "a slot has another key than its record");
            }
            return -1;
        }
    }
    for (int is_proven = 0; is_proven < 2; is_proven++) {
        for (int each = 0; each < count; each++) {
            if ((kinds[each] == MAIN || kinds[each] == LEAVING_MAIN) == is_proven) {
                note_eviction(file, slots[each], is_proven);
            }
        }
    }
    file->numbers[SIZE] -= size;
    file->numbers[ENTRIES] -= (uint64_t)count;
    return (int64_t)size;
}

PyDoc_STRVAR(
    bury_doc,
    "bury(file, chosen, freed, delete): as Queues._bury() where nobody notes removals and all are plain; return their "
    "bytes, else 0.");

static PyObject *
bury(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t given)
{
    File file;
    uint64_t slots[MOST_AT_ONCE];
    if (given != 4 || !PyList_CheckExact(arguments[1]) || !PySet_CheckExact(arguments[2])) {
        PyErr_SetString(PyExc_TypeError, "bury() takes a file, a list of slots, a set and a function");
        return NULL;
    }
    if (take_hold(&file, arguments[0]) < 0) {
        return NULL;
    }
    int count = read_slots(&file, arguments[1], slots, 1);
    int64_t size = count <= 0 ? count : buried(&file, slots, count, arguments[3], arguments[2]);
    let_loose(&file);
    return size < 0 ? NULL : PyLong_FromLongLong(size);
}

/* promote and set_kind --------------------------------------------------------------------------------------------- */

PyDoc_STRVAR(set_kind_doc, "set_kind(file, slots, kind): as Slots.set_kind() where the log has room; else False.");

static PyObject *
set_kind(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t given)
{
    File file;
    uint64_t slots[MOST_AT_ONCE];
    if (given != 3 || !PyList_CheckExact(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "set_kind() takes a file, a list of slots and a kind");
        return NULL;
    }
    unsigned long kind = PyLong_AsUnsignedLong(arguments[2]);
    if (PyErr_Occurred() || take_hold(&file, arguments[0]) < 0) {
        return NULL;
    }
    int count = read_slots(&file, arguments[1], slots, 0);
    if (count > 0) {
        change_kinds(&file, slots, count, (uint8_t)kind);
    }
    let_loose(&file);
    return count < 0 ? NULL : PyBool_FromLong(count);
}

PyDoc_STRVAR(promote_doc, "promote(file, late): as ring.promote() where the log and the ring have room; else False.");

static PyObject *
promote(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t given)
{
    File file;
    uint64_t slots[MOST_AT_ONCE];
    if (given != 2 || !PyList_CheckExact(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "promote() takes a file and a list of slots");
        return NULL;
    }
    if (take_hold(&file, arguments[0]) < 0) {
        return NULL;
    }
    volatile uint32_t *ring = (volatile uint32_t *)(file.kinds + 2 * file.count);
    uint64_t end = file.numbers[END];
    int count = read_slots(&file, arguments[1], slots, 0);
    int is_done = count > 0 && end - file.numbers[HEAD] + (uint64_t)count <= file.count;
    if (is_done) {
        change_kinds(&file, slots, count, MAIN);
        for (int each = 0; each < count; each++) {
            file.hits[slots[each]] = 0;
            ring[(end + (uint64_t)each) & (file.count - 1)] = (uint32_t)slots[each];
        }
        file.numbers[END] = end + (uint64_t)count;
    }
    let_loose(&file);
    return count < 0 ? NULL : PyBool_FromLong(is_done);
}

/* The module ------------------------------------------------------------------------------------------------------- */

static int
module_exec(PyObject *module)
{
    const int words = (int)(sizeof LAYOUT / sizeof *LAYOUT);
    PyObject *layout = PyTuple_New(words);
    for (int each = 0; layout != NULL && each < words; each++) {
        PyObject *word = PyLong_FromLong(LAYOUT[each]);
        if (word == NULL) {
            Py_CLEAR(layout);
        } else {
            PyTuple_SET_ITEM(layout, each, word);
        }
    }
    int result = layout == NULL ? -1 : PyModule_AddObjectRef(module, "LAYOUT", layout);
    Py_XDECREF(layout);
    return result;
}

static PyMethodDef module_methods[] = {
    {"begin", (PyCFunction)(void (*)(void))begin, METH_FASTCALL, begin_doc},
    {"enter", (PyCFunction)(void (*)(void))enter, METH_FASTCALL, enter_doc},
    {"bury", (PyCFunction)(void (*)(void))bury, METH_FASTCALL, bury_doc},
    {"let_go", (PyCFunction)(void (*)(void))let_go, METH_FASTCALL, let_go_doc},
    {"promote", (PyCFunction)(void (*)(void))promote, METH_FASTCALL, promote_doc},
    {"set_kind", (PyCFunction)(void (*)(void))set_kind, METH_FASTCALL, set_kind_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED}, /* it has no state */
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "storeroom.backends.filebased._compiled",
    .m_doc = "A new key of a file cache, compiled: see slots.py.",
    .m_methods = module_methods,
    .m_slots = module_slots,
};

PyMODINIT_FUNC
PyInit__compiled(void)
{
    return PyModuleDef_Init(&module_definition);
}
