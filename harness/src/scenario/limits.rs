// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much a scenario may be. More than this is a typing mistake or another kind of test; every limit is
//! checked with a message that names it. Those of any YAML file are in `yaml.rs`.

/// Cases one file makes by its matrix.
pub const MOST_CASES_PER_FILE: usize = 64;
/// Steps of one case, after shared steps, rounds and groups are written out.
pub const MOST_STEPS: usize = 256;
/// Processes of one case: each is a task, a socket and perhaps a queue pair of the guest.
pub const MOST_ACTORS: usize = 16;
/// Declared files of one case; each is written and read back before the first step.
pub const MOST_FILES: usize = 16;
/// Letters of a name: an id, an actor, a file, a matrix parameter. Ids are parts of folder names.
pub const LONGEST_NAME: usize = 40;
/// Letters of a whole case id, which is the name of a folder and, behind it, of a socket's.
pub const LONGEST_CASE_ID: usize = 160;
/// Rounds of a repeated group.
pub const MOST_ROUNDS: usize = 64;
/// Operations started together.
pub const MOST_TOGETHER: usize = 8;
/// Shared files one scenario includes.
pub const MOST_INCLUDES: usize = 8;
/// Operations that one actor of a stress draws from.
pub const MOST_CHOICES: usize = 16;
/// A stress that is over before anybody was interrupted shows nothing.
pub const SHORTEST_STRESS_MS: u64 = 500;
/// An hour: what lasts longer is several runs.
pub const LONGEST_STRESS_MS: u64 = 3_600_000;
/// Virtual processors of a machine: what the kernels here are built for (CONFIG_NR_CPUS of the fragment `lean`).
pub const MOST_CPUS: u32 = 8;
