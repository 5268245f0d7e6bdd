"""Plans: kernels, their arguments and the one parallel loop that runs them.

A kernel is a job function ``f(args, job, scratch)`` and the names of the slots of its Args struct.
Every slot is eight bytes (a pointer, an extent or a double), so one piece of code fills any struct.
A plan is a list of (kernel, args, number of jobs): its steps run in order, the jobs of a step in
any order and on any thread, with a barrier after each step, all in a single parallel region.  Steps
that do not wait for each other may run side by side: a thread takes a job of each in turn, so that
what they share is in cache, and there is one barrier for all.

Jobs follow the arrays they work on, and of every step a thread begins with the same share of them:
what one step wrote is in that thread's caches when the next one reads it.  Who is done helps the
others.

While a recording goes on (`recording.py`), every plan that its thread runs is also added to one
long plan, which does it all again in one parallel region.
"""
from cpython.buffer cimport PyBuffer_Release, PyObject_GetBuffer
from cython.parallel cimport parallel, prange, threadid
from libc.stdint cimport uintptr_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy

from cycnn import threads
from cycnn.engine.memory import Block

cdef extern from *:
    """
    #if defined(_OPENMP)
      #include <omp.h>
      #define CYCNN_OPENMP _OPENMP
    #else
      static int omp_get_max_threads(void) { return 1; }
      #define CYCNN_OPENMP 0
    #endif
    /* A child of fork has none of libgomp's threads but all of its locks, and waits for ever in its
       first region.  Ending the threads before the fork, in whatever C code it happens, makes the
       child's first region start its own.  Other OpenMP libraries install a handler themselves. */
    #if defined(_OPENMP) && defined(__GNUC__) && !defined(__clang__) && !defined(_WIN32)
      #include <pthread.h>
      #pragma weak omp_pause_resource_all
      static void before_fork(void) { (void)omp_pause_resource_all(omp_pause_hard); }
      static int install_fork_handler(void) {
          return &omp_pause_resource_all != 0 ? pthread_atfork(before_fork, 0, 0) : -1;
      }
    #else
      static int install_fork_handler(void) { return -1; }
    #endif
    #if defined(_MSC_VER) && !defined(__clang__)
      #include <intrin.h>
      #define fetch_and_add(counter) _InterlockedExchangeAdd64((volatile __int64 *)(counter), 1)
    #else
      #define fetch_and_add(counter) __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED)
    #endif
    """
    int omp_get_max_threads() nogil
    int install_fork_handler() nogil
    Py_ssize_t fetch_and_add(Py_ssize_t* counter) nogil         # atomic; returns what it was
    int CYCNN_OPENMP

cdef extern from "pythread.h" nogil:
    unsigned long PyThread_get_thread_ident()

OPENMP_VERSION = CYCNN_OPENMP
FORK_HANDLER = install_fork_handler() == 0

cdef enum:
    # Below this much work (operations or bytes) a second thread costs more than it brings: waking
    # it takes 2 to 20 us, in which one thread does about a million operations.
    PARALLEL_WORK = 1 << 20
    # Bytes between the scratch memories of two threads. What walks over memory in strides is
    # foreseen by the processor some sixteen strides ahead, beyond the end too, and each line that
    # it fetches there is one that its owner must take back.
    APART = 64 << 10

ctypedef void (*job_function)(const void* args, Py_ssize_t job, char* scratch) noexcept nogil


cdef union Slot:
    void* pointer
    Py_ssize_t extent
    double number


cdef struct Step:
    job_function run
    Py_ssize_t jobs
    Py_ssize_t first        # index of its first slot
    Py_ssize_t beside       # steps that run side by side, this one the first; 0 for the others
    bint alone              # too little work for more than one thread


cdef struct Share:
    # The jobs of a step that a thread begins with, alone on a cache line.
    Py_ssize_t next
    Py_ssize_t end
    char[48] apart


