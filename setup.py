"""Build the extension modules: each kernel once per (instruction set, dtype), the engine once.

A kernel source is translated to C once; a two-line C file per target includes that C, so that every
target has objects of its own.  Targets are rows of TARGETS and nothing else.

Environment
-----------
CYCNN_OPENMP : "1" fails without OpenMP, "0" builds without; by default OpenMP is used if it works.
CYCNN_BUILD_TARGETS : space-separated names of TARGETS to build, for a quick development cycle.
"""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
import tempfile
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

KERNELS = Path("cycnn/kernels")
ENGINE = Path("cycnn/engine")
MSVC = sys.platform == "win32"
LINUX = sys.platform.startswith("linux")
MACHINE = platform.machine().lower()
if "arm64" in os.environ.get("ARCHFLAGS", ""):  # cross-building on macOS
    MACHINE = "arm64"

# Instruction sets, fastest first; cycnn.kernels picks the first one that the processor has.
if MACHINE in ("x86_64", "amd64"):
    TARGETS = {
        "avx512": ["/arch:AVX512"] if MSVC else ["-march=x86-64-v4", "-mprefer-vector-width=512"],
        "avx2": ["/arch:AVX2"] if MSVC else ["-march=x86-64-v3"],
        "baseline": ["/D__SSE4_1__"] if MSVC else ["-march=x86-64-v2"],
    }
elif MACHINE in ("aarch64", "arm64"):
    TARGETS = {"neon": []}
else:
    TARGETS = {}
# The portable build is for trust, not speed: it is kept small.
TARGETS["portable"] = ["/DCYCNN_PORTABLE"] if MSVC else ["-O2", "-DCYCNN_PORTABLE"]
wanted = os.environ.get("CYCNN_BUILD_TARGETS", "").split() or list(TARGETS)
if unknown := set(wanted) - set(TARGETS):
    raise SystemExit(f"CYCNN_BUILD_TARGETS: {sorted(unknown)} not among {list(TARGETS)}")

DTYPES = {"f32": [], "f64": [("CYCNN_DOUBLE", None)]}
# The register tile is one inline function that is a different kernel for each set of constants.
FORCE_INLINE = (
    "CYTHON_INLINE",
    "__forceinline" if MSVC else "inline __attribute__((always_inline))",
)

# One abi3 wheel serves every CPython from 3.11; free-threaded builds have no stable ABI.
ABI3 = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
MACROS = [("Py_LIMITED_API", "0x030B0000")] if ABI3 else []

# No -ffast-math: it breaks NaN and makes the whole process flush subnormals.  No contraction
# either: a fused multiply-add is written vf_fma, so that bits do not depend on the compiler's mood.
CFLAGS = ["/O2"] if MSVC else ["-O3", "-g0", "-fvisibility=hidden", "-ffp-contract=off"]
LDFLAGS = []
if LINUX:
    # Left out: symbols and, a twentieth of the wheel, tables to unwind C code by, stubs for calls
    # into other libraries, identifiers of builds and padding between segments.
    CFLAGS += ["-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-fno-plt"]
    LDFLAGS += ["-Wl,-s,--build-id=none,-z,noseparate-code"]
DIRECTIVES = {
    "language_level": "3",
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
    "freethreading_compatible": True,
}


def extension(name, source, flags=(), macros=(), depends=()):
    return Extension(
        name,
        [source],
        include_dirs=[str(KERNELS)],
        define_macros=[*MACROS, *macros],
        extra_compile_args=[*CFLAGS, *flags],
        extra_link_args=LDFLAGS,
        py_limited_api=ABI3,
        depends=list(depends),
    )


def sources(folder):
    return sorted(folder.glob("*.pyx"))


def translated(source):
    """Return the C file below build/ that a .pyx file is translated to."""
    return str(Path("build/cython", source.with_suffix(".c")))


def translate(*folders):
    """Translate the .pyx files of some folders to C."""
    files = [source for folder in folders for source in sources(folder)]
    modules = [extension(".".join(s.with_suffix("").parts), str(s)) for s in files]
    cythonize(modules, build_dir="build/cython", compiler_directives=DIRECTIVES)


def kernel_extensions():
    headers = [str(KERNELS / "simd.h")]
    for source in sources(KERNELS):
        module, c = source.stem, translated(source)
        for target in wanted:
            for dtype, macros in DTYPES.items():
                # Its own C file, so that the object files of two targets never share a name.
                unit = Path("build/targets", f"{target}_{dtype}", f"{module}.c")
                unit.parent.mkdir(parents=True, exist_ok=True)
                path = Path(c).resolve().as_posix()
                text = f'/* {module} for {target}, {dtype} */\n#include "{path}"\n'
                if not unit.exists() or unit.read_text() != text:
                    unit.write_text(text)
                name = f"cycnn.kernels.{target}_{dtype}.{module}"
                yield extension(
                    name, str(unit), TARGETS[target], [FORCE_INLINE, *macros], [c, *headers]
                )


class BuildExt(build_ext):
    """Add the OpenMP flags to the engine, when a probe program compiles and links with them."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def copy_extensions_to_source(self):
        for target in wanted:  # a target's folder holds built modules only
            for dtype in DTYPES:
                Path(KERNELS, f"{target}_{dtype}").mkdir(exist_ok=True)
        super().copy_extensions_to_source()

    def build_extensions(self):
        translate(ENGINE, KERNELS)  # here, as nothing else, an sdist for one, needs the C files
        cflags, ldflags = self.openmp_flags()
        for ext in self.extensions:
            if ext.name.startswith("cycnn.engine."):
                ext.extra_compile_args += cflags
                ext.extra_link_args += ldflags
        super().build_extensions()

    def openmp_flags(self):
        if os.environ.get("CYCNN_OPENMP") == "0":
            return [], []
        if MSVC:
            return ["/openmp"], []
        darwin = sys.platform == "darwin"
        cflags = ["-Xpreprocessor", "-fopenmp"] if darwin else ["-fopenmp"]
        ldflags = ["-lomp"] if darwin else ["-fopenmp"]
        with tempfile.TemporaryDirectory() as folder:
            probe = Path(folder, "probe.c")
            probe.write_text("#include <omp.h>\nint main(void){return omp_get_max_threads()<1;}\n")
            try:
                objects = self.compiler.compile([str(probe)], folder, extra_postargs=cflags)
                self.compiler.link_executable(
                    objects, str(Path(folder, "probe")), extra_postargs=ldflags
                )
            except Exception as error:
                if os.environ.get("CYCNN_OPENMP") == "1" or "CIBUILDWHEEL" in os.environ:
                    raise SystemExit(f"OpenMP was asked for but does not work: {error}") from error
                print("cycnn: no OpenMP found, building for one thread", file=sys.stderr)
                return [], []
        return cflags, ldflags


ext_modules = [
    extension(f"cycnn.engine.{source.stem}", translated(source), depends=[translated(source)])
    for source in sources(ENGINE)
]
ext_modules += kernel_extensions()

setup(
    ext_modules=ext_modules,
    cmdclass={"build_ext": BuildExt},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if ABI3 else {},
)
