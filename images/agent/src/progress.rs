// SPDX-License-Identifier: MIT OR Apache-2.0
//! Progress: the guest's uptime, less its stalls. A stall is a stretch of time in which the guest as a
//! whole did not run, because its host was busy or had stopped it.
//!
//! All waits count progress. Were they to count uptime, a host that looks away for a second would make a
//! call that returns at once look like one that blocks.
//!
//! The witness is the ticker, a process that sleeps for [`TICK_US`] again and again, and shares a page of
//! numbers with the session, which so has no thread beside it. It is under SCHED_FIFO, and nothing else in
//! the guest's user space is: a busy actor cannot keep it waiting, so when it is late
//! no instruction of the guest was executed, or the kernel did not schedule for as long (interrupts off, or
//! with `PREEMPT_NONE` a long stretch without `cond_resched()`). The second cannot be told from the first
//! by what a kernel without `CONFIG_SCHED_INFO` counts; it errs on the patient side, and [`SLACK_US`] is
//! above what such stretches take even in a cold translation cache.
//!
//! The ticker runs only while somebody holds a [`Watch`], so that an idle guest is quiet, and one that is
//! saved while it waits for its first order has no tick on its way. A watch starts the count anew: what
//! lies before it is nobody's business, the time a machine lay saved least of all (in which CLOCK_MONOTONIC
//! stands still anyhow: QEMU saves the virtual clock, kvmclock its offset).

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::unistd::{pipe2, read, write};

use crate::clock::now_us;
use crate::sys;

/// How long the ticker sleeps, in microseconds.
const TICK_US: u64 = 2_000;

/// How late a tick may be before it shows a stall, in microseconds.
const SLACK_US: u64 = 8_000;

/// From what length on a stall is surely the host's doing, in microseconds: the kernel's own longest stretches
/// without scheduling, at the boot (page structures, zeroed journals), are shorter.
const STOP_US: u64 = 50_000;

/// How many stalls are remembered; the oldest are merged into one sum.
const STALLS_KEPT: usize = 8_192;

/// What the ticker writes for the session: shared memory, a number a word, a ring of stalls behind them.
#[derive(Clone, Copy, Debug)]
struct Slate(&'static [AtomicU64]);

impl Slate {
    const WORDS: usize = 3 + 2 * STALLS_KEPT;

    /// Not 0 while somebody watches. Written by the session.
    fn watched(self) -> &'static AtomicU64 {
        &self.0[0]
    }

    /// When the guest was last known to run.
    fn last_us(self) -> &'static AtomicU64 {
        &self.0[1]
    }

    /// How many stalls there were. Written by the ticker.
    fn count(self) -> &'static AtomicU64 {
        &self.0[2]
    }

    /// Beginning and end of a stall by its number.
    fn stall(self, nr: u64) -> (&'static AtomicU64, &'static AtomicU64) {
        let at = 3 + 2 * (nr as usize % STALLS_KEPT);
        (&self.0[at], &self.0[at + 1])
    }

    /// Notes that the guest runs now, and that it did not when that comes too late.
    fn tick(self, now_us: u64) {
        // In this order: who begins to watch sets the time before.
        let watched = self.watched().load(Ordering::Acquire) != 0;
        let last_us = self.last_us().load(Ordering::Acquire);
        if watched && is_late(last_us, now_us) {
            let nr = self.count().load(Ordering::Acquire);
            let (from, to) = self.stall(nr);
            from.store(last_us + TICK_US, Ordering::Release);
            to.store(now_us, Ordering::Release);
            self.count().store(nr + 1, Ordering::Release);
        }
        self.last_us().fetch_max(now_us, Ordering::AcqRel);
    }
}

const fn is_late(last_us: u64, now_us: u64) -> bool {
    now_us.saturating_sub(last_us) > TICK_US + SLACK_US
}

/// What the session has read of it. Times are uptime in microseconds.
#[derive(Debug, Default)]
struct Book {
    /// How many watches are held.
    watches: u32,
    /// When the guest was last known to run.
    last_us: u64,
    /// How many stalls were read.
    seen: u64,
    /// In order, none touching the other.
    stalls: VecDeque<Stall>,
    /// How long the forgotten stalls were together.
    forgotten_us: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stall {
    from_us: u64,
    to_us: u64,
    /// All stalls before this one together.
    before_us: u64,
}

impl Book {
    /// Begins to watch; true for the first watch.
    fn begin(&mut self, slate: Slate, now_us: u64) -> bool {
        self.watches += 1;
        if self.watches == 1 {
            slate.last_us().fetch_max(now_us, Ordering::AcqRel);
            slate.watched().store(1, Ordering::Release);
        }
        self.watches == 1
    }

