#!/usr/bin/env bash
# OpenMP's run-time library for Apple clang, into $HOME/libomp (pyproject.toml points the compiler there).
# conda-forge builds it for macOS 11 and later; Homebrew's own libomp would run only where it was built,
# so that the wheel could not keep the older deployment target.
set -euo pipefail

brew install micromamba
micromamba create --yes --prefix "$HOME/libomp" --channel conda-forge llvm-openmp
test -e "$HOME/libomp/lib/libomp.dylib"
