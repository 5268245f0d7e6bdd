"""Which instruction sets this processor and its operating system offer.

Compiled for the lowest processor only: a detector built with the instructions that it looks for
would die of them.
"""
cdef extern from *:
    """
    #if (defined(__x86_64__) || defined(_M_X64))
      #if defined(__GNUC__)
        static int has_v2(void) { __builtin_cpu_init(); return __builtin_cpu_supports("sse4.2") != 0
            && __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("ssse3"); }
        static int has_v3(void) { return has_v2() && __builtin_cpu_supports("avx2")
            && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi")
            && __builtin_cpu_supports("bmi2"); }
        static int has_v4(void) { return has_v3() && __builtin_cpu_supports("avx512f")
            && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd")
            && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"); }
      #else
        #include <intrin.h>
        #include <immintrin.h>
        static int leaf(int number, int word) { int r[4]; __cpuidex(r, number, 0); return r[word]; }
        static int has_v2(void) { return (leaf(1, 2) >> 20 & 1) && (leaf(1, 2) >> 23 & 1); }
        static int has_v3(void) { return has_v2() && (leaf(1, 2) >> 27 & 1)
            && (leaf(1, 2) >> 12 & 1) && (_xgetbv(0) & 6) == 6
            && (leaf(7, 1) >> 5 & 1) && (leaf(7, 1) >> 8 & 1); }
        static int has_v4(void) { return has_v3() && (_xgetbv(0) & 0xe6) == 0xe6
            && (leaf(7, 1) >> 16 & 1) && (leaf(7, 1) >> 17 & 1) && (leaf(7, 1) >> 28 & 1)
            && (leaf(7, 1) >> 30 & 1) && (leaf(7, 1) >> 31 & 1); }
      #endif
      #define HAS_NEON 0
    #else
      static int has_v2(void) { return 0; }
      static int has_v3(void) { return 0; }
      static int has_v4(void) { return 0; }
      #if defined(__aarch64__) || defined(_M_ARM64)
        #define HAS_NEON 1
      #else
        #define HAS_NEON 0
      #endif
    #endif
    """
    bint has_v2()
    bint has_v3()
    bint has_v4()
    bint HAS_NEON


def instruction_sets():
    """Return the names of the builds that run here, fastest first."""
    found = []
    if has_v4():
        found.append("avx512")
    if has_v3():
        found.append("avx2")
    if has_v2():
        found.append("baseline")
    if HAS_NEON:
        found.append("neon")
    return (*found, "portable")
