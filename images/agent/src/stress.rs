// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stress: an actor does operations that it draws at random, for a while, and counts what they come to.
//!
//! The draws follow from a seed, so the same seed draws the same operations again, as far as what is there allows; what
//! they meet depends on the other actors. As long as an operation was not done that could be, it has its turn before
//! any is repeated: a slow guest does few. At the end all that was made is let go, so that nobody waits for it for ever.

use std::collections::BTreeMap;
use std::mem::discriminant;

use holdfast_protocol::op::{Close, DeregMr, Munmap};
use holdfast_protocol::{Count, Handle, Op, Outcome};

use crate::actor::{Actor, Thing};
use crate::clock::{now_ms, now_us};
use crate::wire::{Aid, Answer, Call, Choice, Span, Tally};

/// With more kinds of outcome than this of one choice, values and texts are not told apart any more.
const MOST_KINDS: usize = 64;

/// Choices, drawn from a seed.
#[derive(Debug)]
struct Draws {
    state: u64,
    /// Choices that were not done yet.
    fresh: Vec<usize>,
    /// How many choices there are.
    among: usize,
}

impl Draws {
    fn new(seed: u64, among: usize) -> Self {
        Self { state: seed, fresh: (0..among).collect(), among }
    }

    /// splitmix64: every number follows from the one before, and every seed gives another sequence.
    fn number(&mut self, below: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % below.max(1) as u64).unwrap_or(0)
    }

    /// The next choice, if it is one that can be done now.
    fn next(&mut self, can_be: impl Fn(usize) -> bool) -> Option<usize> {
        let fresh: Vec<usize> = self.fresh.iter().copied().filter(|at| can_be(*at)).collect();
        if fresh.is_empty() {
            let at = self.number(self.among);
            return can_be(at).then_some(at);
        }
        let at = fresh[self.number(fresh.len())];
        self.fresh.retain(|other| *other != at);
        Some(at)
    }
}

/// Draws and does until the time is over.
pub(crate) fn run(actor: &Actor, choices: &[Choice], seed: u64, for_ms: u64) -> BTreeMap<String, Tally> {
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    let mut lives = Lives::default();
    let mut done = Done::default();
    let mut draws = Draws::new(seed, choices.len());
    let until_ms = now_ms().saturating_add(for_ms);
    let mut draw = 0;
    while now_ms() < until_ms && !choices.is_empty() {
        draw += 1;
        let can_be = |at: usize| fits(actor, &choices[at]) && done.allows(&choices[at]);
        let Some(choice) = draws.next(can_be).map(|at| &choices[at]) else { continue };
        let from_us = now_us();
        let Some(answer) = issue(actor, &choice.step, choice.op.clone(), choice.aid.clone()) else { continue };
        let to_us = now_us();
        lives.end(actor, from_us, &mut tallies);
        let succeeded = matches!(answer.outcome, Outcome::Returned(_));
        done.note(choice, succeeded, |id| actor.things.borrow().contains_key(id));
        let tally = tallies.entry(choice.step.clone()).or_default();
        count(&mut tally.counts, answer, draw);
        if choice.spans && succeeded {
            match actor.things.borrow().contains_key(&choice.step) {
                true => lives.0.push((choice.step.clone(), Span { from_us: to_us, to_us, draw })),
                false => note(tally, Span { from_us, to_us, draw }),
            }
        }
    }
    let from_us = now_us();
    for choice in choices.iter().rev() {
        let thing = actor.things.borrow().get(&choice.step).cloned();
        if let Some(op) = Handle::try_from(format!("${}", choice.step)).ok().zip(thing).and_then(let_go) {
            issue(actor, "the end of the stress", op, Aid::default());
        }
    }
    lives.end(actor, from_us, &mut tallies);
    tallies
}

/// Results that are there, and since when.
#[derive(Default)]
struct Lives(Vec<(String, Span)>);

impl Lives {
    /// Notes the spans of those that an operation issued at `at_us` has ended.
    fn end(&mut self, actor: &Actor, at_us: u64, tallies: &mut BTreeMap<String, Tally>) {
        let things = actor.things.borrow();
        self.0.retain(|(step, span)| {
            let lives = things.contains_key(step);
            if !lives && let Some(tally) = tallies.get_mut(step) {
                note(tally, Span { to_us: at_us, ..*span });
            }
            lives
        });
    }
}

