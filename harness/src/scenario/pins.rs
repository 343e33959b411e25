// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pin is shown alive before anything is expected of it.
//!
//! A truncate that waits for a region, or does not, says something about pins only where the region really
//! reaches the file: a transfer through it must have succeeded before. Operations are looked at by name and
//! by what they refer to, so that a new one needs no line here.

use holdfast_protocol::Op;

use super::uses::uses;
use super::{Action, handles_of, op_name};
use crate::plan::PlannedStep;

/// Operations that look, or prepare: what they prove is not about what happens to pinned pages.
pub(super) const LOOKING: [&str; 9] =
    ["open", "mmap", "munmap", "compare", "size", "store", "reg_mr", "gup_pin", "uring_register"];

struct Pin<'a> {
    id: &'a str,
    by: &'a str,
    file: String,
    /// One pin set of gup_test exists in the system; it has no handle.
    gup: bool,
    alive: bool,
}

/// Ids of the steps that claim something about a pin which was not shown alive, and what to do about it.
pub(super) fn unshown(steps: &[PlannedStep]) -> Vec<(String, String)> {
    let mut pins: Vec<Pin<'_>> = Vec::new();
    let mut faults = Vec::new();
    for step in steps.iter().filter(|step| step.excluded.is_none()) {
        if !step.proves.is_empty()
            && let Some(file) = touched(step, steps)
            && let Some(pin) = pins.iter().find(|pin| pin.file == file && !pin.alive)
        {
            faults.push((step.id.clone(), remedy(step, pin)));
        }
        match &step.action {
            Action::Do { by, op } => after(step, by, op, steps, &mut pins),
            Action::PowerCut => pins.clear(),
            _ => {}
        }
    }
    faults
}

fn remedy(step: &PlannedStep, pin: &Pin<'_>) -> String {
    let through = match pin.gup {
        true => "a `gup_read` expected to succeed".to_owned(),
        false => format!("an `rdma_write` or `rdma_read` through `${}` expected to succeed", pin.id),
    };
    format!(
        "it proves {} of file `{}`, which `{}` pins and nothing has shown alive: put {through} before it",
        step.proves.join(", "),
        pin.file,
        pin.id
    )
}

/// What a step does to the pins.
fn after<'a>(
    step: &'a PlannedStep,
    by: &'a str,
    op: &'a Op,
    steps: &'a [PlannedStep],
    pins: &mut Vec<Pin<'a>>,
) {
    let succeeds = step.expect.admits_success() && step.broken.is_none();
    let handles = handles_of(op);
    let through = |pin: &Pin<'_>| handles.contains(&pin.id);
    match op_name(op).as_str() {
        "reg_mr" | "gup_pin" if succeeds => {
            if let Some(file) = handles.iter().find_map(|id| file_of(id, steps)) {
                pins.push(Pin { id: &step.id, by, file, gup: op_name(op) == "gup_pin", alive: false });
            }
        }
        "rdma_write" | "rdma_read" if succeeds => {
            pins.iter_mut().filter(|pin| through(pin)).for_each(|pin| pin.alive = true);
        }
        "gup_read" if succeeds => pins.iter_mut().filter(|pin| pin.gup).for_each(|pin| pin.alive = true),
        "dereg_mr" if succeeds => pins.retain(|pin| !through(pin)),
        "gup_unpin" if succeeds => pins.retain(|pin| !pin.gup),
        "exit" => pins.retain(|pin| pin.by != by || pin.gup),
        _ => {}
    }
}

/// The file whose fate a step's operation, or the one it waits for, decides.
fn touched(step: &PlannedStep, steps: &[PlannedStep]) -> Option<String> {
    let op = match &step.action {
        Action::Do { op, .. } | Action::Start { op, .. } => op,
        Action::Await { step: id } | Action::Still { step: id, .. } => op_of(id, steps)?,
        Action::Use { .. } | Action::Draw { .. } | Action::PowerCut => return None,
    };
    if LOOKING.contains(&op_name(op).as_str()) {
        return None;
    }
    file_named(op).or_else(|| handles_of(op).iter().find_map(|id| file_of(id, steps)))
}

fn op_of<'a>(id: &str, steps: &'a [PlannedStep]) -> Option<&'a Op> {
    match &steps.iter().find(|step| step.id == id)?.action {
        Action::Do { op, .. } | Action::Start { op, .. } => Some(op),
        _ => None,
    }
}

/// The file behind a descriptor, mapping or region; `None` for anonymous memory.
fn file_of(id: &str, steps: &[PlannedStep]) -> Option<String> {
    let op = op_of(id, steps)?;
    // A handle comes from an earlier step, so this ends.
    file_named(op)
        .or_else(|| handles_of(op).iter().filter(|next| **next != id).find_map(|next| file_of(next, steps)))
}

fn file_named(op: &Op) -> Option<String> {
    uses(op).files.first().map(|file| (*file).to_owned())
}
