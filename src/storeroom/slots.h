/* What the compiled parts share. They read and change objects that Python has made, in the slots of their classes, and
take up ordinary cases alone. Each asks the classes once where their slots lie; see docs/decisions/0025-compiled-hits.md.

A file that includes this has a State with `objects`, its classes among them, and `offsets`. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <structmember.h>

#ifdef Py_GIL_DISABLED
#error "This file relies on the interpreter's lock; a build without it keeps the methods in Python."
#endif

#define SLOT(object, slot) (*(PyObject **)((char *)(object) + state->offsets[slot]))
#define IS(object, owner) ((object) != NULL && Py_IS_TYPE(object, (PyTypeObject *)state->objects[owner]))
#define IS_TEXT(object) ((object) != NULL && PyUnicode_CheckExact(object))
#define IS_FLOAT(object) ((object) != NULL && PyFloat_CheckExact(object))

/* Three answers: go on, leave the call to Python, raise the error that is set. */
enum { OURS = 1, PYTHONS = 0, ERROR = -1 };

static inline int
pythons_or_error(void)
{
    return PyErr_Occurred() ? ERROR : PYTHONS;
}

/* Find out where a slot of a class lies. */
static int
learn_offset(PyObject *owner, const char *name, Py_ssize_t *offset)
{
    PyObject *found = PyObject_GetAttrString(owner, name);
    if (found == NULL) {
        return ERROR;
    }
    PyMemberDef *member = Py_IS_TYPE(found, &PyMemberDescr_Type) ? ((PyMemberDescrObject *)found)->d_member : NULL;
    int is_slot = member != NULL && member->type == T_OBJECT_EX;
    if (is_slot) {
        *offset = member->offset;
    }
    else {
        PyErr_Format(PyExc_TypeError, "%R has no slot %s", owner, name);
    }
    Py_DECREF(found);
    return is_slot ? OURS : ERROR;
}