/// Choices that have succeeded, and what they used or made: while all of it is there, they are done.
#[derive(Default)]
struct Done(BTreeMap<String, Vec<String>>);

impl Done {
    /// After any operation: forgets what has lost something, and takes in what has succeeded.
    fn note(&mut self, choice: &Choice, succeeded: bool, is_there: impl Fn(&str) -> bool) {
        self.0.retain(|_, with| with.iter().all(|id| is_there(id)));
        if succeeded {
            let made = is_there(&choice.step).then(|| choice.step.clone());
            self.0.insert(choice.step.clone(), choice.aid.uses.iter().cloned().chain(made).collect());
        }
    }

    fn allows(&self, choice: &Choice) -> bool {
        choice.after.as_ref().is_none_or(|first| self.0.contains_key(first))
    }
}

/// More spans than this of one choice are not kept: some seconds' worth.
const MOST_SPANS: usize = 20_000;

fn note(tally: &mut Tally, span: Span) {
    if tally.spans.len() < MOST_SPANS {
        tally.spans.push(span);
    }
}

/// All that it uses is there, and its own result is not.
fn fits(actor: &Actor, choice: &Choice) -> bool {
    let things = actor.things.borrow();
    !things.contains_key(&choice.step) && choice.aid.uses.iter().all(|id| things.contains_key(id))
}

fn issue(actor: &Actor, tag: &str, op: Op, aid: Aid) -> Option<Answer> {
    actor.answer(Call::Do { tag: tag.to_owned(), op, aid })
}

/// What lets a thing go; what else there is goes with the actor.
fn let_go((handle, thing): (Handle, Thing)) -> Option<Op> {
    match thing {
        Thing::Region(..) => Some(DeregMr { mr: handle }.into()),
        Thing::Map(_) => Some(Munmap { map: handle, at_kib: 0, len_kib: None }.into()),
        Thing::Fd(_) => Some(Close { fd: handle }.into()),
        Thing::Pipe(..) => None,
    }
}

fn count(counts: &mut Vec<Count>, answer: Answer, draw: u64) {
    let Answer { outcome, took_ms, .. } = answer;
    let full = counts.len() >= MOST_KINDS;
    // Where there are too many kinds, what differs in a value only counts as the first of its sort.
    let same =
        |one: &Outcome| same_kind(one, &outcome) || (full && discriminant(one) == discriminant(&outcome));
    match counts.iter_mut().find(|count| same(&count.outcome)) {
        Some(count) => {
            count.times += 1;
            count.longest_ms = count.longest_ms.max(took_ms);
        }
        None => counts.push(Count { outcome, times: 1, first_draw: draw, longest_ms: took_ms }),
    }
}

/// Where bytes differ, and where a call waits, makes no kind of its own.
fn same_kind(one: &Outcome, other: &Outcome) -> bool {
    match (one, other) {
        (Outcome::Differs { .. }, Outcome::Differs { .. }) => true,
        (Outcome::Faulted { signal: one, .. }, Outcome::Faulted { signal: other, .. }) => one == other,
        (one, other) => one == other,
    }
}

