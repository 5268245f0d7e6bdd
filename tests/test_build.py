"""The machine code of the micro-kernels: accumulators and pointers stay in registers."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import cycnn

KERNELS = Path(cycnn.__file__).parent / "kernels"
MODULES = sorted(
    path
    for target in ("avx2", "avx512")
    for module in ("conv", "weight_gradient", "winograd", "winograd_gradient")
    for path in KERNELS.glob(f"{target}_f*/{module}.*.so")
)
TILE = 12  # vectors: 6 pixels x 2 with AVX2; AVX-512 has twice as many
FMA = re.compile(r"vfn?m(add|sub)\d+[ps][sd]\b")
JUMP = re.compile(r"j\w+\s+([0-9a-f]+)\b")
ENDS = re.compile(r"(jmp|ret)")  # what does not go on to the next instruction
STORE = re.compile(r"vm(ov[au]|askmov)p[sd]\s+%[xyz]mm\d+,.*\(")
STACK = re.compile(r"\(%rsp\b")
FRAME = re.compile(r"-0x[0-9a-f]+\(%rbp\)")
SETS_RBP = re.compile(r"(?:mov|lea)\w*\s.*,%rbp$")


def disassemble(path):
    """Return the instructions of a module as (address, text), in order of address."""
    command = ["objdump", "--disassemble", "--no-show-raw-insn", "--section=.text", str(path)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = re.findall(r"^\s*([0-9a-f]+):\s+(\S.*?)\s*(?:#.*)?$", listing, re.MULTILINE)
    return [(int(address, 16), text) for address, text in lines]


def body(code, index, start, end):
    """Return the instructions between two, indices, that lie on a way from the first to the last.

    The compiler puts other blocks between those of a loop.
    """
    comes_from, seen, left = {start: set()}, set(), [start]
    while left:
        i = left.pop()
        if i in seen or i == end:
            continue
        seen.add(i)
        text = code[i][1]
        jump = JUMP.match(text)
        following = [index.get(int(jump[1], 16))] if jump else []
        if not ENDS.match(text):
            following.append(i + 1)
        for other in following:
            if other is not None and start <= other <= end:
                comes_from.setdefault(other, set()).add(i)
                left.append(other)
    found, left = set(), [end] if end in comes_from else []
    while left:
        i = left.pop()
        if i not in found:
            found.add(i)
            left.extend(comes_from[i])
    return sorted(found)


def innermost_loops(code):
    """Return the instructions, indices, of each backward jump's loop that holds no other."""
    index = {address: i for i, (address, _) in enumerate(code)}
    ends = {}
    for i, (_, text) in enumerate(code):
        jump = JUMP.match(text)
        start = index.get(int(jump[1], 16)) if jump else None
        if start is not None and start <= i:
            ends[start] = min(i, ends.get(start, i))
    following, loops = len(code), []  # where the next loop starts
    for start in sorted(ends, reverse=True):
        inside = body(code, index, start, ends[start])
        if inside and ends[start] < following:
            loops.append(inside)
        following = start if inside else following
    return loops


def stack_references(code, loop):
    """Return the instructions of a loop that read or write the stack frame.

    %rbp is a general register unless the last instruction to set it before the loop copied %rsp.
    """
    before = (text for _, text in reversed(code[: loop[0]]) if SETS_RBP.match(text))
    has_frame = next(before, "").split() == ["mov", "%rsp,%rbp"]
    texts = [code[i][1] for i in loop]
    return [t for t in texts if STACK.search(t) or (has_frame and FRAME.search(t))]


def count_fma(code, loop):
    """Count the fused multiply-adds of a loop."""
    return sum(FMA.match(code[i][1]) is not None for i in loop)


def fma_loops(code):
    """Return the innermost loops of micro-kernels: they multiply and add vectors and store none.

    (A Winograd transform multiplies too, and keeps the tile it works on in memory.)
    """
    return [
        loop
        for loop in innermost_loops(code)
        if count_fma(code, loop) and not any(STORE.match(code[i][1]) for i in loop)
    ]


@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump (binutils) is not installed")
@pytest.mark.skipif(not MODULES, reason="no AVX2 or AVX-512 kernels in this installation")
@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_no_fma_loop_touches_the_stack(path):
    code = disassemble(path)
    loops = fma_loops(code)
    most = max((count_fma(code, loop) for loop in loops), default=0)
    assert most >= TILE, f"no loop holds a whole tile in {path.name}, at most {most} vectors"
    for loop in loops:
        assert not stack_references(code, loop), f"loop at {code[loop[0]][0]:x} of {path.name}"


def test_the_stack_is_recognised():
    """The search above finds what it looks for in a loop that spills, and only there."""
    spills = "mov %rsp,%rbp|vmovups -0x40(%rbp),%zmm1|vfmadd231ps %zmm1,%zmm2,%zmm3|jne 1|ret"
    code = list(enumerate(spills.split("|")))
    assert fma_loops(code) == [[1, 2, 3]]
    assert stack_references(code, [1, 2, 3]) == ["vmovups -0x40(%rbp),%zmm1"]
    code[0] = (0, "mov 0x8(%rdi),%rbp")
    assert stack_references(code, [1, 2, 3]) == []
    code[1] = (1, "vmovups 0x40(%rsp),%zmm1")
    assert stack_references(code, [1, 2, 3]) == ["vmovups 0x40(%rsp),%zmm1"]


def test_a_block_between_those_of_a_loop_is_not_in_it():
    """A loop of 0, 1, 5, 6; what it leaves through, 2 to 4, stands in between and is jumped to."""
    text = (
        "vfmadd231ps %zmm1,%zmm2,%zmm3|jle 5|mov %rdx,0x8(%rsp)|jge 8|jmp 8|inc %rax|jg 0|jmp 2|ret"
    )
    code = [(i, line) for i, line in enumerate(text.split("|"))]
    assert fma_loops(code) == [[0, 1, 5, 6]]
    assert not stack_references(code, [0, 1, 5, 6])
