"""A pool of 64-byte aligned blocks for outputs, gradients and scratch.

Fresh memory costs a page fault every 4 KB, which on memory-bound layers is more than the layer; a
block goes back to the pool when the last array on it dies and is handed out again, still mapped.

Size classes: eight per power of two, so a new block is at most 12.5 % larger than asked for; from
2 MB on, where none of a class is free, one up to twice as large serves (scratch memory has many
sizes).  A block that was not used again within WINDOW allocations is released, and so are the
blocks freed longest ago when the pool holds more than 1.5 times the peak of the live bytes: a
training step needs some sizes on its way up and others on its way down, more than its peak taken
together.
Where that was too little, so that a block is missed that was released for it, the pool may hold
that block more from then on, up to 2.5 times the peak: a network asks for the same blocks in every
step.
Blocks of 64 KB and more are mapped by themselves, those of 2 MB and more aligned to 2 MB and marked
for huge pages.

What was run once may be run again on the same memory (`recording.py`): a Reserve knows the blocks
that were handed out meanwhile, and they stay mapped for it.  Between two runs they serve others
like any free block; for a run all of them are taken, or none.
"""
import numpy as np
from libc.stdint cimport uintptr_t
from libc.stdlib cimport free, malloc, realloc

cdef extern from *:
    """
    #include <stdlib.h>
    #include <stdint.h>
    #if defined(_WIN32)
      #include <malloc.h>
      static void *memory_get(size_t size) { return _aligned_malloc(size, 64); }
      static void memory_release(void *p, size_t size) { (void)size; _aligned_free(p); }
    #else
      #include <sys/mman.h>
      #define HUGE ((size_t)1 << 21)
      #define MAPPED ((size_t)1 << 16)  /* malloc would keep holes between blocks of such sizes */
      static void *memory_get(size_t size) {
          void *p = 0;
          if (size < MAPPED) return posix_memalign(&p, 64, size) ? 0 : p;
          if (size > SIZE_MAX - HUGE) return 0;
          if (size < HUGE) {
              p = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
              return p == MAP_FAILED ? 0 : p;
          }
          char *raw = (char *)mmap(0, size + HUGE, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
          if (raw == (char *)MAP_FAILED) return 0;
          size_t head = (HUGE - (uintptr_t)raw % HUGE) % HUGE;
          size_t used = (size + 4095) / 4096 * 4096;
          if (head) munmap(raw, head);
          if (HUGE + size > head + used) munmap(raw + head + used, HUGE + size - head - used);
      #ifdef MADV_HUGEPAGE
          madvise(raw + head, used, MADV_HUGEPAGE);
      #endif
          return raw + head;
      }
      static void memory_release(void *p, size_t size) {
          if (size < MAPPED) free(p);
          else munmap(p, (size + 4095) / 4096 * 4096);
      }
    #endif
    """
    void* memory_get(size_t size) nogil
    void memory_release(void* p, size_t size) nogil

cdef extern from "pythread.h" nogil:
    ctypedef void* PyThread_type_lock
    PyThread_type_lock PyThread_allocate_lock()
    int PyThread_acquire_lock(PyThread_type_lock lock, int wait)
    void PyThread_release_lock(PyThread_type_lock lock)
    unsigned long PyThread_get_thread_ident()

cdef extern from "Python.h":
    int PyBuffer_FillInfo(Py_buffer* view, object owner, void* buf, Py_ssize_t len,
                          int readonly, int flags) except -1


cdef struct Chunk:
    char* data
    size_t size
    size_t used             # of it: what was asked for, rounded up to a size class
    size_t touched          # of it: what is known to be mapped, see Block.grows
    int kind                # its size class
    bint free
    int reserves            # that know it
    size_t noted            # the number of the last one that does
    size_t freed            # the allocation after which it was given back
    Chunk* next             # in its class's free list
    Chunk* previous
    Chunk* newer            # in the order of release
    Chunk* older