/// The draws of an operation that succeeded while the result of another one was there all the time.
pub(crate) fn within(done: &[Span], there: &[Span]) -> Vec<u64> {
    let inside = |span: &&Span| there.iter().any(|life| life.from_us < span.from_us && span.to_us < life.to_us);
    done.iter().filter(inside).map(|span| span.draw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_again_and_another_does_not() {
        let drawn = |seed| {
            let mut draws = Draws::new(seed, 5);
            (0..64).filter_map(|_| draws.next(|_| true)).collect::<Vec<_>>()
        };
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
        for seed in 0..20 {
            let all = drawn(seed);
            assert!((0..5).all(|choice| all[..5].contains(&choice)), "first every choice: {all:?}");
            assert!(all[5..].windows(2).any(|two| two[0] == two[1]), "then whatever comes: {all:?}");
            // Of make, use, drop and something else: nothing is repeated while another could be done first.
            let (mut draws, mut made, mut seen) = (Draws::new(seed, 4), false, Vec::new());
            for _ in 0..200 {
                let can_be = |at: usize| at == 3 || (at == 0) != made;
                let first: Vec<usize> = (0..4).filter(|at| can_be(*at) && !seen.contains(at)).collect();
                let Some(at) = draws.next(can_be) else { continue };
                assert!(first.is_empty() || first.contains(&at), "{at} before one of {first:?}");
                made = at == 0 || (made && at != 2);
                seen.push(at);
            }
            assert!((0..4).all(|at| seen.contains(&at)), "{seen:?}");
        }
    }

    #[test]
    fn kinds_are_counted_and_places_are_not_kinds() {
        let mut tally = Vec::new();
        let answer = |outcome, took_ms| Answer { took_ms, ..Answer::about("", outcome) };
        for (draw, (outcome, took_ms)) in [
            (Outcome::Returned(1), 5),
            (Outcome::Errno(4), 1),
            (Outcome::Returned(2), 9),
            (Outcome::Returned(1), 9),
            (Outcome::Errno(5), 1),
            (Outcome::Differs { at: 1, want: 1, got: 2 }, 1),
            (Outcome::Differs { at: 2, want: 1, got: 2 }, 1),
        ]
        .into_iter()
        .enumerate()
        {
            count(&mut tally, answer(outcome, took_ms), draw as u64 + 1);
        }
        let counts: Vec<(u64, u64, u64)> =
            tally.iter().map(|count| (count.times, count.first_draw, count.longest_ms)).collect();
        assert_eq!(counts, [(2, 1, 9), (1, 2, 1), (1, 3, 9), (1, 5, 1), (2, 6, 1)]);
        // A flood of values is still counted, and what is another sort of outcome stands out.
        (0..100).for_each(|value| count(&mut tally, answer(Outcome::Returned(value), 1), 9));
        count(&mut tally, answer(Outcome::Completion("X".into()), 1), 9);
        assert_eq!(tally.iter().map(|count| count.times).sum::<u64>(), 108);
        assert!(
            tally.len() <= MOST_KINDS + 1
                && tally.iter().any(|count| count.outcome == Outcome::Completion("X".into()))
        );
    }

    #[test]
    fn what_was_done_counts_while_all_it_used_or_made_is_there() {
        let choice = |step: &str, uses: &[&str], after: Option<&str>| Choice {
            step: step.to_owned(),
            op: Op::Sync(holdfast_protocol::op::Sync {}),
            aid: Aid { uses: uses.iter().map(|id| (*id).to_owned()).collect(), ..Aid::default() },
            after: after.map(str::to_owned),
            spans: false,
        };
        let (make, using, drop) =
            (choice("mr", &[], None), choice("use", &["mr"], None), choice("drop", &["mr"], None));
        let (seen, made) = (choice("seen", &[], Some("use")), choice("made", &[], Some("mr")));
        let mut done = Done::default();
        let (there, gone) = (|id: &str| id == "mr", |_: &str| false);
        done.note(&make, true, there);
        assert!(done.allows(&using) && done.allows(&made) && !done.allows(&seen));
        done.note(&using, false, there);
        assert!(!done.allows(&seen), "it failed");
        done.note(&using, true, there);
        assert!(done.allows(&seen));
        // The region is let go and made again: what went through the first says nothing of the second.
        done.note(&drop, true, gone);
        assert!(!done.allows(&seen) && !done.allows(&made));
        done.note(&make, true, there);
        assert!(done.allows(&made) && !done.allows(&seen));
    }

    #[test]
    fn only_what_lies_wholly_in_a_life_is_within() {
        let span = |from_us, to_us, draw| Span { from_us, to_us, draw };
        let there = [span(10, 20, 1), span(30, 40, 2)];
        let done = [
            span(11, 19, 1),
            span(9, 15, 2),
            span(15, 21, 3),
            span(21, 29, 4),
            span(31, 32, 5),
            span(30, 35, 6),
        ];
        assert_eq!(within(&done, &there), [1, 5]);
    }
}
