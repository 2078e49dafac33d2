/* Storage keys, for the compiled parts that make them. */

#include <Python.h>
#include <string.h>

/* Return one text after the other; most are ASCII, and take half of the time then. */
static PyObject *
joined(PyObject *head, PyObject *key)
{
    if (!PyUnicode_IS_COMPACT_ASCII(head) || !PyUnicode_IS_COMPACT_ASCII(key)) {
        return PyUnicode_Concat(head, key);
    }
    Py_ssize_t before = PyUnicode_GET_LENGTH(head), behind = PyUnicode_GET_LENGTH(key);
    PyObject *text = behind > PY_SSIZE_T_MAX - before ? PyErr_NoMemory() : PyUnicode_New(before + behind, 127);
    if (text != NULL && before + behind > 0) {
        memcpy(PyUnicode_1BYTE_DATA(text), PyUnicode_1BYTE_DATA(head), (size_t)before);
        memcpy(PyUnicode_1BYTE_DATA(text) + before, PyUnicode_1BYTE_DATA(key), (size_t)behind);
    }
    return text;
}