cdef struct Pool:
    Chunk* classes[512]     # free chunks, the last released first
    Chunk* newest
    Chunk* oldest
    size_t live             # bytes used
    size_t cached           # bytes of free chunks
    size_t held             # bytes of all chunks
    size_t peak             # of the live bytes, in this window and the one before
    size_t last_peak
    size_t allocations
    size_t missed           # bytes released for room and wanted again; halved in each window
    size_t released[512]    # the allocation after which a class last gave one up for room


cdef enum:
    WINDOW = 8192
    SLACK = 1 << 24         # small processes need not count their bytes
    SHARED = 1 << 21        # from this size on, a block serves smaller requests too

cdef Pool pool
cdef PyThread_type_lock lock = PyThread_allocate_lock()


cdef inline size_t class_size(size_t size, int* kind) noexcept nogil:
    """Round `size` up to its size class."""
    cdef int octave = 9
    cdef size_t step
    if size <= 512:         # below that, multiples of a cache line
        size = max(<size_t>1, (size + 63) // 64)
        kind[0] = <int>size - 1
        return size * 64
    while (<size_t>2 << octave) <= size - 1:
        octave = octave + 1
    step = <size_t>1 << (octave - 3)
    size = (size + step - 1) // step
    kind[0] = (octave - 8) * 8 + <int>(size - 9)
    return size * step


cdef void unlink(Chunk* c) noexcept nogil:
    """Take a free chunk out of its class and out of the order of release."""
    c.free = False
    if c.previous != NULL:
        c.previous.next = c.next
    else:
        pool.classes[c.kind] = c.next
    if c.next != NULL:
        c.next.previous = c.previous
    if c.newer != NULL:
        c.newer.older = c.older
    else:
        pool.newest = c.older
    if c.older != NULL:
        c.older.newer = c.newer
    else:
        pool.oldest = c.newer
    pool.cached -= c.size


cdef void trim(size_t most) noexcept nogil:
    """Release the chunks freed longest ago: those beyond `most` bytes, and the stale."""
    cdef Chunk* c
    cdef Chunk* newer = pool.oldest
    while newer != NULL and (pool.held > most or pool.allocations - newer.freed > WINDOW):
        c = newer
        newer = c.newer
        if c.reserves > 0:
            continue
        if most > 0 and pool.allocations - c.freed <= WINDOW:
            pool.released[c.kind] = pool.allocations
        unlink(c)
        pool.held -= c.size
        memory_release(c.data, c.size)
        free(c)


cdef Chunk* best_fit(int kind, size_t size) noexcept nogil:
    """Return the smallest free chunk of at least `size` bytes that serves, or NULL."""
    cdef int k
    if pool.classes[kind] != NULL or size < SHARED:
        return pool.classes[kind]
    for k in range(kind + 1, kind + 9):
        if pool.classes[k] != NULL:
            return pool.classes[k]
    return NULL


cdef inline void count_live(size_t size) noexcept nogil:
    pool.live += size
    pool.peak = max(pool.peak, pool.live)


cdef Chunk* take(size_t size) noexcept nogil:
    """Return a chunk of at least `size` bytes, or NULL when there is no memory."""
    cdef int kind = 0
    cdef size_t rounded = class_size(size, &kind)
    cdef Chunk* c
    PyThread_acquire_lock(lock, 1)
    c = best_fit(kind, rounded)
    if c != NULL:
        unlink(c)
    else:
        if pool.released[kind] and pool.allocations - pool.released[kind] <= WINDOW:
            pool.missed += rounded
            pool.released[kind] = 0
        c = <Chunk*>malloc(sizeof(Chunk))
        if c != NULL:
            c.size = rounded
            c.kind = kind
            c.touched = 0
            c.reserves = 0
            c.noted = 0
            c.data = <char*>memory_get(rounded)
            if c.data == NULL:                      # what is cached may be what is missing
                trim(0)
                c.data = <char*>memory_get(rounded)
            if c.data == NULL:
                free(c)
                c = NULL
            else:
                pool.held += rounded
    if c != NULL:
        c.free = False
        c.used = rounded
        count_live(rounded)
        pool.allocations += 1
        if pool.allocations % WINDOW == 0:
            pool.last_peak = pool.peak
            pool.peak = pool.live
            pool.missed = pool.missed // 2
    PyThread_release_lock(lock)
    return c


cdef void put_back(Chunk* c) noexcept nogil:
    """Make a chunk the last released of its class; the lock is held."""
    pool.live -= c.used
    pool.cached += c.size
    c.free = True
    c.freed = pool.allocations
    c.previous = NULL
    c.next = pool.classes[c.kind]
    if c.next != NULL:
        c.next.previous = c
    pool.classes[c.kind] = c
    c.newer = NULL
    c.older = pool.newest
    if c.older != NULL:
        c.older.newer = c
    else:
        pool.oldest = c
    pool.newest = c


cdef void trim_to_peak() noexcept nogil:
    cdef size_t peak = max(pool.peak, pool.last_peak)
    trim(peak + peak // 2 + min(pool.missed, peak) + SLACK)


cdef void give(Chunk* c) noexcept nogil:
    """Put a chunk back; it stays mapped for the next array of its size class."""
    PyThread_acquire_lock(lock, 1)
    put_back(c)
    trim_to_peak()
    PyThread_release_lock(lock)


cdef Reserve noting = None                      # takes note of what its thread is given
cdef unsigned long noting_thread = 0            # nobody else looks at it
cdef size_t reserves = 0                        # how many there have been


cdef inline Reserve noting_here():
    """Return what takes note of this thread, or None."""
    return noting if noting_thread == PyThread_get_thread_ident() else None


cdef struct Noted:
    Chunk* chunk
    size_t used


cdef class Reserve:
    """The blocks that one thread was given between `begin` and `end`.

    Attributes
    ----------
    refresh : list of callable
        What was given to `before_replay` meanwhile.
    complete : bool
        Whether plans show all that was done: nobody called `outside_plans`.
    """
    cdef Noted* chunks
    cdef Py_ssize_t count, capacity
    cdef size_t number
    cdef readonly list refresh
    cdef public bint complete

    def __cinit__(self):
        global reserves
        PyThread_acquire_lock(lock, 1)
        reserves += 1
        self.number = reserves
        PyThread_release_lock(lock)
        self.refresh = []
        self.complete = True

    def __dealloc__(self):
        cdef Py_ssize_t i
        PyThread_acquire_lock(lock, 1)
        for i in range(self.count):
            self.chunks[i].chunk.reserves -= 1
        PyThread_release_lock(lock)
        free(self.chunks)

    def begin(self):
        """Take note from now on, of this thread; say whether that can be: one at a time may."""
        global noting, noting_thread
        cdef bint taken
        PyThread_acquire_lock(lock, 1)
        taken = noting is not None
        if not taken:
            noting = self
            noting_thread = PyThread_get_thread_ident()
        PyThread_release_lock(lock)
        return not taken

    def end(self):
        """Take note no more."""
        global noting, noting_thread
        noting_thread = 0
        noting = None

    cdef int note(self, Chunk* chunk) except -1:
        """Take note of a chunk that has just been handed out."""
        cdef void* larger
        cdef Py_ssize_t i
        if chunk.noted == self.number:
            for i in range(self.count):
                if self.chunks[i].chunk == chunk:
                    self.chunks[i].used = max(self.chunks[i].used, chunk.used)
            return 0
        if self.count == self.capacity:
            larger = realloc(self.chunks, (2 * self.capacity + 64) * sizeof(Noted))
            if larger == NULL:
                raise MemoryError("no memory for a list of blocks")
            self.chunks = <Noted*>larger
            self.capacity = 2 * self.capacity + 64
        self.chunks[self.count].chunk = chunk
        self.chunks[self.count].used = chunk.used
        self.count += 1
        chunk.noted = self.number
        PyThread_acquire_lock(lock, 1)
        chunk.reserves += 1
        PyThread_release_lock(lock)
        return 0

    def holds(self, uintptr_t address):
        """Say whether an address is in one of the blocks."""
        cdef Py_ssize_t i
        cdef uintptr_t start
        for i in range(self.count):
            start = <uintptr_t>self.chunks[i].chunk.data
            if start <= address < start + self.chunks[i].chunk.size:
                return True
        return False

    def lease(self):
        """Take all the blocks; return their Lease, or None where somebody has one of them."""
        cdef Lease lease = Lease.__new__(Lease)
        cdef Chunk* c
        cdef Py_ssize_t i
        cdef bint all_free = True
        PyThread_acquire_lock(lock, 1)
        for i in range(self.count):
            all_free = all_free and self.chunks[i].chunk.free
        if all_free:
            for i in range(self.count):
                c = self.chunks[i].chunk
                unlink(c)
                c.used = self.chunks[i].used
                count_live(c.used)
            lease.reserve = self
        PyThread_release_lock(lock)
        return lease if all_free else None


cdef class Lease:
    """All the blocks of a Reserve, until it dies and the last array on it."""
    cdef Reserve reserve

    def __dealloc__(self):
        cdef Py_ssize_t i
        if self.reserve is None:
            return
        PyThread_acquire_lock(lock, 1)
        for i in range(self.reserve.count):
            put_back(self.reserve.chunks[i].chunk)
        trim_to_peak()
        PyThread_release_lock(lock)

    def array(self, uintptr_t address, shape, dtype):
        """Return an array at an address in one of the blocks."""
        cdef Place place = Place.__new__(Place)
        cdef Py_ssize_t size = dtype.itemsize
        for extent in shape:
            size *= extent
        place.lease, place.address, place.size = self, address, size
        return np.ndarray(shape, dtype, place)


cdef class Place:
    """A part of a leased block, which it keeps from being handed out."""
    cdef Lease lease
    cdef uintptr_t address
    cdef Py_ssize_t size

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, <void*>self.address, self.size, 0, flags)


def before_replay(function):
    """If this run is recorded, have `function` called each time before it is run again."""
    cdef Reserve reserve = noting_here()
    if reserve is not None:
        reserve.refresh.append(function)


def outside_plans():
    """If this run is recorded, say that it cannot be run again: no plan shows what follows."""
    cdef Reserve reserve = noting_here()
    if reserve is not None:
        reserve.complete = False


cdef class Block:
    """The owner of one chunk, seen by NumPy and by plans through the buffer protocol.

    What only the kernels of a plan look at needs no array around it.
    """
    cdef Chunk* chunk
    cdef Py_ssize_t size

    def __cinit__(self, Py_ssize_t size):
        self.size = size
        self.chunk = take(size)
        if self.chunk == NULL:
            raise MemoryError(f"no memory for an array of {size} bytes")
        cdef Reserve reserve = noting_here()
        if reserve is not None:
            reserve.note(self.chunk)

    def __dealloc__(self):
        if self.chunk != NULL:
            give(self.chunk)

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.chunk.data, self.size, 0, flags)

    @property
    def address(self):
        return <uintptr_t>self.chunk.data

    def grows(self):
        """Say, once, whether it is larger than all blocks on the same memory that asked before."""
        cdef bint grows = self.size > <Py_ssize_t>self.chunk.touched
        if grows:
            self.chunk.touched = self.size
        return grows


def empty(shape, dtype):
    """Return an uninitialised, 64-byte aligned, C-contiguous array from the pool."""
    dtype = np.dtype(dtype)
    size = dtype.itemsize
    for extent in shape:
        size *= extent
    if size > 2**62:
        raise MemoryError(f"an array of shape {tuple(shape)} is larger than the address space")
    return np.ndarray(shape, dtype, Block(size))


def zeros(shape, dtype):
    """Return an array of zeros from the pool."""
    outside_plans()
    array = empty(shape, dtype)
    array.fill(0)
    return array


def memory_info():
    """Return the pool's bytes as a dict: live (in arrays), cached (free), peak (of live)."""
    return {"live": pool.live, "cached": pool.cached, "peak": max(pool.peak, pool.last_peak)}
