"""Ctrl-C and SIGTERM end a process soon, in order if that is possible, with the exit code of shells."""

import signal
import subprocess
import sys
import textwrap
import time

import pytest

from tests.conftest import ROOT
from tests.helpers.processes import heed_ctrl_c

HEAD = """
import hashlib, os, signal, sys, threading, time, weakref
from concurrent.futures import ThreadPoolExecutor
from featcache import stopping
from featcache.stopping import stoppable
stopping.PATIENCE = 0.3
with stoppable(lambda stop: print(stop, flush=True)):
    print("ready", flush=True)
"""
BODIES = {  # what the main thread does when the signal comes -> what is printed before the last words
    "sleeps": ("try: time.sleep(60)\nfinally: print('cleaned')", "cleaned\n"),
    "runs C code": ("hashlib.pbkdf2_hmac('sha256', b'', b'', 10**8)", ""),
    "waits for a thread": ("with ThreadPoolExecutor(1) as pool: pool.submit(time.sleep, 60)", ""),
    "goes on": ("try: time.sleep(60)\nexcept KeyboardInterrupt: time.sleep(60)", ""),
    "ends by another error": ("try: time.sleep(60)\nexcept KeyboardInterrupt: 1 / 0", ""),
    "is in a callback": ("end = weakref.ref(ThreadPoolExecutor(1), lambda _: time.sleep(60))\ntime.sleep(60)", ""),
    "swallows it": ("try: time.sleep(60)\nexcept KeyboardInterrupt: pass", ""),
}


def started(body, after="", before=heed_ctrl_c):
    """A process that runs `body` in a stoppable block, and has reached it."""
    code = f"{HEAD}{textwrap.indent(body, '    ')}\n{after}"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=before,
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.02)
    return process


@pytest.mark.parametrize("what", BODIES)
def test_whatever_the_main_thread_does_the_process_ends(what):
    body, before = BODIES[what]
    process, began = started(body), time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, f"{before}Stopped by Ctrl-C\n", "")
    assert time.monotonic() - began < 10  # on a busy machine; 0.3 s on an idle one


def test_nobody_has_to_read_the_last_words():
    process = started("while True: os.write(1, b'x' * 1000)")  # until the pipe is full
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    process.communicate()


def test_sigterm_has_its_own_exit_code():
    process = started("time.sleep(60)")
    process.terminate()
    assert process.communicate(timeout=30) == ("Stopped by SIGTERM\n", "")
    assert process.returncode == 143


def test_a_second_signal_does_not_interrupt_the_end():
    process = started(
        "try: time.sleep(60)\n"
        "finally:\n"
        "    print('ending', flush=True)\n"
        "    time.sleep(0.15)\n"
        "    print('cleaned', flush=True)"
    )
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "ending\n"
    for second in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        process.send_signal(second)
    assert process.communicate(timeout=30) == ("cleaned\nStopped by Ctrl-C\n", "")
    assert process.returncode == 130


def test_what_is_ignored_stays_ignored():
    process = started("time.sleep(0.2)", before=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 0


@pytest.mark.slow
def test_signals_that_a_library_handles_end_nothing():
    """The end of a child process, as torch's data loaders handle it; signals that stop a program still do so."""
    body = """
signal.signal(signal.SIGCHLD, lambda *_: None)
os.kill(os.getpid(), signal.SIGCHLD)
time.sleep(0.8)
print("works", flush=True)
time.sleep(60)
"""
    process = started(body)
    assert process.stdout.readline() == "works\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30) == ("Stopped by SIGTERM\n", "")
    assert process.returncode == 143


@pytest.mark.slow
def test_signals_after_the_block_are_ignored_while_a_thread_works():
    after = "threading.Thread(target=time.sleep, args=(0.8,)).start()\nprint('done', flush=True)"
    process = started("pass", after=after)
    assert process.stdout.readline() == "done\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 0


def test_signals_do_not_disturb_the_end_of_python():
    last = """
class Last:
    def __del__(self, write=os.write, sleep=time.sleep):
        write(1, b"last\\n")
        sleep(0.1)
sys.last = Last()
print("done", flush=True)
time.sleep(0.1)
"""
    process = started("pass", after=last)
    for line in ("done\n", "last\n"):  # after the block; and after Python has removed its handlers of signals
        assert process.stdout.readline() == line
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 0
