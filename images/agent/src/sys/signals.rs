// SPDX-License-Identifier: MIT OR Apache-2.0
//! When signals reach an actor, and what they carry.
//!
//! All of them are blocked but those that an instruction raises, except around the one system call that an
//! operation is about and around the wait for the next call ([`exposed`]). So a handler never interrupts the
//! allocator or anything else that is not made to be entered twice, and may do whatever an operation does.
//! A signal that comes in between is pending until then, as it would be for a program that blocks it.
//!
//! What handlers and the thread for sigwaitinfo(2) share with the first thread is the actor. Whoever touches
//! it holds the baton; [`exposed`] lays it down.
#![expect(unsafe_code, reason = "signal masks, handlers and siginfo_t")]

use std::cell::Cell;
use std::mem::zeroed;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

use nix::errno::Errno;

use crate::actor::Actor;

/// Signals that an instruction raises: to block them is to be killed without a handler.
const SYNCHRONOUS: [i32; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGABRT];

/// Signals that stay blocked in the first thread, a bit each from 1 on: another thread waits for them.
static KEPT: AtomicU64 = AtomicU64::new(0);

/// There is a thread to share the baton with.
static THREADS: AtomicBool = AtomicBool::new(false);

/// True while somebody holds the baton.
static BATON: Mutex<bool> = Mutex::new(false);
static LAID_DOWN: Condvar = Condvar::new();

/// What this thread is, seen from a signal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Nobody's actor.
    Plain,
    /// A thread that plays an actor.
    First,
    /// It, inside a handler.
    Handler,
    /// The thread that answers signals.
    Thread,
}