def openmp_limit():
    """Return how many threads OpenMP would give a parallel region started by the calling thread."""
    return max(1, omp_get_max_threads())


threads._openmp_limit = openmp_limit


cdef void* address_of(array) except? NULL:
    """Return where the data of a C-contiguous array (or other buffer) begins."""
    cdef Py_buffer view
    cdef void* data
    PyObject_GetBuffer(array, &view, 0)         # PyBUF_SIMPLE: refuses what is not contiguous
    data = view.buf
    PyBuffer_Release(&view)
    return data


cdef int set_slot(Slot* slot, str kind, value, list arrays) except -1:
    """Write one argument; an array goes to `arrays`, to be kept alive."""
    if kind == "*":
        slot.pointer = NULL
        if value is not None:
            slot.pointer = address_of(value)
            arrays.append(value)
    elif kind == ".":
        slot.number = value
    else:
        slot.extent = value
    return 0


cdef class Kernel:
    """A compiled job function and the names of its slots: ``x*`` a pointer, ``eps.`` a double."""
    cdef job_function run
    cdef readonly str name
    cdef readonly tuple slots
    cdef readonly tuple kinds

    def __init__(self, str name, size_t address, size_t size, str slots):
        words = slots.split()
        if size != len(words) * sizeof(Slot):
            raise ImportError(f"{name}: {len(words)} slots are named, its Args has {size} bytes")
        self.name = name
        self.run = <job_function>address
        self.slots = tuple([word.rstrip("*.") for word in words])
        self.kinds = tuple([word[len(name):] for word, name in zip(words, self.slots)])

    def bind(self, Py_ssize_t jobs, *, Py_ssize_t scratch=0, double work=0, **known):
        """Return `jobs` jobs of this kernel with the `known` arguments, the others left open.

        Parameters
        ----------
        jobs : int
            The kernel runs once for each job in range(jobs).
        scratch : int
            Bytes of scratch memory that each thread needs.
        work : float
            About how many operations (or bytes) all jobs take together.
        **known
            A value for some or all slots: an array or None for a pointer, an int, or a float.
        """
        cdef Bound bound = Bound.__new__(Bound)
        cdef Py_ssize_t i
        bound.kernel = self
        bound.jobs = jobs
        bound.scratch = scratch
        bound.work = work
        bound.open = {}
        bound.arrays = []
        bound.values = <Slot*>malloc(len(self.slots) * sizeof(Slot))
        if bound.values == NULL:
            raise MemoryError("no memory for a kernel's arguments")
        for i, name in enumerate(self.slots):
            if name in known:
                set_slot(bound.values + i, self.kinds[i], known.pop(name), bound.arrays)
            else:
                bound.open[name] = i
        if known:
            raise TypeError(f"{self.name} has the slots {self.slots}, not {tuple(known)}")
        return bound


cdef class Bound:
    """Jobs of a kernel with some of its arguments filled in."""
    cdef Kernel kernel
    cdef Slot* values
    cdef Py_ssize_t jobs, scratch
    cdef double work
    cdef dict open                              # the index of each slot that is not filled in
    cdef list arrays                            # keeps alive what the slots point to

    def __dealloc__(self):
        free(self.values)


cdef void share_out(Py_ssize_t jobs, Share* shares, int n) noexcept nogil:
    """Give each of n threads as many jobs in a row as the others, the first ones to the first."""
    cdef Py_ssize_t t
    for t in range(n):
        shares[t].next = (t * jobs + n - 1) // n
        shares[t].end = ((t + 1) * jobs + n - 1) // n


cdef void run_jobs(
    const Step* steps, const Slot* values, Share* shares, Py_ssize_t thread, int n, char* scratch,
) noexcept nogil:
    """Run the jobs of one's own shares of the steps side by side, then those that others left."""
    cdef Py_ssize_t i, j, s
    cdef Share* share
    cdef bint more
    for i in range(n):
        more = True
        while more:
            more = False
            for s in range(steps.beside):
                share = shares + s * n + (thread + i) % n
                # A look first, which may come too late: counting takes the line from the others.
                if share.next < share.end:
                    j = fetch_and_add(&share.next)
                    if j < share.end:
                        steps[s].run(values + steps[s].first, j, scratch)
                        more = True


