/* The ordinary insert of a new key into a map, compiled: see insert.c. */

typedef struct Insertion Insertion;

/* Take the terms of storeroom.backends.locmem.hot_path. NULL, and an error, if they are not these. */
Insertion *insertion_new(PyObject *const *terms, Py_ssize_t given);

/* Insert a key, as BoundedMap.insert(): a map, a key, a value, bytes or None, a deadline, a size, and the present. OURS
   if that is done, PYTHONS if it is no ordinary case and nothing was done, or ERROR. */
int insertion_insert(Insertion *insertion, PyObject *const *terms, double now);

int insertion_traverse(Insertion *insertion, visitproc visit, void *arg);
void insertion_free(Insertion *insertion);
