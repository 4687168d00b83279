/* The CPython extension runtime.launcher._launcher: spawn() without executing a launcher. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "spawn.h"

static PyObject *launch(PyObject *self, PyObject *args) {
  (void)self;
  Py_buffer bytes;
  int stdio[3];
  if (!PyArg_ParseTuple(args, "y*iii", &bytes, &stdio[0], &stdio[1], &stdio[2])) return NULL;
  struct plan plan;
  const char *wrong = plan_read(&plan, bytes.buf, (size_t)bytes.len, NULL, NULL);
  if (wrong) {
    PyBuffer_Release(&bytes);
    return PyErr_Format(PyExc_ValueError, "malformed plan: %s", wrong);
  }
  struct spawned spawned = {0};
  struct failure failure;
  int result;
  Py_BEGIN_ALLOW_THREADS
  result = spawn(&plan, stdio, &spawned, &failure);
  Py_END_ALLOW_THREADS
  plan_free(&plan);
  PyBuffer_Release(&bytes);
  if (result != 0) return Py_BuildValue("(iiiLL)", -1, failure.step, failure.error, 0LL, 0LL);
  return Py_BuildValue("(iiiLL)", spawned.pid, spawned.pidfd, 0, (long long)spawned.cloned_ns,
                       (long long)spawned.executed_ns);
}

static PyMethodDef methods[] = {
  {"launch", launch, METH_VARARGS,
   "launch(plan, stdin, stdout, stderr) -> (pid, pidfd, 0, cloned_ns, executed_ns), or (-1, step, errno, 0, 0)."},
  {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_launcher", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__launcher(void) { return PyModule_Create(&definition); }