    fn end(&mut self, slate: Slate) {
        self.watches -= 1;
        if self.watches == 0 {
            slate.watched().store(0, Ordering::Release);
        }
    }

    /// Reads what the ticker has written. It may write meanwhile: then again, so that no stall is missed
    /// that the time of the last tick already leaves out.
    fn catch_up(&mut self, slate: Slate) {
        loop {
            self.last_us = slate.last_us().load(Ordering::Acquire);
            while self.seen < slate.count().load(Ordering::Acquire) {
                let (from, to) = slate.stall(self.seen);
                let (from_us, to_us) = (from.load(Ordering::Acquire), to.load(Ordering::Acquire));
                self.note(from_us, to_us);
                // The time of that tick may not be written yet, and would be missed a second time.
                self.last_us = self.last_us.max(to_us);
                self.seen += 1;
            }
            if slate.last_us().load(Ordering::Acquire) <= self.last_us {
                return;
            }
        }
    }

    fn note(&mut self, from_us: u64, to_us: u64) {
        let before_us = self.before_us();
        if self.stalls.len() == STALLS_KEPT {
            self.forgotten_us = self.stalls.pop_front().map_or(0, |old| old.before_us + old.len_us());
        }
        self.stalls.push_back(Stall { from_us, to_us, before_us });
    }

    /// All stalls together.
    fn before_us(&self) -> u64 {
        self.stalls.back().map_or(self.forgotten_us, |last| last.before_us + last.len_us())
    }

    /// The stall that the next tick would note: somebody who asks right after one may be ahead of it.
    fn unseen(&self, now_us: u64) -> Option<Stall> {
        let late = self.watches > 0 && is_late(self.last_us, now_us);
        late.then(|| Stall { from_us: self.last_us + TICK_US, to_us: now_us, before_us: self.before_us() })
    }

    /// All stalls before `at_us` together, as known at `now_us`.
    fn stalled_until(&self, at_us: u64, now_us: u64) -> u64 {
        let unseen = self.unseen(now_us).filter(|stall| stall.from_us < at_us);
        let last = unseen.or_else(|| {
            let behind = self.stalls.partition_point(|stall| stall.from_us < at_us);
            behind.checked_sub(1).and_then(|at| self.stalls.get(at).copied())
        });
        last.map_or(self.forgotten_us, |stall| stall.before_us + stall.to_us.min(at_us) - stall.from_us)
    }
}

impl Book {
    /// The long stalls between two moments together.
    fn stopped_between(&self, from_us: u64, to_us: u64) -> u64 {
        let long = self.stalls.iter().filter(|stall| stall.len_us() >= STOP_US);
        long.map(|stall| stall.to_us.min(to_us).saturating_sub(stall.from_us.max(from_us))).sum()
    }
}

impl Stall {
    const fn len_us(self) -> u64 {
        self.to_us - self.from_us
    }
}

/// The guest's progress, shared by all who wait.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    book: Arc<Mutex<Book>>,
    slate: Slate,
    /// Each byte wakes the ticker once.
    wake: Arc<OwnedFd>,
}

impl Progress {
    /// Starts the ticker, which sleeps until somebody watches.
    ///
    /// # Errors
    /// When there can be no shared memory, pipe or process.
    pub(crate) fn start() -> io::Result<Self> {
        let slate = Slate(sys::shared_words(Slate::WORDS)?);
        let (asleep, wake) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        sys::fork_off(c"ticker", || tick_on(slate, &asleep))?;
        Ok(Self { book: Arc::default(), slate, wake: Arc::new(wake) })
    }