cdef void run_alone(
    const Step* steps, Py_ssize_t count, const Slot* values, Share* shares, int n, char* scratch,
) noexcept nogil:
    """Run all jobs of some steps on this thread, one step after the other."""
    cdef Py_ssize_t s
    for s in range(count):
        if steps[s].beside > 0:
            run_jobs(steps + s, values, shares + s * n, 0, n, scratch)


cdef Py_ssize_t same_kind(const Step* steps, Py_ssize_t s, Py_ssize_t count) noexcept nogil:
    """Return the end of the steps from s on between which threads need not wait for each other."""
    cdef Py_ssize_t end = s + 1
    while end < count and (steps[end].beside == 0 or (steps[s].alone and steps[end].alone)):
        end = end + 1
    return end


cdef void touch(char* memory, Py_ssize_t size) noexcept nogil:
    """Write to each page, so that it is mapped."""
    cdef Py_ssize_t i
    for i in range(0, size, 4096):
        memory[i] = 0
    if size > 0:                                # which may begin within a page
        memory[size - 1] = 0


cdef class Plan:
    """A sequence of kernel runs on given arrays."""
    cdef Step* steps
    cdef Slot* values
    cdef Py_ssize_t count, capacity, slots, slot_capacity
    cdef Py_ssize_t scratch
    cdef double work
    cdef list arrays                            # keeps alive what the slots point to

    def __cinit__(self):
        self.arrays = []

    def __dealloc__(self):
        free(self.steps)
        free(self.values)

    cdef int reserve(self, Py_ssize_t slots) except -1:
        """Make room for one more step and `slots` more slots."""
        cdef void* larger
        if self.count == self.capacity:
            larger = realloc(self.steps, (2 * self.capacity + 8) * sizeof(Step))
            if larger == NULL:
                raise MemoryError("no memory for a plan")
            self.steps = <Step*>larger
            self.capacity = 2 * self.capacity + 8
        if self.slots + slots > self.slot_capacity:
            larger = realloc(self.values, (2 * self.slot_capacity + slots + 64) * sizeof(Slot))
            if larger == NULL:
                raise MemoryError("no memory for a plan")
            self.values = <Slot*>larger
            self.slot_capacity = 2 * self.slot_capacity + slots + 64
        return 0

    def add(self, Kernel kernel not None, Py_ssize_t jobs, *, Py_ssize_t scratch=0, double work=0,
            **arguments):
        """Append `jobs` jobs of `kernel` with all its arguments; see `Kernel.bind`."""
        self.append(kernel.bind(jobs, scratch=scratch, work=work, **arguments))

    def append(self, Bound bound not None, *, bint beside=False, **arguments):
        """Append the jobs of a bound kernel.

        Parameters
        ----------
        bound : Bound
        beside : bool
            Run side by side with the step before instead of after it.
        **arguments
            A value for each slot that is still open.
        """
        cdef Kernel kernel = bound.kernel
        cdef Py_ssize_t slots = len(kernel.slots), i
        cdef Step* step
        if len(arguments) != len(bound.open):
            raise TypeError(
                f"{kernel.name} still takes {tuple(bound.open)}, got {tuple(arguments)}")
        self.reserve(slots)
        memcpy(self.values + self.slots, bound.values, slots * sizeof(Slot))
        for name, i in bound.open.items():
            set_slot(self.values + self.slots + i, kernel.kinds[i], arguments[name], self.arrays)
        self.arrays.append(bound)
        step = self.steps + self.count
        step.run = kernel.run
        step.jobs = bound.jobs
        step.first = self.slots
        step.beside = 0
        step.alone = False
        while beside and step.beside == 0 and step != self.steps:       # its group's first step
            step = step - 1
        step.beside += 1
        self.count += 1
        self.slots += slots
        self.scratch = max(self.scratch, bound.scratch)
        self.work += bound.work

    cdef int take_over(self, Plan other, memory) except -1:
        """Append the steps of another plan, and what it keeps alive outside of `memory`."""
        cdef Py_ssize_t i
        cdef Step* step
        for i in range(other.count):
            self.reserve(other.slots)
            step = self.steps + self.count
            step[0] = other.steps[i]
            step.first += self.slots
            step.alone = other.work < PARALLEL_WORK
            self.count += 1
        memcpy(self.values + self.slots, other.values, other.slots * sizeof(Slot))
        self.slots += other.slots
        self.scratch = max(self.scratch, other.scratch)
        self.work = max(self.work, other.work)
        for kept in other.arrays:
            for array in (<Bound>kept).arrays if isinstance(kept, Bound) else (kept,):
                if not memory.holds(<uintptr_t>address_of(array)):
                    self.arrays.append(array)
        return 0

    def run(self):
        """Run all steps with as many threads as the work is worth, without the GIL."""
        cdef int most = threads.get_num_threads() if self.work >= PARALLEL_WORK else 1
        cdef int n = min(most, threads.limit.get()) if most > 1 else 1
        # Memory is that of all threads: a limit, which comes and goes, takes no other.
        cdef Py_ssize_t apart = <Py_ssize_t>APART if most > 1 and self.scratch > 0 else 0
        # An odd number of cache lines, so that threads of one core do not meet in its cache sets.
        cdef Py_ssize_t stride = ((self.scratch + apart + 63) // 64 | 1) * 64
        cdef Py_ssize_t s = 0, end = 0, t
        block = Block(self.count * most * sizeof(Share) + stride * most)
        cdef Share* shares = <Share*><uintptr_t>block.address
        cdef char* scratch = <char*>(shares + self.count * most)
        # A thread that begins late may find all jobs done, for many runs; its scratch memory would
        # cost page faults whenever it does get one.
        cdef bint fresh = n > 1 and block.grows()
        for s in range(self.count):
            share_out(self.steps[s].jobs, shares + s * n, n)
        if n == 1:                              # without asking OpenMP
            with nogil:
                run_alone(self.steps, self.count, self.values, shares, 1, scratch)
        else:
            with nogil, parallel(num_threads=n):
                if fresh:
                    touch(scratch + threadid() * stride, self.scratch)
                s = 0
                while s < self.count:
                    end = same_kind(self.steps, s, self.count)
                    for t in prange(n, schedule="static", chunksize=1):
                        if not self.steps[s].alone:
                            run_jobs(self.steps + s, self.values, shares + s * n, t, n,
                                     scratch + threadid() * stride)
                        elif t == 0:
                            run_alone(self.steps + s, end - s, self.values, shares + s * n, n,
                                      scratch + threadid() * stride)
                    s = end
        if recording_thread == PyThread_get_thread_ident():
            recorded.take_over(self, recorded_memory)


cdef Plan recorded = None                       # to which its thread's runs are added
cdef object recorded_memory
cdef unsigned long recording_thread = 0         # nobody else looks at the two


def begin_recording(Plan plan not None, memory not None):
    """Add what this thread runs from now on to `plan`; `memory` notes the blocks it is given.

    Say whether that can be: one recording at a time may be made.
    """
    global recorded, recorded_memory, recording_thread
    if not memory.begin():
        return False
    recorded, recorded_memory = plan, memory
    recording_thread = PyThread_get_thread_ident()
    return True


def end_recording():
    """Undo `begin_recording`."""
    global recorded, recorded_memory, recording_thread
    recording_thread = 0
    memory, recorded, recorded_memory = recorded_memory, None, None
    memory.end()