/// The actor, for handlers and threads to find.
struct Shared(&'static Actor);

// SAFETY: whoever touches the actor holds the baton, and with it is the only one; without threads it is the
// first thread, which a handler interrupts in `exposed` only, where it has nothing borrowed.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

static ACTOR: OnceLock<Shared> = OnceLock::new();

/// Makes an actor known to the handlers of its process.
pub(crate) fn share(actor: &'static Actor) {
    let _ = ACTOR.set(Shared(actor));
}

thread_local! {
    static MODE: Cell<Mode> = const { Cell::new(Mode::Plain) };
}

fn take_baton() {
    if THREADS.load(Ordering::Acquire) {
        let mut held = BATON.lock().unwrap_or_else(PoisonError::into_inner);
        while *held {
            held = LAID_DOWN.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        *held = true;
    }
}

fn lay_down_baton() {
    if THREADS.load(Ordering::Acquire) {
        *BATON.lock().unwrap_or_else(PoisonError::into_inner) = false;
        LAID_DOWN.notify_one();
    }
}

/// Sets the mask of the calling thread.
fn set_mask(block: &libc::sigset_t) {
    // SAFETY: a whole set goes in; the call fails for a `how` it does not know only.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, block, ptr::null_mut()) };
}

fn all_but_synchronous() -> libc::sigset_t {
    // SAFETY: an all-zero set is a valid one; both calls only change it.
    unsafe {
        let mut set: libc::sigset_t = zeroed();
        libc::sigfillset(&raw mut set);
        for signal in SYNCHRONOUS {
            libc::sigdelset(&raw mut set, signal);
        }
        set
    }
}

fn kept() -> libc::sigset_t {
    let bits = KEPT.load(Ordering::Acquire);
    // SAFETY: as above.
    unsafe {
        let mut set: libc::sigset_t = zeroed();
        for signal in (1..=64).filter(|signal| bits & (1 << (signal - 1)) != 0) {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

/// The calling thread becomes an actor's first one: from now on signals reach it in [`exposed`] only.
pub(crate) fn close_to_signals() {
    MODE.set(Mode::First);
    THREADS.store(false, Ordering::Release);
    set_mask(&all_but_synchronous());
}

/// Runs one system call with signals let in and the baton laid down. In a handler and in the thread that
/// answers signals the mask stays as it is: they are not interrupted.
pub(crate) fn exposed<T>(call: impl FnOnce() -> T) -> T {
    let mode = MODE.get();
    if mode == Mode::Plain {
        return call();
    }
    lay_down_baton();
    if mode == Mode::First {
        set_mask(&kept());
    }
    let result = call();
    if mode == Mode::First {
        set_mask(&all_but_synchronous());
    }
    take_baton();
    result
}

/// Runs what a library does, which no handler may interrupt, with the baton laid down: other threads of the
/// actor go on meanwhile.
pub(crate) fn unhanded<T>(call: impl FnOnce() -> T) -> T {
    if MODE.get() == Mode::Plain {
        return call();
    }
    lay_down_baton();
    let result = call();
    take_baton();
    result
}

/// True inside a handler, or in the thread that answers signals: there the actor cannot be left.
#[must_use]
pub(crate) fn in_handler() -> bool {
    matches!(MODE.get(), Mode::Handler | Mode::Thread)
}

/// What came with a signal (`siginfo_t`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Info {
    /// Its number.
    pub(crate) signal: i32,
    /// `si_code`.
    pub(crate) code: i32,
    /// `si_fd` and `si_band`, where the code says that they are there.
    pub(crate) io: Option<(i32, i64)>,
    /// `si_pid`, likewise.
    pub(crate) pid: Option<i32>,
}

/// The part of `siginfo_t` that a signal of I/O fills in, from the 16th byte on.
#[repr(C)]
struct Io {
    band: libc::c_long,
    fd: i32,
}

/// Where the union begins (include/uapi/asm-generic/siginfo.h, 64 bits).
const UNION_AT: usize = 16;

/// The codes that SIGIO, or a signal in its place, has from fs/fcntl.c (NSIGPOLL of them).
const POLL_CODES: std::ops::RangeInclusive<i32> = 1..=6;

impl Info {
    /// Reads it as kernel/signal.c siginfo_layout() says that it was written.
    fn of(info: &libc::siginfo_t) -> Self {
        let (signal, code) = (info.si_signo, info.si_code);
        let raised = SYNCHRONOUS.contains(&signal) || signal == libc::SIGCHLD;
        let is_io = code == libc::SI_SIGIO || (!raised && POLL_CODES.contains(&code));
        let has_pid = matches!(code, libc::SI_USER | libc::SI_QUEUE | libc::SI_TKILL);
        // SAFETY: a siginfo_t is 128 bytes, the union begins at the 16th, and both members are plain numbers
        // at that place; which of them was written follows from the code.
        unsafe {
            let union = ptr::from_ref(info).cast::<u8>().add(UNION_AT);
            let io = union.cast::<Io>();
            Self {
                signal,
                code,
                io: is_io.then(|| ((*io).fd, (*io).band)),
                pid: has_pid.then(|| *union.cast::<i32>()),
            }
        }
    }
}

fn answer(info: Info) {
    if let Some(Shared(actor)) = ACTOR.get() {
        crate::handlers::answer(actor, info);
    }
}

extern "C" fn enter(_signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel hands a handler with SA_SIGINFO a whole siginfo_t.
    let info = Info::of(unsafe { &*info });
    let errno = Errno::last();
    let before = MODE.replace(Mode::Handler);
    take_baton();
    answer(info);
    lay_down_baton();
    MODE.set(before);
    errno.set();
}

fn set_action(signal: i32, handler: usize, flags: i32) -> Result<(), Errno> {
    // SAFETY: an all-zero sigaction is valid. The handler, where there is one, has the type that SA_SIGINFO
    // asks for, and runs where `exposed` lets it.
    let result = unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        action.sa_mask = all_but_synchronous();
        libc::sigaction(signal, &raw const action, ptr::null_mut())
    };
    Errno::result(result).map(drop)
}

/// Lets the actor answer a signal.
///
/// # Errors
/// The errno of sigaction(2).
pub(crate) fn install(signal: i32, restart: bool) -> Result<(), Errno> {
    let handler = enter as extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);
    let flags = libc::SA_SIGINFO | if restart { libc::SA_RESTART } else { 0 };
    set_action(signal, handler as usize, flags)
}

/// SIG_IGN, or SIG_DFL.
///
/// # Errors
/// The errno of sigaction(2).
pub(crate) fn ignore_signal(signal: i32, ignore: bool) -> Result<(), Errno> {
    set_action(signal, if ignore { libc::SIG_IGN } else { libc::SIG_DFL }, 0)
}

/// Blocks a signal in the first thread for good, for [`serve_by_thread`].
pub(crate) fn keep_from_main(signal: i32) {
    KEPT.fetch_or(1 << (signal - 1), Ordering::AcqRel);
}

/// There are to be threads: whoever makes the first of them touches the actor, so it holds the baton.
fn bring_baton() {
    let mut held = BATON.lock().unwrap_or_else(PoisonError::into_inner);
    if !THREADS.swap(true, Ordering::AcqRel) {
        *held = true;
    }
}

/// Starts a thread that plays an actor like the first one does: `life` runs with the baton held, and signals
/// reach it in [`exposed`] only.
///
/// # Errors
/// When there can be no thread.
pub(crate) fn play_by_thread(
    name: String,
    life: impl FnOnce(&'static Actor) + Send + 'static,
) -> std::io::Result<()> {
    let Shared(actor) = ACTOR.get().ok_or_else(|| std::io::Error::other("nobody plays yet"))?;
    let shared = Shared(actor);
    bring_baton();
    // It inherits a mask with everything blocked.
    std::thread::Builder::new().name(name).spawn(move || {
        let Shared(actor) = { shared };
        MODE.set(Mode::First);
        take_baton();
        life(actor);
    })?;
    Ok(())
}

/// Starts the thread that waits for the kept signals by sigwaitinfo(2) and answers them.
///
/// # Errors
/// When there can be no thread.
pub(crate) fn serve_by_thread() -> std::io::Result<()> {
    bring_baton();
    // It inherits a mask with everything blocked.
    std::thread::Builder::new().name("signals".to_owned()).spawn(|| {
        MODE.set(Mode::Thread);
        let set = kept();
        loop {
            // SAFETY: an all-zero siginfo_t is valid, and the call fills it.
            let info = unsafe {
                let mut info: libc::siginfo_t = zeroed();
                if libc::sigwaitinfo(&raw const set, &raw mut info) < 0 {
                    continue;
                }
                Info::of(&info)
            };
            take_baton();
            answer(info);
            lay_down_baton();
        }
    })?;
    Ok(())
}