    /// The book as it is now.
    fn book(&self) -> MutexGuard<'_, Book> {
        let mut book = lock(&self.book);
        book.catch_up(self.slate);
        book
    }

    /// Has stalls noted until what is returned is dropped.
    #[must_use]
    pub(crate) fn watch(&self) -> Watch {
        if lock(&self.book).begin(self.slate, now_us()) {
            // A full pipe wakes it as well.
            let _ = write(self.wake.as_fd(), &[0]);
        }
        Watch(self.clone())
    }

    /// The part of an interval of uptime in which the guest stood still, in milliseconds. The interval must
    /// have been watched.
    #[must_use]
    pub(crate) fn stalled_ms(&self, at_ms: u64, took_ms: u64) -> u64 {
        let (book, now_us) = (self.book(), now_us());
        let until = |at_ms: u64| book.stalled_until(at_ms.saturating_mul(1000), now_us);
        (until(at_ms + took_ms).saturating_sub(until(at_ms)) / 1000).min(took_ms)
    }

    /// As [`Progress::stalled_ms`], of what is surely the host's doing only. For measuring how fast a guest
    /// is: there it is patience to count too little, where in a wait it is to count too much.
    #[must_use]
    pub(crate) fn stopped_ms(&self, at_ms: u64, took_ms: u64) -> u64 {
        let stopped_us = self.book().stopped_between(at_ms * 1000, (at_ms + took_ms) * 1000);
        (stopped_us / 1000).min(took_ms)
    }

    /// A wait that begins now.
    #[must_use]
    pub(crate) fn within(&self, wait: Duration) -> Limit {
        let wait_us = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        // Who does not wait needs no watch.
        let watch = (wait_us > 0).then(|| self.watch());
        Limit { progress: self.clone(), until_us: self.now_us().saturating_add(wait_us), _watch: watch }
    }

    /// A wait that begins now, in which stalls count: the ticker stands still, which else would be counted
    /// with what is counted meanwhile.
    #[must_use]
    pub(crate) fn unwatched(&self, wait: Duration) -> Limit {
        let wait_us = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        Limit { progress: self.clone(), until_us: self.now_us().saturating_add(wait_us), _watch: None }
    }

    fn now_us(&self) -> u64 {
        let (book, now_us) = (self.book(), now_us());
        now_us.saturating_sub(book.stalled_until(now_us, now_us))
    }
}

/// As long as it lives, stalls are noted.
#[derive(Debug)]
pub(crate) struct Watch(Progress);

impl Drop for Watch {
    fn drop(&mut self) {
        lock(&self.0.book).end(self.0.slate);
    }
}

/// The end of a wait, in progress.
#[derive(Debug)]
pub(crate) struct Limit {
    progress: Progress,
    until_us: u64,
    _watch: Option<Watch>,
}

impl Limit {
    /// What is left of it. Uptime runs at least as fast, so whoever sleeps for this long and asks again has
    /// not slept too long.
    #[must_use]
    pub(crate) fn left(&self) -> Duration {
        Duration::from_micros(self.until_us.saturating_sub(self.progress.now_us()))
    }

    /// Nothing is left of it.
    #[must_use]
    pub(crate) fn is_over(&self) -> bool {
        self.left().is_zero()
    }
}

/// The life of the ticker: it touches nothing but the slate and its pipe.
fn tick_on(slate: Slate, asleep: &OwnedFd) -> ! {
    // Not allowed to an ordinary user: then a loaded machine makes a test wait longer, no more.
    let _ = sys::be_first();
    loop {
        while slate.watched().load(Ordering::Acquire) == 0 {
            let _ = sys::wait_for(asleep.as_fd());
            let _ = read(asleep, &mut [0; 64]);
        }
        thread::sleep(Duration::from_micros(TICK_US));
        slate.tick(now_us());
    }
}

/// The book holds numbers only: whoever died with it in hand has left it whole.
fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A book and what it is read from.
    struct Read {
        book: Book,
        slate: Slate,
    }

    impl Read {
        fn tick(&mut self, now_us: u64) {
            self.slate.tick(now_us);
            self.book.catch_up(self.slate);
        }
    }

    impl std::ops::Deref for Read {
        type Target = Book;

        fn deref(&self) -> &Book {
            &self.book
        }
    }

    /// A book that has been watched since 0 and seen these ticks.
    fn book(ticks: &[u64]) -> Read {
        let slate = Slate(sys::shared_words(Slate::WORDS).unwrap());
        let mut read = Read { book: Book::default(), slate };
        assert!(read.book.begin(slate, 0));
        ticks.iter().for_each(|at| read.tick(*at));
        read
    }

    #[test]
    fn ticks_that_come_about_in_time_are_no_stall() {
        let book = book(&[2_000, 4_100, 9_000, 19_000]);
        assert_eq!(book.stalls, []);
        assert_eq!(book.stalled_until(19_000, 19_000), 0);
    }

    #[test]
    fn a_stall_begins_where_the_tick_was_due() {
        let book = book(&[2_000, 1_004_000, 1_006_000, 2_006_000]);
        let stall = |from_us, to_us, before_us| Stall { from_us, to_us, before_us };
        assert_eq!(book.stalls, [stall(4_000, 1_004_000, 0), stall(1_008_000, 2_006_000, 1_000_000)]);
        let until = |at| book.stalled_until(at, 2_006_000);
        let table = [(0, 0), (4_000, 0), (5_000, 1_000), (1_004_000, 1_000_000), (1_008_000, 1_000_000)];
        assert_eq!(table.map(|(at, _)| until(at)), table.map(|(_, want)| want));
        assert_eq!((until(1_009_000), until(9_000_000)), (1_001_000, 1_998_000));
    }

    #[test]
    fn only_long_stalls_are_surely_the_hosts() {
        let book = book(&[2_000, 30_000, 32_000, 92_000]);
        assert_eq!(book.stalls.iter().map(|stall| stall.len_us()).collect::<Vec<_>>(), [26_000, 58_000]);
        let table = [(0, 100_000, 58_000), (0, 20_000, 0), (40_000, 50_000, 10_000), (95_000, 99_000, 0)];
        for (from, to, want) in table {
            assert_eq!(book.stopped_between(from, to), want, "{from} to {to}");
        }
    }

    #[test]
    fn who_asks_before_the_ticker_is_told_the_same() {
        let mut book = book(&[2_000]);
        let ahead = book.stalled_until(1_004_000, 1_004_000);
        book.tick(1_004_000);
        assert_eq!((ahead, book.stalled_until(1_004_000, 1_004_100)), (1_000_000, 1_000_000));
        // What was over before the stall is not touched by it.
        assert_eq!(book.stalled_until(3_000, 1_004_100), 0);
    }

    #[test]
    fn a_stall_that_is_written_before_its_tick_is_counted_once() {
        let mut book = book(&[2_000]);
        // As the ticker leaves it between the two.
        let (from, to) = book.slate.stall(0);
        from.store(4_000, Ordering::Release);
        to.store(1_004_000, Ordering::Release);
        book.slate.count().store(1, Ordering::Release);
        book.book.catch_up(book.slate);
        assert_eq!(book.stalled_until(1_004_100, 1_004_100), 1_000_000);
        book.slate.last_us().store(1_004_000, Ordering::Release);
        book.book.catch_up(book.slate);
        assert_eq!(book.stalled_until(1_004_100, 1_004_100), 1_000_000);
    }

    #[test]
    fn what_nobody_watched_is_no_stall() {
        let mut book = book(&[2_000]);
        book.book.end(book.slate);
        book.tick(8_000_000);
        assert_eq!(book.stalled_until(9_000_000, 9_000_000), 0);
        book.book.begin(book.slate, 9_000_000);
        book.book.catch_up(book.slate);
        assert_eq!(book.stalled_until(9_001_000, 9_001_000), 0);
        book.tick(9_002_000);
        assert_eq!(book.stalls, []);
    }

    #[test]
    fn a_guest_that_runs_a_little_now_and_then_makes_a_little_progress() {
        // 3 ms in every 90: the ticker wakes at the start of each turn, and once more within it.
        let ticks: Vec<u64> = (0..100).flat_map(|turn| [turn * 90_000, turn * 90_000 + 2_000]).collect();
        let book = book(&ticks);
        let end = 99 * 90_000 + 2_000;
        let progress = end - book.stalled_until(end, end);
        assert!((99 * 3_000..=99 * 6_000).contains(&progress), "{progress}");
    }

    #[test]
    fn forgotten_stalls_still_count() {
        let ticks: Vec<u64> = (1..=STALLS_KEPT as u64 + 3).map(|turn| turn * 100_000).collect();
        let book = book(&ticks);
        assert_eq!(book.stalls.len(), STALLS_KEPT);
        let end = ticks[ticks.len() - 1];
        assert_eq!(book.stalled_until(end, end), ticks.len() as u64 * 98_000);
    }

    proptest::proptest! {
        #[test]
        fn progress_never_runs_faster_than_uptime_nor_backwards(gaps in proptest::collection::vec(1u64..200_000, 1..60)) {
            let mut book = book(&[]);
            let (mut now, mut stalled) = (0, 0);
            for gap in gaps {
                now += gap;
                let ahead = book.stalled_until(now, now);
                book.tick(now);
                let after = book.stalled_until(now, now);
                proptest::prop_assert_eq!(ahead, after);
                proptest::prop_assert!(after >= stalled && after - stalled <= gap);
                let want = if gap > TICK_US + SLACK_US { gap - TICK_US } else { 0 };
                proptest::prop_assert_eq!(after - stalled, want);
                stalled = after;
            }
            let (mut before, mut sum) = (0, 0);
            for at in (0..=now).step_by(997) {
                let here = book.stalled_until(at, now);
                proptest::prop_assert!(here >= before && here - before <= 997);
                sum += here - before;
                before = here;
            }
            proptest::prop_assert!(sum <= stalled);
        }
    }

    #[test]
    fn a_wait_is_over_in_time_when_nothing_stalls() {
        let progress = Progress::start().unwrap();
        let begin = std::time::Instant::now();
        let limit = progress.within(Duration::from_millis(50));
        assert!(!limit.is_over());
        while !limit.is_over() {
            thread::sleep(limit.left());
        }
        assert!(begin.elapsed() >= Duration::from_millis(49));
        assert!(progress.within(Duration::ZERO).is_over());
    }
}
